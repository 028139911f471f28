//! Against the real thing: a cluster of two Alertmanagers on this host (Debian's `prometheus-alertmanager`). Without it the test says so and is skipped;
//! with `KILLWATCH_REQUIRE_E2E=1` it fails instead.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::death::{Death, sample};
use crate::ledger::{Ledger, LedgerConfig};
use crate::notify::http::testing::{Answer, Server};

const BINARIES: [&str; 2] = ["prometheus-alertmanager", "alertmanager"];
/// For what is a matter of seconds on an idle machine.
const LONG: Duration = Duration::from_secs(120);
/// Not allowed by the configuration, but the test would take minutes.
const HOLD: Duration = Duration::from_secs(24);

struct Process {
    child: Child,
    port: u16,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn start(binary: &str, dir: &Path, port: u16, cluster: u16, peer: Option<u16>) -> Self {
        let storage = dir.join(port.to_string());
        let mut command = Command::new(binary);
        command
            .arg(format!("--config.file={}", dir.join("config.yml").display()))
            .arg(format!("--storage.path={}", storage.display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg(format!("--cluster.listen-address=127.0.0.1:{cluster}"))
            .arg(format!("--cluster.advertise-address=127.0.0.1:{cluster}"))
            .arg("--cluster.settle-timeout=1s");
        if let Some(peer) = peer {
            command.arg(format!("--cluster.peer=127.0.0.1:{peer}"));
        }
        let log = std::fs::File::create(dir.join(format!("{port}.log"))).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self { child, port }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The body of a 200.
    async fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.take(1 << 20).read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.contains(" 200 ").then(|| body.to_owned())
    }

    async fn is_ready(&self) -> bool {
        self.get("/-/ready").await.is_some()
    }

    /// The alerts that fire, by their labels.
    async fn alerts(&self) -> Vec<Value> {
        let body = self.get("/api/v2/alerts").await.unwrap_or_default();
        serde_json::from_str(&body).unwrap_or_default()
    }

    async fn fires(&self, pod: &str) -> Option<Value> {
        self.alerts().await.into_iter().find(|alert| alert["labels"]["pod"] == pod)
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Gives the sink its upkeep until something holds.
async fn until(sink: &mut Alertmanager, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + LONG;
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    while !holds().await {
        assert!(Instant::now() < end, "not within {LONG:?}: {what}");
        tick.tick().await;
        if sink.due().is_some_and(|due| due <= Instant::now()) {
            // While one of them starts anew, the other takes it.
            sink.upkeep().await.unwrap();
        }
    }
}

fn message(death: Death) -> Message {
    Message::Entry(Ledger::new(LedgerConfig::default()).append(death).unwrap())
}

fn told(receiver: &Server, status: &str) -> Vec<Value> {
    let all = receiver.seen();
    let alerts =
        all.iter().flat_map(|seen| seen.json()["alerts"].as_array().cloned().unwrap_or_default());
    alerts.filter(|alert| alert["status"] == status).collect()
}

#[tokio::test]
async fn a_cluster_fires_survives_a_restart_and_resolves() {
    let works = |binary: &&&str| {
        Command::new(binary)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    };
    let Some(binary) = BINARIES.iter().find(works) else {
        let missing = format!(
            "SKIPPED: none of {BINARIES:?} is installed (apt-get install prometheus-alertmanager)"
        );
        assert!(
            std::env::var_os("KILLWATCH_REQUIRE_E2E").is_none_or(|set| set != "1"),
            "{missing}"
        );
        eprintln!("{missing}");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let receiver = Server::start(|_, _| Answer::status(200, "", "")).await;
    let config = format!(
        "route: {{receiver: hook, group_by: ['...'], group_wait: 1s, group_interval: 1s, repeat_interval: 1h}}\n\
         receivers: [{{name: hook, webhook_configs: [{{url: 'http://127.0.0.1:{}/', send_resolved: true}}]}}]\n",
        receiver.port()
    );
    std::fs::write(dir.path().join("config.yml"), config).unwrap();
    let [port, other_port, cluster, other_cluster] = std::array::from_fn(|_| free_port());
    let one = Process::start(binary, dir.path(), port, cluster, None);
    let two = Process::start(binary, dir.path(), other_port, other_cluster, Some(cluster));
    let config = json!({"urls": [one.url(), two.url()], "labels": {"cluster": "test"}});
    let linked = Linked {
        runbook: None,
        dashboard: Some(Arc::new(|_: &Death| {
            Some("https://d.example/d/kw?var-pod=a b&x=\"".to_owned())
        })),
    };
    let mut sink = Alertmanager::new(&serde_json::from_value(config).unwrap(), linked).unwrap();
    sink.held = Held::new(HOLD);
    until(&mut sink, "both run", async || one.is_ready().await && two.is_ready().await).await;

    // A death, and one with names that try to break out.
    let mut hostile = sample::hostile();
    hostile.workload.pod = Some("nasty".into());
    let messages = [message(sample::in_a_pod()), message(hostile)];
    assert_eq!(sink.deliver(&messages).await, Outcome::all(&messages));
    let pod = "render-x7k2p";
    until(&mut sink, "both fire", async || {
        one.fires(pod).await.is_some() && two.fires(pod).await.is_some()
    })
    .await;
    assert!(one.fires("nasty").await.is_some());
    let alert = one.fires(pod).await.unwrap();
    assert_eq!(
        alert["labels"],
        json!({
            "alertname": "KillwatchContainerOOMKilled", "severity": "warning", "node": "node-1", "cause": "oom_memcg",
            "namespace": "shop", "pod": pod, "container": "worker", "job_id": "render-42", "cluster": "test",
        })
    );
    assert_eq!(alert["annotations"]["death_id"], json!(sample::in_a_pod().id));
    assert!(alert["startsAt"].as_str().unwrap().starts_with("2026-01-31T12:00:00.123"));
    until(&mut sink, "someone is notified", async || !told(&receiver, "firing").is_empty()).await;

    // Of a batch with one that is not allowed the others stand, as this sink's ways rest on.
    let mut good = sink.maker.make(&messages[0], &sink.held);
    good.labels.insert("pod".into(), "good".into());
    let mut bad = good.clone();
    bad.labels.insert("not-a-name".into(), "x".into());
    let ends = Clock.now().checked_add(HOLD).ok();
    let answer = sink.instances.post(vec![bad.post(ends), good.post(ends)]).await;
    assert!(matches!(&answer, Err(Failure::Refused(why)) if why.contains("400")), "{answer:?}");
    assert!(one.fires("good").await.is_some());

    // An instance that was killed has forgotten its alerts; it has them again when they are sent again.
    drop(one);
    // One more death while it is away: the other takes it, and the hold begins anew.
    assert_eq!(sink.deliver(&messages[..1]).await, Outcome::all(&messages[..1]));
    let one = Process::start(binary, dir.path(), port, cluster, Some(other_cluster));
    until(&mut sink, "it fires again", async || one.fires(pod).await.is_some()).await;
    assert!(told(&receiver, "resolved").iter().all(|alert| alert["labels"]["pod"] != pod));

    // Nothing dies any more: both let go, and the receiver is told, at once and not when the last end is over.
    let end = Instant::now() + LONG;
    while let Some(due) = sink.due() {
        assert!(Instant::now() < end);
        tokio::time::sleep_until(due).await;
        sink.upkeep().await.unwrap();
    }
    let let_go = Instant::now();
    until(&mut sink, "both let go", async || {
        one.fires(pod).await.is_none() && two.fires(pod).await.is_none()
    })
    .await;
    let resolved = |alert: &Value| alert["labels"]["pod"] == pod;
    until(&mut sink, "someone is told", async || told(&receiver, "resolved").iter().any(resolved))
        .await;
    assert!(let_go.elapsed() < HOLD, "it ended by itself");
}
