//! The sink that posts each message as a CloudEvent to an address of the user's.
//!
//! A message is one event in CloudEvents 1.0's structured mode; with `batch` above 1 several go into one request, in the batched mode. Its id is the
//! record's, the same however often it is sent, so that a receiver can tell what it has already.
//!
//! A batch that is refused is halved until it is known which message is meant. One event that is too large for the receiver (413) is sent once more in
//! its lean form before it is given up.

use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::deliver::{Deliver, Failure, Message, Outcome};
use super::http::links::Linked;
use super::http::reply::Reply;
use super::http::{Client, HttpConfig, HttpUrl, Request};
use super::secret::SecretFile;
use crate::clock::Clock;
use crate::config::{AbsolutePath, Count};

mod event;
mod lean;
mod sign;
#[cfg(test)]
mod tests;

pub use event::MAX_EVENT;

/// A request is not longer, however many messages a batch may have: bytes. Many receivers take no more.
pub const MAX_REQUEST: usize = 1 << 20;

/// Where and how a webhook is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// The address that events are posted to.
    pub url: HttpUrl,
    /// How.
    #[serde(default)]
    pub http: HttpConfig,
    /// How much of a record an event has.
    #[serde(default)]
    pub template: Template,
    /// Events in one request. Above 1 in CloudEvents' batched mode, also if there is but one.
    #[serde(default)]
    pub batch: Count<1, 1, 100>,
    /// Whether requests are signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hmac: Option<HmacConfig>,
}

/// How much of a record an event has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Template {
    /// All of it, as it stands in the ledger, unless the event would be longer than [`MAX_EVENT`].
    #[default]
    Full,
    /// The record without its lists: no command line, no environment, no evidence, no levels of memory, no labels.
    Lean,
}

/// Signatures as Standard Webhooks has them: headers `webhook-id`, `webhook-timestamp`, `webhook-signature`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HmacConfig {
    /// A file with the key: `whsec_` and base64, or the bytes themselves; at least 24 bytes.
    pub key_file: AbsolutePath,
}

impl WebhookConfig {
    /// What the types of the values cannot tell.
    ///
    /// # Errors
    /// One line that says what is wrong and what to do.
    pub fn check(&self) -> Result<(), String> {
        self.http.check(&self.url)
    }
}

/// The sink.
#[derive(Debug)]
pub struct Webhook {
    client: Client,
    template: Template,
    batch: usize,
    key: Option<SecretFile>,
    linked: Linked,
}

impl Webhook {
    /// Touches no file and nobody on the network.
    ///
    /// # Errors
    /// If settings do not go together.
    pub fn new(config: &WebhookConfig, linked: Linked) -> Result<Self, String> {
        Ok(Self {
            client: Client::new(&config.url, &config.http)?,
            template: config.template,
            batch: config.batch.get(),
            key: config.hmac.as_ref().map(|hmac| SecretFile::new(hmac.key_file.clone())),
            linked,
        })
    }

    /// Posts as many of the messages, from the first on, as one request may have. Says how many these were.
    async fn post(&mut self, messages: &[Message]) -> Result<usize, (usize, Failure)> {
        let mut taken: Vec<Vec<u8>> = Vec::new();
        // With the brackets.
        let mut length = 2;
        for message in messages {
            match event::encode(message, self.template, &self.linked) {
                Ok(event) if taken.is_empty() || length + event.len() < MAX_REQUEST => {
                    length += event.len() + 1;
                    taken.push(event);
                }
                Err(why) if taken.is_empty() => return Err((1, Failure::Refused(why))),
                // It opens the next request, or is what that fails of.
                _ => break,
            }
        }
        let count = taken.len();
        // The same messages have the same id, and no others: a half of a batch is not the batch.
        let id = match messages.get(..count).unwrap_or_default() {
            [first, .., last] => format!("{}_{}", event::id(first), event::id(last)),
            one => one.iter().map(|message| event::id(message).to_string()).collect(),
        };
        let mut reply = self.send(&id, taken).await.map_err(|failure| (count, failure))?;
        if let ([message], StatusCode::PAYLOAD_TOO_LARGE, Template::Full) =
            (messages.get(..count).unwrap_or_default(), reply.status, self.template)
        {
            let event = event::encode(message, Template::Lean, &self.linked);
            let event = event.map_err(|why| (count, Failure::Refused(why)))?;
            reply = self.send(&id, vec![event]).await.map_err(|failure| (count, failure))?;
        }
        reply.accepted().map(|_| count).map_err(|failure| (count, failure))
    }

    async fn send(&mut self, id: &str, events: Vec<Vec<u8>>) -> Result<Reply, Failure> {
        let (content_type, body) = if self.batch > 1 {
            let mut body = vec![b'['];
            body.extend(events.join(&b','));
            body.push(b']');
            ("application/cloudevents-batch+json", body)
        } else {
            ("application/cloudevents+json", events.concat())
        };
        let headers = match &mut self.key {
            None => Vec::new(),
            Some(file) => {
                let later = |why| Failure::Later { why, after: None };
                let read = tokio::time::timeout(self.client.timeout(), file.get()).await;
                let slow =
                    |_| later("hmac.key_file: it took longer than http.timeout to read".into());
                let secret = read.map_err(slow)?.map_err(later)?;
                let now = Clock.now().as_second().to_string();
                let signature = sign::signature(&secret, id, &now, &body).map_err(later)?;
                let named = [
                    ("webhook-id", id),
                    ("webhook-timestamp", &now),
                    ("webhook-signature", &signature),
                ];
                let header = |(name, text): (&'static str, &str)| {
                    Some((HeaderName::from_static(name), HeaderValue::from_str(text).ok()?))
                };
                named.into_iter().filter_map(header).collect()
            }
        };
        let request = Request { content_type, headers, body: Bytes::from(body) };
        self.client.post(request).await
    }
}

impl Deliver for Webhook {
    fn batch(&self) -> usize {
        self.batch
    }

    async fn deliver(&mut self, messages: &[Message]) -> Outcome {
        let mut accepted = 0;
        let mut size = self.batch;
        while let Some(left) = messages.get(accepted..).filter(|left| !left.is_empty()) {
            let chunk = left.get(..size).unwrap_or(left);
            let failure = match self.post(chunk).await {
                Ok(count) => {
                    accepted += count;
                    continue;
                }
                Err((count @ 2.., Failure::Refused(_))) => {
                    size = count / 2;
                    continue;
                }
                Err((_, failure)) => failure,
            };
            return Outcome { accepted, failure: Some(failure) };
        }
        Outcome::all(messages)
    }
}
