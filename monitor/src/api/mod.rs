//! HTTP: metrics, health, deaths and the state of the daemon. Read only: GET and HEAD. Beside it the [`socket`] for workers.
//!
//! Every answer is bounded: the page of deaths by `limit`, the metrics by `metrics.max_series`. Every request is bounded in
//! time, head and body, and so is the number of connections ([`serve`]).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use tower_http::compression::CompressionLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;

use crate::config::{AbsolutePath, Refused, values};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::notify::Links;
use crate::watch::Watch;

mod answer;
pub mod cgroups;
mod chunks;
mod deaths;
pub mod guard;
mod health;
mod page;
mod peers;
mod query;
pub mod serve;
pub mod socket;
mod status;
#[cfg(test)]
mod tests;

pub use cgroups::{CgroupUse, Cgroups};
pub use guard::Guard;
pub use query::MAX_LIMIT;
pub use serve::{Server, bind};
pub use socket::config::{ApiConfig, SocketGroup, SocketMode, SocketPath};
pub use status::{NotReady, Sight, Status};

/// Longest that the making of an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest body of a request; none is read.
const BODY: usize = 1024;

/// HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebConfig {
    /// Addresses to serve HTTP on. At most [`WebConfig::MAX_ADDRESSES`].
    pub listen_address: Vec<ListenAddress>,
    /// Path of the metrics.
    pub telemetry_path: TelemetryPath,
    /// File that says who may look: TLS, client certificates, names and passwords.
    pub config_file: Option<AbsolutePath>,
    /// Whether deaths are shown: the pages and the API. Metrics, health and how the daemon fares always are.
    pub deaths: bool,
}

impl WebConfig {
    /// More addresses than this are refused.
    pub const MAX_ADDRESSES: usize = 16;
}

impl Default for WebConfig {
    fn default() -> Self {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 9435));
        Self {
            listen_address: vec![ListenAddress(local)],
            telemetry_path: TelemetryPath::default(),
            config_file: None,
            deaths: true,
        }
    }
}

/// An address to listen on: `127.0.0.1:9435`, `[::1]:9435`, or `:9435` for every address of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ListenAddress(SocketAddr);

impl ListenAddress {
    /// The address.
    #[must_use]
    pub const fn get(self) -> SocketAddr {
        self.0
    }
}

impl FromStr for ListenAddress {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let port = text.strip_prefix(':').and_then(|port| port.parse().ok());
        let address = match port {
            Some(port) => Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)),
            None => text.parse().ok(),
        };
        address.map(Self).ok_or_else(|| {
            Refused::new("must be an IP address and a port, such as 127.0.0.1:9435 or [::1]:9435, or :9435 for every address")
        })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for ListenAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Path of the metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct TelemetryPath(String);

impl TelemetryPath {
    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TelemetryPath {
    fn default() -> Self {
        Self("/metrics".to_owned())
    }
}

impl FromStr for TelemetryPath {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-_.".contains(&b);
        let taken =
            ["/-/", "/api/", "/deaths/", "/assets/"].iter().any(|place| text.starts_with(place))
                || text == "/host";
        if text.len() > 1
            && text.len() <= 200
            && text.starts_with('/')
            && text.bytes().all(plain)
            && !taken
        {
            return Ok(Self(text.to_owned()));
        }
        Err(Refused::new(
            "must be a path such as /metrics: letters, digits and `-_./`, at most 200, not `/`, not /host, and not below /-/, /api/, /deaths/ or /assets/",
        ))
    }
}

values::through_from_str!(ListenAddress, TelemetryPath);

/// What the answers are made of.
#[derive(Debug)]
pub struct State {
    /// The deaths.
    pub ledger: Arc<Ledger>,
    /// The numbers.
    pub metrics: Arc<Metrics>,
    /// The daemon itself.
    pub status: Arc<Status>,
    /// Where more is to be found.
    pub links: Links,
    /// Whether deaths are shown.
    pub deaths: bool,
    /// Follows the memory of cgroups.
    pub watch: Option<Watch>,
}

/// All routes.
pub fn router(state: Arc<State>, telemetry_path: &TelemetryPath, guard: Arc<Guard>) -> Router {
    let deaths = if state.deaths {
        page::of_deaths()
            .route("/api/v1/deaths", get(deaths::list))
            .route("/api/v1/deaths/{id}", get(deaths::one))
            .route("/api/v1/cgroups", get(cgroups::list))
    } else {
        Router::new()
            .route("/", get(page::without_deaths))
            .route("/api/v1/deaths", get(answer::no_deaths))
            .route("/api/v1/deaths/{id}", get(answer::no_deaths))
            .route("/api/v1/cgroups", get(answer::no_deaths))
            .route("/deaths/{id}", get(answer::no_deaths))
    };
    Router::new()
        .route("/-/healthy", get(health::healthy))
        .route("/-/ready", get(health::ready))
        .route(telemetry_path.as_str(), get(health::metrics))
        .route("/api/v1/status", get(health::status))
        .merge(deaths)
        .merge(page::of_host())
        .fallback(answer::no_such_path)
        .method_not_allowed_fallback(answer::read_only)
        .with_state(state)
        .layer(from_fn_with_state(guard, guard::layer::guard))
        .layer(CompressionLayer::new())
        .layer(RequestBodyLimitLayer::new(BODY))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, ANSWER))
}
