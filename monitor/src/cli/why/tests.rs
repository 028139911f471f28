//! The client against the daemon's own server, and against strangers.

use std::sync::Arc;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::api::{Guard, State, Status, TelemetryPath, bind, router};
use crate::cli::client::Api;
use crate::death::{Death, sample};
use crate::ledger::{Ledger, LedgerConfig};
use crate::metrics::{Metrics, MetricsConfig};

#[tokio::test]
async fn a_death_comes_over_the_wire_whole() {
    let ledger = Arc::new(Ledger::new(LedgerConfig::default()));
    ledger.append(sample::hostile()).unwrap();
    ledger.append(sample::oom_memcg()).unwrap();
    let (api, stop) = serve(ledger);
    let body = api.get("/api/v1/deaths?pid=4242").await.unwrap().unwrap();
    let page: Page = serde_json::from_slice(&body).unwrap();
    assert_eq!(page.deaths, [sample::oom_memcg(), sample::hostile()]);
    let body = api.get(&format!("/api/v1/deaths/{}", sample::hostile().id)).await.unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Death>(&body).unwrap(), sample::hostile());
    assert_eq!(api.get(&format!("/api/v1/deaths/{}", Uuid::nil())).await.unwrap(), None);
    assert!(api.get("/api/v1/deaths?pid=0").await.unwrap_err().to_string().contains("400"));
    stop.cancel();
}

/// The answer of `/api/v1/deaths`.
#[derive(Debug, Deserialize)]
struct Page {
    deaths: Vec<Death>,
}

/// The daemon's own server, until it is stopped.
fn serve(ledger: Arc<Ledger>) -> (Api, CancellationToken) {
    let state = State {
        ledger,
        metrics: Arc::new(Metrics::new(MetricsConfig::default())),
        status: Arc::new(Status::new("node-1".into(), None)),
        links: Default::default(),
        deaths: true,
        watch: None,
    };
    let server = bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let api: Api = format!("http://{}/", server.addresses()[0]).parse().unwrap();
    let stop = CancellationToken::new();
    let door = Arc::new(Guard::of_nobody());
    let router = router(Arc::new(state), &TelemetryPath::default(), Arc::clone(&door));
    tokio::spawn(server.run(router, door, stop.clone()));
    (api, stop)
}

#[tokio::test]
async fn a_stranger_that_sends_without_end_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api: Api = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let stranger = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // An answer before the question would be refused for that.
        stream.read_exact(&mut [0]).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        while stream.write_all(&[b' '; 65536]).await.is_ok() {}
    });
    let error = api.get("/").await.unwrap_err().to_string();
    assert!(error.contains("length limit exceeded"), "{error}");
    stranger.await.unwrap();
}

#[tokio::test]
async fn each_form_finds_its_death() {
    let ledger = Arc::new(Ledger::new(LedgerConfig::default()));
    let mut other = sample::killed();
    (other.victim.pid, other.id) = (99, Uuid::from_u128(99));
    other.job = None;
    ledger.append(other).unwrap();
    let mut earlier = sample::in_a_pod();
    earlier.id = Uuid::from_u128(7);
    ledger.append(earlier.clone()).unwrap();
    ledger.append(sample::in_a_pod()).unwrap();
    let (api, stop) = serve(ledger);
    for what in [
        "4242",
        "4d6c1b2a3f4e",
        "containerd://4d6c1b2a3f4e5d6c7b8a9f0e1d2c3b4a5f6e7d8c9b0a1f2e3d4c5b6a7f8e9d0c",
        "worker",
        "shop/render-x7k2p",
        "render-42",
        "job:render-42",
        "pod:3f9f0a52-6b8e-4c8e-9d53-0d9d5b1c2f10",
        "3f9f0a52-6b8e-4c8e-9d53-0d9d5b1c2f10",
    ] {
        let found = find(&api, &what.parse().unwrap()).await.unwrap().expect(what);
        assert_eq!((&found.death, &found.older[..]), (&sample::in_a_pod(), &[earlier.clone()][..]));
        let text = told(&found, Output::Text, Look::PLAIN);
        assert!(text.contains(&format!("\nEarlier deaths {}:\n  {}  ", found.about, earlier.id)));
        let page = told(&found, Output::Markdown, Look::PLAIN);
        assert!(page.contains(&format!("\n### Earlier deaths {}\n", found.about)), "{page}");
        let json = told(&found, Output::Json, Look::PLAIN);
        assert_eq!(serde_json::from_str::<Death>(&json).unwrap(), found.death);
        assert_eq!(json.lines().count(), 1);
    }
    let one = find(&api, &Subject::Id(earlier.id)).await.unwrap().unwrap();
    assert_eq!((one.death, one.older.len()), (earlier, 0));
    for what in ["1", "nobody", "shop/other", "4d6c1b2a3f40", &Uuid::nil().to_string()] {
        assert!(find(&api, &what.parse().unwrap()).await.unwrap().is_none(), "{what}");
    }
    stop.cancel();
}

#[test]
fn where_can_be_asked() {
    assert_eq!("http://[::1]:9435".parse::<Api>().unwrap().to_string(), "http://[::1]:9435");
    for bad in [
        "127.0.0.1:9435",
        "https://x",
        "http://",
        "http://u:p@x",
        "http://x/y",
        "http://x?y",
        "http://x:port",
        "",
    ] {
        assert!(bad.parse::<Api>().is_err(), "{bad}");
    }
}
