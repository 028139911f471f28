//! What a user may set about how a sink speaks HTTP: the section `http` of each such sink.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use reqwest::header::{HeaderName, HeaderValue};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::url::{HttpUrl, ServerName};
use crate::config::{AbsolutePath, Period, Refused, values};

/// How a sink speaks HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// How long one request may take, from reading its secrets to the end of the answer.
    pub timeout: Period<100, 10_000, 60_000>,
    /// A proxy that requests go through. What the environment says (`HTTPS_PROXY`) is not looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_url: Option<HttpUrl>,
    /// Certificates.
    pub tls: TlsFiles,
    /// Credentials for the header `Authorization`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Authorization>,
    /// User and password, for the same header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuth>,
    /// Further headers. At most [`HttpConfig::MAX_HEADERS`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<HeaderKey, HeaderSource>,
}

/// Certificates, as PEM files. They are read anew when they change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsFiles {
    /// Authorities that the receiver's certificate may come from, instead of the host's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<AbsolutePath>,
    /// A certificate for the daemon itself, with its chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<AbsolutePath>,
    /// The private key of that certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<AbsolutePath>,
    /// The name that the receiver's certificate bears, if it is not the host of the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<ServerName>,
}

/// The header `Authorization`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authorization {
    /// Its scheme; `Bearer` unless set.
    #[serde(default, rename = "type")]
    pub scheme: Scheme,
    /// A file with the credentials, at most 64 KiB, read for each request.
    pub credentials_file: AbsolutePath,
}

/// User and password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasicAuth {
    /// The user.
    pub username: Username,
    /// A file with the password, at most 64 KiB, read for each request.
    pub password_file: AbsolutePath,
}

/// An authentication scheme, such as `Bearer` or `Token`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Scheme(String);

/// A user's name for basic authentication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Username(String);

/// Name of a further header, lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct HeaderKey(String);

/// What a further header says.
#[derive(Clone, PartialEq, Eq)]
pub enum HeaderSource {
    /// This.
    Value(HeaderValue),
    /// What stands in this file, at most 64 KiB, read for each request. Written `{file: …}`.
    File(AbsolutePath),
}

impl HttpConfig {
    /// More further headers are refused.
    pub const MAX_HEADERS: usize = 16;

    /// What the types of the values cannot tell, for requests to `url`.
    ///
    /// # Errors
    /// One line that says what is wrong and what to do.
    pub fn check(&self, url: &HttpUrl) -> Result<(), String> {
        let tls = &self.tls;
        if self.headers.len() > Self::MAX_HEADERS {
            return Err(format!("http.headers: must have at most {}", Self::MAX_HEADERS));
        }
        if self.authorization.is_some() && self.basic_auth.is_some() {
            return Err("http.authorization and http.basic_auth exclude each other: both make the header Authorization".to_owned());
        }
        if tls.cert_file.is_some() != tls.key_file.is_some() {
            return Err(
                "http.tls.cert_file and http.tls.key_file go together: set both or none".to_owned()
            );
        }
        let any_https = url.is_https() || self.proxy_url.as_ref().is_some_and(HttpUrl::is_https);
        if *tls != TlsFiles::default() && !any_https {
            return Err(format!("http.tls has no effect on {url}: use https://"));
        }
        if tls.server_name.is_some() && (!url.is_https() || self.proxy_url.is_some()) {
            return Err("http.tls.server_name wants an https:// address and no proxy_url: name the host as its certificate does".to_owned());
        }
        let proxy_is_near = self.proxy_url.as_ref().is_none_or(HttpUrl::is_loopback);
        let is_safe = url.is_https() || (url.is_loopback() && proxy_is_near);
        if let Some(key) = self.has_secrets().filter(|_| !is_safe) {
            return Err(format!(
                "http.{key}: the way to {url} is not encrypted, and others could read the secret: use https://"
            ));
        }
        Ok(())
    }

    /// The first key by which a secret would be sent.
    fn has_secrets(&self) -> Option<&'static str> {
        let in_header = |source: &HeaderSource| matches!(source, HeaderSource::File(_));
        if self.authorization.is_some() {
            Some("authorization")
        } else if self.basic_auth.is_some() {
            Some("basic_auth")
        } else {
            self.headers.values().any(in_header).then_some("headers")
        }
    }
}

impl Scheme {
    /// The scheme.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Scheme {
    fn default() -> Self {
        Self("Bearer".to_owned())
    }
}

impl FromStr for Scheme {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if plain && (1..=64).contains(&text.len()) && !text.eq_ignore_ascii_case("basic") {
            return Ok(Self(text.to_owned()));
        }
        Err(Refused::new(
            "must be one word, such as Bearer, at most 64 bytes; for Basic there is basic_auth",
        ))
    }
}

impl Username {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Username {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        if (1..=256).contains(&text.len()) && !text.chars().any(|c| c == ':' || c.is_control()) {
            return Ok(Self(text.to_owned()));
        }
        Err(Refused::new("must be 1 to 256 bytes without `:` and control characters"))
    }
}

impl HeaderKey {
    /// Headers that the daemon makes itself, or that say where a message ends or who may send it.
    const RESERVED: &[&str] = &[
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
    ];

    pub(super) fn name(&self) -> Option<HeaderName> {
        self.0.parse().ok()
    }
}

impl FromStr for HeaderKey {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let name = text.parse::<HeaderName>().ok().filter(|_| text.len() <= 128);
        let name = name.filter(|name| !Self::RESERVED.contains(&name.as_str()));
        name.map(|name| Self(name.as_str().to_owned())).ok_or_else(|| {
            Refused::new("must be the name of a header, at most 128 bytes, that the daemon does not make itself; for Authorization there is http.authorization")
        })
    }
}

values::through_from_str!(Scheme, Username, HeaderKey);

impl HeaderSource {
    /// A value in the configuration may be this long: bytes.
    const MAX: usize = 4096;
}

impl FromStr for HeaderSource {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let value = HeaderValue::from_str(text).ok().filter(|_| text.len() <= Self::MAX);
        value.map(Self::Value).ok_or_else(|| {
            Refused::new(format!("must be a header's value of at most {} bytes without control characters, or {{file: PATH}}", Self::MAX))
        })
    }
}

impl fmt::Debug for HeaderSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => f.write_str("…"),
            Self::File(path) => fmt::Display::fmt(path, f),
        }
    }
}

impl Serialize for HeaderSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{self:?}"))
    }
}

impl<'de> Deserialize<'de> for HeaderSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SourceVisitor)
    }
}

struct SourceVisitor;

impl<'de> Visitor<'de> for SourceVisitor {
    type Value = HeaderSource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, in quotes if it is a number, or {file: PATH}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<HeaderSource, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<HeaderSource, A::Error> {
        let Some(key) = map.next_key::<String>()? else {
            return Err(de::Error::missing_field("file"));
        };
        if key != "file" {
            return Err(de::Error::unknown_field(&key, &["file"]));
        }
        let file = map.next_value()?;
        match map.next_key::<String>()? {
            Some(key) => Err(de::Error::unknown_field(&key, &["file"])),
            None => Ok(HeaderSource::File(file)),
        }
    }
}
