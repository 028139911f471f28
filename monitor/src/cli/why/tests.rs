//! The client against the daemon's own server, and against strangers.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::api::{Guard, State, Status, TelemetryPath, bind, router};
use crate::death::sample;
use crate::ledger::{Ledger, LedgerConfig};
use crate::metrics::{Metrics, MetricsConfig};

#[tokio::test]
async fn a_death_comes_over_the_wire_whole() {
    let ledger = Arc::new(Ledger::new(LedgerConfig::default()));
    ledger.append(sample::hostile()).unwrap();
    ledger.append(sample::oom_memcg()).unwrap();
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
    let server = {
        let door = Arc::new(Guard::of_nobody());
        let router = router(Arc::new(state), &TelemetryPath::default(), Arc::clone(&door));
        tokio::spawn(server.run(router, door, stop.clone()))
    };

    let body = api.get("/api/v1/deaths?pid=4242").await.unwrap().unwrap();
    let page: Page = serde_json::from_slice(&body).unwrap();
    assert_eq!(page.deaths, [sample::oom_memcg(), sample::hostile()]);
    let body = api.get(&format!("/api/v1/deaths/{}", sample::hostile().id)).await.unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Death>(&body).unwrap(), sample::hostile());
    assert_eq!(api.get(&format!("/api/v1/deaths/{}", Uuid::nil())).await.unwrap(), None);
    assert!(api.get("/api/v1/deaths?pid=0").await.unwrap_err().to_string().contains("400"));
    stop.cancel();
    server.await.unwrap();
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

#[test]
fn what_can_be_asked_for_and_where() {
    assert_eq!("4242".parse(), Ok(What::Pid(4242)));
    assert_eq!(Uuid::nil().to_string().parse(), Ok(What::Id(Uuid::nil())));
    for bad in ["0", "-1", "+1", "4294967296", "worker", "", "1&limit=5"] {
        assert!(bad.parse::<What>().is_err(), "{bad}");
    }
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
