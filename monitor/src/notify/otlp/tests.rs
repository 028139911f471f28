//! What is sent is OTLP, for any death; and what a receiver answers is taken as the specification has it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use proptest::prelude::*;
use serde_json::Value as Json;
use uuid::Uuid;

use super::records::record;
use super::wire::Request;
use super::{Otlp, OtlpConfig};
use crate::alert::{Alert, AlertKind, JobDeath, PoisonJob};
use crate::death::{Cause, Death, sample};
use crate::ledger::{Entry, Item};
use crate::notify::deliver::{Deliver as _, Failure, Message, Outcome};
use crate::notify::http::testing::{Answer, Seen, Server};
use crate::notify::summary::{SCHEMA, Summary};

fn told(item: impl Into<Item>) -> Message {
    Message::Entry(Arc::new(Entry { seq: 1, item: item.into(), json: "{}".into() }))
}

fn alert() -> Message {
    let death = |n, comm: &str| JobDeath {
        id: Uuid::from_u128(n),
        time: Timestamp::UNIX_EPOCH,
        cause: Cause::OomMemcg,
        pid: 4242,
        comm: comm.to_owned(),
        attempt: None,
    };
    let kind = AlertKind::PoisonJob(PoisonJob {
        job: sample::in_a_pod().job.unwrap(),
        window_seconds: 3600,
        deaths: vec![death(1, "worker"), death(2, "worker")],
    });
    let (id, time) = (Uuid::from_u128(99), "2026-01-31T12:00:00Z".parse().unwrap());
    told(Item::Alert(Arc::new(Alert { id, schema: 1, node: "node-1".into(), time, kind })))
}

fn near_limit() -> Message {
    told(Item::Alert(Arc::new(crate::alert::sample::near_limit())))
}

fn summary() -> Message {
    Message::Summary(Arc::new(Summary {
        id: Uuid::from_u128(77),
        schema: SCHEMA,
        node: "node-1".into(),
        time: "2026-01-31T12:05:00Z".parse().unwrap(),
        summary: Cause::OomMemcg,
        count: 11,
        first: "2026-01-31T12:01:00Z".parse().unwrap(),
        follows: sample::in_a_pod().id,
        workload: sample::in_a_pod().workload,
        jobs: vec!["render-42".into()],
        deaths: vec![Uuid::from_u128(5)],
    }))
}

fn config(more: Json) -> OtlpConfig {
    let mut all = serde_json::json!({"endpoint": "http://localhost:4318"});
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

/// The request for some messages.
fn request(messages: &[Message]) -> Json {
    let resource = config(serde_json::json!({})).resource("node-1", true);
    let records: Vec<_> = messages.iter().map(record).collect();
    serde_json::to_value(Request::new(&resource, &records)).unwrap()
}

fn records(request: &Json) -> &Vec<Json> {
    request["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().unwrap()
}

/// The value of an attribute of the only record.
fn attribute(death: Death, key: &str) -> Option<Json> {
    let request = request(&[told(death)]);
    let all = records(&request)[0]["attributes"].as_array().unwrap().clone();
    all.into_iter().find(|attribute| attribute["key"] == key).map(|a| a["value"].clone())
}

#[test]
fn whole_requests() {
    let text = serde_json::to_string_pretty(&request(&[told(sample::in_a_pod())])).unwrap() + "\n";
    crate::golden::check_named(
        "otlp_death.json",
        // The version changes with each release.
        &text.replace(env!("CARGO_PKG_VERSION"), "VERSION"),
    );
    let text = serde_json::to_string_pretty(&request(&[alert(), summary()])).unwrap() + "\n";
    crate::golden::check_named(
        "otlp_alert_and_summary.json",
        &text.replace(env!("CARGO_PKG_VERSION"), "VERSION"),
    );
    let near = request(&[near_limit()]);
    is_otlp(&near);
    let text = serde_json::to_string_pretty(&near).unwrap() + "\n";
    crate::golden::check_named(
        "otlp_near_limit.json",
        &text.replace(env!("CARGO_PKG_VERSION"), "VERSION"),
    );
}

#[test]
fn names_go_where_the_conventions_have_them() {
    let string = |text: &str| Some(serde_json::json!({"stringValue": text}));
    let strings =
        |text: &str| Some(serde_json::json!({"arrayValue": {"values": [{"stringValue": text}]}}));
    let of = |image: &str| {
        let mut death = sample::in_a_pod();
        death.workload.image = Some(image.to_owned());
        let one = |key| attribute(death.clone(), key);
        [
            one("container.image.name"),
            one("container.image.tags"),
            one("container.image.repo_digests"),
        ]
    };
    assert_eq!(of("r:5000/a/b"), [string("r:5000/a/b"), None, None]);
    assert_eq!(of("r:5000/a/b:1.4"), [string("r:5000/a/b"), strings("1.4"), None]);
    assert_eq!(of("b@sha256:0a"), [string("b"), None, strings("b@sha256:0a")]);
    assert_eq!(of("b:1@sha256:0a"), [string("b"), strings("1"), strings("b@sha256:0a")]);
    assert_eq!(of(":@"), [None, None, None]);

    // Without a pod the container's name is its runtime's.
    let mut alone = sample::in_a_pod();
    (alone.workload.pod, alone.workload.pod_uid) = (None, None);
    assert_eq!(attribute(alone.clone(), "container.name"), string("worker"));
    assert_eq!(attribute(alone, "k8s.container.name"), None);
    assert_eq!(attribute(sample::in_a_pod(), "container.name"), None);
    let (id, job) = ("4d6c1b2a3f4e5d6c7b8a9f0e1d2c3b4a5f6e7d8c9b0a1f2e3d4c5b6a7f8e9d0c", "render");
    assert_eq!(attribute(sample::in_a_pod(), "container.id"), string(id));
    assert_eq!(attribute(sample::in_a_pod(), "k8s.job.name"), string(job));
    // A process that is still there has not exited.
    assert_eq!(attribute(sample::stuck(), "process.exit.time"), None);
    assert_eq!(
        attribute(sample::relayed(), "process.exit.code"),
        Some(serde_json::json!({"intValue": "137"}))
    );
}

/// What the rules of OTLP's JSON allow, all the way down.
fn is_otlp(json: &Json) {
    for record in records(json) {
        for key in ["timeUnixNano", "observedTimeUnixNano"] {
            record[key].as_str().unwrap().parse::<u64>().unwrap();
        }
        assert!([13, 17, 21].contains(&record["severityNumber"].as_u64().unwrap()));
        assert!(record["eventName"].as_str().unwrap().starts_with("killwatch."));
        is_value(&record["body"]);
        are_attributes(&record["attributes"]);
    }
    are_attributes(&json["resourceLogs"][0]["resource"]["attributes"]);
}

fn are_attributes(json: &Json) {
    let mut keys: Vec<_> =
        json.as_array().unwrap().iter().map(|a| a["key"].as_str().unwrap()).collect();
    assert!(keys.iter().all(|key| !key.is_empty()));
    keys.sort_unstable();
    let before = keys.len();
    keys.dedup();
    assert_eq!(keys.len(), before, "a key is there twice");
    json.as_array().unwrap().iter().for_each(|attribute| is_value(&attribute["value"]));
}

fn is_value(json: &Json) {
    let object = json.as_object().unwrap();
    assert_eq!(object.len(), 1, "{json}");
    for (kind, value) in object {
        match kind.as_str() {
            "stringValue" => assert!(value.is_string()),
            "boolValue" => assert!(value.is_boolean()),
            "intValue" => assert!(value.as_str().unwrap().parse::<i64>().is_ok(), "{value}"),
            "doubleValue" => assert!(value.is_f64(), "{value}"),
            "arrayValue" => value["values"].as_array().unwrap().iter().for_each(is_value),
            other => panic!("{other}"),
        }
    }
}

/// Deaths of each kind with anything in them.
fn any_death() -> impl Strategy<Value = Death> {
    let samples = || {
        vec![
            sample::in_a_pod(),
            sample::oom_global(),
            sample::killed(),
            sample::relayed(),
            sample::stuck(),
            sample::stop_timeout(),
            sample::rlimit(),
            sample::unknown(),
            sample::hostile(),
        ]
    };
    let text = || proptest::option::of(any::<String>());
    let numbers = (any::<[Option<u64>; 4]>(), any::<[Option<u32>; 4]>(), any::<Option<f64>>());
    let texts = proptest::collection::vec(text(), 12);
    let maps = proptest::collection::btree_map(any::<String>(), any::<String>(), 0..4);
    let time = any::<i64>().prop_map(|n| Timestamp::from_nanosecond(n.into()).unwrap());
    (proptest::sample::select(samples()), numbers, texts, maps, time, any::<u128>()).prop_map(
        |(mut death, (large, small, double), texts, map, time, id)| {
            let mut texts = texts.into_iter();
            let mut text = || texts.next().flatten();
            (death.id, death.time) = (Uuid::from_u128(id), time);
            let memory = &mut death.memory;
            [memory.anon_bytes, memory.limit_bytes, memory.usage_bytes, memory.swap_bytes] = large;
            let victim = &mut death.victim;
            [victim.ns_pid, victim.ppid, victim.uid, death.killer.pid] = small;
            (victim.lifetime_seconds, death.stuck_seconds) = (double, double);
            victim.comm = text().unwrap_or_default();
            victim.cmdline = text().map(|first| vec![first]);
            let workload = &mut death.workload;
            workload.pod = text();
            workload.namespace = text();
            workload.image = text();
            workload.container = text();
            workload.container_id = text();
            workload.unit = text();
            workload.cgroup = text();
            death.advice = text().unwrap_or_default();
            death.evidence.extend(text());
            (workload.labels, workload.annotations) = (map.clone(), map.clone());
            death.tags = map;
            death
        },
    )
}

proptest! {
    #[test]
    fn any_death_is_otlp(death in any_death()) {
        let bytes = serde_json::to_vec(&request(&[told(death.clone()), told(death)])).unwrap();
        is_otlp(&serde_json::from_slice(&bytes).unwrap());
    }
}

/// A sink for a server, with a count of what the server rejected.
fn sink(server: &Server, more: Json) -> (Otlp, Counter) {
    let mut config = config(more);
    config.endpoint = format!("http://127.0.0.1:{}/otlp", server.port()).parse().unwrap();
    let rejected = Counter::default();
    (Otlp::new(&config, "node-1", rejected.clone()).unwrap(), rejected)
}

fn ids(seen: &Seen) -> Vec<Uuid> {
    let json = seen.json();
    let id = |record: &Json| {
        let all = record["attributes"].as_array().unwrap();
        let id = all.iter().find(|a| a["key"] == "killwatch.id").unwrap();
        id["value"]["stringValue"].as_str().unwrap().parse().unwrap()
    };
    records(&json).iter().map(id).collect()
}

fn deaths(n: u128) -> Vec<Message> {
    (0..n).map(|n| told(Death { id: Uuid::from_u128(n), ..sample::killed() })).collect()
}

fn accepted(n: usize) -> Outcome {
    Outcome { accepted: n, failure: None }
}

#[tokio::test]
async fn a_batch_is_one_request() {
    let server = Server::start(|_, _| Answer::status(200, "", "{}")).await;
    let (mut sink, rejected) = sink(&server, serde_json::json!({"batch": "7"}));
    assert_eq!(sink.batch(), 7);
    let messages = [told(sample::in_a_pod()), alert(), summary()];
    assert_eq!(sink.deliver(&messages).await, accepted(3));
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].head.starts_with("POST /otlp/v1/logs HTTP/1.1"), "{}", seen[0].head);
    assert_eq!(seen[0].header("content-type"), Some("application/json"));
    is_otlp(&seen[0].json());
    assert_eq!(rejected.get(), 0);
    assert_eq!(sink.deliver(&[]).await, accepted(0));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn what_the_receiver_did_not_keep_is_counted_and_not_sent_again() {
    let partial = r#"{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"too old"}}"#;
    let server = Server::start(|n, _| {
        let lie = r#"{"partialSuccess":{"rejectedLogRecords":18446744073709551615}}"#;
        Answer::status(200, "", if n == 0 { partial } else { lie })
    })
    .await;
    let (mut sink, rejected) = sink(&server, serde_json::json!({}));
    assert_eq!(sink.deliver(&deaths(3)).await, accepted(3));
    assert_eq!(rejected.get(), 2);
    // It cannot have rejected more than it was sent.
    assert_eq!(sink.deliver(&deaths(3)).await, accepted(3));
    assert_eq!((rejected.get(), server.seen().len()), (5, 2));
}

#[tokio::test]
async fn only_what_may_be_tried_again_is() {
    for (status, later) in [
        (429, true),
        (502, true),
        (503, true),
        (504, true),
        (401, true),
        (404, true),
        (408, false),
        (500, false),
        (501, false),
        (400, false),
    ] {
        let server =
            Server::start(move |_, _| Answer::status(status, "Retry-After: 7\r\n", "so it is"))
                .await;
        let (mut sink, _) = sink(&server, serde_json::json!({}));
        match sink.deliver(&deaths(1)).await {
            Outcome { accepted: 0, failure: Some(Failure::Later { why, after }) } if later => {
                assert_eq!(after, Some(Duration::from_secs(7)));
                assert!(why.contains(&status.to_string()) && why.contains("so it is"), "{why}");
            }
            Outcome { accepted: 0, failure: Some(Failure::Refused(why)) } if !later => {
                assert!(why.contains(&status.to_string()) && why.contains("so it is"), "{why}");
            }
            other => panic!("{status}: {other:?}"),
        }
        assert_eq!(server.seen().len(), 1, "{status}");
    }
    let server = Server::start(|_, _| Answer::SayAndClose(Vec::new())).await;
    let (mut sink, _) = sink(&server, serde_json::json!({}));
    let outcome = sink.deliver(&deaths(2)).await;
    assert!(matches!(outcome, Outcome { accepted: 0, failure: Some(Failure::Later { .. }) }));
}

#[tokio::test]
async fn one_bad_record_takes_no_other_with_it() {
    for bad in [0, 1, 20, 63] {
        let bad_id = Uuid::from_u128(bad);
        let server = Server::start(move |_, seen| {
            let status = if ids(seen).contains(&bad_id) { 400 } else { 200 };
            Answer::status(status, "", "{}")
        })
        .await;
        let (mut sink, _) = sink(&server, serde_json::json!({}));
        let (messages, bad) = (deaths(64), usize::try_from(bad).unwrap());
        let outcome = sink.deliver(&messages).await;
        assert_eq!(outcome.accepted, bad);
        assert!(matches!(outcome.failure, Some(Failure::Refused(_))), "{outcome:?}");
        assert!(server.seen().len() <= 16, "{bad}: {} requests", server.seen().len());
        assert_eq!(sink.deliver(&messages[bad + 1..]).await, accepted(63 - bad));
    }
}

#[tokio::test]
async fn a_request_that_is_too_large_is_sent_in_parts() {
    let server = Server::start(|_, seen| {
        Answer::status(if ids(seen).len() > 10 { 413 } else { 200 }, "", "{}")
    })
    .await;
    let (mut sink, _) = sink(&server, serde_json::json!({}));
    assert_eq!(sink.deliver(&deaths(64)).await, accepted(64));
    let taken: Vec<_> =
        server.seen().iter().map(ids).filter(|ids| ids.len() <= 10).flatten().collect();
    let all: Vec<_> = (0..64).map(Uuid::from_u128).collect();
    assert_eq!(taken, all, "each once and in order");
}
