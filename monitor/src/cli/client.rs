//! One GET to the daemon's API, for every subcommand that asks it: bounded in time and size, no redirects, no proxy. Over TCP without TLS and login, or over the
//! daemon's socket, which knows by itself who asks.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode, Uri};
use serde::Deserialize;
use tokio::net::{TcpStream, UnixStream};

use super::exchange::exchange;
use crate::config::Refused;
use crate::text::one_line;

/// Longest wait for the whole answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of what the daemon says of a request that it refuses, so many characters are shown.
const REFUSAL: usize = 500;

/// No answer, or one that says no.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    /// Nobody is there, or it does not answer in time, or what it says is no HTTP.
    #[error("{0:#}")]
    Silence(anyhow::Error),
    /// What answers is no daemon of this version.
    #[error("{0:#}")]
    Foreign(anyhow::Error),
    /// The daemon answers, but not this.
    #[error("it says {status}{}{words}{}", if words.is_empty() { "" } else { ": " }, instead(*status))]
    Refused {
        /// Its status.
        status: StatusCode,
        /// Its words, safe for a terminal.
        words: String,
    },
}

/// What to do instead, where the answer is no for whoever asks so.
fn instead(status: StatusCode) -> &'static str {
    match status {
        // What speaks TLS says this of a request without.
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "; on its host, its socket asks for neither TLS nor a login: --api unix:/run/killwatch/killwatch.sock"
        }
        _ => "",
    }
}

/// Which daemon is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Server {
    /// Where the daemon answers: http://HOST:PORT, or unix:PATH for its socket
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:9435",
        env = "KILLWATCH_API"
    )]
    pub(super) api: Api,
}

/// Where the daemon answers: `http://host:port`, or `unix:/path` of its socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Api {
    Tcp { authority: String, host: String, port: u16 },
    Unix(PathBuf),
}

impl FromStr for Api {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let refused = || {
            Refused::new(
                "must be a URL such as http://127.0.0.1:9435, without a path, or unix: and the path of the daemon's socket; TLS is for browsers and scrapers",
            )
        };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.starts_with('/') {
                Ok(Self::Unix(path.into()))
            } else {
                Err(refused())
            };
        }
        let uri: Uri = text.parse().map_err(|_| refused())?;
        let authority = uri.authority().ok_or_else(refused)?;
        let bare = uri.scheme_str() == Some("http")
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none();
        let port_unread = authority.port().is_none() && authority.as_str() != authority.host();
        if !bare || port_unread || authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(refused());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(80);
        Ok(Self::Tcp { authority: authority.to_string(), host, port })
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { authority, .. } => write!(f, "http://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Api {
    /// Whether the daemon is on this host, for all that the address says.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::Tcp { host, .. } => {
                let loopback = |address: IpAddr| address.is_loopback();
                host == "localhost" || host.parse().is_ok_and(loopback)
            }
            Self::Unix(_) => true,
        }
    }

    /// The body, or `None` if the daemon says 404.
    pub(super) async fn get(&self, path: &str) -> Result<Option<Bytes>, Unanswered> {
        let asked = tokio::time::timeout(PATIENCE, self.ask(path)).await;
        let (status, body) = asked
            .unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {} s", PATIENCE.as_secs())))
            .map_err(Unanswered::Silence)?;
        match status {
            StatusCode::OK => Ok(Some(body)),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(Unanswered::Refused { status, words: words(&body) }),
        }
    }

    async fn ask(&self, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
        let request = |host: &str| Request::get(path).header("host", host).body(Full::default());
        match self {
            Self::Tcp { authority, host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                exchange(stream, request(authority)?).await
            }
            Self::Unix(socket) => {
                exchange(UnixStream::connect(socket).await?, request("killwatch")?).await
            }
        }
    }
}

/// What an answer that says no says in words.
fn words(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Problem {
        error: String,
    }
    let said = serde_json::from_slice::<Problem>(body).map(|said| said.error).unwrap_or_default();
    one_line(&said).chars().take(REFUSAL).collect()
}
