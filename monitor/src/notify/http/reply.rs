//! What a receiver answered, and what that means for the message.

use std::time::Duration;

use bytes::Bytes;
use reqwest::StatusCode;

use crate::notify::deliver::Failure;
use crate::notify::secret::Secret;
use crate::text::one_line;

/// Of an answer's body no more is read: bytes.
pub const MAX_BODY: usize = 64 << 10;
/// Of that, no more is shown in an error: bytes.
const MAX_SHOWN: usize = 200;

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// How long the receiver wants to be left alone.
    pub retry_after: Option<Duration>,
    /// Its body, at most [`MAX_BODY`] bytes.
    pub body: Bytes,
    /// Whether the body had more.
    pub cut: bool,
    /// Who answered, as errors name it.
    pub(super) from: String,
    /// What is not to be shown, should the receiver echo it.
    pub(super) secrets: Vec<Secret>,
}

impl Reply {
    /// The answer, if it says that the request was accepted.
    ///
    /// # Errors
    /// What the driver is told; see the table in [`super`].
    pub fn accepted(self) -> Result<Self, Failure> {
        if self.status.is_success() {
            return Ok(self);
        }
        Err(self.failure())
    }

    /// What an answer that accepts nothing means.
    fn failure(&self) -> Failure {
        let later = |advice| Failure::Later { why: self.why(advice), after: self.retry_after };
        match self.status.as_u16() {
            300..=399 => later("a redirect is never followed: set the address that it is at"),
            401 => later(
                "it does not know these credentials: look at http.authorization, http.basic_auth or http.tls.cert_file",
            ),
            403 => {
                later("these credentials may not do this: give them the right to, or use others")
            }
            404 | 405 => later("nobody takes messages there: look at the address"),
            407 => later(
                "the proxy wants credentials, which it cannot be given here: use another proxy_url",
            ),
            408 | 425 | 429 | 500..=599 => later("it is sent again"),
            410 => Failure::Gone(
                self.why("it wants no messages any more: take the sink out of the configuration"),
            ),
            400..=499 => Failure::Refused(self.why("it will never take this message")),
            _ => later("this is no answer to a POST: look at the address"),
        }
    }

    fn why(&self, advice: &str) -> String {
        let (from, status) = (&self.from, self.status.as_u16());
        let said = self.excerpt();
        let said = if said.is_empty() { said } else { format!(": {said}") };
        format!("{from} answered {status}, {advice}{said}")
    }

    /// The start of the body on one line, without the secrets of the request.
    #[must_use]
    pub fn excerpt(&self) -> String {
        let mut text = crate::text::from_bytes(&self.body);
        for secret in self.secrets.iter().filter_map(|secret| str::from_utf8(secret.bytes()).ok()) {
            text = text.replace(secret, "…");
        }
        cut(one_line(text.trim()), MAX_SHOWN)
    }
}

/// At most `max` bytes of a text, whole characters.
pub(super) fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &'static [u8]) -> Reply {
        Reply {
            status: StatusCode::from_u16(status).unwrap(),
            retry_after: Some(Duration::from_secs(7)),
            body: Bytes::from_static(body),
            cut: false,
            from: "https://a".to_owned(),
            secrets: Vec::new(),
        }
    }

    #[test]
    fn each_status_is_one_of_four() {
        for status in 200..=999 {
            let kind = match reply(status, b"").accepted() {
                Ok(_) => "accepted",
                Err(Failure::Gone(_)) => "gone",
                Err(Failure::Refused(_)) => "refused",
                Err(Failure::Later { after, .. }) => {
                    assert_eq!(after, Some(Duration::from_secs(7)), "{status}");
                    "later"
                }
            };
            let right = match status {
                200..=299 => "accepted",
                410 => "gone",
                401 | 403 | 404 | 405 | 407 | 408 | 425 | 429 => "later",
                400..=499 => "refused",
                _ => "later",
            };
            assert_eq!(kind, right, "{status}");
        }
    }

    #[test]
    fn an_error_is_one_short_line() {
        let long: &'static [u8] =
            Box::leak(format!("\r\n{}\x1b[2J\n", "é".repeat(300)).into_bytes().into());
        let Err(Failure::Refused(why)) = reply(422, long).accepted() else { panic!("not refused") };
        assert!(
            why.starts_with("https://a answered 422, it will never take this message: éé"),
            "{why}"
        );
        assert!(!why.contains(char::is_control) && why.len() < 300, "{why}");
        let Err(Failure::Refused(why)) = reply(400, b"\x1b[2J\xff\n<").accepted() else {
            panic!("not refused")
        };
        assert!(why.ends_with(": \\u{1b}[2J\\xff\\n<"), "{why}");
    }

    #[test]
    fn a_receiver_that_echoes_a_secret_does_not_bring_it_into_the_log() {
        let mut reply = reply(401, b"no such token: hunter2!");
        reply.secrets = vec![Secret::from("hunter2")];
        assert_eq!(reply.excerpt(), "no such token: …!");
        assert!(!format!("{reply:?}").contains("Secret(hunter2"));
    }
}
