//! Real files, real TLS, real connections.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::super::serve::Limits;
use super::super::{State, Status, TelemetryPath, bind, router};
use super::*;
use crate::ledger::{Ledger, LedgerConfig};
use crate::metrics::MetricsConfig;
use crate::notify::Links;
use crate::notify::http::testing::Authority;

mod limits;
mod refusals;
mod reload;

const HEALTHY: &str = "/-/healthy";
/// bcrypt of `secret`, cost 4.
const SECRET: &str = "$2b$04$VLcR7n3gZujwS9bATypZ1eLbqmK25L1PYIVEiS9uUe6ygJ86HMsle";

/// A server with a file of its own.
struct Served {
    dir: TempDir,
    address: String,
    guard: Arc<Guard>,
    metrics: Arc<Metrics>,
    _stop: DropGuard,
}

impl Served {
    async fn with(yaml: &str, files: &[(&str, &str)]) -> Self {
        Self::limited(yaml, files, Limits::default()).await
    }

    async fn limited(yaml: &str, files: &[(&str, &str)], limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        std::fs::write(dir.path().join("web.yaml"), yaml).unwrap();
        let file: AbsolutePath = dir.path().join("web.yaml").to_str().unwrap().parse().unwrap();
        let metrics = Arc::new(Metrics::new(MetricsConfig::default()));
        let guard = Guard::open(Some(&file), "node-1", Arc::clone(&metrics)).unwrap();
        let guard = Arc::new(guard);
        let state = Arc::new(State {
            ledger: Arc::new(Ledger::new(LedgerConfig::default())),
            metrics: Arc::clone(&metrics),
            status: Arc::new(Status::new("node-1".into(), None)),
            links: Links::default(),
            deaths: true,
            watch: None,
        });
        let mut server = bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        server.limits = limits;
        let address = server.addresses()[0].to_string();
        let stop = CancellationToken::new();
        let router = router(state, &TelemetryPath::default(), Arc::clone(&guard));
        tokio::spawn(server.run(router, Arc::clone(&guard), stop.clone()));
        Self { dir, address, guard, metrics, _stop: stop.drop_guard() }
    }

    fn write(&self, name: &str, text: &str) {
        // As whoever changes a file in one go does it: another inode, whatever the clock says.
        let new = self.dir.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.dir.path().join(name)).unwrap();
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.unwrap()
    }

    /// Status and the rest of an answer over plain HTTP.
    async fn get(&self, path: &str, login: Option<&str>) -> (u16, String) {
        exchange(self.connect().await, path, login).await.unwrap()
    }

    /// The same over TLS; an error if there is no handshake.
    async fn get_tls(&self, client: &Arc<ClientConfig>) -> std::io::Result<(u16, String)> {
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::clone(client)).connect(name, self.connect().await);
        exchange(stream.await?, HEALTHY, None).await
    }

    /// Waits until it answers so.
    async fn answers(&self, login: Option<&str>, status: u16) {
        let until = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let found = self.get(HEALTHY, login).await.0;
            if found == status {
                return;
            }
            assert!(tokio::time::Instant::now() < until, "{found} and not {status}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn reloaded(&self) -> bool {
        let text = self.metrics.encode().unwrap();
        text.contains("killwatch_web_config_last_reload_successful 1\n")
    }
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    login: Option<&str>,
) -> std::io::Result<(u16, String)> {
    let login = login.map(|login| {
        let encoded = base64::engine::general_purpose::STANDARD.encode(login);
        format!("authorization: Basic {encoded}\r\n")
    });
    let login = login.unwrap_or_default();
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{login}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.get(9..12).and_then(|status| status.parse().ok());
    Ok((status.ok_or_else(|| std::io::Error::other(answer.clone()))?, answer))
}

fn client(
    authority: &Authority,
    own: Option<(rcgen::Certificate, rcgen::KeyPair)>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let pem = authority.pem.as_bytes();
    roots.add(rustls::pki_types::pem::PemObject::from_pem_slice(pem).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
        }
    })
}

fn pem(issued: &(rcgen::Certificate, rcgen::KeyPair)) -> (String, String) {
    (issued.0.pem(), issued.1.serialize_pem())
}

const TLS: &str = "tls_server_config: {cert_file: c.pem, key_file: k.pem}\n";

#[tokio::test]
async fn tls_is_spoken_and_whoever_speaks_none_is_told() {
    let authority = Authority::new();
    let (certificate, key) = pem(&authority.issue("localhost", 2100));
    let served = Served::with(TLS, &[("c.pem", &certificate), ("k.pem", &key)]).await;
    assert_eq!(served.get_tls(&client(&authority, None)).await.unwrap().0, 200);
    let stranger = Authority::new();
    assert!(served.get_tls(&client(&stranger, None)).await.is_err());
    let (status, answer) = served.get(HEALTHY, None).await;
    assert!(status == 400 && answer.contains("TLS is spoken here"), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
    let report = served.guard.report();
    assert!(report.tls && report.users == 0 && report.failed.is_none());
}

#[tokio::test]
async fn clients_show_a_certificate_of_the_right_authority() {
    let (authority, of_clients, stranger) = (Authority::new(), Authority::new(), Authority::new());
    let (certificate, key) = pem(&authority.issue("localhost", 2100));
    let files = [("c.pem", &*certificate), ("k.pem", &*key), ("ca.pem", &*of_clients.pem)];
    let yaml = |auth: &str| {
        TLS.replace('}', &format!(", client_ca_file: ca.pem, client_auth_type: {auth}}}"))
    };
    let right = || client(&authority, Some(of_clients.issue("scraper", 2100)));
    let wrong = client(&authority, Some(stranger.issue("scraper", 2100)));
    let late = client(&authority, Some(of_clients.issue("scraper", 2001)));
    let none = client(&authority, None);

    let served = Served::with(&yaml("RequireAndVerifyClientCert"), &files).await;
    assert_eq!(served.get_tls(&right()).await.unwrap().0, 200);
    for client in [&wrong, &late, &none] {
        assert!(served.get_tls(client).await.is_err());
    }
    let served = Served::with(&yaml("VerifyClientCertIfGiven"), &files).await;
    assert_eq!(served.get_tls(&right()).await.unwrap().0, 200);
    assert_eq!(served.get_tls(&none).await.unwrap().0, 200);
    assert!(served.get_tls(&wrong).await.is_err());
}

#[tokio::test]
async fn versions_and_suites_are_held_to() {
    let authority = Authority::new();
    let (certificate, key) = pem(&authority.issue("localhost", 2100));
    let of = async |more: &str| {
        let yaml = TLS.replace('}', &format!(", {more}}}"));
        Served::with(&yaml, &[("c.pem", &certificate), ("k.pem", &key)]).await
    };
    let roots = || {
        let mut roots = RootCertStore::empty();
        roots
            .add(
                rustls::pki_types::pem::PemObject::from_pem_slice(authority.pem.as_bytes())
                    .unwrap(),
            )
            .unwrap();
        roots
    };
    let only = |version| {
        Arc::new(
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots())
                .with_no_client_auth(),
        )
    };
    let (old, new) = (only(&rustls::version::TLS12), only(&rustls::version::TLS13));
    let served = of("min_version: TLS13").await;
    assert!(served.get_tls(&old).await.is_err() && served.get_tls(&new).await.is_ok());
    let served = of("max_version: TLS12, curve_preferences: [X25519, CurveP256], prefer_server_cipher_suites: true").await;
    assert!(served.get_tls(&old).await.is_ok() && served.get_tls(&new).await.is_err());
    // The certificate's key is of another kind than this suite wants.
    let served = of("cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]").await;
    assert!(served.get_tls(&old).await.is_err() && served.get_tls(&new).await.is_ok());
    let served = of("cipher_suites: [TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305]").await;
    assert!(served.get_tls(&old).await.is_ok());
}

#[tokio::test]
async fn a_name_and_a_password_let_one_in_everywhere_and_nothing_else_does() {
    let yaml = format!("basic_auth_users: {{ops: '{SECRET}', other: '{SECRET}'}}\n");
    let served = Served::with(&yaml, &[]).await;
    for path in [
        "/",
        HEALTHY,
        "/metrics",
        "/api/v1/deaths",
        "/api/v1/status",
        "/assets/page.css",
        "/nowhere",
    ] {
        let (status, answer) = served.get(path, None).await;
        assert_eq!(status, 401, "{path}");
        assert!(
            answer.to_ascii_lowercase().contains("www-authenticate: basic realm=\"killwatch\"")
        );
        let (status, _) = served.get(path, Some("ops:secret")).await;
        assert_eq!(status, if path == "/nowhere" { 404 } else { 200 }, "{path}");
    }
    for login in [
        "ops:wrong",
        "ops:",
        "ops:secret ",
        "nobody:secret",
        ":secret",
        "secret",
        "ops:secret\0",
        &format!("ops:{}", "a".repeat(2000)),
    ] {
        assert_eq!(served.get(HEALTHY, Some(login)).await.0, 401, "{login}");
    }
    assert_eq!(served.get(HEALTHY, Some("other:secret")).await.0, 200);
}

#[tokio::test]
async fn what_was_verified_is_remembered_and_guesses_push_it_out_never() {
    let users = [("ops".to_owned(), SECRET.parse().unwrap())].into();
    let login = Login::new(&users).unwrap().unwrap();
    let header = |login: &str| {
        let encoded = base64::engine::general_purpose::STANDARD.encode(login);
        axum::http::HeaderValue::from_str(&format!("Basic {encoded}")).unwrap()
    };
    let soon = Duration::from_secs(5);
    let lets = async |text: &str| {
        let asked = tokio::time::timeout(soon, async { login.lets(Some(&header(text))).await });
        asked.await.expect("it waits for a turn")
    };
    assert!(lets("ops:secret").await);
    for guess in 0..300 {
        assert!(!lets(&format!("ops:{guess}")).await);
    }
    // While nothing can be verified, what is remembered still counts.
    let turn = login.turn().await;
    assert!(lets("ops:secret").await);
    assert!(!lets("ops:299").await);
    let forgotten = header("ops:0");
    let asked = tokio::time::timeout(Duration::from_millis(100), login.lets(Some(&forgotten)));
    assert!(asked.await.is_err(), "it is verified anew");
    drop(turn);
    assert!(!lets("ops:0").await);
}

#[tokio::test]
async fn headers_are_added_and_replace_none_of_ours() {
    let yaml = "http_server_config: {headers: {X-Frame-Options: deny, Strict-Transport-Security: max-age=9, Content-Security-Policy: 'default-src *'}}";
    let served = Served::with(yaml, &[]).await;
    let page = served.get("/", None).await.1.to_ascii_lowercase();
    assert!(
        page.contains("x-frame-options: deny\r\n")
            && page.contains("strict-transport-security: max-age=9\r\n")
    );
    assert!(
        page.contains("content-security-policy: default-src 'none'")
            && !page.contains("default-src *")
    );
    assert!(served.get("/nowhere", None).await.1.contains("default-src *"));
}

#[tokio::test]
async fn a_name_from_elsewhere_does_not_read_deaths_on_loopback() {
    let served = Served::with("{}", &[]).await;
    let ask = async |path: &str, host: &str| {
        let mut stream = served.connect().await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer[9..12].parse::<u16>().unwrap()
    };
    for path in ["/", "/api/v1/deaths", "/host"] {
        assert_eq!(
            (ask(path, "evil.example").await, ask(path, "node-1:9435").await),
            (421, 200),
            "{path}"
        );
    }
    assert_eq!(
        (ask("/metrics", "evil.example").await, ask(HEALTHY, "evil.example").await),
        (200, 200)
    );
}
