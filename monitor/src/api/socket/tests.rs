//! The socket as a client meets it: real connections to a daemon without a kernel side.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::limits::CONNECTIONS_OF_OWNER;
use super::*;
use crate::death::{self, Death, sample};
use crate::ledger::LedgerConfig;
use crate::metrics::MetricsConfig;
use crate::procfs::{Proc, Process, tick_ns};

/// For what comes at once, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

struct Running {
    state: Arc<State>,
    path: PathBuf,
    served: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

fn run() -> Running {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k.sock");
    let config = config::ApiConfig {
        socket: path.to_str().unwrap().parse().unwrap(),
        ..config::ApiConfig::default()
    };
    let bound = bind::open(&config).unwrap().unwrap();
    let ledger = Arc::new(Ledger::new(LedgerConfig::default()));
    let metrics = Arc::new(Metrics::new(MetricsConfig::default()));
    let api = crate::api::State {
        ledger: Arc::clone(&ledger),
        metrics: Arc::clone(&metrics),
        status: Arc::new(crate::api::Status::new("node-1".into(), None)),
        links: Default::default(),
        // Of the addresses of `web.listen_address` alone.
        deaths: false,
        watch: None,
    };
    let host = Host::of_test(Proc::default(), 0);
    let state = State::new(ledger, Arc::default(), metrics, host, CancellationToken::new());
    let state = Arc::new(state.with_api(Arc::new(api)));
    let served = tokio::spawn(serve::run(bound, Arc::clone(&state)));
    Running { state, path, served, _dir: dir }
}

impl Running {
    async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.path).await.unwrap()
    }

    /// All that comes back to these bytes until the end of the connection.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // The daemon may hang up before it has read all.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.expect("no end");
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let text = format!(
            "{method} {path} HTTP/1.1\r\nhost: k\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = self.raw(text.as_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").expect(&answer);
        (status(head), serde_json::from_str(body).unwrap_or(Value::Null))
    }

    async fn is_well(&self) {
        assert_eq!(self.ask("GET", "/v1/deaths?job=none", "").await.0, 200);
    }
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect(head)
}

/// The death of a process.
fn death_of(process: Process, state: death::State) -> Death {
    let mut death = sample::killed();
    death.state = state;
    (death.victim.pid, death.time) = (process.pid, jiff::Timestamp::now());
    death.victim.start_ktime_ns = Some(process.start_ticks * tick_ns() + 1);
    death
}

#[tokio::test]
async fn a_tag_comes_goes_and_is_counted() {
    let daemon = run();
    let own = Proc::default().process(std::process::id()).unwrap();
    let (status, said) = daemon.ask("PUT", "/v1/tags/self", r#"{"job_id":"1"}"#).await;
    assert_eq!((status, &said["tags"]["job_id"]), (200, &"1".into()), "{said}");
    assert_eq!((&said["pid"], &said["start"]), (&own.pid.into(), &own.start_ticks.into()));
    assert_eq!(daemon.state.tags.get(own).unwrap().get("job_id"), Some("1"));
    assert!(daemon.state.metrics.encode().unwrap().contains("killwatch_tagged_processes 1\n"));
    let (_, alive) = daemon.ask("GET", "/v1/deaths?job=1", "").await;
    assert_eq!((&alive["state"], &alive["pid"]), (&"alive".into(), &own.pid.into()), "{alive}");
    let path = format!("/v1/tags/{}", own.pid);
    assert_eq!(daemon.ask("GET", &path, "").await.1["tags"]["job_id"], "1");
    assert_eq!(daemon.ask("PUT", &format!("{path}?start=1"), r#"{"a":"b"}"#).await.0, 409);
    assert_eq!(daemon.ask("PUT", &format!("{path}?strat=1"), r#"{"a":"b"}"#).await.0, 400);
    assert_eq!(daemon.ask("DELETE", &path, "").await.0, 204);
    assert_eq!(daemon.ask("GET", &path, "").await.0, 404);
    let metrics = daemon.state.metrics.encode().unwrap();
    for (reason, count) in [("conflict", 1), ("bad_request", 1), ("not_found", 1), ("rate", 0)] {
        let line = format!("killwatch_api_rejected_total{{reason=\"{reason}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}");
    }
}

#[tokio::test]
async fn whoever_runs_the_node_asks_here_as_over_tcp() {
    let daemon = run();
    let stat = std::fs::read_to_string("/proc/self/status").unwrap();
    let is_root = stat.contains("\nUid:\t0\t");
    let (mut own, mut others) = (sample::killed(), sample::oom_memcg());
    (own.victim.uid, others.victim.uid) = (Some(rustix::process::getuid().as_raw()), Some(54_321));
    others.workload.cgroup = Some("/somebody/else.service".into());
    let id = others.id;
    daemon.state.ledger.append(own).unwrap();
    daemon.state.ledger.append(others).unwrap();
    let (status, said) = daemon.ask("GET", "/api/v1/deaths?limit=5", "").await;
    let seen = said["deaths"].as_array().unwrap().len();
    assert_eq!((status, seen), (200, if is_root { 2 } else { 1 }), "{said}");
    let seen = if is_root { 200 } else { 404 };
    assert_eq!(daemon.ask("GET", &format!("/api/v1/deaths/{id}"), "").await.0, seen);
    assert_eq!(daemon.ask("GET", "/api/v1/deaths?limit=0", "").await.0, 400);
    let (status, said) = daemon.ask("GET", "/api/v1/status", "").await;
    assert_eq!(
        (status, said.get("node").is_some()),
        if is_root { (200, true) } else { (403, false) }
    );
    assert_eq!(daemon.ask("PUT", "/api/v1/deaths", "{}").await.0, 405);
}

#[tokio::test]
async fn a_wait_ends_with_the_record_and_stuck_is_not_dead() {
    let daemon = run();
    let process = Process { pid: 4_194_300, start_ticks: 77 };
    let query = format!("/v1/deaths?pid={}&start={}", process.pid, process.start_ticks);
    assert_eq!(daemon.ask("GET", &query, "").await.1["state"], "unknown");
    daemon.state.ledger.append(death_of(process, death::State::Stuck)).unwrap();
    let (_, stuck) = daemon.ask("GET", &query, "").await;
    assert_eq!((&stuck["state"], &stuck["deaths"][0]["state"]), (&"stuck".into(), &"stuck".into()));

    let wait = format!("{query}&wait=30s");
    let ledger = Arc::clone(&daemon.state.ledger);
    let dies = async {
        while ledger.watched() == 0 {
            tokio::task::yield_now().await;
        }
        // Others first: they end no wait.
        for other in 1..300 {
            let other = Process { pid: other, ..process };
            ledger.append(death_of(other, death::State::Dead)).unwrap();
            tokio::task::yield_now().await;
        }
        ledger.append(death_of(process, death::State::Dead)).unwrap();
    };
    let (answer, ()) = tokio::join!(daemon.ask("GET", &wait, ""), dies);
    let deaths = answer.1["deaths"].as_array().unwrap();
    assert_eq!((&answer.1["state"], deaths.len()), (&"dead".into(), 2));
    assert_eq!(deaths[0]["state"], "dead", "the newest first");
    let another = format!("/v1/deaths?pid={}&start=78", process.pid);
    assert_eq!(daemon.ask("GET", &another, "").await.1["state"], "unknown");
}

#[tokio::test]
async fn a_pid_alone_is_of_the_last_minute() {
    let daemon = run();
    let process = Process { pid: 4_194_301, start_ticks: 77 };
    let mut old = death_of(process, death::State::Dead);
    old.time = old.time.checked_sub(jiff::SignedDuration::from_secs(61)).unwrap();
    daemon.state.ledger.append(old).unwrap();
    let query = format!("/v1/deaths?pid={}", process.pid);
    assert_eq!(daemon.ask("GET", &query, "").await.1["state"], "unknown");
    assert_eq!(daemon.ask("GET", &format!("{query}&since=5m"), "").await.1["state"], "dead");
    assert_eq!(daemon.ask("GET", &format!("{query}&start=77"), "").await.1["state"], "dead");
}

#[tokio::test]
async fn bytes_that_are_no_http_harm_nobody() {
    let daemon = run();
    let long = format!("GET /{} HTTP/1.1\r\nhost: k\r\n\r\n", "x".repeat(64 << 10));
    let many: String = (0..500).map(|n| format!("x{n}: y\r\n")).collect();
    let many = format!("GET /v1/deaths?job=x HTTP/1.1\r\n{many}\r\n");
    for bytes in [
        b"\x00\xff\xfe\n\n".as_slice(),
        b"GET / HTTP/9.9\r\n\r\n",
        b"PUT /v1/tags/self HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"PUT /v1/tags/self HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}",
        b"PUT /v1/tags/self HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        long.as_bytes(),
        many.as_bytes(),
    ] {
        let answer = daemon.raw(bytes).await;
        let begin: String = answer.chars().take(40).collect();
        assert!(answer.is_empty() || (400..500).contains(&status(&answer)), "{begin}");
    }
    let mut body =
        b"PUT /v1/tags/self HTTP/1.1\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
            .to_vec();
    (0..40).for_each(|_| body.extend(format!("400\r\n{}\r\n", "x".repeat(1024)).bytes()));
    let answer = daemon.raw(&body).await;
    assert!(answer.is_empty() || status(&answer) == 413, "{answer}");
    for path in
        ["/v1/tags/%ff", "/v1/tags/..", "/v1/tags/self/x", "/v1/tags/", "//", "/v1/tags/%00"]
    {
        let status = daemon.ask("GET", path, "").await.0;
        assert!(matches!(status, 400 | 404), "{path}: {status}");
    }
    daemon.is_well().await;
}

#[tokio::test]
async fn whoever_holds_too_many_connections_is_told_so() {
    let daemon = run();
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_OF_OWNER {
        let mut stream = daemon.connect().await;
        // Answered, so it has its place.
        stream.write_all(b"GET /v1/deaths?job=x HTTP/1.1\r\nhost: k\r\n\r\n").await.unwrap();
        stream.read_exact(&mut [0; 12]).await.unwrap();
        held.push(stream);
    }
    let answer = daemon.raw(b"").await;
    assert_eq!(status(&answer), 503, "{answer}");
    assert!(answer.contains("retry-after: 1\r\n") && answer.contains("you have 16 connections"));
    let rejected = "killwatch_api_rejected_total{reason=\"connections\"} 1\n";
    assert!(daemon.state.metrics.encode().unwrap().contains(rejected));
    drop(held);
    // The places come free as the daemon notices.
    let well = async { while daemon.ask("GET", "/v1/deaths?job=x", "").await.0 != 200 {} };
    tokio::time::timeout(SOON, well).await.unwrap();
}

#[tokio::test]
async fn an_end_ends_streams_and_waits_and_takes_the_file_away() {
    let daemon = run();
    let mut stream = daemon.connect().await;
    stream.write_all(b"GET /v1/deaths/stream HTTP/1.1\r\nhost: k\r\n\r\n").await.unwrap();
    let mut begin = String::new();
    while !begin.contains("id: ") {
        let mut bytes = [0; 1024];
        let count = stream.read(&mut bytes).await.unwrap();
        assert_ne!(count, 0, "{begin}");
        begin.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    assert!(begin.contains("content-type: text/event-stream"), "{begin}");
    let waits = daemon.ask("GET", "/v1/deaths?job=x&wait=30s", "");
    let stop = async {
        // The stream, and the one that waits.
        while daemon.state.ledger.watched() < 2 {
            tokio::task::yield_now().await;
        }
        daemon.state.stop.cancel();
    };
    let ((status, said), ()) =
        tokio::time::timeout(SOON, async { tokio::join!(waits, stop) }).await.unwrap();
    assert_eq!((status, &said["state"]), (200, &"unknown".into()));
    tokio::time::timeout(SOON, stream.read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    tokio::time::timeout(SOON, daemon.served).await.unwrap().unwrap();
    assert!(!daemon.path.exists());
}
