//! One GET to the daemon: bounded in time and size, no redirects, no proxy.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode, Uri};
use tokio::net::TcpStream;

use crate::cli::exchange::exchange;
use crate::config::Refused;

/// Longest wait for the whole answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the daemon answers: `http://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Api {
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
    /// The body, or `None` if the daemon says 404.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Option<Bytes>> {
        match tokio::time::timeout(PATIENCE, self.ask(path)).await {
            Ok(answer) => answer,
            Err(_) => anyhow::bail!("no answer within {} s", PATIENCE.as_secs()),
        }
    }

    async fn ask(&self, path: &str) -> anyhow::Result<Option<Bytes>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let request = Request::get(path).header("host", &self.authority).body(Full::default())?;
        match exchange(stream, request).await? {
            (StatusCode::OK, body) => Ok(Some(body)),
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (other, _) => anyhow::bail!("it says {other}"),
        }
    }
}
