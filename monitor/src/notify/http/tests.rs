//! The client against receivers that are out of order, hostile, or badly set up: each with what must come of it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::reply::{MAX_BODY, Reply};
use super::testing::{Answer, Authority, Server};
use super::{Client, HttpConfig, HttpUrl, Request};
use crate::notify::deliver::Failure;

fn request() -> Request {
    Request { content_type: "text/plain", headers: Vec::new(), body: Bytes::from_static(b"hello") }
}

fn config(json: serde_json::Value) -> HttpConfig {
    serde_json::from_value(json).unwrap()
}

fn quick() -> HttpConfig {
    config(serde_json::json!({"timeout": "400ms"}))
}

async fn outcome(client: &Client) -> Result<Reply, Failure> {
    client.post(request()).await.and_then(Reply::accepted)
}

fn later(outcome: Result<Reply, Failure>) -> String {
    match outcome {
        Err(Failure::Later { why, .. }) => {
            assert!(!why.contains(char::is_control) && why.len() < 700, "{why:?}");
            why
        }
        other => panic!("not later: {other:?}"),
    }
}

fn write(dir: &Path, name: &str, text: impl AsRef<[u8]>) -> String {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_honest_receiver_and_one_connection_for_two_requests() {
    let server = Server::start(|_, _| Answer::status(202, "", "thanks")).await;
    let client =
        Client::new(&server.url_at("127.0.0.1", "/in?key=k"), &HttpConfig::default()).unwrap();
    for _ in 0..2 {
        let reply = outcome(&client).await.unwrap();
        assert_eq!((reply.status.as_u16(), &*reply.body, reply.cut), (202, &b"thanks"[..], false));
    }
    let seen = server.seen();
    assert!(seen[0].head.starts_with("POST /in?key=k HTTP/1.1\r\n"), "{}", seen[0].head);
    assert_eq!(seen[0].header("content-type"), Some("text/plain"));
    assert!(seen[0].header("user-agent").unwrap().starts_with("killwatch/"));
    assert_eq!(seen[0].header("authorization"), None);
    assert_eq!(seen[1].body, b"hello");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn nobody_listens() {
    let server = Server::start(|_, _| Answer::status(200, "", "")).await;
    let url = server.url();
    server.stop().await;
    let why = later(outcome(&Client::new(&url, &quick()).unwrap()).await);
    assert!(why.contains("cannot be reached") && why.contains(&url.to_string()), "{why}");
}

#[tokio::test]
async fn whoever_is_too_slow_is_asked_again_later() {
    for start in
        ["", "HTTP/1.1 200 OK\r\nContent-Len", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"]
    {
        let server = Server::start(move |_, _| Answer::SayAndHang(start.into())).await;
        let why = later(outcome(&server.client(&quick())).await);
        assert!(why.contains("longer than http.timeout (400ms)"), "{start:?}: {why}");
        server.hung_up().await;
    }
}

#[tokio::test]
async fn a_receiver_that_breaks_off_has_accepted_nothing() {
    for start in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let server = Server::start(move |_, _| Answer::SayAndClose(start.into())).await;
        let why = later(outcome(&server.client(&quick())).await);
        assert!(why.contains("broke off"), "{start:?}: {why}");
    }
}

#[tokio::test]
async fn what_is_no_http_is_no_answer() {
    let headers = "X-Junk: 1\r\n".repeat(100_000);
    for garbage in [
        "hello, this is HTTP/0.9\n".to_owned(),
        "<html><body>ok</body></html>".to_owned(),
        "SSH-2.0-OpenSSH_9.2p1\r\n".to_owned(),
        "HTTP/2.0 200 OK\r\n\r\n".to_owned(),
        "HTTP/1.1 2000 OK\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\n bad header\0: x\r\n\r\n".to_owned(),
        "\x16\x03\x01\x02\0".to_owned(),
        format!("HTTP/1.1 200 OK\r\n{headers}\r\n"),
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(4 << 20)),
    ] {
        let start: String = garbage.chars().take(60).collect();
        let server = Server::start(move |_, _| Answer::SayAndClose(garbage.clone().into())).await;
        let why = later(outcome(&server.client(&HttpConfig::default())).await);
        assert!(why.contains("does not speak HTTP/1.1"), "{start:?}: {why}");
    }
}

#[tokio::test]
async fn of_a_gigabyte_only_the_start_is_read() {
    let heads =
        ["HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"];
    for head in heads {
        let flood = move |_: usize, _: &_| Answer::Flood(head.into(), vec![b'x'; 1 << 16]);
        let server = Server::start(flood).await;
        let reply = outcome(&server.client(&HttpConfig::default())).await.unwrap();
        assert_eq!((reply.body.len(), reply.cut), (MAX_BODY, true));
        // What the sockets between the two hold is all that it could get rid of.
        assert!(server.flooded().await < 64 << 20);
    }
    // Nor is a head without an end.
    let endless =
        |_: usize, _: &_| Answer::Flood("HTTP/1.1 200 OK\r\n".into(), b"X: y\r\n".repeat(10_000));
    let server = Server::start(endless).await;
    later(outcome(&server.client(&HttpConfig::default())).await);
    assert!(server.flooded().await < 64 << 20);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let trap = Server::start(|_, _| Answer::status(200, "", "")).await;
    for status in [301, 302, 303, 307, 308] {
        let location = format!("Location: http://127.0.0.1:{}/\r\n", trap.port());
        let server = Server::start(move |_, _| Answer::status(status, &location, "moved")).await;
        let why = later(outcome(&server.client(&quick())).await);
        assert!(why.contains(&format!("answered {status}, a redirect is never followed")), "{why}");
    }
    assert!(trap.seen().is_empty());
}

#[tokio::test]
async fn retry_after_is_told() {
    for (header, wait) in [("7", Some(7)), ("999999", Some(3600)), ("soon", None), ("\u{7f}", None)]
    {
        let header = format!("Retry-After: {header}\r\n");
        let server = Server::start(move |_, _| Answer::status(429, &header, "")).await;
        let Err(Failure::Later { after, .. }) =
            outcome(&server.client(&HttpConfig::default())).await
        else {
            panic!("not later")
        };
        assert_eq!(after, wait.map(Duration::from_secs));
    }
}

#[tokio::test]
async fn secrets_are_sent_and_taken_up_as_they_change() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(|_, seen| {
        Answer::status(401, "", &format!("no: {}", seen.header("authorization").unwrap()))
    })
    .await;
    let token = write(dir.path(), "token", "hunter1\n");
    let key = write(dir.path(), "key", "k1\n");
    let client = server.client(&config(serde_json::json!({
        "authorization": {"credentials_file": token},
        "headers": {"X-Api-Key": {"file": key}, "X-Tenant": "shop"},
    })));
    let why = later(outcome(&client).await);
    assert!(!why.contains("hunter1") && why.contains("no: Bearer …"), "{why}");
    fs::write(&token, "hunter2").unwrap();
    fs::remove_file(&key).unwrap();
    later(outcome(&client).await);
    fs::write(&token, "two\nlines").unwrap();
    let why = later(outcome(&client).await);
    assert!(why.contains("http.authorization") && !why.contains("lines\""), "{why}");
    let seen = server.seen();
    let sent = |name| seen.iter().map(|seen| seen.header(name).unwrap()).collect::<Vec<_>>();
    assert_eq!(sent("authorization"), ["Bearer hunter1", "Bearer hunter2"]);
    assert_eq!(sent("x-api-key"), ["k1", "k1"]);
    assert_eq!(sent("x-tenant"), ["shop", "shop"]);
    assert!(!format!("{client:?}").contains("hunter") && !format!("{client:?}").contains("shop"));
}

#[tokio::test]
async fn user_and_password_are_encoded() {
    let dir = tempfile::tempdir().unwrap();
    let server =
        Server::start(|_, seen| Answer::status(403, "", seen.header("authorization").unwrap()))
            .await;
    let password = write(dir.path(), "password", "opén:sesame\n");
    let client = server.client(&config(serde_json::json!({
        "basic_auth": {"username": "me", "password_file": password},
    })));
    let why = later(outcome(&client).await);
    // base64 of "me:opén:sesame"
    let encoded = "bWU6b3DDqW46c2VzYW1l";
    assert_eq!(server.seen()[0].header("authorization"), Some(format!("Basic {encoded}").as_str()));
    assert!(!why.contains(encoded), "{why}");
}

#[tokio::test]
async fn a_secret_that_was_never_there_is_waited_for() {
    let server = Server::start(|_, _| Answer::status(200, "", "")).await;
    let client = server.client(&config(serde_json::json!({
        "authorization": {"credentials_file": "/nonexistent/token"},
    })));
    assert!(later(outcome(&client).await).contains("/nonexistent/token"));
    assert!(server.seen().is_empty(), "nothing is sent without it");
}

#[test]
fn what_does_not_go_together_is_refused_at_the_start() {
    let refused = |url: &str, json: serde_json::Value| {
        let url: HttpUrl = url.parse().unwrap();
        Client::new(&url, &config(json)).map(|_| ()).unwrap_err()
    };
    let token = serde_json::json!({"credentials_file": "/t"});
    for secret in [
        serde_json::json!({"authorization": token}),
        serde_json::json!({"basic_auth": {"username": "u", "password_file": "/p"}}),
        serde_json::json!({"headers": {"X-Key": {"file": "/k"}}}),
    ] {
        let why = refused("http://10.0.0.1/secret", secret.clone());
        assert!(why.contains("use https://") && !why.contains("/secret"), "{why}");
        for fine in ["http://localhost/", "http://[::1]/", "https://10.0.0.1/"] {
            Client::new(&fine.parse().unwrap(), &config(secret.clone())).unwrap();
        }
    }
    let both = serde_json::json!({"authorization": token, "basic_auth": {"username": "u", "password_file": "/p"}});
    assert!(refused("https://a/", both).contains("exclude each other"));
    assert!(
        refused("https://a/", serde_json::json!({"tls": {"cert_file": "/c"}}))
            .contains("go together")
    );
    assert!(
        refused("http://a/", serde_json::json!({"tls": {"ca_file": "/c"}}))
            .contains("use https://")
    );
    let named = serde_json::json!({"tls": {"server_name": "b"}, "proxy_url": "https://p/"});
    assert!(refused("https://a/", named).contains("server_name"));
    let many: serde_json::Map<_, _> = (0..17).map(|n| (format!("X-{n}"), "v".into())).collect();
    assert!(refused("https://a/", serde_json::json!({"headers": many})).contains("at most 16"));
}

#[test]
fn what_is_no_setting() {
    for (json, says) in [
        (serde_json::json!({"headers": {"Authorization": "x"}}), "http.authorization"),
        (serde_json::json!({"headers": {"Transfer-Encoding": "x"}}), "does not make itself"),
        (serde_json::json!({"headers": {"a b": "x"}}), "name of a header"),
        (serde_json::json!({"headers": {"X-A": "x\r\nY: z"}}), "control characters"),
        (serde_json::json!({"headers": {"X-A": {"path": "/x"}}}), "file"),
        (serde_json::json!({"timeout": "0s"}), "100ms to 1m"),
        (serde_json::json!({"timeout": "61s"}), "100ms to 1m"),
        (serde_json::json!({"tls": {"insecure_skip_verify": true}}), "unknown field"),
        (
            serde_json::json!({"basic_auth": {"username": "a:b", "password_file": "/p"}}),
            "without `:`",
        ),
        (
            serde_json::json!({"authorization": {"type": "Basic", "credentials_file": "/p"}}),
            "basic_auth",
        ),
        (serde_json::json!({"authorization": {"credentials": "hunter2"}}), "unknown field"),
    ] {
        let error = serde_json::from_value::<HttpConfig>(json).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test]
async fn certificates_that_do_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, other) = (Authority::new(), Authority::new());
    let ca = write(dir.path(), "ca.pem", &ours.pem);
    let trusting = config(serde_json::json!({"tls": {"ca_file": ca}}));
    let ok = |_: usize, _: &_| Answer::status(200, "", "");
    for (tls, says) in [
        (other.server("127.0.0.1", 2100, None), "UnknownIssuer"),
        (ours.server("127.0.0.1", 2020, None), "expired"),
        (ours.server("127.0.0.2", 2100, None), "not valid for"),
        (ours.server("receiver.example", 2100, None), "not valid for"),
    ] {
        let server = Server::start_tls(tls, ok).await;
        let why = later(outcome(&server.client(&trusting)).await);
        assert!(why.contains(says) && why.contains("http.tls"), "{why}");
        assert!(server.seen().is_empty());
    }
    let server = Server::start_tls(ours.server("127.0.0.1", 2100, None), ok).await;
    outcome(&server.client(&trusting)).await.unwrap();
    // The host's own authorities do not know ours.
    later(outcome(&server.client(&HttpConfig::default())).await);
    // A receiver without TLS is noticed, and one with TLS that is spoken to without.
    let plain = Server::start(ok).await;
    let url: HttpUrl = format!("https://127.0.0.1:{}/", plain.port()).parse().unwrap();
    later(outcome(&Client::new(&url, &trusting).unwrap()).await);
    let url: HttpUrl = format!("http://127.0.0.1:{}/", server.port()).parse().unwrap();
    later(outcome(&Client::new(&url, &quick()).unwrap()).await);
}

#[tokio::test]
async fn a_certificate_for_another_name() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let ca = write(dir.path(), "ca.pem", &authority.pem);
    let tls = authority.server("receiver.example", 2100, None);
    let server = Server::start_tls(tls, |_, _| Answer::status(200, "", "")).await;
    for host in ["127.0.0.1", "localhost"] {
        let named =
            config(serde_json::json!({"tls": {"ca_file": ca, "server_name": "receiver.example"}}));
        outcome(&Client::new(&server.url_at(host, "/"), &named).unwrap()).await.unwrap();
        let authority = format!("{host}:{}", server.port());
        assert_eq!(server.seen().last().unwrap().header("host"), Some(authority.as_str()));
        let wrong = config(serde_json::json!({"tls": {"ca_file": ca, "server_name": "b.example"}}));
        let why = later(outcome(&Client::new(&server.url_at(host, "/"), &wrong).unwrap()).await);
        assert!(why.contains("not valid for") && why.contains(&authority), "{why}");
    }
}

#[tokio::test]
async fn a_receiver_that_wants_to_know_its_client() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, clients) = (Authority::new(), Authority::new());
    let ca = write(dir.path(), "ca.pem", &authority.pem);
    let tls = authority.server("127.0.0.1", 2100, Some(&clients));
    let server = Server::start_tls(tls, |_, _| Answer::status(200, "", "")).await;
    let why =
        later(outcome(&server.client(&config(serde_json::json!({"tls": {"ca_file": ca}})))).await);
    assert!(why.contains("http.tls"), "{why}");

    let (stranger, strangers_key) = authority.issue("client", 2100);
    let (certificate, key) = clients.issue("client", 2100);
    let cert_file = write(dir.path(), "cert.pem", stranger.pem());
    let key_file = write(dir.path(), "key.pem", strangers_key.serialize_pem());
    let client = server.client(&config(serde_json::json!({
        "tls": {"ca_file": ca, "cert_file": cert_file, "key_file": key_file},
    })));
    later(outcome(&client).await);
    // Half of a rotation: the old pair stays in force, and is still not known.
    fs::write(&cert_file, certificate.pem()).unwrap();
    let why = later(outcome(&client).await);
    assert!(!why.contains("fit together"), "{why}");
    fs::write(&key_file, key.serialize_pem()).unwrap();
    outcome(&client).await.unwrap();
    fs::write(&key_file, "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n")
        .unwrap();
    outcome(&client).await.unwrap();

    // A pair that was never one is said so, without what stands in it.
    let client = server.client(&config(serde_json::json!({
        "tls": {"ca_file": ca, "cert_file": cert_file, "key_file": key_file},
    })));
    let why = later(outcome(&client).await);
    assert!(why.contains("key.pem") && !why.contains("hunter2"), "{why}");
    fs::write(&key_file, strangers_key.serialize_pem()).unwrap();
    let why = later(outcome(&client).await);
    assert!(why.contains("do not fit together"), "{why}");
}

#[tokio::test]
async fn a_proxy_is_used_if_it_is_set_and_only_then() {
    let proxy = Server::start(|_, _| Answer::status(200, "", "")).await;
    let url: HttpUrl = "http://receiver.invalid/in".parse().unwrap();
    let through =
        config(serde_json::json!({"proxy_url": format!("http://127.0.0.1:{}", proxy.port())}));
    outcome(&Client::new(&url, &through).unwrap()).await.unwrap();
    assert!(proxy.seen()[0].head.starts_with("POST http://receiver.invalid/in HTTP/1.1"));
    let why = later(outcome(&Client::new(&url, &quick()).unwrap()).await);
    assert!(why.contains("http://receiver.invalid"), "{why}");
}
