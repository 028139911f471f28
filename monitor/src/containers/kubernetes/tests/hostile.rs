//! An API that lies, hangs, or is another's: no memory, no wait and no token for it.

use serde_json::json;

use super::server::{kubeconfig, raw};
use super::*;

/// What `why` says after the API answered the pod with `reply`.
async fn refused(reply: Reply) -> String {
    let server = Server::start().await;
    web(&server);
    server.reply(POD, reply);
    let bed = Bed::up(&server, QUICK).await;
    bed.pods.ask("ns", "web-1", "pod-1", 0);
    bed.until(SourceState::Down).await;
    let report = bed.pods.report();
    assert!(report.failed >= 1);
    // Nobody waits for it.
    assert!(bed.answer("pod-1").await.is_none());
    report.why.unwrap()
}

#[tokio::test]
async fn answers_that_are_no_answers() {
    let large = json!({"metadata": {"uid": "pod-1", "labels": {"app": "x".repeat(1 << 20)}}});
    let cases = [
        (Reply::Json(large), "more than 1048576 bytes"),
        (Reply::Endless, "more than 1048576 bytes"),
        (Reply::Text("<html>504 Gateway Time-out</html>".to_owned()), "expected value"),
        (Reply::Text(String::new()), "EOF"),
        (Reply::Text("[".repeat(100_000)), "invalid type: sequence"),
        (Reply::Text(format!("{{\"a\":{}", "[".repeat(100_000))), "EOF"),
        (Reply::Json(json!({})), "an object without a uid"),
        (Reply::Json(json!({"metadata": {"uid": 7}})), "invalid type"),
        (
            Reply::Json(json!({"metadata": {"uid": "u", "ownerReferences": [{"kind": 1}]}})),
            "invalid type",
        ),
        (Reply::Json(json!({"metadata": {"uid": "u", "labels": {"app": {}}}})), "invalid type"),
        (Reply::Status(500), "500"),
        (Reply::Status(429), "429"),
        (Reply::Elsewhere("https://127.0.0.1:1/".to_owned()), "307"),
        (Reply::Wedged, "no answer within 500ms"),
    ];
    for (reply, why) in cases {
        let what = format!("{reply:.60?}");
        let said = refused(reply).await;
        assert!(said.contains(why), "{what}: {said}");
        assert!(said.len() <= 256, "{what}: {said}");
    }
}

#[tokio::test]
async fn a_pod_at_which_the_api_failed_is_asked_for_again() {
    let server = Server::start().await;
    web(&server);
    server.reply(DEPLOYMENT, Reply::Status(500));
    let bed = Bed::up(&server, QUICK).await;
    bed.pods.ask("ns", "web-1", "pod-1", 0);
    bed.until(SourceState::Down).await;
    // Half a chain would be kept for a whole one.
    assert!(bed.known("pod-1").is_none());
    web(&server);
    wait(|| bed.known("pod-1").is_some(), || format!("{:?}", bed.pods.report())).await;
    assert_eq!(bed.known("pod-1").unwrap().owners.len(), 2);
}

#[tokio::test]
async fn a_poisonous_pod_does_not_keep_the_others_away() {
    let server = Server::start().await;
    web(&server);
    server.reply("/api/v1/namespaces/ns/pods/bad", Reply::Endless);
    let bed = Bed::up(&server, QUICK).await;
    bed.pods.ask("ns", "bad", "bad", 0);
    bed.pods.ask("ns", "web-1", "pod-1", 0);
    wait(|| bed.known("pod-1").is_some(), || format!("{:?}", bed.pods.report())).await;
    let tries = || server.times_asked("/api/v1/namespaces/ns/pods/bad");
    wait(|| tries() == 3, || format!("{} tries", tries())).await;
    // It is let go of after that, and all is well.
    wait(|| bed.pods.report().failed == 3, || format!("{:?}", bed.pods.report())).await;
    bed.until(SourceState::Up).await;
    assert_eq!(bed.owners("web-1", "pod-1").await.len(), 2);
    assert_eq!((tries(), bed.pods.report().failed), (3, 3));
}

#[tokio::test]
async fn one_that_hangs_is_slow_then_down_then_up_again() {
    let server = Server::start().await;
    web(&server);
    server.reply(POD, Reply::Wedged);
    let bed = Bed::up(&server, QUICK).await;
    bed.pods.ask("ns", "web-1", "pod-1", 0);
    assert!(matches!(bed.pods.lookup("pod-1"), Lookup::Pending));
    // A death could not wait any longer.
    bed.pods.too_late("pod-1");
    assert_eq!(bed.pods.report().state, SourceState::Slow);
    assert!(matches!(bed.pods.lookup("pod-1"), Lookup::Unknown));
    // The next death does not wait at all.
    bed.pods.ask("ns", "web-2", "pod-2", 0);
    assert!(matches!(bed.pods.lookup("pod-2"), Lookup::Unknown));
    bed.until(SourceState::Down).await;
    web(&server);
    wait(|| bed.known("pod-1").is_some(), || format!("{:?}", bed.pods.report())).await;
    bed.until(SourceState::Up).await;
}

#[tokio::test]
async fn a_late_answer_serves_the_next_death() {
    let server = Server::start().await;
    web(&server);
    let bed = Bed::up(&server, QUICK).await;
    bed.pods.ask("ns", "web-1", "pod-1", 0);
    bed.pods.too_late("pod-1");
    wait(|| bed.known("pod-1").is_some(), || format!("{:?}", bed.pods.report())).await;
    assert_eq!(bed.pods.report().state, SourceState::Up);
}

#[tokio::test]
async fn nobody_there() {
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let bed = Bed::with(|dir| plain(dir, &url), QUICK);
    bed.until(SourceState::Down).await;
    let why = bed.pods.report().why.unwrap();
    assert!(why.contains("refused"), "{why}");
}

/// A kubeconfig for a server without TLS.
fn plain(dir: &Path, url: &str) -> PathBuf {
    let key = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
    std::fs::write(dir.join("ca.pem"), key.cert.pem()).unwrap();
    std::fs::write(dir.join("token"), "t").unwrap();
    kubeconfig(dir, url, json!({"tokenFile": "token"}))
}

#[tokio::test]
async fn what_is_no_http() {
    for (text, forever, why) in [
        ("SSH-2.0-OpenSSH_9.9\r\n", false, "invalid HTTP version"),
        ("", false, "connection closed"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\n",
            false,
            "content-length",
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{\"gitVersion\":", false, "end of file"),
        (
            "x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n",
            true,
            "invalid HTTP version",
        ),
        ("HTTP/1.1 200 OK\r\nx:", true, "too large"),
    ] {
        let (url, task) = raw(text, forever).await;
        let bed = Bed::with(|dir| plain(dir, &url), QUICK);
        bed.until(SourceState::Down).await;
        let said = bed.pods.report().why.unwrap();
        assert!(said.contains(why), "{text:?}: {said}");
        task.abort();
    }
}

#[tokio::test]
async fn another_server_does_not_get_the_token() {
    let server = Server::start().await;
    // A CA that did not sign it.
    let bed = Bed::with(
        |dir| {
            let path = server.kubeconfig(dir);
            let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
            std::fs::write(dir.join("ca.pem"), other.cert.pem()).unwrap();
            path
        },
        QUICK,
    );
    bed.until(SourceState::Down).await;
    let why = bed.pods.report().why.unwrap();
    assert!(why.contains("certificate"), "{why}");
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn names_that_are_no_names_are_not_asked_for() {
    let server = Server::start().await;
    let bed = Bed::up(&server, QUICK).await;
    let before = bed.pods.size();
    let long = "x".repeat(254);
    for bad in ["", ".", "..", "a/b", "a?b", "a#b", "a%2e", "a b", "a\r\nHost: x", "ä", &long] {
        bed.pods.ask(bad, "web-1", "pod-1", 0);
        bed.pods.ask("ns", bad, "pod-1", 0);
        bed.pods.ask("ns", "web-1", bad, 0);
    }
    assert_eq!(bed.pods.size(), before);
    assert!(bed.pod("web-1", "pod-1").await.is_none());
    assert_eq!(server.asked(), [POD]);
}
