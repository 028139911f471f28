//! Files that change under a daemon that runs.

use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::{Authority, SECRET, Served, TLS, client, pem};

#[tokio::test]
async fn a_change_is_taken_up_and_a_bad_one_changes_nothing() {
    let served = Served::with(&format!("basic_auth_users: {{ops: '{SECRET}'}}\n"), &[]).await;
    served.answers(Some("ops:secret"), 200).await;
    served.write("web.yaml", &format!("basic_auth_users: {{sre: '{SECRET}'}}\n"));
    served.answers(Some("sre:secret"), 200).await;
    served.answers(Some("ops:secret"), 401).await;
    assert!(served.reloaded());
    served.write("web.yaml", "basic_auth_users: {sre: secret}\n");
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while served.reloaded() {
        assert!(tokio::time::Instant::now() < until);
        served.answers(Some("sre:secret"), 200).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let why = served.guard.report().failed.unwrap();
    assert!(why.contains("web.yaml: basic_auth_users.sre: is no bcrypt hash"), "{why}");
    assert!(!why.contains("secret"), "what may be a password is not shown: {why}");
    served.write("web.yaml", "{}");
    served.answers(None, 200).await;
    assert!(served.reloaded() && served.guard.report().failed.is_none());
}

#[tokio::test]
async fn a_new_certificate_is_taken_up_once_it_fits_its_key() {
    let authority = Authority::new();
    let (first, second) = (authority.issue("localhost", 2100), authority.issue("localhost", 2100));
    let ((certificate, key), (next, next_key)) = (pem(&first), pem(&second));
    let served = Served::with(TLS, &[("c.pem", &certificate), ("k.pem", &key)]).await;
    let shown = async || {
        let name = ServerName::try_from("localhost").unwrap();
        let client = TlsConnector::from(client(&authority, None));
        let stream = client.connect(name, served.connect().await).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    assert_eq!(shown().await, first.0.der().to_vec());
    served.write("c.pem", &next);
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while served.guard.report().failed.is_none() {
        assert!(tokio::time::Instant::now() < until);
        assert_eq!(shown().await, first.0.der().to_vec(), "the two that fit stay in force");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    served.write("k.pem", &next_key);
    while shown().await != second.0.der().to_vec() {
        assert!(tokio::time::Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(served.guard.report().failed.is_none());
}
