//! The address of a receiver.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use reqwest::Url;
use serde::{Deserialize, Serialize, Serializer};

use crate::config::{Refused, values};

/// An address that is longer is refused: bytes.
const MAX: usize = 2048;

/// An `http` or `https` URL without credentials in it. Shown as scheme, host and port: path and query may be secrets.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HttpUrl(Url);

impl HttpUrl {
    /// The whole URL, to send to.
    pub(super) fn whole(&self) -> &Url {
        &self.0
    }

    /// The same with `path`, which begins with `/`, at the end of its path.
    #[must_use]
    pub fn under(&self, path: &str) -> Self {
        let mut url = self.0.clone();
        let joined = format!("{}{path}", url.path().trim_end_matches('/'));
        url.set_path(&joined);
        Self(url)
    }

    /// Whether it has no path of its own.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        matches!(self.0.path(), "" | "/")
    }

    /// Whether it is spoken to over TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Whether what is sent there stays on this host.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = self.host();
        host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
    }

    /// Name or IP address, the latter without brackets.
    pub(super) fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default().trim_matches(['[', ']'])
    }

    /// Host and port as the header `Host` has them.
    pub(super) fn authority(&self) -> &str {
        self.0.authority()
    }

    /// The same with another host.
    pub(super) fn with_host(&self, host: &str) -> Option<Self> {
        let mut url = self.0.clone();
        url.set_host(Some(host)).ok()?;
        Some(Self(url))
    }
}

impl FromStr for HttpUrl {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let refused = || {
            Refused::new(format!(
                "must be a URL with http:// or https:// and a host, at most {MAX} bytes, such as https://receiver.example:8443/hook"
            ))
        };
        // Without `//` the parser would take what follows for the host all the same.
        let begins = ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
        if !begins || text.len() > MAX || text.chars().any(|c| c.is_control() || c.is_whitespace())
        {
            return Err(refused());
        }
        let url = Url::parse(text).map_err(|_| refused())?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::new(
                "must have no user and no password in it: use basic_auth with a password_file",
            ));
        }
        if url.fragment().is_some() || url.host_str().is_none_or(str::is_empty) {
            return Err(refused());
        }
        Ok(Self(url))
    }
}

impl TryFrom<String> for HttpUrl {
    type Error = Refused;

    /// Unlike other values it is not repeated in the error: it may hold a password.
    fn try_from(text: String) -> Result<Self, Refused> {
        text.parse()
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.0.scheme(), self.0.authority())
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// For what is shown of a configuration: a path or a query is there, and not shown.
impl Serialize for HttpUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let more = if self.is_bare() && self.0.query().is_none() { "" } else { "/…" };
        serializer.collect_str(&format_args!("{self}{more}"))
    }
}

/// A name that a certificate may bear, for where the host of the address is another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct ServerName(String);

impl ServerName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServerName {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let name = rustls::pki_types::DnsName::try_from(text);
        if name.is_ok() && text.parse::<IpAddr>().is_err() {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        Err(Refused::new(
            "must be a DNS name, such as receiver.example; an IP address goes into the URL",
        ))
    }
}

values::through_from_str!(ServerName);

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> HttpUrl {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_an_address() {
        for bad in [
            "",
            "receiver",
            "ftp://a/",
            "http:a",
            "http:///x",
            "https://",
            "http://a b/",
            "http://a/#f",
            "http://a:99999/",
            "http://[::1/",
            "http://a/\n",
            "https:/a",
            "file:///etc/passwd",
        ] {
            assert!(bad.parse::<HttpUrl>().is_err(), "{bad:?}");
        }
        assert!(format!("http://a/{}", "x".repeat(MAX)).parse::<HttpUrl>().is_err());
        assert_eq!(
            url("https://a:8443/x").under("/v1/logs").whole().as_str(),
            "https://a:8443/x/v1/logs"
        );
        assert_eq!(url("http://a/?k=v").under("/b").whole().as_str(), "http://a/b?k=v");
    }

    #[test]
    fn credentials_have_no_place_in_an_address() {
        for text in ["https://me:hunter2@a/", "https://hunter2@a/", "https://:hunter2@a/"] {
            let refused = HttpUrl::try_from(text.to_owned()).unwrap_err().to_string();
            assert!(refused.contains("basic_auth") && !refused.contains("hunter2"), "{refused}");
        }
    }

    #[test]
    fn path_and_query_are_not_shown() {
        let url = url("https://a:8443/hooks/hunter2?key=hunter3");
        assert_eq!(format!("{url} {url:?}"), "https://a:8443 https://a:8443");
        assert_eq!(serde_json::to_value(&url).unwrap(), "https://a:8443/…");
    }

    #[test]
    fn what_stays_on_this_host() {
        for near in [
            "http://localhost:1/",
            "http://127.8.9.1/",
            "http://[::1]:9093/",
            "http://[::ffff:127.0.0.1]/",
            "http://LOCALHOST/",
            "http://0x7f.1/",
        ] {
            assert!(url(near).is_loopback(), "{near}");
        }
        for far in [
            "http://localhost.example/",
            "http://10.0.0.1/",
            "http://[::2]/",
            "http://127.0.0.1.example/",
            "http://0.0.0.0/",
        ] {
            assert!(!url(far).is_loopback(), "{far}");
        }
    }

    #[test]
    fn what_a_certificate_may_bear() {
        assert_eq!("Receiver.Example".parse::<ServerName>().unwrap().as_str(), "receiver.example");
        for bad in ["", "10.0.0.1", "::1", "a b", "a/b", "a:1", "*.example"] {
            assert!(bad.parse::<ServerName>().is_err(), "{bad:?}");
        }
    }
}
