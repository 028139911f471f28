//! By which name this host is asked.
//!
//! Where nobody needs to log in, whoever can connect can read. A page from elsewhere in a browser on this host can connect to loopback, and could read the
//! answer if it had its own name lead here (DNS rebinding). So what came in over loopback is answered only if the host was called by a name that is its own.
//! Metrics and health, which scrapers ask for by any name, are left out of this.

use axum::extract::Request;
use axum::http::{Uri, header};
use std::net::IpAddr;

use super::layer::Loopback;

/// Whether a request for deaths calls this host by a name that is not its own.
pub(super) fn is_strange(request: &Request, names: &[String]) -> bool {
    let path = request.uri().path();
    let of_deaths =
        path == "/" || ["/api/", "/deaths/", "/host"].iter().any(|at| path.starts_with(at));
    if !of_deaths || request.extensions().get::<Loopback>().is_none() {
        return false;
    }
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    // HTTP/1.0 may leave it out; a browser does not.
    host.is_some_and(|host| !is_own(host, names))
}

fn is_own(host: &str, names: &[String]) -> bool {
    let Ok(uri) = host.parse::<Uri>() else { return false };
    let name = uri.host().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok()
        || name == "localhost"
        || name.ends_with(".localhost")
        || names.iter().any(|own| *own == name || short(own) == name)
}

fn short(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_names() {
        let names = ["node-1".to_owned(), "node-1.example".to_owned()];
        for (host, own) in [
            ("127.0.0.1:9435", true),
            ("[::1]:9435", true),
            ("10.1.2.3", true),
            ("localhost:9435", true),
            ("LOCALHOST", true),
            ("killwatch.localhost:1", true),
            ("node-1:9435", true),
            ("Node-1.example", true),
            ("node-1.evil.example", false),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
            ("a b", false),
        ] {
            assert_eq!(is_own(host, &names), own, "{host}");
        }
    }
}
