//! The routes, as a client sees them, and connections over real sockets.

use axum::body::Body;
use axum::http::{Request, Response};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::*;
use crate::death::sample;
use crate::ledger::LedgerConfig;
use crate::metrics::MetricsConfig;
use crate::probe::{ProbeReport, ProbeState};
use crate::source::Kind;

fn state() -> Arc<State> {
    Arc::new(State {
        ledger: Arc::new(Ledger::new(LedgerConfig::default())),
        metrics: Arc::new(Metrics::new(MetricsConfig::default())),
        status: Arc::new(Status::new("node-1".into(), Some("boot".into()))),
        links: Links::default(),
        deaths: true,
        watch: None,
    })
}

/// Nothing is asked of anybody.
fn nobody() -> Arc<Guard> {
    Arc::new(Guard::of_nobody())
}

fn probe(state: ProbeState, required: bool) -> ProbeReport {
    ProbeReport {
        name: "mark_victim".into(),
        hook: "tp_btf/oom/mark_victim".into(),
        purpose: "kills by the OOM killer".into(),
        required,
        state,
        why: (state != ProbeState::Attached).then(|| "no\nBTF".into()),
    }
}

fn sight(probes: Vec<ProbeReport>, lacks: &[&str]) -> Sight {
    let lacks = lacks.iter().map(|lack| (*lack).to_owned()).collect();
    Sight { source: Some(Kind::Bpf), probes, lacks }
}

async fn ask(state: &Arc<State>, request: Request<Body>) -> (u16, Response<()>, Vec<u8>) {
    let router = router(Arc::clone(state), &TelemetryPath::default(), nobody());
    let (head, body) = router.oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    (head.status.as_u16(), Response::from_parts(head, ()), body)
}

async fn get(state: &Arc<State>, path: &str) -> (u16, String) {
    let (status, _, body) = ask(state, Request::get(path).body(Body::empty()).unwrap()).await;
    (status, String::from_utf8(body).unwrap())
}

async fn get_json(state: &Arc<State>, path: &str) -> Value {
    let (status, body) = get(state, path).await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

fn pids(page: &Value) -> Vec<u64> {
    page["deaths"]
        .as_array()
        .unwrap()
        .iter()
        .map(|death| death["victim"]["pid"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn deaths_come_newest_first_and_filtered() {
    let state = state();
    let empty = format!(r#"{{"run":"{}","last":0,"deaths":[]}}"#, state.status.run());
    assert_eq!(get(&state, "/api/v1/deaths").await.1, empty);
    for pid in 1..=150 {
        let mut death = sample::oom_memcg();
        death.victim.pid = pid;
        death.id = uuid::Uuid::from_u128(u128::from(pid));
        if pid == 5 {
            death.time = "2020-01-01T00:00:00Z".parse().unwrap();
            death.job = None;
        }
        state.ledger.append(death).unwrap();
    }
    let page = get_json(&state, "/api/v1/deaths").await;
    assert_eq!(pids(&page), (51..=150).rev().collect::<Vec<_>>());
    assert_eq!(pids(&get_json(&state, "/api/v1/deaths?limit=2").await), [150, 149]);
    assert_eq!(pids(&get_json(&state, "/api/v1/deaths?pid=5").await), [5]);
    assert_eq!(pids(&get_json(&state, "/api/v1/deaths?job=render-42&limit=1").await), [150]);
    assert_eq!(pids(&get_json(&state, "/api/v1/deaths?job=nobody").await), [0; 0]);
    assert_eq!(
        pids(&get_json(&state, "/api/v1/deaths?limit=1000&since=2021-01-01T00:00:00Z").await).len(),
        149
    );
    assert_eq!(pids(&get_json(&state, "/api/v1/deaths?since=0s&pid=5").await), [0; 0]);
    let one = get_json(&state, "/api/v1/deaths/00000000-0000-0000-0000-000000000007").await;
    assert_eq!(one["victim"]["pid"], 7);
    assert_eq!(get(&state, "/api/v1/deaths/00000000-0000-0000-0000-00000000ffff").await.0, 404);
}

#[tokio::test]
async fn each_condition_of_the_query_is_heard() {
    let state = state();
    for pid in 1..=3 {
        let mut death = sample::in_a_pod();
        death.victim.pid = pid;
        death.time += jiff::SignedDuration::from_hours(i64::from(pid));
        if pid == 2 {
            death.cause = crate::death::Cause::Crash;
            death.workload.pod = Some("other".into());
        }
        state.ledger.append(death).unwrap();
    }
    for (query, found) in [
        ("until=2026-01-31T15:00:00.123456789Z", &[2, 1][..]),
        ("since=2026-01-31T14:00:00Z&until=2026-01-31T15:00:00Z", &[2]),
        ("cause=crash", &[2]),
        ("cause=crash,oom_memcg", &[3, 2, 1]),
        ("cause=crash&cause=oom_memcg&limit=2", &[3, 2]),
        ("cause=oom_global", &[]),
        ("pod=shop/render-x7k2p", &[3, 1]),
        ("pod=shop%2Fother", &[2]),
        ("pod=3f9f0a52-6b8e-4c8e-9d53-0d9d5b1c2f10", &[3, 2, 1]),
        ("container=4d6c1b2a3f4e5d6c7b8a9f0e1d2c3b4a5f6e7d8c9b0a1f2e3d4c5b6a7f8e9d0c&pid=1", &[1]),
        ("container=4d6c", &[]),
    ] {
        let page = get_json(&state, &format!("/api/v1/deaths?{query}")).await;
        assert_eq!(pids(&page), found, "{query}");
    }
}

#[tokio::test]
async fn whoever_asks_for_what_comes_after_misses_nothing() {
    let state = state();
    for pid in 1..=700 {
        let mut death = sample::oom_memcg();
        death.victim.pid = pid;
        state.ledger.append(death).unwrap();
    }
    let ask = async |query: String| {
        let page = get_json(&state, &format!("/api/v1/deaths?{query}")).await;
        (pids(&page), page["last"].as_u64().unwrap(), page.get("missed").cloned())
    };
    let (newest, last, _) = ask("limit=1".into()).await;
    assert_eq!((newest, last), (vec![700], 700));
    assert_eq!(ask("after=700".into()).await, (vec![], 700, None));
    assert_eq!(ask("after=697".into()).await, (vec![698, 699, 700], 700, None));
    assert_eq!(ask("after=697&limit=2".into()).await, (vec![698, 699], 699, None));
    assert_eq!(ask(format!("after={}", u64::MAX)).await, (vec![], u64::MAX, None));
    // What is not meant is passed by, not asked for again.
    assert_eq!(ask("after=0&pid=600".into()).await, (vec![600], 700, None));
    assert_eq!(ask("after=0&pid=600&limit=1".into()).await, (vec![600], 600, None));
}

#[tokio::test]
async fn whoever_was_overtaken_is_told() {
    let config = LedgerConfig { max_deaths: 3.try_into().unwrap(), ..LedgerConfig::default() };
    let ledger = Arc::new(Ledger::new(config));
    let state = Arc::new(State { ledger, ..Arc::into_inner(state()).unwrap() });
    for _ in 0..10 {
        state.ledger.append(sample::oom_memcg()).unwrap();
    }
    let page = get_json(&state, "/api/v1/deaths?after=4&limit=2").await;
    assert_eq!((&page["missed"], &page["last"]), (&3.into(), &9.into()));
    assert_eq!(pids(&page).len(), 2);
}

#[tokio::test]
async fn hostile_names_come_back_as_they_were() {
    let state = state();
    state.ledger.append(sample::hostile()).unwrap();
    let page = get_json(&state, "/api/v1/deaths").await;
    assert_eq!(page["deaths"][0], serde_json::to_value(sample::hostile()).unwrap());
}

#[tokio::test]
async fn what_is_refused_and_how_it_reads() {
    let (state, mut text) = (state(), String::new());
    for query in [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=+5",
        "limit=",
        "limit=5&limit=6",
        "pid=0",
        "pid=4294967296",
        "pid=a%0Ab",
        "since=yesterday",
        "since=-5m",
        "since=",
        "until=tomorrow",
        "after=-1",
        "after=18446744073709551616",
        "after=1&after=2",
        "job=",
        "pod=",
        "pod=shop/",
        "pod=/web",
        "pod=a/b/c",
        "container=",
        "cause=",
        "cause=oom",
        "cause=crash,oom_memcg,",
        "jobs=1",
        "%ff=1",
        "x",
    ] {
        let (status, body) = get(&state, &format!("/api/v1/deaths?{query}")).await;
        assert_eq!(status, 400, "{query}");
        let error: Value = serde_json::from_str(&body).unwrap();
        text.push_str(&format!("{query}\n    {}\n", error["error"].as_str().unwrap()));
    }
    let (status, body) = get(&state, "/api/v1/deaths/7").await;
    assert_eq!(status, 400);
    text.push_str(&format!("/api/v1/deaths/7\n    {body}\n"));
    crate::golden::check_named("api_refusals.txt", &text);
    assert_eq!(get(&state, "/nowhere").await.0, 404);
    let post = Request::post("/api/v1/deaths").body(Body::from("{}")).unwrap();
    assert_eq!(ask(&state, post).await.0, 405);
    let head = Request::head("/api/v1/deaths").body(Body::empty()).unwrap();
    let (status, _, body) = ask(&state, head).await;
    assert_eq!((status, body.len()), (200, 0));
}

#[tokio::test]
async fn ready_only_with_all_required_probes() {
    let state = state();
    assert_eq!(get(&state, "/-/healthy").await.0, 200);
    let (status, body) = get(&state, "/-/ready").await;
    assert_eq!((status, body.as_str()), (503, "killwatch is not ready:\nthe daemon is starting\n"));

    let probes = vec![probe(ProbeState::Attached, true), probe(ProbeState::Failed, false)];
    state.status.set_sight(sight(probes, &[]));
    assert_eq!(get(&state, "/-/ready").await, (200, "killwatch is ready.\n".to_owned()));
    let metrics = get(&state, "/metrics").await.1;
    assert!(metrics.contains("killwatch_ready 1\n") && metrics.contains("killwatch_degraded 0\n"));
    state.status.set_stopping();
    assert_eq!(get(&state, "/-/ready").await.0, 503);
}

#[tokio::test]
async fn a_lack_is_degraded_and_blindness_is_not_ready() {
    let state = state();
    state.status.set_sight(sight(vec![probe(ProbeState::Failed, true)], &["no\nBTF", "no more"]));
    let (status, body) = get(&state, "/-/ready").await;
    assert_eq!(
        (status, body.as_str()),
        (200, "killwatch is ready, degraded:\nno\\nBTF\nno more\n")
    );
    let page = get_json(&state, "/api/v1/status").await;
    assert_eq!(page["degraded"], serde_json::json!(["no\\nBTF", "no more"]));
    assert_eq!((&page["source"], &page["ready"]), (&"bpf".into(), &Value::Bool(true)));
    let metrics = get(&state, "/metrics").await.1;
    assert!(metrics.contains("killwatch_ready 1\n") && metrics.contains("killwatch_degraded 1\n"));
    state.status.set_blind(&"it broke");
    let (status, body) = get(&state, "/-/ready").await;
    assert_eq!(status, 503);
    assert!(body.contains("deaths are seen no more: it broke"), "{body}");

    let state = self::state();
    state.status.set_sight(Sight { source: None, ..sight(vec![], &["no BPF", "no log"]) });
    let (status, body) = get(&state, "/-/ready").await;
    assert_eq!((status, body.as_str()), (503, "killwatch is not ready:\nno BPF\nno log\n"));
    let metrics = get(&state, "/metrics").await.1;
    assert!(metrics.contains("killwatch_ready 0\n") && metrics.contains("killwatch_degraded 1\n"));
    assert!(get_json(&state, "/api/v1/status").await.get("source").is_none());
}

#[tokio::test]
async fn status_tells_what_is_known_and_no_more() {
    let state = state();
    let before = get_json(&state, "/api/v1/status").await;
    assert_eq!(
        (&before["ready"], before.get("probes"), before.get("cgroup_mode")),
        (&Value::Bool(false), None, None)
    );
    state.status.set_sight(sight(vec![probe(ProbeState::Attached, true)], &[]));
    state.status.set_cgroup_mode("hybrid".into());
    state.ledger.append(sample::killed()).unwrap();
    let after = get_json(&state, "/api/v1/status").await;
    assert_eq!(after["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (&after["node"], &after["boot_id"], &after["cgroup_mode"]),
        (&"node-1".into(), &"boot".into(), &"hybrid".into())
    );
    assert_eq!(after["probes"][0]["state"], "attached");
    assert_eq!(after["ledger"], serde_json::json!({"deaths": 1, "evicted": 0}));
    assert_eq!(after["counters"]["decode_errors"], 0);
    assert_eq!(after["source"], "bpf");
    // What is missed is not known at once.
    assert_eq!(after["oom_kills"], serde_json::json!({"unaccounted": 0}));
    for absent in ["not_ready", "degraded", "missed"] {
        assert!(after.get(absent).is_none(), "{absent}");
    }
}

#[tokio::test]
async fn metrics_are_openmetrics_and_gzip_when_asked() {
    let state = state();
    let (_, head, body) = ask(&state, Request::get("/metrics").body(Body::empty()).unwrap()).await;
    assert_eq!(head.headers()["content-type"], crate::metrics::CONTENT_TYPE);
    assert!(body.ends_with(b"# EOF\n"));
    let request =
        Request::get("/metrics").header("accept-encoding", "gzip").body(Body::empty()).unwrap();
    let (_, head, body) = ask(&state, request).await;
    assert_eq!(head.headers()["content-encoding"], "gzip");
    assert!(body.starts_with(b"\x1f\x8b"));
}

async fn served() -> (String, CancellationToken, tokio::task::JoinHandle<()>) {
    let server = bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let address = server.addresses()[0].to_string();
    let stop = CancellationToken::new();
    let router = router(state(), &TelemetryPath::default(), nobody());
    (address, stop.clone(), tokio::spawn(server.run(router, nobody(), stop)))
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let (address, stop, server) = served().await;
    let error = bind(&[address.parse().unwrap()]).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!(
            "web.listen_address: cannot listen on {address}: Address already in use"
        )),
        "{error}"
    );
    stop.cancel();
    server.await.unwrap();
}

#[tokio::test]
async fn shutdown_ends_idle_connections_and_refuses_new_ones() {
    let (address, stop, server) = served().await;
    let mut idle = TcpStream::connect(&address).await.unwrap();
    idle.write_all(b"GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut start = [0; 12];
    idle.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), server)
        .await
        .expect("an idle connection holds up the end")
        .unwrap();
    assert!(TcpStream::connect(&address).await.is_err());
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let (address, stop, server) = served().await;
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let head = format!("GET /-/healthy HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(64 << 10));
    // The server may hang up before it has read all.
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    stop.cancel();
    server.await.unwrap();
}
