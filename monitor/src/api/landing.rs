//! The page at `/`: static, without scripts, and allowed none.

use axum::http::header;
use axum::response::{Html, IntoResponse};

use super::TelemetryPath;

/// The page. Its only variable part is the path of the metrics, which holds no character that HTML knows.
pub(super) fn page(telemetry_path: &TelemetryPath) -> impl IntoResponse + Clone + Send + 'static {
    let path = telemetry_path.as_str();
    let version = env!("CARGO_PKG_VERSION");
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>killwatch</title></head>\n<body>\n\
         <h1>killwatch {version}</h1>\n<p>Who was killed on this node, by what, why, and what to do.</p>\n<ul>\n\
         <li><a href=\"/api/v1/deaths\">/api/v1/deaths</a>: the deaths, newest first; <code>?since=15m&amp;limit=&amp;pid=&amp;job=</code></li>\n\
         <li><a href=\"/api/v1/status\">/api/v1/status</a>: the daemon and its probes</li>\n\
         <li><a href=\"{path}\">{path}</a>: metrics</li>\n\
         <li><a href=\"/-/ready\">/-/ready</a>, <a href=\"/-/healthy\">/-/healthy</a>: health</li>\n</ul>\n</body>\n</html>\n"
    );
    let policy = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let headers =
        [(header::CONTENT_SECURITY_POLICY, policy), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, Html(html))
}
