//! HTTP for the sinks that speak it: one request at a time to one address, everything about it bounded.
//!
//! * A request has one deadline, from reading its secrets to the last byte of the answer. Of the answer at most [`reply::MAX_BODY`] bytes are
//!   read, then the connection is closed; its head is bounded by hyper (100 headers, about 400 KiB).
//! * A redirect is never followed, `HTTP_PROXY` and its like are not looked at, certificates are always verified: there is no key against it.
//! * Secrets and TLS files are taken up as they change. Errors name scheme, host and port of an address and nothing else of it: the path of a
//!   webhook may be a secret too.
//!
//! What an answer means ([`reply::Reply::accepted`]):
//!
//! | answer | is |
//! |---|---|
//! | 2xx | accepted |
//! | 3xx | later: the address in the configuration is wrong, and mending it should lose no death |
//! | 401, 403, 404, 405, 407 | later, for the same reason: credentials or the address want mending, whatever the message is. An ingress without a backend says 404 too |
//! | 408, 425, 429, 5xx | later, not before `Retry-After`, of which at most [`retry_after::MAX`] counts |
//! | 410 | gone: the receiver wants nothing any more |
//! | any other 4xx, such as 400, 413, 422 | refused: the message will never be taken |
//! | anything else; no answer, a broken one, a wrong certificate | later |

mod client;
mod config;
pub mod links;
pub mod reply;
pub mod retry_after;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod url;

pub use client::{Client, Request};
pub use config::{Authorization, BasicAuth, HeaderKey, HeaderSource, HttpConfig, TlsFiles};
pub use url::HttpUrl;
