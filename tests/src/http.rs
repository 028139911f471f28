//! Asking one server by HTTP.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use ureq::Agent;

use crate::wait::scaled;

/// An answer takes this long at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks one server, past any proxy.
#[derive(Debug)]
pub struct Client {
    address: String,
    agent: Agent,
}

impl Client {
    /// Asks the server at `address`, as in `127.0.0.1:9435`.
    #[must_use]
    pub fn new(address: String) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(scaled(PATIENCE)))
            .proxy(None)
            .http_status_as_error(false);
        Self { address, agent: config.build().new_agent() }
    }

    /// The server's address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Status and body of an answer, whatever the status.
    ///
    /// # Errors
    /// When there is no answer, or its body is no text.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        let url = format!("http://{}{path}", self.address);
        let ask = || self.agent.get(&url).call();
        let mut answer = ask()
            .or_else(|error| if was_closed(&error) { ask() } else { Err(error) })
            .with_context(|| format!("GET {path}"))?;
        let body = answer.body_mut().read_to_string();
        Ok((
            answer.status().as_u16(),
            body.with_context(|| format!("read the answer to GET {path}"))?,
        ))
    }

    /// Posts JSON. Status and body of the answer, whatever the status.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post(&self, path: &str, body: &Value) -> Result<(u16, String)> {
        let url = format!("http://{}{path}", self.address);
        let request = self.agent.post(&url).header("content-type", "application/json");
        let mut answer = request.send(body.to_string()).with_context(|| format!("POST {path}"))?;
        let body = answer.body_mut().read_to_string();
        let body = body.with_context(|| format!("read the answer to POST {path}"))?;
        Ok((answer.status().as_u16(), body))
    }
}

/// A text as the value of a query's parameter: all but the unreserved characters of RFC 3986 are percent-encoded.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// Whether the server closed the connection before it answered: one that is used again it may have closed just then, for it had been idle.
fn was_closed(error: &ureq::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let closed = [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof];
    matches!(error, ureq::Error::Io(error) if closed.contains(&error.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn a_value_of_a_query_is_escaped() {
        assert_eq!(escaped("up{a=\"é\"} > 0"), "up%7Ba%3D%22%C3%A9%22%7D%20%3E%200");
    }

    #[test]
    fn an_answer_is_taken_whatever_its_status() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = Client::new(listener.local_addr().unwrap().to_string());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let count = stream.read(&mut request).unwrap();
            let answer = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 7\r\nconnection: close\r\n\r\nnot yet";
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        assert_eq!(client.get("/-/ready").unwrap(), (503, "not yet".to_owned()));
        assert!(server.join().unwrap().starts_with("GET /-/ready HTTP/1.1"));
        assert!(client.get("/-/ready").is_err(), "nobody listens any more");
    }
}
