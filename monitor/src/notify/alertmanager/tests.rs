//! The alerts of deaths, how long they hold, and what comes of what the instances answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::alert::Alert;
use super::*;
use crate::alert::sample as alerts;
use crate::death::{Death, sample};
use crate::ledger::Item;
use crate::notify::http::testing::{Answer, Server, entry};
use crate::notify::summary::{self, Summary};

fn in_pod(pod: &str) -> Message {
    let mut death = sample::in_a_pod();
    death.workload.pod = Some(pod.to_owned());
    entry(death)
}

fn summary_of(death: &Death) -> Message {
    Message::Summary(Arc::new(Summary {
        id: Uuid::from_u128(9),
        schema: summary::SCHEMA,
        node: death.node.clone(),
        time: "2026-01-31T12:05:00Z".parse().unwrap(),
        summary: death.cause,
        count: 17,
        first: "2026-01-31T12:01:00Z".parse().unwrap(),
        follows: death.id,
        workload: death.workload.clone(),
        jobs: vec!["a".into(), "b".into()],
        deaths: Vec::new(),
    }))
}

fn sink(servers: &[&Server], more: Value) -> Alertmanager {
    let urls: Vec<_> =
        servers.iter().map(|server| format!("http://127.0.0.1:{}/am/", server.port())).collect();
    let mut config = json!({"urls": urls});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Alertmanager::new(&serde_json::from_value(config).unwrap(), Linked::default()).unwrap()
}

async fn kind() -> Server {
    Server::start(|_, _| Answer::status(200, "", "")).await
}

async fn answering(status: u16) -> Server {
    Server::start(move |_, _| Answer::status(status, "Retry-After: 3\r\n", "")).await
}

/// Seconds from the request's making to an alert's end.
fn ends_in(alert: &Value) -> i64 {
    let ends: Timestamp = alert["endsAt"].as_str().unwrap().parse().unwrap();
    ends.as_second() - Clock.now().as_second()
}

fn made(message: &Message) -> Alert {
    let maker = Maker { labels: alert::Labels::new(), linked: Linked::default() };
    maker.make(message, None)
}

#[tokio::test]
async fn a_death_is_an_alert_whose_labels_say_who_and_of_what() {
    let server = kind().await;
    let config = json!({
        "urls": [format!("http://127.0.0.1:{}/am/", server.port())], "labels": {"cluster": "eu-1"}, "hold": "10m",
    });
    let linked = Linked {
        runbook: Some(Arc::new(|_: &Death| Some("https://r.example/oom".to_owned()))),
        dashboard: Some(Arc::new(|_: &Death| Some("https://d.example/?var-pod=x".to_owned()))),
    };
    let mut sink = Alertmanager::new(&serde_json::from_value(config).unwrap(), linked).unwrap();
    let messages = [entry(sample::in_a_pod())];
    assert_eq!(sink.deliver(&messages).await, Outcome::all(&messages));
    let seen = &server.seen()[0];
    assert!(seen.head.starts_with("POST /am/api/v2/alerts HTTP/1.1"), "{}", seen.head);
    let alert = &seen.json()[0];
    assert_eq!(
        alert["labels"],
        json!({
            "alertname": "KillwatchContainerOOMKilled", "severity": "warning", "node": "node-1", "cause": "oom_memcg",
            "namespace": "shop", "pod": "render-x7k2p", "container": "worker", "job_id": "render-42", "cluster": "eu-1",
        })
    );
    let annotations = &alert["annotations"];
    assert_eq!(
        annotations["summary"],
        "The kernel's OOM killer killed a process at its memory limit."
    );
    let description = annotations["description"].as_str().unwrap();
    assert!(
        description.starts_with(
            "Pod shop/render-x7k2p (worker) on node-1, process worker (pid 4242): the kernel's"
        ),
        "{description}"
    );
    assert_eq!(annotations["death_id"], json!(sample::in_a_pod().id));
    assert_eq!(
        (&annotations["runbook_url"], &alert["generatorURL"]),
        (&json!("https://r.example/oom"), &json!("https://d.example/?var-pod=x"))
    );
    assert_eq!(alert["startsAt"], "2026-01-31T12:00:00.123456789Z");
    assert!((595..=600).contains(&ends_in(alert)));
}

#[test]
fn every_cause_has_a_name_and_two_of_one_workload_are_two_alerts() {
    let mut seen = std::collections::BTreeSet::new();
    for cause in crate::death::Cause::ALL {
        let alert = made(&entry(Death { cause: *cause, ..sample::in_a_pod() }));
        assert!(alert.labels["alertname"].starts_with("Killwatch"));
        assert!(["critical", "warning", "info"].contains(&&*alert.labels["severity"]));
        assert!(seen.insert(alert.labels), "{cause:?}");
    }
}

#[test]
fn whatever_has_no_name_is_told_apart_by_its_cgroup() {
    let mut death = sample::killed();
    assert_eq!(made(&entry(death.clone())).labels["unit"], "indexer.service");
    death.workload.unit = None;
    let alert = made(&entry(death.clone()));
    assert_eq!(alert.labels["cgroup"], "/system.slice/indexer.service");
    death.workload.container_id = Some("docker://abc".into());
    let alert = made(&entry(death));
    assert_eq!(
        (alert.labels["container_id"].as_str(), alert.labels.get("cgroup")),
        ("docker://abc", None)
    );
}

#[test]
fn hostile_names_are_one_line_and_short() {
    let mut death = sample::hostile();
    death.workload.namespace = Some("é\n".repeat(5000));
    death.workload.container = Some(String::new());
    death.evidence = vec!["x".repeat(100_000)];
    let alert = made(&entry(death));
    for text in alert.labels.values().chain(alert.annotations.values()) {
        assert!(
            !text.is_empty() && !text.contains(char::is_control) && text.len() <= 1024,
            "{text}"
        );
    }
    assert!(alert.labels.values().all(|value| value.len() <= alert::MAX_VALUE));
    assert!(!alert.labels.contains_key("container"));
}

#[test]
fn a_poison_job_is_critical() {
    let alert: crate::alert::Alert = serde_json::from_value(json!({
        "id": Uuid::from_u128(7), "schema": 1, "node": "node-1", "time": "2026-01-31T12:00:00Z",
        "alert": "poison_job", "job": {"id": "render-42"}, "window_seconds": 60,
        "deaths": [{"id": Uuid::from_u128(1), "time": "2026-01-31T12:00:00Z", "cause": "oom_memcg", "pid": 1, "comm": "c"}],
    }))
    .unwrap();
    let alert = made(&entry(Item::Alert(Arc::new(alert))));
    let labels = [
        ("alertname", "KillwatchPoisonJob"),
        ("job_id", "render-42"),
        ("node", "node-1"),
        ("severity", "critical"),
    ];
    assert!(alert.labels.iter().map(|(name, value)| (&**name, &**value)).eq(labels));
    assert_eq!((alert.id, alert.annotations["count"].as_str()), (Uuid::from_u128(7), "1"));
    assert_eq!(alert.starts_at, "2026-01-31T12:00:00Z".parse().unwrap());
}

#[test]
fn a_near_limit_is_a_warning_of_its_workload() {
    let of = |alert: crate::alert::Alert| made(&entry(Item::Alert(Arc::new(alert))));
    let alert = of(alerts::near_limit());
    let labels = [
        ("alertname", "KillwatchContainerNearLimit"),
        ("container", "worker"),
        ("job_id", "render-42"),
        ("namespace", "shop"),
        ("node", "node-1"),
        ("pod", "render-x7k2p"),
        ("severity", "warning"),
    ];
    assert!(alert.labels.iter().map(|(name, value)| (&**name, &**value)).eq(labels));
    let description = &alert.annotations["description"];
    assert!(description.starts_with("Memory of container worker of pod shop/render-x7k2p is at"));
    assert_eq!((alert.id, alert.starts_at), (alerts::near_limit().id, alerts::near_limit().time));
    // What changes from one look to the next is no label.
    let mut later = alerts::near_limit();
    if let crate::alert::AlertKind::NearLimit(near) = &mut later.kind {
        (near.share, near.usage_bytes, near.seconds_left) = (0.99, 1, None);
        near.processes.clear();
    }
    assert_eq!(of(later).labels, alert.labels);
    // Without a name each cgroup is an alert of its own.
    let bare = |path: &str| {
        let cgroup = Some(path.to_owned());
        of(alerts::near_limit_of(crate::death::Workload { cgroup, ..Default::default() }))
    };
    assert_eq!(bare("/a").labels["cgroup"], "/a");
    assert_ne!(bare("/a").labels, bare("/b").labels);
}

#[tokio::test]
async fn a_near_limit_holds_and_resolves_like_any_other() {
    let server = kind().await;
    let mut sink = sink(&[&server], json!({"hold": "1m", "http": {"timeout": "60s"}}));
    let message = entry(Item::Alert(Arc::new(alerts::near_limit())));
    assert_eq!(sink.deliver(&[message.clone(), message]).await.accepted, 2);
    assert_eq!((server.seen()[0].json().as_array().unwrap().len(), sink.holds()), (1, 1));
    let mut last = 0;
    for _ in 0..20 {
        let Some(due) = sink.due() else { break };
        pass(due.saturating_duration_since(Instant::now())).await;
        sink.upkeep().await.unwrap();
        last = ends_in(&server.seen().pop().unwrap().json()[0]);
    }
    assert!(last <= 0 && sink.holds() == 0, "{last}");
}

#[tokio::test]
async fn a_summary_prolongs_the_alert_that_it_follows() {
    let server = kind().await;
    let mut sink = sink(&[&server], json!({}));
    let death = sample::in_a_pod();
    let summary = summary_of(&death);
    sink.deliver(&[entry(death.clone())]).await;
    sink.deliver(std::slice::from_ref(&summary)).await;
    sink.deliver(&[summary]).await;
    let (first, last) = (server.seen()[0].json()[0].clone(), server.seen()[2].json()[0].clone());
    assert_eq!((&first["labels"], &first["startsAt"]), (&last["labels"], &last["startsAt"]));
    assert_eq!(last["annotations"]["count"], "17");
    let description = last["annotations"]["description"].as_str().unwrap();
    assert!(
        description
            .ends_with("| Then 17 more of it from 2026-01-31T12:01:00Z to 2026-01-31T12:05:00Z."),
        "{description}"
    );
    assert_eq!(description.matches("| Then").count(), 1);
    assert_eq!(sink.holds(), 1);

    // So it does if both are told at once.
    let summary = summary_of(&death);
    let mut other = self::sink(&[&server], json!({}));
    other.deliver(&[entry(death.clone()), summary]).await;
    assert_eq!(
        (other.holds(), server.seen()[3].json()[0]["annotations"]["count"].clone()),
        (1, json!("17"))
    );

    // After a restart the death is not held any more: the workload is known all the same.
    let lone = made(&summary_of(&death));
    assert_eq!((lone.labels["pod"].as_str(), lone.labels.get("job_id")), ("render-x7k2p", None));
}

#[tokio::test]
async fn of_one_batch_each_alert_is_sent_once() {
    let server = kind().await;
    let mut sink = sink(&[&server], json!({}));
    let messages = [in_pod("a"), in_pod("b"), in_pod("a"), in_pod("a")];
    assert_eq!(sink.deliver(&messages).await, Outcome::all(&messages));
    assert_eq!((server.seen()[0].json().as_array().unwrap().len(), sink.holds()), (2, 2));
}

#[tokio::test]
async fn one_of_the_instances_is_enough() {
    let (well, ill, gone) = (kind().await, answering(503).await, kind().await);
    let away = format!("http://127.0.0.1:{}/", gone.port());
    gone.stop().await;
    let urls = json!([
        away,
        format!("http://127.0.0.1:{}/", ill.port()),
        format!("http://127.0.0.1:{}/", well.port())
    ]);
    let mut sink = Alertmanager::new(
        &serde_json::from_value(json!({"urls": urls})).unwrap(),
        Linked::default(),
    )
    .unwrap();
    let messages = [in_pod("a")];
    assert_eq!(sink.deliver(&messages).await, Outcome::all(&messages));
    assert_eq!((well.seen().len(), ill.seen().len(), sink.holds()), (1, 1, 1));
}

#[tokio::test]
async fn an_instance_that_hangs_holds_up_nobody_for_long() {
    let (well, stuck) = (kind().await, Server::start(|_, _| Answer::SayAndHang(Vec::new())).await);
    // Were it waited for, the deadline of a minute would be seen.
    let mut sink = sink(&[&stuck, &well], json!({"http": {"timeout": "60s"}}));
    let delivered =
        tokio::time::timeout(Duration::from_secs(30), sink.deliver(&[in_pod("a")])).await;
    assert_eq!(delivered.unwrap(), Outcome { accepted: 1, failure: None });
    stuck.hung_up().await;
}

#[tokio::test]
async fn what_none_of_them_takes() {
    for (first, second, right) in [
        (503, 400, "later"),
        (401, 410, "later"),
        (302, 302, "later"),
        (400, 410, "refused"),
        (410, 410, "gone"),
    ] {
        let (one, two) = (answering(first).await, answering(second).await);
        let mut sink = sink(&[&one, &two], json!({}));
        let outcome = sink.deliver(&[in_pod("a")]).await;
        let kind = match &outcome.failure {
            Some(Failure::Later { why, .. }) => {
                assert!(why.contains(&format!(":{}", two.port())), "each is named: {why}");
                "later"
            }
            Some(Failure::Refused(_)) => "refused",
            Some(Failure::Gone(_)) => "gone",
            None => "accepted",
        };
        assert_eq!((kind, outcome.accepted, sink.holds()), (right, 0, 0), "{first} {second}");
        assert_eq!(sink.due(), None);
    }
}

#[tokio::test]
async fn of_a_mixed_batch_the_one_that_is_meant_is_refused() {
    let server = Server::start(|_, seen| {
        let bad = |alert: &Value| alert["labels"]["pod"] == "bad";
        let any = seen.json().as_array().unwrap().iter().any(bad);
        Answer::status(if any { 400 } else { 200 }, "", "bad label")
    })
    .await;
    let mut sink = sink(&[&server], json!({}));
    let outcome = sink.deliver(&[in_pod("a"), in_pod("b"), in_pod("bad"), in_pod("c")]).await;
    assert_eq!(outcome.accepted, 2);
    assert!(
        matches!(&outcome.failure, Some(Failure::Refused(why)) if why.contains("bad label")),
        "{outcome:?}"
    );
    assert_eq!((server.seen().len(), sink.holds()), (4, 2));
}

/// Time goes on, for the sink. Only for a moment does the clock stand still, or the deadlines of requests would be over at once.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn an_alert_is_sent_again_until_it_has_held_and_then_once_more_to_end_it() {
    let hold = Duration::from_secs(300);
    let well = Arc::new(AtomicBool::new(true));
    let server = {
        let well = Arc::clone(&well);
        Server::start(move |_, _| {
            Answer::status(if well.load(Ordering::Relaxed) { 200 } else { 503 }, "", "")
        })
        .await
    };
    let mut sink = sink(&[&server], json!({"hold": "5m", "http": {"timeout": "60s"}}));
    sink.deliver(&[in_pod("a")]).await;
    let mut died = Instant::now();
    let mut ends = Vec::new();
    while let Some(due) = sink.due() {
        assert!(due <= Instant::now() + hold / 3 && ends.len() < 20);
        pass(due.saturating_duration_since(Instant::now())).await;
        // One time in between it is not there.
        let there = ends.len() != 3;
        well.store(there, Ordering::Relaxed);
        assert_eq!(sink.upkeep().await.is_ok(), there);
        ends.push(ends_in(&server.seen().pop().unwrap().json()[0]));
        if ends.len() == 2 {
            // One more death: it holds anew.
            sink.deliver(&[in_pod("a")]).await;
            died = Instant::now();
        }
    }
    assert!(died.elapsed() >= hold);
    let (last, before) = ends.split_last().unwrap();
    // Twice; after the second death once, and once in vain; the end.
    assert_eq!(before.len(), 4, "{ends:?}");
    assert!(*last <= 0 && before.iter().all(|end| (200..=300).contains(end)), "{ends:?}");
    assert_eq!((sink.holds(), sink.upkeep().await), (0, Ok(())));
}

#[test]
fn what_is_no_alertmanager() {
    for (json, says) in [
        (json!({}), "urls"),
        (json!({"urls": ["https://u:hunter2@a/"]}), "basic_auth"),
        (json!({"urls": ["https://a/"], "hold": "59s"}), "1m to 1h"),
        (json!({"urls": ["https://a/"], "labels": {"a-b": "x"}}), "letters, digits"),
        (json!({"urls": ["https://a/"], "labels": {"severity": "x"}}), "none of alertname"),
        (json!({"urls": ["https://a/"], "labels": {"__name__": "x"}}), "letters, digits"),
        (json!({"urls": ["https://a/"], "labels": {"a": ""}}), "1 to 256"),
    ] {
        let error = serde_json::from_value::<AlertmanagerConfig>(json).unwrap_err().to_string();
        assert!(error.contains(says) && !error.contains("hunter2"), "{error}");
    }
    let refused = |json| {
        let config = serde_json::from_value(json).unwrap();
        Alertmanager::new(&config, Linked::default()).map(|_| ()).unwrap_err()
    };
    assert!(refused(json!({"urls": []})).contains("1 to 8"));
    assert!(refused(json!({"urls": vec!["http://a/"; 9]})).contains("1 to 8"));
    let labels: serde_json::Map<_, _> = (0..17).map(|n| (format!("l{n}"), "v".into())).collect();
    assert!(refused(json!({"urls": ["http://a/"], "labels": labels})).contains("at most 16"));
}
