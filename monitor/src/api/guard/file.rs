//! The file itself: exporter-toolkit's format, less what this server does not do. That is refused, not passed by: whoever wrote it relies on it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::notify::secret::read_file;

/// A file that is longer is not read: bytes.
const MAX_BYTES: u64 = 256 << 10;
/// Users, at most.
const MAX_USERS: usize = 64;
/// Largest cost of a hash: two to that many rounds, a second or two each time.
const MAX_COST: u32 = 14;
/// The headers that the toolkit knows.
const HEADERS: [HeaderName; 5] = [
    header::CONTENT_SECURITY_POLICY,
    header::STRICT_TRANSPORT_SECURITY,
    header::X_CONTENT_TYPE_OPTIONS,
    header::X_FRAME_OPTIONS,
    header::X_XSS_PROTECTION,
];

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct WebFileError {
    /// The file.
    pub path: PathBuf,
    /// The key, what is wrong, and where.
    pub problem: String,
}

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WebFile {
    pub(super) tls_server_config: Option<TlsServer>,
    pub(super) http_server_config: HttpServer,
    pub(super) basic_auth_users: BTreeMap<String, Hash>,
    #[serde(deserialize_with = "no_rate_limit")]
    rate_limit: (),
}

/// TLS.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TlsServer {
    pub(super) cert_file: PathBuf,
    pub(super) key_file: PathBuf,
    pub(super) client_ca_file: Option<PathBuf>,
    pub(super) client_auth_type: ClientAuth,
    pub(super) min_version: Option<Version>,
    pub(super) max_version: Option<Version>,
    pub(super) cipher_suites: Vec<String>,
    pub(super) curve_preferences: Vec<Curve>,
    pub(super) prefer_server_cipher_suites: Option<bool>,
    #[serde(deserialize_with = "no_inline")]
    cert: (),
    #[serde(deserialize_with = "no_inline")]
    key: (),
    #[serde(deserialize_with = "no_inline")]
    client_ca: (),
    #[serde(deserialize_with = "no_sans")]
    client_allowed_sans: (),
}

impl TlsServer {
    /// With its files beside the file that names them, where they are not named from the root.
    pub(super) fn beside(mut self, directory: &Path) -> Self {
        self.cert_file = directory.join(self.cert_file);
        self.key_file = directory.join(self.key_file);
        self.client_ca_file = self.client_ca_file.map(|file| directory.join(file));
        self
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.cert_file, &self.key_file].into_iter().chain(&self.client_ca_file).map(|p| &**p)
    }

    fn check(&self) -> Result<(), String> {
        let wrong = |key: &str, what: &str| Err(format!("tls_server_config.{key}: {what}"));
        if self.cert_file.as_os_str().is_empty() {
            return wrong("cert_file", "is missing: TLS needs a certificate");
        }
        if self.key_file.as_os_str().is_empty() {
            return wrong("key_file", "is missing: TLS needs the certificate's key");
        }
        match (self.client_auth_type, &self.client_ca_file) {
            (ClientAuth::NoClientCert, Some(_)) => {
                return wrong(
                    "client_ca_file",
                    "is set, but client_auth_type asks no client for a certificate: must be VerifyClientCertIfGiven or RequireAndVerifyClientCert with it",
                );
            }
            (ClientAuth::NoClientCert, None) => {}
            (_, None) => {
                return wrong(
                    "client_auth_type",
                    "needs client_ca_file, by which a certificate is verified",
                );
            }
            (_, Some(_)) => {}
        }
        if self.min_version == Some(Version::Tls13) && self.max_version == Some(Version::Tls12) {
            return wrong("max_version", "is below min_version");
        }
        Ok(())
    }
}

/// Whether clients show a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub enum ClientAuth {
    /// No.
    #[default]
    NoClientCert,
    /// It is verified if there is one.
    VerifyClientCertIfGiven,
    /// It is verified, and without one nobody gets in.
    RequireAndVerifyClientCert,
}

impl ClientAuth {
    /// Its name in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoClientCert => "NoClientCert",
            Self::VerifyClientCertIfGiven => "VerifyClientCertIfGiven",
            Self::RequireAndVerifyClientCert => "RequireAndVerifyClientCert",
        }
    }
}

impl<'de> Deserialize<'de> for ClientAuth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "" | "NoClientCert" => Ok(Self::NoClientCert),
            "VerifyClientCertIfGiven" => Ok(Self::VerifyClientCertIfGiven),
            "RequireAndVerifyClientCert" => Ok(Self::RequireAndVerifyClientCert),
            unverified @ ("RequestClientCert" | "RequireClientCert" | "RequireAnyClientCert") => {
                Err(D::Error::custom(format!(
                    "{unverified} is not supported: a certificate that is not verified proves nothing; RequireAndVerifyClientCert verifies it"
                )))
            }
            other => Err(D::Error::custom(format!(
                "{other:?} is not allowed: must be NoClientCert, VerifyClientCertIfGiven or RequireAndVerifyClientCert"
            ))),
        }
    }
}

/// Versions of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Tls12,
    Tls13,
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "TLS12" => Ok(Self::Tls12),
            "TLS13" => Ok(Self::Tls13),
            old @ ("TLS10" | "TLS11") => Err(D::Error::custom(format!(
                "{old} is not supported, since it is not safe: must be TLS12 or TLS13"
            ))),
            other => {
                Err(D::Error::custom(format!("{other:?} is not allowed: must be TLS12 or TLS13")))
            }
        }
    }
}

/// Key exchanges, by the toolkit's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum Curve {
    CurveP256,
    CurveP384,
    X25519,
}

/// HTTP.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HttpServer {
    #[serde(deserialize_with = "no_http2")]
    http2: bool,
    headers: BTreeMap<String, String>,
}

impl HttpServer {
    /// The headers of every answer that does not set them itself.
    pub(super) fn headers(&self) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let wrong = |what: &str| format!("http_server_config.headers.{name}: {what}");
            let known = HEADERS.iter().find(|known| known.as_str().eq_ignore_ascii_case(name));
            let Some(known) = known else {
                let names: Vec<_> = HEADERS.iter().map(HeaderName::as_str).collect();
                return Err(wrong(&format!("cannot be set: only {} can", names.join(", "))));
            };
            if value.is_empty() {
                continue;
            }
            let value = HeaderValue::from_str(value).map_err(|_| wrong("is no header's value"))?;
            headers.insert(known.clone(), value);
        }
        Ok(headers)
    }
}

/// A bcrypt hash of a password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Hash {
    pub(super) text: String,
    pub(super) cost: u32,
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hash(…)")
    }
}

impl FromStr for Hash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // What stands there is not repeated: it may be a password.
        let parts = bcrypt::HashParts::from_str(text);
        let cost = parts.map(|parts| parts.get_cost()).ok().filter(|_| text.starts_with("$2"));
        match cost {
            Some(cost) if (4..=MAX_COST).contains(&cost) => {
                Ok(Self { text: text.to_owned(), cost })
            }
            Some(cost) => Err(format!(
                "a hash of cost {cost} is not allowed: must be from 4 to {MAX_COST}, or each login would take too long"
            )),
            None => Err("is no bcrypt hash, such as `htpasswd -nBC 10 NAME` prints".to_owned()),
        }
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

fn no_inline<'de, D: Deserializer<'de>>(_: D) -> Result<(), D::Error> {
    Err(D::Error::custom("is not supported: name a file (cert_file, key_file, client_ca_file)"))
}

fn no_sans<'de, D: Deserializer<'de>>(_: D) -> Result<(), D::Error> {
    Err(D::Error::custom(
        "is not supported: have client_ca_file hold an authority that certifies those clients alone",
    ))
}

fn no_rate_limit<'de, D: Deserializer<'de>>(_: D) -> Result<(), D::Error> {
    Err(D::Error::custom("is not supported: connections are bounded in number and time as it is"))
}

fn no_http2<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match bool::deserialize(deserializer)? {
        false => Ok(false),
        true => Err(D::Error::custom("true is not supported: HTTP/1.1 is spoken; leave it out")),
    }
}

/// Reads a file. May block.
pub(super) fn read(path: &Path) -> Result<WebFile, WebFileError> {
    let wrong = |problem: String| WebFileError { path: path.to_owned(), problem };
    let bytes =
        read_file(path, MAX_BYTES).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    parse(&bytes).map_err(wrong)
}

/// Reads YAML.
pub(super) fn parse(yaml: &[u8]) -> Result<WebFile, String> {
    let file: WebFile = crate::yaml::read(yaml)?;
    if file.basic_auth_users.len() > MAX_USERS {
        return Err(format!("basic_auth_users: more than {MAX_USERS} are not allowed"));
    }
    let unsayable =
        |name: &&String| name.is_empty() || name.contains(':') || name.contains(char::is_control);
    if let Some(name) = file.basic_auth_users.keys().find(unsayable) {
        return Err(format!(
            "basic_auth_users: {name:?} cannot be a name: it must not be empty nor hold `:`"
        ));
    }
    file.tls_server_config.as_ref().map_or(Ok(()), TlsServer::check)?;
    file.http_server_config.headers()?;
    Ok(file)
}
