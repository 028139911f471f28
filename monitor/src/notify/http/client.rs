//! One address, and requests to it one by one or several at once.

use std::error::Error as StdError;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{
    AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::config::{HeaderSource, HttpConfig, TlsFiles};
use super::reply::{MAX_BODY, Reply, cut};
use super::retry_after;
use super::tls::{self, Signature};
use super::url::HttpUrl;
use crate::clock::Clock;
use crate::notify::deliver::Failure;
use crate::notify::secret::{Secret, SecretFile};
use crate::text::one_line;

/// Connections that nobody uses are closed after this.
const IDLE: Duration = Duration::from_secs(30);
/// Longest text of an error of the connection: bytes.
const MAX_ERROR: usize = 400;

/// What is sent.
#[derive(Debug, Clone)]
pub struct Request {
    /// What the body is.
    pub content_type: &'static str,
    /// Further headers, over those of the configuration.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
}

/// Sends to one address.
#[derive(Debug)]
pub struct Client {
    url: HttpUrl,
    timeout: Duration,
    headers: HeaderMap,
    connector: Connector,
    state: Mutex<State>,
}

/// What changes as files do.
#[derive(Debug)]
struct State {
    credentials: Option<Credentials>,
    headers: Vec<(HeaderName, SecretFile)>,
    built: Option<(Signature, reqwest::Client)>,
    warned: bool,
}

#[derive(Debug)]
enum Credentials {
    Scheme(String, SecretFile),
    Basic(String, SecretFile),
}

/// What a connection is made of.
#[derive(Debug, Clone)]
struct Connector {
    tls: TlsFiles,
    verify: bool,
    connect: Duration,
    proxy: Option<HttpUrl>,
    /// The host that is really meant, where the URL has the certificate's name in its place.
    host: Option<String>,
}

impl Client {
    /// A client for `url`. Touches no file and nobody on the network.
    ///
    /// # Errors
    /// One line, if settings do not go together, such as credentials and an address that is not encrypted.
    pub fn new(url: &HttpUrl, config: &HttpConfig) -> Result<Self, String> {
        config.check(url)?;
        let mut headers = HeaderMap::new();
        let mut files = Vec::new();
        for (key, source) in &config.headers {
            let Some(name) = key.name() else { continue };
            match source {
                HeaderSource::Value(value) => {
                    headers.insert(name, sensitive(value.clone()));
                }
                HeaderSource::File(path) => files.push((name, SecretFile::new(path.clone()))),
            }
        }
        let scheme = config.authorization.as_ref().map(|given| {
            let file = SecretFile::new(given.credentials_file.clone());
            Credentials::Scheme(given.scheme.as_str().to_owned(), file)
        });
        let basic = config.basic_auth.as_ref().map(|given| {
            let file = SecretFile::new(given.password_file.clone());
            Credentials::Basic(given.username.as_str().to_owned(), file)
        });
        // Name and certificate of the connection are the URL's host to the library: with another name, that takes the host's place, and the host is
        // looked up in its stead.
        let named = config.tls.server_name.as_ref().and_then(|name| url.with_host(name.as_str()));
        if named.is_some()
            && let Ok(host) = HeaderValue::from_str(url.authority())
        {
            headers.insert(HOST, host);
        }
        let timeout = config.timeout.get();
        let https = |url: &HttpUrl| url.is_https();
        let connector = Connector {
            tls: config.tls.clone(),
            verify: https(url) || config.proxy_url.as_ref().is_some_and(https),
            connect: timeout / 2,
            proxy: config.proxy_url.clone(),
            host: named.is_some().then(|| url.host().to_owned()),
        };
        let state =
            State { credentials: scheme.or(basic), headers: files, built: None, warned: false };
        let url = named.unwrap_or_else(|| url.clone());
        Ok(Self { url, timeout, headers, connector, state: Mutex::new(state) })
    }

    /// Posts, and reads the answer, whatever its status is.
    ///
    /// # Errors
    /// [`Failure::Later`] if there was no whole answer before the deadline, or a file that it takes could never be read.
    pub async fn post(&self, request: Request) -> Result<Reply, Failure> {
        self.exchange(request).await.map_err(|why| Failure::Later { why, after: None })
    }

    /// Who is meant, as errors say it.
    fn name(&self) -> String {
        match (&self.connector.host, self.headers.get(HOST).and_then(|host| host.to_str().ok())) {
            (Some(_), Some(host)) => format!("https://{host}"),
            _ => self.url.to_string(),
        }
    }

    async fn exchange(&self, request: Request) -> Result<Reply, String> {
        let end = Instant::now() + self.timeout;
        let late = |doing: &str| {
            let (name, limit) = (self.name(), self.timeout);
            format!(
                "{name}: {doing} took longer than http.timeout ({limit:?}): look whether it works, or give it more time"
            )
        };
        let ready = timeout_at(end, self.ready());
        let (client, mut headers, secrets) = ready.await.map_err(|_| late("reading files"))??;
        for (name, value) in request.headers {
            headers.insert(name, value);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(request.content_type));
        let sent = client.post(self.url.whole().clone()).headers(headers).body(request.body).send();
        let mut answer = timeout_at(end, sent)
            .await
            .map_err(|_| late("its answer"))?
            .map_err(|error| self.explain(error, &secrets))?;
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|text| retry_after::parse(text, Clock.now()));
        let mut body = BytesMut::new();
        let mut more = true;
        while more && body.len() <= MAX_BODY {
            let chunk = timeout_at(end, answer.chunk())
                .await
                .map_err(|_| late("the rest of its answer"))?;
            match chunk.map_err(|error| self.explain(error, &secrets))? {
                Some(chunk) => {
                    let room = (MAX_BODY + 1).saturating_sub(body.len()).min(chunk.len());
                    body.extend_from_slice(chunk.get(..room).unwrap_or_default());
                }
                None => more = false,
            }
        }
        let cut = body.len() > MAX_BODY;
        body.truncate(MAX_BODY);
        let (status, body) = (answer.status(), body.freeze());
        Ok(Reply { status, retry_after, body, cut, from: self.name(), secrets })
    }

    /// What a request takes from files: connections, headers, and what in them is secret.
    async fn ready(&self) -> Result<(reqwest::Client, HeaderMap, Vec<Secret>), String> {
        let mut state = self.state.lock().await;
        let client = state.client(&self.connector).await?;
        let mut headers = self.headers.clone();
        let mut secrets = Vec::new();
        for (name, file) in &mut state.headers {
            let secret = file.get().await?;
            headers.insert(&*name, value(secret.bytes(), name.as_str())?);
            secrets.push(secret);
        }
        match &mut state.credentials {
            None => {}
            Some(Credentials::Scheme(scheme, file)) => {
                let secret = file.get().await?;
                let text = [scheme.as_bytes(), b" ", secret.bytes()].concat();
                headers.insert(AUTHORIZATION, value(&text, "http.authorization")?);
                secrets.push(secret);
            }
            Some(Credentials::Basic(user, file)) => {
                let secret = file.get().await?;
                let pair = [user.as_bytes(), b":", secret.bytes()].concat();
                let encoded = BASE64.encode(pair);
                headers.insert(
                    AUTHORIZATION,
                    value(format!("Basic {encoded}").as_bytes(), "http.basic_auth")?,
                );
                secrets.extend([secret, Secret::from(encoded.as_str())]);
            }
        }
        Ok((client, headers, secrets))
    }

    /// An error of the connection on one line, with its causes and what to do.
    fn explain(&self, error: reqwest::Error, secrets: &[Secret]) -> String {
        let certificate = |text: &str| text.to_ascii_lowercase().contains("certificate");
        let (connect, slow) = (error.is_connect(), error.is_timeout());
        let mut text = whole(&error.without_url());
        for secret in secrets.iter().filter_map(|secret| str::from_utf8(secret.bytes()).ok()) {
            text = text.replace(secret, "…");
        }
        let text = cut(one_line(&text), MAX_ERROR);
        let name = self.name();
        if certificate(&text) {
            format!(
                "{name}: {text}: look at http.tls: ca_file and server_name for its certificate, cert_file for the daemon's own"
            )
        } else if connect && slow {
            format!(
                "{name}: no connection within {:?}: look at the address, and at what stands between",
                self.connector.connect
            )
        } else if connect {
            format!("{name}: cannot be reached: {text}: look whether it runs, and at the address")
        } else {
            format!(
                "{name}: it broke off, or does not speak HTTP/1.1: {text}: look at the address and at its own log"
            )
        }
    }
}

impl State {
    /// The connections, made anew if a file of theirs has changed.
    async fn client(&mut self, connector: &Connector) -> Result<reqwest::Client, String> {
        let (connector, old) =
            (connector.clone(), self.built.as_ref().map(|(signature, _)| *signature));
        let look = move || {
            let now = tls::signature(&connector.tls);
            if old == Some(now) {
                Ok(None)
            } else {
                connector.build().map(|client| Some((now, client)))
            }
        };
        let looked = tokio::task::spawn_blocking(look).await;
        match (looked.unwrap_or_else(|_| Err("the daemon is stopping".to_owned())), &self.built) {
            (Ok(Some(built)), _) => {
                self.warned = false;
                let client = built.1.clone();
                self.built = Some(built);
                Ok(client)
            }
            (Ok(None), Some((_, client))) => {
                self.warned = false;
                Ok(client.clone())
            }
            (Err(why), Some((_, client))) => {
                if !std::mem::replace(&mut self.warned, true) {
                    tracing::warn!(%why, "files of http.tls have changed and cannot be used: the last ones stay in force");
                }
                Ok(client.clone())
            }
            (Err(why), None) => Err(why),
            (Ok(None), None) => Err("no connection could be prepared".to_owned()),
        }
    }
}

impl Connector {
    /// May block.
    fn build(&self) -> Result<reqwest::Client, String> {
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::config(&self.tls, self.verify)?)
            .user_agent(concat!("killwatch/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .http1_only()
            .connect_timeout(self.connect)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1);
        if let Some(proxy) = &self.proxy {
            let proxy = reqwest::Proxy::all(proxy.whole().clone());
            builder = builder.proxy(proxy.map_err(|error| format!("http.proxy_url: {error}"))?);
        }
        if let Some(host) = &self.host {
            builder = builder.dns_resolver(Instead(host.clone()));
        }
        builder.build().map_err(|error| format!("HTTP cannot be set up: {}", whole(&error)))
    }
}

/// Looks up one host, whatever name is asked for.
struct Instead(String);

impl Resolve for Instead {
    fn resolve(&self, _: Name) -> Resolving {
        let host = self.0.clone();
        Box::pin(async move {
            // The port is put in by who asked.
            let found: Vec<_> = tokio::net::lookup_host((host, 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

fn value(bytes: &[u8], key: &str) -> Result<HeaderValue, String> {
    let value = HeaderValue::from_bytes(bytes);
    let value = value.map_err(|_| {
        format!("{key}: its file holds what no header can: write one line of plain text into it")
    })?;
    Ok(sensitive(value))
}

fn sensitive(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

/// An error and its causes on one line: the outermost alone says little.
fn whole(error: &dyn StdError) -> String {
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
