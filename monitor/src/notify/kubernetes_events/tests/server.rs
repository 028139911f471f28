//! A mock of an API server: TLS with a certificate of its own, a token that it wants, and answers that are what a test says. A real one cannot run
//! here: it needs etcd and its own programs. What is held to the documented API are the paths, the headers and the form of the answers.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

/// What is answered.
pub(super) enum Reply {
    /// A status, headers, and a body.
    Say(u16, Vec<(&'static str, String)>, String),
    /// Nothing, ever.
    Wedged,
    /// A status and a body that never ends.
    Endless(u16),
}

impl Reply {
    /// The API's own form of an error.
    pub(super) fn status(code: u16, reason: &str, message: &str) -> Self {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message});
        Self::Say(code, Vec::new(), status.to_string())
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) line: String,
    pub(super) content_type: String,
    pub(super) body: Value,
}

#[derive(Default)]
struct State {
    token: String,
    /// Answers before those that an API server gives by itself.
    script: VecDeque<Reply>,
    /// Names of the Events that there are.
    events: Vec<String>,
    seen: Vec<Seen>,
}

/// The server; ends when dropped.
pub(super) struct Server {
    state: Arc<Mutex<State>>,
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
        let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let ca = key.cert.pem();
        let private = key.signing_key.serialize_der().try_into().unwrap();
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![key.cert.der().clone()], private).unwrap();
        let tls = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State { token: "token-1".into(), ..State::default() }));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (state, tls) = (Arc::clone(&shared), tls.clone());
                connections.spawn(async move {
                    let Ok(stream) = tls.accept(tcp).await else { return };
                    let service = service_fn(|request| answer(Arc::clone(&state), request));
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { state, port, ca, task }
    }

    /// Writes a kubeconfig for it, its CA and a token's file into a directory.
    pub(super) fn kubeconfig(&self, dir: &Path) -> PathBuf {
        std::fs::write(dir.join("ca.pem"), &self.ca).unwrap();
        std::fs::write(dir.join("token"), "token-1\n").unwrap();
        let server = format!("https://127.0.0.1:{}", self.port);
        let path = dir.join("kubeconfig");
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "k", "cluster": {"server": server, "certificate-authority": "ca.pem"}}],
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "users": [{"name": "u", "user": {"tokenFile": dir.join("token")}}],
        });
        std::fs::write(&path, text.to_string()).unwrap();
        path
    }

    /// Answers this once, before all else.
    pub(super) fn next(&self, reply: Reply) {
        self.state.lock().unwrap().script.push_back(reply);
    }

    /// The only token that is known from here on.
    pub(super) fn token(&self, token: &str) {
        self.state.lock().unwrap().token = token.to_owned();
    }

    /// Lets an Event expire.
    pub(super) fn expire(&self, name: &str) {
        self.state.lock().unwrap().events.retain(|event| event != name);
    }

    /// The requests that came since the last call.
    pub(super) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state.lock().unwrap().seen)
    }

    /// Events that there are.
    pub(super) fn events(&self) -> Vec<String> {
        self.state.lock().unwrap().events.clone()
    }
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    let content_type = header("content-type").unwrap_or_default().to_owned();
    let reply = {
        let mut state = state.lock().unwrap();
        let line = format!("{} {}", head.method, head.uri);
        state.seen.push(Seen { line, content_type, body: body.clone() });
        let bearer = format!("Bearer {}", state.token);
        let known = header("authorization").is_some_and(|sent| sent == bearer);
        match state.script.pop_front() {
            Some(reply) => reply,
            None if !known => Reply::status(401, "Unauthorized", "Unauthorized"),
            None => state.by_itself(head.method.as_str(), head.uri.path(), &body),
        }
    };
    Ok(match reply {
        Reply::Say(code, headers, text) => {
            let mut answer = Response::builder().status(code);
            for (name, value) in headers {
                answer = answer.header(name, value);
            }
            answer.body(Full::new(Bytes::from(text)).boxed()).unwrap()
        }
        Reply::Wedged => std::future::pending().await,
        Reply::Endless(code) => Response::builder().status(code).body(Endless.boxed()).unwrap(),
    })
}

impl State {
    /// What an API server does about Events.
    fn by_itself(&mut self, method: &str, path: &str, body: &Value) -> Reply {
        let Some(rest) = path.strip_prefix("/apis/events.k8s.io/v1/namespaces/") else {
            return Reply::Say(404, Vec::new(), "404 page not found\n".to_owned());
        };
        let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        match (method, rest.split('/').collect::<Vec<_>>().as_slice()) {
            ("POST", [_, "events"]) if self.events.contains(&name) => {
                Reply::status(409, "AlreadyExists", "it already exists")
            }
            ("POST", [namespace, "events"]) if body["metadata"]["namespace"] == *namespace => {
                self.events.push(name);
                Reply::Say(201, Vec::new(), body.to_string())
            }
            ("PATCH", [_, "events", name]) if self.events.iter().any(|event| event == name) => {
                Reply::Say(200, Vec::new(), body.to_string())
            }
            ("PATCH", _) => Reply::status(404, "NotFound", "events.events.k8s.io not found"),
            _ => Reply::status(400, "BadRequest", "the namespace does not match"),
        }
    }
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
