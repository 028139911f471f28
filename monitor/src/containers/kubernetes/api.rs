//! One request to the API: bounded in time, in the size of the answer's head and of its body.
//!
//! kube brings the TLS, the credentials and the reading of both from files. What it adds by itself is left out: it tries again without telling, and
//! logs each failure as an error.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt as _};
use tokio::time::timeout;
use tower::{BoxError, ServiceBuilder};

use super::super::worker::Error;
use super::decode::MAX_ANSWER;

/// Longest head of an answer, in bytes.
const MAX_HEAD: usize = 64 << 10;
/// Longest answer to what is written, in bytes.
const MAX_WORDS: usize = 64 << 10;
/// How long a connection is kept without a request.
const KEEP_IDLE: Duration = Duration::from_secs(30);
/// What is asked for of an object: its metadata and no more.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// The API server, by one set of credentials.
#[derive(Clone)]
pub(crate) struct Api {
    client: kube::Client,
    time: Duration,
}

/// What the API answered to a request for an object.
#[derive(Debug)]
pub(super) enum Answer {
    /// The object.
    Object(Bytes),
    /// It may not be read.
    Forbidden,
    /// There is none.
    Missing,
}

/// What the API answered to an object that was written.
#[derive(Debug)]
pub(crate) struct Written {
    /// The status of HTTP.
    pub(crate) status: u16,
    /// For how many seconds it wants to be left alone.
    pub(crate) retry_after: Option<u64>,
    /// The object, or what is wrong with it; empty if that was longer than 64 KiB or broke off.
    pub(crate) body: Bytes,
}

impl Api {
    /// Each answer may take `time`. Must be called within a runtime.
    ///
    /// # Errors
    /// If the credentials cannot be used.
    pub(crate) fn new(config: &kube::Config, time: Duration) -> Result<Self, Error> {
        let failed = |error: kube::Error| Error::Failed(whole(&error));
        let mut tcp = legacy::connect::HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(time));
        let tls = config.rustls_https_connector_with_connector(tcp).map_err(failed)?;
        let http: legacy::Client<_, Body> = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEEP_IDLE)
            .pool_max_idle_per_host(2)
            .http1_max_buf_size(MAX_HEAD)
            .build(tls);
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer().map_err(failed)?)
            .layer(config.extra_headers_layer().map_err(failed)?)
            .map_err(BoxError::from)
            .service(http);
        Ok(Self { client: kube::Client::new(service, &config.default_namespace), time })
    }

    /// The metadata of the object at `path`.
    ///
    /// # Errors
    /// If the API does not answer in time, says no, or answers more than it may.
    pub(super) async fn metadata(&self, path: &str) -> Result<Answer, Error> {
        self.get(path, METADATA).await
    }

    /// What `/version` says: anybody who is known to the API may ask it.
    ///
    /// # Errors
    /// As [`Api::metadata`].
    pub(super) async fn version(&self) -> Result<Answer, Error> {
        self.get("/version", "application/json").await
    }

    /// Writes an object, and says what the API says, whatever that is.
    ///
    /// # Errors
    /// If the API cannot be reached or does not answer in time. It may have done what it was asked to all the same.
    pub(crate) async fn write(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Vec<u8>,
    ) -> Result<Written, Error> {
        let write = async {
            let request = request(method, path, "application/json")
                .header(CONTENT_TYPE, content_type)
                .body(Body::from(body));
            let answer = self.send(request).await?;
            let status = answer.status().as_u16();
            let after = answer.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok());
            let retry_after = after.and_then(|after| after.trim().parse().ok());
            // The status says what matters; what it says beside that may be cut off or broken.
            let body = Limited::new(answer.into_body(), MAX_WORDS).collect().await;
            let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            Ok(Written { status, retry_after, body })
        };
        timeout(self.time, write).await.unwrap_or(Err(Error::TimedOut(self.time)))
    }

    async fn get(&self, path: &str, accept: &str) -> Result<Answer, Error> {
        let answer = timeout(self.time, self.ask(path, accept)).await;
        answer.unwrap_or(Err(Error::TimedOut(self.time)))
    }

    async fn send(
        &self,
        request: Result<Request<Body>, hyper::http::Error>,
    ) -> Result<Response<Body>, Error> {
        let request = request.map_err(|error| Error::Failed(error.to_string()))?;
        self.client.send(request).await.map_err(|error| Error::Failed(whole(&error)))
    }

    async fn ask(&self, path: &str, accept: &str) -> Result<Answer, Error> {
        let answer = self.send(request(Method::GET, path, accept).body(Body::empty())).await?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::FORBIDDEN => return Ok(Answer::Forbidden),
            StatusCode::NOT_FOUND => return Ok(Answer::Missing),
            StatusCode::UNAUTHORIZED => {
                return Err(Error::Failed(
                    "401: it does not know these credentials; a token may have run out".to_owned(),
                ));
            }
            other => return Err(Error::Failed(format!("it answered {other}"))),
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        body.map(|body| Answer::Object(body.to_bytes())).map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                Error::Malformed(format!("more than {MAX_ANSWER} bytes"))
            } else {
                Error::Failed(whole(&*error))
            }
        })
    }
}

fn request(method: Method, path: &str, accept: &str) -> hyper::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header(ACCEPT, accept)
        .header(USER_AGENT, concat!("killwatch/", env!("CARGO_PKG_VERSION")))
}

/// An error and its causes on one line: the outermost alone says little.
fn whole(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
