//! What arrives at a webhook, and what comes of what it answers.

use std::fs;
use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::death::{Death, sample};
use crate::ledger::{Entry, Item};
use crate::notify::http::testing::{Answer, Seen, Server, entry};
use crate::notify::summary::{self, Summary};

fn numbered(n: u128) -> Message {
    entry(Death { id: Uuid::from_u128(n), ..sample::killed() })
}

fn poison() -> Message {
    let alert = json!({
        "id": Uuid::from_u128(7), "schema": 1, "node": "node-1", "time": "2026-01-31T12:00:00Z",
        "alert": "poison_job", "job": {"id": "render-42"}, "window_seconds": 60,
        "deaths": (0..30).map(|n| json!({
            "id": Uuid::from_u128(n), "time": "2026-01-31T12:00:00Z", "cause": "oom_memcg", "pid": n, "comm": "c",
        })).collect::<Vec<_>>(),
    });
    entry(Item::Alert(Arc::new(serde_json::from_value(alert).unwrap())))
}

fn summed() -> Summary {
    let death = sample::in_a_pod();
    Summary {
        id: Uuid::from_u128(9),
        schema: summary::SCHEMA,
        node: "node-1".into(),
        time: "2026-01-31T12:05:00Z".parse().unwrap(),
        summary: death.cause,
        count: 250,
        first: "2026-01-31T12:01:00Z".parse().unwrap(),
        follows: death.id,
        workload: death.workload,
        jobs: (0..100).map(|n| format!("job-{n}")).collect(),
        deaths: (0..100).map(Uuid::from_u128).collect(),
    }
}

fn webhook(server: &Server, more: Value) -> Webhook {
    let mut config = json!({"url": format!("http://127.0.0.1:{}/hook", server.port())});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Webhook::new(&serde_json::from_value(config).unwrap(), Linked::default()).unwrap()
}

fn ids(seen: &Seen) -> Vec<u128> {
    let ids = seen
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["id"].as_str().unwrap().to_owned())
        .collect::<Vec<_>>();
    ids.iter().map(|id| id.parse::<Uuid>().unwrap().as_u128()).collect()
}

#[tokio::test]
async fn a_death_is_one_event_with_the_very_bytes_of_the_ledger() {
    let server = Server::start(|_, _| Answer::status(204, "", "")).await;
    let Message::Entry(whole) = entry(sample::in_a_pod()) else { unreachable!() };
    // What a later version wrote into the ledger arrives too, in its order.
    let json = r#"{"z":1.50,"new": "é","a":[ ]}"#;
    let later =
        Message::Entry(Arc::new(Entry { seq: 1, item: whole.item.clone(), json: json.into() }));
    assert_eq!(
        webhook(&server, json!({})).deliver(&[later]).await,
        Outcome { accepted: 1, failure: None }
    );
    let seen = &server.seen()[0];
    assert!(seen.head.starts_with("POST /hook HTTP/1.1"));
    assert_eq!(seen.header("content-type"), Some("application/cloudevents+json"));
    assert_eq!(seen.header("webhook-id"), None);
    assert!(
        String::from_utf8(seen.body.clone()).unwrap().ends_with(&format!(",\"data\":{json}}}"))
    );
    let death = whole.death().unwrap();
    let mut event = seen.json();
    event.as_object_mut().unwrap().remove("data");
    assert_eq!(
        event,
        json!({
            "specversion": "1.0", "id": death.id, "source": "/killwatch/node-1", "type": "io.killwatch.death.v2",
            "subject": "shop/render-x7k2p", "time": "2026-01-31T12:00:00.123456789Z",
            "datacontenttype": "application/json",
        })
    );
}

#[test]
fn alerts_and_summaries_are_events_too() {
    let event = |message| -> Value {
        serde_json::from_slice(
            &event::encode(&message, Template::Full, &Linked::default()).unwrap(),
        )
        .unwrap()
    };
    let alert = event(poison());
    assert_eq!(
        (&alert["type"], &alert["subject"]),
        (&json!("io.killwatch.alert.v1"), &json!("render-42"))
    );
    assert_eq!(alert["data"]["deaths"].as_array().unwrap().len(), 30);
    let summary = event(Message::Summary(Arc::new(summed())));
    assert_eq!(
        (&summary["type"], &summary["id"]),
        (&json!("io.killwatch.summary.v1"), &json!(Uuid::from_u128(9)))
    );
    assert_eq!(summary["data"], serde_json::to_value(summed()).unwrap());
}

#[test]
fn a_near_limit_is_about_its_workload_and_its_lean_form_lacks_the_processes() {
    let message = entry(Item::Alert(Arc::new(crate::alert::sample::near_limit())));
    let event = |template| -> Value {
        let event = event::encode(&message, template, &Linked::default()).unwrap();
        serde_json::from_slice(&event).unwrap()
    };
    let full = event(Template::Full);
    assert_eq!(
        (&full["type"], &full["subject"], &full["time"]),
        (
            &json!("io.killwatch.alert.v1"),
            &json!("shop/render-x7k2p"),
            &json!("2026-01-31T11:59:28Z")
        )
    );
    assert_eq!(full["data"]["processes"][0]["tags"], json!({"job_id": "render-42"}));
    let lean = event(Template::Lean)["data"].clone();
    assert_eq!(
        (&lean["truncated"], &lean["alert"], &lean["limit_bytes"], &lean["job"]["id"]),
        (&json!(true), &json!("near_limit"), &json!(256 << 20), &json!("render-42"))
    );
    for gone in ["/processes", "/workload/labels", "/workload/owners", "/job/sources"] {
        assert_eq!(lean.pointer(gone), None, "{gone}");
    }
    assert!(serde_json::from_value::<crate::alert::Alert>(lean).is_ok());
}

#[test]
fn what_an_event_is_about() {
    let subject = |change: fn(&mut Death)| {
        let mut death = sample::in_a_pod();
        change(&mut death);
        let event = event::encode(&entry(death), Template::Full, &Linked::default()).unwrap();
        serde_json::from_slice::<Value>(&event).unwrap()["subject"].clone()
    };
    assert_eq!(subject(|death| death.workload.namespace = None), "render-x7k2p");
    assert_eq!(subject(|death| death.workload.pod = None), "worker");
    assert_eq!(
        subject(
            |death| (death.workload.pod, death.workload.unit) = (None, Some("a.service".into()))
        ),
        "a.service"
    );
    assert_eq!(subject(|death| death.workload = sample::killed().workload), "indexer.service");
    assert!(
        subject(|death| (death.workload.pod, death.workload.container) = (None, None))
            .as_str()
            .unwrap()
            .starts_with("/kubepods/")
    );
    assert_eq!(subject(|death| death.workload = crate::death::Workload::default()), Value::Null);
}

#[test]
fn hostile_names_make_no_other_event() {
    let mut death = sample::hostile();
    death.node = "a/../b?c#d é".into();
    death.workload.pod = Some(format!("\u{fffe}\u{1}{}", "é".repeat(4000)));
    let event = event::encode(&entry(death), Template::Full, &Linked::default()).unwrap();
    let event: Value = serde_json::from_slice(&event).unwrap();
    assert_eq!(event["source"], "/killwatch/a%2F..%2Fb%3Fc%23d%20%C3%A9");
    let subject = event["subject"].as_str().unwrap();
    assert!(
        subject.len() <= 512
            && !subject.contains(char::is_control)
            && !subject.contains('\u{fffe}'),
        "{subject}"
    );
}

#[test]
fn links_are_attributes() {
    let linked = Linked {
        runbook: Some(Arc::new(|death: &Death| {
            Some(format!("https://runbooks.example/{}", death.cause.as_str()))
        })),
        dashboard: Some(Arc::new(|_: &Death| Some("x".repeat(3000)))),
    };
    let event = event::encode(&entry(sample::in_a_pod()), Template::Full, &linked).unwrap();
    let event: Value = serde_json::from_slice(&event).unwrap();
    assert_eq!(event["runbookurl"], "https://runbooks.example/oom_memcg");
    assert_eq!(event["dashboardurl"], Value::Null, "an address that is too long is none");
}

#[test]
fn the_lean_form_lacks_the_lists_and_says_so() {
    let lean = |message: &Message| {
        let event = event::encode(message, Template::Lean, &Linked::default()).unwrap();
        serde_json::from_slice::<Value>(&event).unwrap()["data"].clone()
    };
    let data = lean(&entry(sample::in_a_pod()));
    assert_eq!(
        (&data["truncated"], &data["cause"], &data["workload"]["pod"]),
        (&json!(true), &json!("oom_memcg"), &json!("render-x7k2p"))
    );
    assert_eq!(
        (&data["job"]["id"], &data["memory"]["limit_bytes"]),
        (&json!("render-42"), &json!(32 << 20))
    );
    for gone in
        ["/victim/cmdline", "/victim/environ", "/memory/levels", "/workload/labels", "/tags"]
    {
        assert_eq!(data.pointer(gone), None, "{gone}");
    }
    let still = serde_json::from_value::<Death>(data).unwrap();
    assert_eq!(still.id, sample::in_a_pod().id);
    let data = lean(&poison());
    let (deaths, last) = (data["deaths"].as_array().unwrap(), json!(Uuid::from_u128(29)));
    assert_eq!((deaths.len(), &deaths[9]["id"]), (10, &last));
    let data = lean(&Message::Summary(Arc::new(summed())));
    assert_eq!((data["jobs"].as_array().unwrap().len(), &data["count"]), (10, &json!(250)));
}

#[test]
fn no_event_is_too_long() {
    let mut death = sample::in_a_pod();
    death.evidence = vec!["\u{1}".repeat(30_000)];
    let event = |death: &Death| {
        event::encode(&entry(death.clone()), Template::Full, &Linked::default()).unwrap()
    };
    let data =
        |death: &Death| serde_json::from_slice::<Value>(&event(death)).unwrap()["data"].clone();
    assert_eq!(data(&death)["truncated"], true);
    assert_eq!(
        data(&death)["advice"].as_str(),
        Some(death.advice.as_str()),
        "what fits is not cut"
    );
    // Whatever is long, and whatever is escaped.
    let long = "\u{1}é".repeat(100_000);
    let mut value = serde_json::to_value(&death).unwrap();
    for (pointer, kept) in [("/advice", 1024), ("/victim/comm", 64), ("/workload/cgroup", 64)] {
        *value.pointer_mut(pointer).unwrap() = json!(long);
        let death: Death = serde_json::from_value(value.clone()).unwrap();
        assert!(event(&death).len() <= MAX_EVENT, "{pointer}");
        let advice = data(&death)["advice"].as_str().unwrap().to_owned();
        assert!(advice.len() >= kept.min(64) && advice.ends_with('…'), "{pointer}");
    }
}

#[tokio::test]
async fn a_batch_is_one_request() {
    let server = Server::start(|_, _| Answer::status(200, "", "")).await;
    let mut webhook = webhook(&server, json!({"batch": "10"}));
    assert_eq!(webhook.batch(), 10);
    let messages: Vec<_> = (0..10).map(numbered).collect();
    assert_eq!(webhook.deliver(&messages).await, Outcome::all(&messages));
    webhook.deliver(&messages[..1]).await;
    let seen = server.seen();
    assert_eq!(seen[0].header("content-type"), Some("application/cloudevents-batch+json"));
    assert_eq!(ids(&seen[0]), (0..10).collect::<Vec<_>>());
    assert_eq!((seen.len(), ids(&seen[1])), (2, vec![0]));
}

#[tokio::test]
async fn a_refused_batch_is_halved_until_it_is_known_which_is_meant() {
    for status in [413, 400] {
        let server = Server::start(move |_, seen| {
            let bad = ids(seen).contains(&6);
            Answer::status(if bad { status } else { 200 }, "", "")
        })
        .await;
        let mut webhook = webhook(&server, json!({"batch": "10", "template": "lean"}));
        let messages: Vec<_> = (0..10).map(numbered).collect();
        let outcome = webhook.deliver(&messages).await;
        assert_eq!(outcome.accepted, 6, "{status}");
        assert!(matches!(outcome.failure, Some(Failure::Refused(_))), "{outcome:?}");
        let sizes: Vec<_> = server.seen().iter().map(|seen| ids(seen).len()).collect();
        assert_eq!(sizes, [10, 5, 5, 2, 1, 1], "{status}");
    }
}

#[tokio::test]
async fn one_that_is_too_large_is_sent_lean_once() {
    let server = Server::start(|number, seen| {
        let lean = seen.json()["data"]["truncated"] == true;
        Answer::status(if lean && number < 2 { 200 } else { 413 }, "", "")
    })
    .await;
    let mut webhook = webhook(&server, json!({}));
    assert_eq!(webhook.deliver(&[numbered(1)]).await, Outcome { accepted: 1, failure: None });
    let outcome = webhook.deliver(&[numbered(2)]).await;
    assert!(
        matches!(outcome, Outcome { accepted: 0, failure: Some(Failure::Refused(_)) }),
        "{outcome:?}"
    );
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn what_is_not_refused_is_not_halved() {
    for (status, kind) in [(503, "later"), (429, "later"), (302, "later"), (410, "gone")] {
        let server =
            Server::start(move |_, _| Answer::status(status, "Retry-After: 3\r\n", "")).await;
        let messages: Vec<_> = (0..4).map(numbered).collect();
        let outcome = webhook(&server, json!({"batch": "4"})).deliver(&messages).await;
        match outcome.failure.unwrap() {
            Failure::Later { after, .. } => {
                assert_eq!((kind, after.unwrap().as_secs()), ("later", 3))
            }
            Failure::Gone(_) => assert_eq!(kind, "gone"),
            Failure::Refused(why) => panic!("{why}"),
        }
        assert_eq!((outcome.accepted, server.seen().len()), (0, 1));
    }
}

#[tokio::test]
async fn large_batches_are_several_requests() {
    let server = Server::start(|_, _| Answer::status(200, "", "")).await;
    let long = |n| {
        entry(Death {
            id: Uuid::from_u128(n),
            evidence: vec!["x".repeat(50_000)],
            ..sample::killed()
        })
    };
    let messages: Vec<_> = (0..50).map(long).collect();
    assert_eq!(
        webhook(&server, json!({"batch": "100"})).deliver(&messages).await,
        Outcome::all(&messages)
    );
    let seen = server.seen();
    assert!(
        seen.len() == 3 && seen.iter().all(|seen| seen.body.len() <= MAX_REQUEST),
        "{}",
        seen.len()
    );
    assert_eq!(seen.iter().flat_map(ids).collect::<Vec<_>>(), (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_signature_covers_id_time_and_body() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let server = Server::start(|_, _| Answer::status(200, "", "")).await;
    let mut webhook = webhook(&server, json!({"batch": "2", "hmac": {"key_file": path}}));
    let messages = [numbered(1), numbered(2)];
    let outcome = webhook.deliver(&messages).await;
    assert!(
        matches!(outcome.failure, Some(Failure::Later { .. })),
        "without its key nothing is sent: {outcome:?}"
    );
    fs::write(&path, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
    webhook.deliver(&messages).await;
    fs::write(&path, "another key, of the bytes themselves").unwrap();
    webhook.deliver(&messages[..1]).await;
    let seen = server.seen();
    for (seen, key) in seen
        .iter()
        .zip(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "another key, of the bytes themselves"])
    {
        let (id, time) =
            (seen.header("webhook-id").unwrap(), seen.header("webhook-timestamp").unwrap());
        let right = sign::signature(&key.into(), id, time, &seen.body).unwrap();
        assert_eq!(seen.header("webhook-signature"), Some(right.as_str()));
        assert!((Clock.now().as_second() - time.parse::<i64>().unwrap()).abs() < 60);
    }
    let (first, last) = (Uuid::from_u128(1), Uuid::from_u128(2));
    assert_eq!(seen[0].header("webhook-id"), Some(format!("{first}_{last}").as_str()));
    assert_eq!(seen[1].header("webhook-id"), Some(first.to_string().as_str()));
}

#[test]
fn what_is_no_webhook() {
    for (json, says) in [
        (json!({}), "url"),
        (json!({"url": "https://u:hunter2@a/"}), "basic_auth"),
        (json!({"url": "https://a/", "batch": "0"}), "1 to 100"),
        (json!({"url": "https://a/", "batch": "101"}), "1 to 100"),
        (json!({"url": "https://a/", "template": "fat"}), "lean"),
        (json!({"url": "https://a/", "hmac": {"key": "hunter2"}}), "key_file"),
    ] {
        let error = serde_json::from_value::<WebhookConfig>(json).unwrap_err().to_string();
        assert!(error.contains(says) && !error.contains("hunter2"), "{error}");
    }
}
