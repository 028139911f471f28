//! Real files, real TLS, real connections.

use std::path::PathBuf;
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
    let lets = async |text: &str| login.lets(Some(&header(text))).await;
    assert!(lets("ops:secret").await);
    for guess in 0..300 {
        assert!(!lets(&format!("ops:{guess}")).await);
    }
    // While nothing can be verified, what is remembered still counts.
    let turn = login.turn().await;
    assert!(lets("ops:secret").await);
    assert!(!lets("ops:299").await);
    assert!(tokio::time::timeout(Duration::from_millis(100), lets("ops:0")).await.is_err());
    drop(turn);
    assert!(!lets("ops:0").await);
}

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

fn quick() -> Limits {
    Limits {
        head: Duration::from_millis(300),
        life: Duration::from_secs(2),
        of_peer: 4,
        connections: 8,
    }
}

/// Reads until the other end hangs up, which it must.
async fn hung_up(mut stream: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    // A reset is an end too.
    let _ = read.expect("it is hung up on");
    answer
}

#[tokio::test]
async fn whoever_dawdles_is_hung_up_on() {
    let authority = Authority::new();
    let (certificate, key) = pem(&authority.issue("localhost", 2100));
    let files = [("c.pem", &*certificate), ("k.pem", &*key)];
    for yaml in ["{}", TLS] {
        let served = Served::limited(yaml, &files, quick()).await;
        // Says nothing.
        assert_eq!(hung_up(served.connect().await).await, b"");
        if yaml == TLS {
            let mut stream = served.connect().await;
            stream.write_all(&[super::super::serve::HANDSHAKE, 3, 1]).await.unwrap();
            assert_eq!(hung_up(stream).await, b"");
            continue;
        }
        // A header, one byte at a time: the whole head has its time, not each byte.
        let (mut stream, began) = (served.connect().await, tokio::time::Instant::now());
        stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nx: ").await.unwrap();
        while stream.write_all(b"y").await.is_ok() {
            assert!(began.elapsed() < Duration::from_secs(10), "it may go on for ever");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn one_peer_does_not_take_all_places_and_gives_them_back() {
    let served = Served::limited("{}", &[], quick()).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut stream = served.connect().await;
        stream.write_all(b"GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        stream.read_exact(&mut [0; 12]).await.unwrap();
        open.push(stream);
    }
    assert_eq!(hung_up(served.connect().await).await, b"", "a fifth is closed at once");
    drop(open.pop());
    let until = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        if let Ok((200, _)) = exchange(served.connect().await, HEALTHY, None).await {
            break;
        }
        assert!(tokio::time::Instant::now() < until, "the place does not come back");
    }
}

#[tokio::test]
async fn heads_are_bounded_in_number_and_size_and_bodies_are_not_read() {
    let served = Served::with("{}", &[]).await;
    let ask = async |head: String| {
        let mut stream = served.connect().await;
        let _ = stream.write_all(head.as_bytes()).await;
        let answer = hung_up(stream).await;
        String::from_utf8(answer).unwrap().get(9..12).map(str::to_owned)
    };
    let begin = "GET /-/healthy HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
    assert_eq!(ask(format!("{begin}{}\r\n", "a: b\r\n".repeat(50))).await.as_deref(), Some("200"));
    assert_eq!(ask(format!("{begin}{}\r\n", "a: b\r\n".repeat(100))).await.as_deref(), Some("431"));
    assert_ne!(
        ask(format!("{begin}a: {}\r\n\r\n", "b".repeat(64 << 10))).await.as_deref(),
        Some("200")
    );
    assert_ne!(
        ask(format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "b".repeat(64 << 10))).await.as_deref(),
        Some("200")
    );
    assert_eq!(ask(format!("{begin}content-length: 999999\r\n\r\n")).await.as_deref(), Some("413"));
}

#[test]
fn what_is_not_allowed_and_how_it_reads() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (certificate, key) = pem(&authority.issue("localhost", 2100));
    let other = pem(&authority.issue("localhost", 2100)).1;
    for (name, text) in [
        ("c.pem", &certificate),
        ("k.pem", &key),
        ("other.pem", &other),
        ("ca.pem", &authority.pem),
        ("junk.pem", &"junk".to_owned()),
    ] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let path = dir.path().join("web.yaml");
    let files = "cert_file: c.pem, key_file: k.pem";
    let mut text = String::new();
    for yaml in [
        "tls_server: {}".to_owned(),
        "tls_server_config: {}".to_owned(),
        "tls_server_config: {cert_file: c.pem}".to_owned(),
        "tls_server_config: {cert_file: none.pem, key_file: k.pem}".to_owned(),
        "tls_server_config: {cert_file: junk.pem, key_file: k.pem}".to_owned(),
        "tls_server_config: {cert_file: c.pem, key_file: junk.pem}".to_owned(),
        "tls_server_config: {cert_file: c.pem, key_file: other.pem}".to_owned(),
        "tls_server_config: {cert: x, key: y}".to_owned(),
        format!("tls_server_config: {{{files}, client_ca: x}}"),
        format!("tls_server_config: {{{files}, client_ca_file: ca.pem}}"),
        format!(
            "tls_server_config: {{{files}, client_ca_file: junk.pem, client_auth_type: RequireAndVerifyClientCert}}"
        ),
        format!("tls_server_config: {{{files}, client_auth_type: RequireAndVerifyClientCert}}"),
        format!(
            "tls_server_config: {{{files}, client_ca_file: ca.pem, client_auth_type: RequireAnyClientCert}}"
        ),
        format!("tls_server_config: {{{files}, client_auth_type: Maybe}}"),
        format!("tls_server_config: {{{files}, client_allowed_sans: [a]}}"),
        format!("tls_server_config: {{{files}, min_version: TLS10}}"),
        format!("tls_server_config: {{{files}, min_version: SSL3}}"),
        format!("tls_server_config: {{{files}, min_version: TLS13, max_version: TLS12}}"),
        format!("tls_server_config: {{{files}, cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]}}"),
        format!("tls_server_config: {{{files}, curve_preferences: [CurveP521]}}"),
        "http_server_config: {http2: true}".to_owned(),
        "http_server_config: {http3: true}".to_owned(),
        "http_server_config: {headers: {Server: x}}".to_owned(),
        "http_server_config: {headers: {X-Frame-Options: \"a\\nb\"}}".to_owned(),
        "basic_auth_users: {ops: secret}".to_owned(),
        "basic_auth_users: {ops: $2b$31$VLcR7n3gZujwS9bATypZ1eLbqmK25L1PYIVEiS9uUe6ygJ86HMsle}"
            .to_owned(),
        format!("basic_auth_users: {{'a:b': {SECRET}}}"),
        "basic_auth_users: [ops]".to_owned(),
        "rate_limit: {interval: 1s, burst: 5}".to_owned(),
        "a: [".to_owned(),
    ] {
        std::fs::write(&path, &yaml).unwrap();
        let error = Rules::read(&path).expect_err(&yaml).to_string();
        assert!(error.starts_with(path.to_str().unwrap()), "{error}");
        let error = error.replace(dir.path().to_str().unwrap(), "DIR");
        assert!(!error.contains("secret") && !error.contains('\n'), "{error}");
        text.push_str(&format!("{yaml}\n    {error}\n"));
    }
    crate::golden::check_named("web_refusals.txt", &text);
    assert!(Rules::read(&PathBuf::from("/no/such/file")).is_err());
    for fine in [
        "",
        "{}",
        "http_server_config: {http2: false}",
        &format!("tls_server_config: {{{files}, client_auth_type: ''}}"),
    ] {
        std::fs::write(&path, fine).unwrap();
        Rules::read(&path).expect(fine);
    }
}
