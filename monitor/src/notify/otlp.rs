//! The sink that sends log records over OTLP/HTTP, in JSON, as <https://opentelemetry.io/docs/specs/otlp/#otlphttp> has it.
//!
//! * One request carries up to `batch` records. One that is refused is halved until the record is found that is refused alone: the others are
//!   taken, and that one is skipped.
//! * Only 429, 502, 503, 504 and what happens on the way there are tried again; the specification forbids it for every other error.
//! * Records that the receiver says it did not keep (`partialSuccess`) are counted and not sent again.
//!
//! `records` and `attributes` make records of messages, `wire` is their JSON form, `answer` reads answers. None of them does I/O.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use super::deliver::{Deliver, Failure, Message, Outcome};
use super::http::{self, Client};
use crate::ops::worth_a_line;

mod answer;
mod attributes;
mod config;
mod records;
#[cfg(test)]
mod tests;
mod wire;

use answer::{Answered, judge};
pub use config::{Endpoint, OtlpConfig, ResourceAttributes};

/// Where logs are taken, below the endpoint.
const PATH: &str = "/v1/logs";

/// The sink.
#[derive(Debug)]
pub struct Otlp {
    client: Client,
    /// Who is meant, as errors say it.
    name: String,
    batch: usize,
    /// No call begins a further request after this.
    call: Duration,
    resource: Vec<wire::Attribute<'static>>,
    rejected: Counter,
    lines: std::sync::atomic::AtomicU64,
}

impl Otlp {
    /// Sends for `node`. Records that a receiver said it did not keep are counted in `rejected`. Touches no file and nobody on the network.
    ///
    /// # Errors
    /// One line, if settings do not go together.
    pub fn new(config: &OtlpConfig, node: &str, rejected: Counter) -> Result<Self, String> {
        let url = config.endpoint.url();
        Ok(Self {
            client: Client::new(&url.under(PATH), &config.http)?,
            name: url.to_string(),
            batch: config.batch.get(),
            call: config.http.timeout.get(),
            resource: config.resource(node, std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()),
            rejected,
            lines: std::sync::atomic::AtomicU64::new(0),
        })
    }

    /// What one request says of them.
    pub(super) fn body(&self, messages: &[Message]) -> serde_json::Result<Vec<u8>> {
        let records: Vec<_> = messages.iter().map(records::record).collect();
        serde_json::to_vec(&wire::Request::new(&self.resource, &records))
    }

    /// Sends these in one request.
    async fn send(&self, messages: &[Message]) -> Result<(), Failure> {
        let body = self.body(messages);
        let body = body.map_err(|error| Failure::Refused(format!("no JSON form: {error}")))?;
        let request = http::Request {
            content_type: "application/json",
            headers: Vec::new(),
            body: body.into(),
        };
        let reply = self.client.post(request).await?;
        let status = reply.status.as_u16();
        match judge(status, &reply.body) {
            Answered::Taken { rejected } => {
                let rejected = rejected.min(messages.len() as u64);
                self.rejected.inc_by(rejected);
                if rejected > 0
                    && let Some(times) = worth_a_line(&self.lines, rejected)
                {
                    let (receiver, said) = (&self.name, reply.excerpt());
                    tracing::error!(
                        receiver,
                        said,
                        times,
                        "a receiver of OTLP did not keep records that it was sent"
                    );
                }
                Ok(())
            }
            Answered::Final => {
                let (said, name) = (reply.excerpt(), &self.name);
                let said = if said.is_empty() { said } else { format!(": {said}") };
                Err(Failure::Refused(format!(
                    "{name} answered {status}, which OTLP does not try again{said}"
                )))
            }
            Answered::AsOthers => reply.accepted().map(drop),
        }
    }
}

impl Deliver for Otlp {
    fn batch(&self) -> usize {
        self.batch
    }

    async fn deliver(&mut self, messages: &[Message]) -> Outcome {
        let end = Instant::now() + self.call;
        let (mut accepted, mut size) = (0, messages.len());
        while accepted < messages.len() {
            let rest = messages.get(accepted..).unwrap_or_default();
            let part = rest.get(..size).unwrap_or(rest);
            match self.send(part).await {
                Ok(()) => accepted += part.len(),
                // Which of them it is, and whether it is only that they are too many, halves tell.
                Err(Failure::Refused(_)) if part.len() > 1 => size = part.len() / 2,
                Err(failure) => return Outcome { accepted, failure: Some(failure) },
            }
            if accepted < messages.len() && Instant::now() >= end {
                let why = format!("{} is slow: the rest is sent anew", self.name);
                let failure = Failure::Later { why, after: Some(Duration::ZERO) };
                return Outcome { accepted, failure: Some(failure) };
            }
        }
        Outcome::all(messages)
    }
}
