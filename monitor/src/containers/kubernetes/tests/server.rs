//! A mock of an API server: TLS with a CA of its own, a token that it wants, and objects that are what a test says. A real one cannot run here:
//! it needs etcd and its own programs. What is held to the documented API are the paths, the headers and the form of the answers.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// What is answered at a path.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// This, with 200.
    Json(Value),
    /// This text, with 200.
    Text(String),
    /// This status, in the API's own form.
    Status(u16),
    /// Nothing, ever.
    Wedged,
    /// A body that never ends.
    Endless,
    /// Another address.
    Elsewhere(String),
}

#[derive(Debug, Default)]
struct State {
    replies: HashMap<String, Reply>,
    /// The tokens that are known.
    tokens: Vec<String>,
    /// Whether it was the certificate that said who it is.
    by_certificate: bool,
    /// The last `Authorization`.
    last: String,
    /// Paths that were asked for with the right token, `/version` left out.
    asked: Vec<String>,
    /// Requests of any kind.
    requests: usize,
}

/// The server; ends when dropped.
pub(super) struct Server {
    state: Arc<Mutex<State>>,
    /// Requests for objects that are being answered, and the most that were at once.
    now: Arc<AtomicUsize>,
    pub(super) most: Arc<AtomicUsize>,
    port: u16,
    ca: String,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(super) async fn start() -> Self {
        Self::start_for(None).await
    }

    /// One that wants this client's certificate, and then no token.
    pub(super) async fn start_for(client: Option<&rcgen::Certificate>) -> Self {
        let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let ca = key.cert.pem();
        let private = key.signing_key.serialize_der().try_into().unwrap();
        let config = match client {
            None => ServerConfig::builder().with_no_client_auth(),
            Some(client) => {
                let mut roots = RootCertStore::empty();
                roots.add(client.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
                ServerConfig::builder().with_client_cert_verifier(verifier)
            }
        };
        let config = config.with_single_cert(vec![key.cert.der().clone()], private).unwrap();
        let tls = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State {
            tokens: vec!["token-1".to_owned()],
            by_certificate: client.is_some(),
            ..State::default()
        }));
        let (now, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let task = {
            let (state, now, most) = (Arc::clone(&state), Arc::clone(&now), Arc::clone(&most));
            tokio::spawn(async move {
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((tcp, _)) = listener.accept().await {
                    let (state, tls) = (Arc::clone(&state), tls.clone());
                    let (now, most) = (Arc::clone(&now), Arc::clone(&most));
                    connections.spawn(async move {
                        let Ok(stream) = tls.accept(tcp).await else { return };
                        let service = service_fn(|request| {
                            let counted = Counted::one(&now, &most);
                            let answer = answer(Arc::clone(&state), request);
                            async move {
                                let answer = answer.await;
                                drop(counted);
                                answer
                            }
                        });
                        let http = hyper::server::conn::http1::Builder::new();
                        let _ = http.serve_connection(TokioIo::new(stream), service).await;
                    });
                }
            })
        };
        Self { state, now, most, port, ca, task }
    }

    /// Writes a kubeconfig for it, its CA and a token's file into a directory.
    pub(super) fn kubeconfig(&self, dir: &Path) -> PathBuf {
        std::fs::write(dir.join("ca.pem"), &self.ca).unwrap();
        std::fs::write(dir.join("token"), "token-1\n").unwrap();
        kubeconfig(
            dir,
            &format!("https://127.0.0.1:{}", self.port),
            json!({"tokenFile": dir.join("token")}),
        )
    }

    /// The same with a certificate, which is at `dir`, in place of a token.
    pub(super) fn kubeconfig_by_certificate(&self, dir: &Path) -> PathBuf {
        std::fs::write(dir.join("ca.pem"), &self.ca).unwrap();
        let user = json!({"client-certificate": "client.pem", "client-key": "client.key"});
        kubeconfig(dir, &format!("https://127.0.0.1:{}", self.port), user)
    }

    /// What is answered at a path from here on.
    pub(super) fn reply(&self, path: &str, reply: Reply) {
        self.state.lock().unwrap().replies.insert(path.to_owned(), reply);
    }

    /// The only token that is known from here on.
    pub(super) fn token(&self, token: &str) {
        self.state.lock().unwrap().tokens = vec![token.to_owned()];
    }

    /// One more token that is known.
    pub(super) fn also_token(&self, token: &str) {
        self.state.lock().unwrap().tokens.push(token.to_owned());
    }

    /// The last `Authorization` that was sent.
    pub(super) fn last_token(&self) -> String {
        self.state.lock().unwrap().last.clone()
    }

    /// Paths that were asked for since the last call, `/version` left out.
    pub(super) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }

    /// How often a path was asked for.
    pub(super) fn times_asked(&self, path: &str) -> usize {
        self.state.lock().unwrap().asked.iter().filter(|asked| *asked == path).count()
    }

    /// Requests of any kind so far.
    pub(super) fn requests(&self) -> usize {
        self.state.lock().unwrap().requests
    }

    /// Requests that are being answered.
    pub(super) fn answering(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }
}

/// A kubeconfig for `server` with the CA that is in `dir`.
pub(super) fn kubeconfig(dir: &Path, server: &str, user: Value) -> PathBuf {
    let path = dir.join("kubeconfig");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "k", "cluster": {"server": server, "certificate-authority": "ca.pem"}}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "users": [{"name": "u", "user": user}],
    });
    std::fs::write(&path, text.to_string()).unwrap();
    path
}

/// A listener that writes `text` to whoever connects, over and over if `forever`, whatever is asked. Its address, and what ends it.
pub(super) async fn raw(
    text: &'static str,
    forever: bool,
) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let written: io::Result<()> = async {
                loop {
                    tcp.write_all(text.as_bytes()).await?;
                    if !forever {
                        return tcp.shutdown().await;
                    }
                }
            }
            .await;
            drop(written);
        }
    });
    (address, task)
}

/// Metadata as the API gives it, owned by `owner`: apiVersion, kind, name, uid.
pub(super) fn object(name: &str, uid: &str, owner: Option<[&str; 4]>) -> Reply {
    let owners: Vec<Value> = owner
        .into_iter()
        .map(|[api, kind, name, uid]| {
            json!({"apiVersion": api, "kind": kind, "name": name, "uid": uid, "controller": true, "blockOwnerDeletion": true})
        })
        .collect();
    Reply::Json(json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": {
            "name": name, "namespace": "ns", "uid": uid, "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "web", "other": "x"}, "annotations": {"team": "blue", "huge": "y".repeat(9_000)},
            "ownerReferences": owners, "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:metadata": {}}}],
        },
    }))
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let path = request.uri().path().to_owned();
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let reply = {
        let mut state = state.lock().unwrap();
        state.requests += 1;
        state.last = header("authorization").unwrap_or_default().to_owned();
        let known = state.by_certificate
            || state.tokens.iter().any(|token| state.last == format!("Bearer {token}"));
        let partial = header("accept")
            == Some("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
        if !known {
            Reply::Status(401)
        } else if path == "/version" && !state.replies.contains_key("/version") {
            Reply::Json(json!({"major": "1", "minor": "33", "gitVersion": "v1.33.0-mock"}))
        } else {
            if path != "/version" {
                state.asked.push(path.clone());
            }
            match state.replies.get(&path) {
                // Whole pods are large, and hold what is nobody's business.
                Some(_) if path != "/version" && !partial => Reply::Status(406),
                Some(reply) => reply.clone(),
                None => Reply::Status(404),
            }
        }
    };
    let full = |status: StatusCode, text: String| {
        let mut answer = Response::new(Full::new(Bytes::from(text)).boxed());
        *answer.status_mut() = status;
        answer
    };
    Ok(match reply {
        Reply::Json(value) => full(StatusCode::OK, value.to_string()),
        Reply::Text(text) => full(StatusCode::OK, text),
        Reply::Status(code) => {
            let status =
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code});
            full(StatusCode::from_u16(code).unwrap(), status.to_string())
        }
        Reply::Wedged => std::future::pending().await,
        Reply::Endless => Response::new(Endless.boxed()),
        Reply::Elsewhere(url) => {
            let mut answer = full(StatusCode::TEMPORARY_REDIRECT, String::new());
            answer.headers_mut().insert("location", url.parse().unwrap());
            answer
        }
    })
}

/// White space without end: it is good JSON for as long as one reads.
struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b' '; 16_384])))))
    }
}

/// Counts a request while it is being answered, also if that is broken off.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn one(now: &Arc<AtomicUsize>, most: &AtomicUsize) -> Self {
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        Self(Arc::clone(now))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
