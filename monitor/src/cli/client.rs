//! One GET to the daemon's API, for every subcommand that asks it: bounded in time and size, no redirects, no proxy.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode, Uri};
use serde::Deserialize;
use tokio::net::TcpStream;

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
    #[error("it says {status}{}{words}", if words.is_empty() { "" } else { ": " })]
    Refused {
        /// Its status.
        status: StatusCode,
        /// Its words, safe for a terminal.
        words: String,
    },
}

/// Where the daemon answers: `http://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Api {
    authority: String,
    host: String,
    port: u16,
}

impl FromStr for Api {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let refused =
            || Refused::new("must be a URL such as http://127.0.0.1:9435, without a path");
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
        Ok(Self {
            authority: authority.to_string(),
            host,
            port: authority.port_u16().unwrap_or(80),
        })
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

impl Api {
    /// Whether the daemon is on this host, for all that the address says.
    pub(super) fn is_local(&self) -> bool {
        self.host == "localhost"
            || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
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
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let request = Request::get(path).header("host", &self.authority).body(Full::default())?;
        exchange(stream, request).await
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
