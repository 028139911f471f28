//! A receiver that does what a test says, byte by byte: over plain TCP or TLS, honest or not.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::{Client, HttpConfig, HttpUrl};
use crate::ledger::{Entry, Item};
use crate::notify::deliver::Message;

/// A message as the driver hands it over.
pub(in crate::notify) fn entry(item: impl Into<Item>) -> Message {
    let item = item.into();
    let json = match &item {
        Item::Death(death) => serde_json::to_vec(&**death),
        Item::Alert(alert) => serde_json::to_vec(&**alert),
    };
    Message::Entry(Arc::new(Entry { seq: 1, item, json: json.unwrap().into() }))
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(in crate::notify) struct Seen {
    /// Request line and headers.
    pub(in crate::notify) head: String,
    /// Body.
    pub(in crate::notify) body: Vec<u8>,
}

/// What is done about a request.
pub(in crate::notify) enum Answer {
    /// These bytes, and the connection stays open.
    Say(Vec<u8>),
    /// These bytes, then the end.
    SayAndClose(Vec<u8>),
    /// These bytes, then nothing until the client hangs up.
    SayAndHang(Vec<u8>),
    /// The first bytes, then the second again and again until the client hangs up, at most a GiB.
    Flood(Vec<u8>, Vec<u8>),
}

impl Answer {
    /// An honest answer.
    pub(in crate::notify) fn status(status: u16, headers: &str, body: &str) -> Self {
        let length = body.len();
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n{headers}\r\n");
        Self::Say((head + body).into_bytes())
    }
}

type Script = dyn Fn(usize, &Seen) -> Answer + Send + Sync;

/// The receiver. It ends with its value.
pub(in crate::notify) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
    scheme: &'static str,
}

struct Shared {
    script: Box<Script>,
    seen: Mutex<Vec<Seen>>,
    written: AtomicU64,
    hung_up: watch::Sender<usize>,
    connections: AtomicU64,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Without TLS. `script` is given the number of the request, from 0 on.
    pub(in crate::notify) async fn start(
        script: impl Fn(usize, &Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::on(None, script).await
    }

    /// With TLS.
    pub(in crate::notify) async fn start_tls(
        tls: ServerConfig,
        script: impl Fn(usize, &Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::on(Some(TlsAcceptor::from(Arc::new(tls))), script).await
    }

    async fn on(
        tls: Option<TlsAcceptor>,
        script: impl Fn(usize, &Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            seen: Mutex::default(),
            written: AtomicU64::new(0),
            hung_up: watch::Sender::new(0),
            connections: AtomicU64::new(0),
        });
        let scheme = if tls.is_some() { "https" } else { "http" };
        let task = {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((tcp, _)) = listener.accept().await {
                    let (shared, tls) = (Arc::clone(&shared), tls.clone());
                    shared.connections.fetch_add(1, Ordering::Relaxed);
                    connections.spawn(async move {
                        match tls {
                            None => shared.serve(tcp).await,
                            Some(tls) => match tls.accept(tcp).await {
                                Ok(stream) => shared.serve(stream).await,
                                Err(_) => None,
                            },
                        };
                        shared.hung_up.send_modify(|n| *n += 1);
                    });
                }
            })
        };
        Self { address, shared, task, scheme }
    }

    /// Its address, with the loopback's IP address.
    pub(in crate::notify) fn url(&self) -> HttpUrl {
        self.url_at("127.0.0.1", "/")
    }

    /// Its address under a name, with a path.
    pub(in crate::notify) fn url_at(&self, host: &str, path: &str) -> HttpUrl {
        let (scheme, port) = (self.scheme, self.address.port());
        format!("{scheme}://{host}:{port}{path}").parse().unwrap()
    }

    /// Its port.
    pub(in crate::notify) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Closes its port.
    pub(in crate::notify) async fn stop(mut self) {
        self.task.abort();
        // Only then is the listener gone.
        let _ = (&mut self.task).await;
    }

    /// A client for it.
    pub(in crate::notify) fn client(&self, config: &HttpConfig) -> Client {
        Client::new(&self.url(), config).unwrap()
    }

    /// The requests that came.
    pub(in crate::notify) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Connections that were made to it.
    pub(in crate::notify) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Bytes that a flood could get rid of, once the client has hung up.
    pub(in crate::notify) async fn flooded(&self) -> u64 {
        self.hung_up().await;
        self.shared.written.load(Ordering::Relaxed)
    }

    /// Waits until a connection has ended.
    pub(in crate::notify) async fn hung_up(&self) {
        self.shared.hung_up.subscribe().wait_for(|n| *n > 0).await.unwrap();
    }
}

impl Shared {
    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Option<()> {
        loop {
            let seen = read(&mut stream).await?;
            let number = {
                let mut all = self.seen.lock().unwrap();
                all.push(seen.clone());
                all.len() - 1
            };
            match (self.script)(number, &seen) {
                Answer::Say(bytes) => stream.write_all(&bytes).await.ok()?,
                Answer::SayAndClose(bytes) => {
                    stream.write_all(&bytes).await.ok()?;
                    return stream.shutdown().await.ok();
                }
                Answer::SayAndHang(bytes) => {
                    stream.write_all(&bytes).await.ok()?;
                    while stream.read(&mut [0; 64]).await.ok()? > 0 {}
                    return None;
                }
                Answer::Flood(head, again) => {
                    stream.write_all(&head).await.ok()?;
                    while self.written.load(Ordering::Relaxed) < 1 << 30 {
                        stream.write_all(&again).await.ok()?;
                        self.written.fetch_add(again.len() as u64, Ordering::Relaxed);
                    }
                }
            }
        }
    }
}

/// A request with a `Content-Length`.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Seen> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut body = bytes.split_off(end + 4);
    let lower = head.to_ascii_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.map_or(0, |n| n.parse().unwrap());
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Seen { head, body })
}

impl Seen {
    /// A header's value; the name in lower case.
    pub(in crate::notify) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The body as JSON.
    pub(in crate::notify) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// An authority of a test's own.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    pub(crate) pem: String,
    der: rustls::pki_types::CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Self { issuer: Issuer::new(params, key), pem, der }
    }

    /// A certificate and its key, as PEM and as the library's own. `until` is a year.
    pub(crate) fn issue(&self, name: &str, until: i32) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// A server with a certificate for `name`; `clients` says whose clients it wants.
    pub(crate) fn server(&self, name: &str, until: i32, clients: Option<&Self>) -> ServerConfig {
        let (certificate, key) = self.issue(name, until);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.der.clone()).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.unwrap())
            }
        };
        let key = key.serialize_der().try_into().unwrap();
        builder.with_single_cert(vec![certificate.der().clone()], key).unwrap()
    }
}
