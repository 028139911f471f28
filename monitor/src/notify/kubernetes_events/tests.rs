//! The whole sink against a mock of an API server (see [`server`]): Events, series, rights, and every way in which it may fail or lie.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use serde_json::json;
use uuid::Uuid;

use super::event;
use super::sink::{KubernetesEvents, Times};
use crate::alert::sample as alerts;
use crate::alert::{Alert, AlertKind, JobDeath, PoisonJob};
use crate::containers::kubernetes::KubernetesConfig;
use crate::death::{Death, Workload, sample};
use crate::ledger::{Entry, Item};
use crate::notify::deliver::{Deliver as _, Failure, Message, Outcome};
use crate::notify::summary::{SCHEMA, Summary};
use server::{Reply, Server};

mod server;

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/shop/events";
const PATIENT: Times = Times {
    request: Duration::from_secs(30),
    call: Duration::from_secs(60),
    credentials: Duration::from_secs(600),
};

/// A sink for a server.
struct Bed {
    server: Server,
    sink: KubernetesEvents,
    not_applicable: Counter,
    dir: tempfile::TempDir,
}

impl Bed {
    async fn new(times: Times) -> Self {
        let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
        let not_applicable = Counter::default();
        let config = of(&server.kubeconfig(dir.path()));
        let sink = KubernetesEvents::with(&config, "node-1", not_applicable.clone(), times);
        Self { server, sink, not_applicable, dir }
    }

    async fn tell(&mut self, message: Message) -> Outcome {
        self.sink.deliver(&[message]).await
    }

    /// What is in the way of a message, and the wait that was asked for.
    async fn later(&mut self, message: Message) -> (String, Option<Duration>) {
        match self.tell(message).await {
            Outcome { accepted: 0, failure: Some(Failure::Later { why, after }) } => (why, after),
            other => panic!("{other:?}"),
        }
    }

    async fn refused(&mut self, message: Message) -> String {
        match self.tell(message).await {
            Outcome { accepted: 0, failure: Some(Failure::Refused(why)) } => why,
            other => panic!("{other:?}"),
        }
    }

    async fn accepted(&mut self, message: Message) {
        assert_eq!(self.tell(message).await, Outcome { accepted: 1, failure: None });
    }

    /// Method and path of what came since the last call.
    fn lines(&self) -> Vec<String> {
        self.server.seen().into_iter().map(|seen| seen.line).collect()
    }
}

fn of(kubeconfig: &Path) -> KubernetesConfig {
    let kubeconfig = Some(kubeconfig.to_str().unwrap().parse().unwrap());
    KubernetesConfig { kubeconfig, ..KubernetesConfig::default() }
}

fn told(item: impl Into<Item>) -> Message {
    Message::Entry(Arc::new(Entry { seq: 1, item: item.into(), json: "{}".into() }))
}

fn death(n: u128) -> Death {
    Death { id: Uuid::from_u128(n), ..sample::in_a_pod() }
}

fn in_namespace(namespace: &str) -> Death {
    let mut death = sample::in_a_pod();
    death.workload.namespace = Some(namespace.to_owned());
    death
}

fn poison(deaths: &[u128]) -> Message {
    let death = |n: &u128| JobDeath {
        id: Uuid::from_u128(*n),
        time: Timestamp::UNIX_EPOCH,
        cause: crate::death::Cause::OomMemcg,
        pid: 4242,
        comm: "worker".into(),
        attempt: None,
    };
    let kind = AlertKind::PoisonJob(PoisonJob {
        job: sample::in_a_pod().job.unwrap(),
        window_seconds: 3600,
        deaths: deaths.iter().map(death).collect(),
    });
    let (time, node) = ("2026-01-31T12:00:00Z".parse().unwrap(), "node-1".to_owned());
    told(Item::Alert(Arc::new(Alert { id: Uuid::from_u128(99), schema: 1, node, time, kind })))
}

fn summary(follows: u128, workload: Workload) -> Message {
    Message::Summary(Arc::new(Summary {
        id: Uuid::from_u128(77),
        schema: SCHEMA,
        node: "node-1".into(),
        time: "2026-01-31T12:05:00.5Z".parse().unwrap(),
        summary: crate::death::Cause::OomMemcg,
        count: 11,
        first: "2026-01-31T12:01:00Z".parse().unwrap(),
        follows: Uuid::from_u128(follows),
        workload,
        jobs: Vec::new(),
        deaths: Vec::new(),
    }))
}

#[tokio::test]
async fn a_death_is_one_event_however_often_it_is_told() {
    let mut bed = Bed::new(PATIENT).await;
    bed.accepted(told(death(1))).await;
    let seen = bed.server.seen().remove(0);
    assert_eq!(seen.line, format!("POST {EVENTS}"));
    assert_eq!(seen.content_type, "application/json");
    let note = seen.body["note"].as_str().unwrap();
    assert!(note.starts_with("worker (pid 4242) was killed by the kernel's OOM killer"), "{note}");
    assert!(note.contains(&death(1).advice), "{note}");
    assert_eq!(seen.body["regarding"]["fieldPath"], "spec.containers{worker}");
    assert_eq!(seen.body["related"]["name"], "node-1");

    bed.accepted(told(death(1))).await;
    assert_eq!(bed.lines().len(), 1, "it was asked for again");
    assert_eq!(bed.server.events(), [event::name(Uuid::from_u128(1))]);
    // The answer was lost, and the Event is there.
    bed.server.next(Reply::Endless(201));
    bed.accepted(told(death(2))).await;
}

#[tokio::test]
async fn those_that_follow_are_a_series() {
    let mut bed = Bed::new(PATIENT).await;
    bed.accepted(told(death(1))).await;
    bed.server.seen();
    let pod = sample::in_a_pod().workload;
    let patch = format!("PATCH {EVENTS}/{}", event::name(Uuid::from_u128(1)));
    // Twice the same: the number is the whole, not the increase.
    for _ in 0..2 {
        bed.accepted(summary(1, pod.clone())).await;
        let seen = bed.server.seen().remove(0);
        assert_eq!((&seen.line, &*seen.content_type), (&patch, "application/merge-patch+json"));
        let series = json!({"count": 12, "lastObservedTime": "2026-01-31T12:05:00.500000Z"});
        assert_eq!(seen.body, json!({"series": series}));
    }
    // The last of them was in another namespace: victims of one decision of the OOM killer.
    let elsewhere = Workload { namespace: Some("bank".into()), ..pod.clone() };
    bed.accepted(summary(1, elsewhere)).await;
    assert_eq!(bed.lines(), std::slice::from_ref(&patch));

    bed.server.expire(&event::name(Uuid::from_u128(1)));
    bed.accepted(summary(1, pod)).await;
    let seen = bed.server.seen();
    assert_eq!([&seen[0].line, &seen[1].line], [&patch, &format!("POST {EVENTS}")]);
    assert_eq!(seen[1].body["metadata"]["name"], event::name(Uuid::from_u128(77)));
    assert_eq!(seen[1].body["series"]["count"], 11);
    let note = seen[1].body["note"].as_str().unwrap();
    assert!(note.starts_with("11 more processes of container worker of pod shop/"), "{note}");
}

#[tokio::test]
async fn what_is_about_no_pod_needs_no_api() {
    let config = of(Path::new("/nowhere/kubeconfig"));
    let counter = Counter::default();
    let mut sink = KubernetesEvents::with(&config, "node-1", counter.clone(), PATIENT);
    let messages = [
        told(sample::killed()),
        told(sample::oom_memcg()),
        summary(1, sample::killed().workload),
        poison(&[1, 2]),
    ];
    assert_eq!(sink.deliver(&messages).await, Outcome::all(&messages));
    assert_eq!(counter.get(), 4);
    let outcome = sink.deliver(&[told(sample::hostile())]).await;
    assert_eq!(outcome, Outcome { accepted: 1, failure: None }, "it has no uid");
    let mut hostile = sample::hostile();
    hostile.workload.pod_uid = Some("u".into());
    let outcome = sink.deliver(&[told(hostile)]).await;
    assert!(matches!(outcome, Outcome { accepted: 0, failure: Some(Failure::Refused(_)) }));
    let outcome = sink.deliver(&[told(death(1))]).await;
    let Some(Failure::Later { why, .. }) = outcome.failure else { panic!("{outcome:?}") };
    assert!(why.contains("/nowhere/kubeconfig"), "{why}");
}

#[tokio::test]
async fn a_poisoned_job_is_told_of_the_pod_of_its_last_death() {
    let mut bed = Bed::new(PATIENT).await;
    bed.accepted(told(death(1))).await;
    bed.server.seen();
    bed.accepted(poison(&[3, 1, 2])).await;
    let seen = bed.server.seen().remove(0);
    assert_eq!(seen.body["reason"], "PoisonJob");
    assert_eq!(seen.body["regarding"]["name"], "render-x7k2p");
    let note = seen.body["note"].as_str().unwrap();
    assert!(
        note.starts_with("Job render-42 (render) was killed again and again: 3 deaths"),
        "{note}"
    );
    bed.accepted(poison(&[4])).await;
    assert_eq!((bed.lines().len(), bed.not_applicable.get()), (0, 1));
}

#[tokio::test]
async fn a_near_limit_is_told_of_its_own_pod() {
    let mut bed = Bed::new(PATIENT).await;
    let near = |workload| told(Item::Alert(Arc::new(alerts::near_limit_of(workload))));
    bed.accepted(told(Item::Alert(Arc::new(alerts::near_limit())))).await;
    let seen = bed.server.seen().remove(0);
    assert_eq!(seen.line, format!("POST {EVENTS}"));
    assert_eq!(
        (&seen.body["reason"], &seen.body["type"]),
        (&json!("NearMemoryLimit"), &json!("Warning"))
    );
    assert_eq!(seen.body["action"], "Reported");
    assert_eq!(seen.body["regarding"]["fieldPath"], "spec.containers{worker}");
    let note = seen.body["note"].as_str().unwrap();
    assert!(note.contains("is at 88 % of its limit: 224.0 MiB of 256.0 MiB"), "{note}");
    bed.accepted(near(sample::killed().workload)).await;
    assert_eq!((bed.lines().len(), bed.not_applicable.get()), (0, 1));
    let nasty = Workload { pod: Some("../x".into()), ..sample::in_a_pod().workload };
    bed.refused(near(nasty)).await;
}

#[tokio::test]
async fn a_test_asks_whether_it_could_and_leaves_nothing() {
    let mut bed = Bed::new(PATIENT).await;
    let mut drill = sample::killed();
    drill.tags.insert("killwatch_test".into(), "true".into());
    bed.accepted(told(drill.clone())).await;
    assert_eq!(bed.lines(), ["POST /apis/events.k8s.io/v1/namespaces/default/events?dryRun=All"]);
    bed.server.next(Reply::status(403, "Forbidden", "cannot create resource"));
    let (why, _) = bed.later(told(drill)).await;
    assert!(why.contains("[create, patch]"), "{why}");
}

#[tokio::test]
async fn what_the_api_says_decides() {
    let mut bed = Bed::new(PATIENT).await;
    bed.server.next(Reply::status(403, "Forbidden", "User \"system:x\" cannot create"));
    let (why, after) = bed.later(told(death(1))).await;
    assert!(why.contains("events.k8s.io") && why.contains("system:x"), "{why}");
    assert_eq!(after, None);
    for code in [429, 500, 503] {
        bed.server.next(Reply::Say(code, vec![("retry-after", "9".into())], "busy".into()));
        let (why, after) = bed.later(told(death(1))).await;
        assert!(why.contains(&code.to_string()), "{why}");
        assert_eq!(after, Some(Duration::from_secs(9)));
    }
    bed.server.next(Reply::status(422, "Invalid", "note: too long"));
    assert!(bed.refused(told(death(1))).await.contains("too long"));
    let terminating =
        "unable to create new content in namespace shop because it is being terminated";
    bed.server.next(Reply::status(403, "Forbidden", terminating));
    assert!(bed.refused(told(death(1))).await.contains("is being deleted"));
    // It is not gone after for a summary either.
    bed.server.next(Reply::status(404, "NotFound", "no such event"));
    bed.server.next(Reply::status(403, "Forbidden", terminating));
    bed.refused(summary(1, sample::in_a_pod().workload)).await;
    // It is led to nobody else.
    let to = format!("https://127.0.0.1:1{EVENTS}");
    bed.server.next(Reply::Say(307, vec![("location", to)], String::new()));
    assert!(bed.later(told(death(1))).await.0.contains("leads elsewhere"));
}

#[tokio::test]
async fn a_batch_goes_as_far_as_it_can() {
    let mut bed = Bed::new(PATIENT).await;
    let messages =
        [told(death(1)), told(sample::killed()), told(in_namespace("..")), told(death(4))];
    let outcome = bed.sink.deliver(&messages).await;
    assert!(matches!(outcome, Outcome { accepted: 2, failure: Some(Failure::Refused(_)) }));
    let outcome = bed.sink.deliver(&messages[3..]).await;
    assert_eq!(outcome, Outcome { accepted: 1, failure: None });
    assert_eq!(bed.server.events().len(), 2);
}

#[tokio::test]
async fn a_token_that_was_replaced_is_taken_up() {
    let mut bed = Bed::new(PATIENT).await;
    bed.accepted(told(death(1))).await;
    bed.server.token("token-2");
    let (why, _) = bed.later(told(death(2))).await;
    assert!(why.starts_with("401") && !why.contains("token-1"), "{why}");
    std::fs::write(bed.dir.path().join("token"), "token-2").unwrap();
    bed.accepted(told(death(2))).await;
    assert!(!format!("{:?}", bed.sink).contains("token"), "{:?}", bed.sink);
}

#[tokio::test]
async fn a_server_that_hangs_or_floods_is_let_go_of() {
    let short = Duration::from_millis(300);
    let mut bed = Bed::new(Times { request: short, ..PATIENT }).await;
    bed.server.next(Reply::Wedged);
    let (why, _) = bed.later(told(death(1))).await;
    assert!(why.contains("no answer within 300ms"), "{why}");
    let mut bed = Bed::new(Times { call: short, ..PATIENT }).await;
    bed.server.next(Reply::Wedged);
    let (why, _) = bed.later(told(death(1))).await;
    assert!(why.contains("took more than 300ms"), "{why}");
    let mut bed = Bed::new(PATIENT).await;
    bed.server.next(Reply::Endless(503));
    assert!(bed.later(told(death(1))).await.0.contains("503"));
    for nonsense in ["", "[]", "\u{0}", "{\"message\":7}", &"[".repeat(60_000)] {
        bed.server.next(Reply::Say(403, Vec::new(), nonsense.to_owned()));
        assert!(bed.later(told(death(1))).await.0.starts_with("403"));
    }
}
