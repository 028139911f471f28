//! The sink that raises an alert in Alertmanager (API v2) for each death, and lets it go when there were no more for a while.
//!
//! * Who an alert is, its labels say: what died and of what, never a pid, a size or a time. A death of the same workload and cause prolongs the alert.
//! * Alertmanager forgets an alert that is not sent again, and never tells of one whose end is past as it comes. So each is sent with an end that is
//!   `hold` ahead, again every third of `hold`, and once more with an end that is now, when `hold` after the last death is over. Should the daemon end
//!   before, Alertmanager resolves it by itself.
//! * All instances of a cluster are told, at once. A message is accepted when one of them has it: they tell each other, and who lacks it gets it with the
//!   next time it is sent.
//! * A batch of which one alert is not allowed is answered 400, and the others of it stand. So then each is sent alone, and the one that is meant is refused.
//! * At most [`MAX_HELD`] alerts are held; then the one whose last death is longest ago is let go and counted, and ends by itself.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::deliver::{Deliver, Failure, Message, Outcome};
use super::http::links::Linked;
use super::http::{HttpConfig, HttpUrl};
use crate::clock::Clock;
use crate::config::{Period, Refused, values};

mod alert;
mod held;
#[cfg(test)]
mod held_tests;
mod instances;
#[cfg(test)]
mod real;
#[cfg(test)]
mod tests;

pub use held::MAX_HELD;

use alert::{Alert, Maker};
use held::Held;
use instances::Instances;

/// Alerts in one request.
const BATCH: usize = 64;

/// Where and how Alertmanager is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertmanagerConfig {
    /// All instances of one cluster, each by itself and not behind a load balancer. At most [`AlertmanagerConfig::MAX_URLS`].
    pub urls: Vec<HttpUrl>,
    /// How they are spoken to.
    #[serde(default)]
    pub http: HttpConfig,
    /// How long an alert holds after the last death.
    #[serde(default)]
    pub hold: Period<60_000, 300_000, 3_600_000>,
    /// Further labels for every alert. At most [`AlertmanagerConfig::MAX_LABELS`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<LabelName, LabelValue>,
}

impl AlertmanagerConfig {
    /// More instances are refused.
    pub const MAX_URLS: usize = 8;
    /// More labels are refused.
    pub const MAX_LABELS: usize = 16;

    /// What the types of the values cannot tell.
    ///
    /// # Errors
    /// One line that says what is wrong and what to do.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=Self::MAX_URLS).contains(&self.urls.len()) {
            return Err(format!(
                "urls: must have 1 to {} items, one for each instance",
                Self::MAX_URLS
            ));
        }
        if self.labels.len() > Self::MAX_LABELS {
            return Err(format!("labels: must have at most {}", Self::MAX_LABELS));
        }
        self.urls.iter().try_for_each(|url| self.http.check(url))
    }
}

/// Name of a label that the user adds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct LabelName(String);

impl FromStr for LabelName {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let plain = text.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric());
        let fine = plain
            && (1..=64).contains(&text.len())
            && !text.starts_with(|c: char| c.is_ascii_digit());
        if fine && !text.starts_with("__") && !alert::LABELS.contains(&text) {
            return Ok(Self(text.to_owned()));
        }
        Err(Refused::new(format!(
            "must be letters, digits and `_`, at most 64, and none of {}",
            alert::LABELS.join(", ")
        )))
    }
}

/// Its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct LabelValue(String);

impl FromStr for LabelValue {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        if (1..=alert::MAX_VALUE).contains(&text.len()) && !text.contains(char::is_control) {
            return Ok(Self(text.to_owned()));
        }
        Err(Refused::new(format!(
            "must be 1 to {} bytes without control characters",
            alert::MAX_VALUE
        )))
    }
}

values::through_from_str!(LabelName, LabelValue);

/// The sink.
#[derive(Debug)]
pub struct Alertmanager {
    instances: Instances,
    maker: Maker,
    held: Held,
}

impl Alertmanager {
    /// Touches no file and nobody on the network.
    ///
    /// # Errors
    /// If settings do not go together.
    pub fn new(config: &AlertmanagerConfig, linked: Linked) -> Result<Self, String> {
        config.check()?;
        let labels = config.labels.iter().map(|(name, value)| (name.0.clone(), value.0.clone()));
        Ok(Self {
            instances: Instances::new(&config.urls, &config.http)?,
            maker: Maker { labels: labels.collect(), linked },
            held: Held::new(config.hold.get()),
        })
    }

    /// Alerts that were let go because too many were held.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.held.forgotten()
    }

    /// Alerts that are held.
    #[must_use]
    pub fn holds(&self) -> usize {
        self.held.len()
    }

    /// The alert of a death that was told before, or just now.
    fn known<'a>(&'a self, death: Uuid, now: &'a [Alert]) -> Option<&'a Alert> {
        let just_now = now.iter().rev().find(|alert| alert.id == death);
        just_now.or_else(|| self.held.of_death(death))
    }

    /// Raises alerts, each of them once, as the last of them with its labels has it.
    async fn raise(&mut self, alerts: &[Alert]) -> Result<(), Failure> {
        let mut once = Held::new(self.held.hold());
        for alert in alerts {
            once.prolong(once.merged(&self.held.merged(alert)), Instant::now());
        }
        let ends = Clock.now().checked_add(self.held.hold()).ok();
        let posts = once.alerts().map(|alert| alert.post(ends)).collect();
        self.instances.post(posts).await?;
        let now = Instant::now();
        for alert in alerts {
            self.held.prolong(self.held.merged(alert), now);
        }
        Ok(())
    }
}

impl Deliver for Alertmanager {
    fn batch(&self) -> usize {
        BATCH
    }

    async fn deliver(&mut self, messages: &[Message]) -> Outcome {
        let mut alerts: Vec<Alert> = Vec::with_capacity(messages.len());
        for message in messages {
            let follows = match message {
                Message::Summary(summary) => self.known(summary.follows, &alerts),
                Message::Entry(_) => None,
            };
            alerts.push(self.maker.make(message, follows));
        }
        match self.raise(&alerts).await {
            Ok(()) => return Outcome::all(messages),
            Err(Failure::Refused(_)) if alerts.len() > 1 => {}
            Err(failure) => return Outcome { accepted: 0, failure: Some(failure) },
        }
        for (accepted, alert) in alerts.iter().enumerate() {
            if let Err(failure) = self.raise(std::slice::from_ref(alert)).await {
                return Outcome { accepted, failure: Some(failure) };
            }
        }
        Outcome::all(messages)
    }

    fn due(&self) -> Option<Instant> {
        self.held.due()
    }

    async fn upkeep(&mut self) -> Result<(), String> {
        let now = Instant::now();
        let due = self.held.take_due(now, BATCH);
        if due.is_empty() {
            return Ok(());
        }
        let wall = Clock.now();
        let ahead = wall.checked_add(self.held.hold()).ok();
        let posts = due
            .iter()
            .map(|due| due.alert.post(if due.over { Some(wall) } else { ahead }))
            .collect();
        match self.instances.post(posts).await {
            Ok(()) => {
                let now = Instant::now();
                due.iter().for_each(|due| self.held.sent(due, now));
                Ok(())
            }
            Err(Failure::Refused(why) | Failure::Gone(why) | Failure::Later { why, .. }) => {
                Err(why)
            }
        }
    }
}
