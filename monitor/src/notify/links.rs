//! Links that a receiver is given: addresses with places for what a death is about. Pure.
//!
//! A value is percent-encoded, all but letters, digits and `-._~`: whatever a workload is called, it stays one part of a path or of a query. A link
//! with a place for what is not known is left out, since it would lead elsewhere.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize, Serializer};

use super::summary::Summary;
use crate::alert::{Alert, AlertKind};
use crate::config::{Refused, values};
use crate::death::Death;

/// Longest template, in bytes.
const MAX_TEMPLATE: usize = 2048;
/// All but the unreserved characters of RFC 3986, section 2.3.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where a receiver's user finds more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Links {
    /// Address of what to do about such a death.
    pub runbook_url: Option<Template>,
    /// Address of what was going on.
    pub dashboard_url: Option<Template>,
}

impl Links {
    /// What to do about it, if there is such a link and all that it names is known.
    #[must_use]
    pub fn runbook<'a>(&self, of: impl Into<Named<'a>>) -> Option<String> {
        self.runbook_url.as_ref()?.fill(&of.into())
    }

    /// What was going on, likewise.
    #[must_use]
    pub fn dashboard<'a>(&self, of: impl Into<Named<'a>>) -> Option<String> {
        self.dashboard_url.as_ref()?.fill(&of.into())
    }
}

/// What a link may name.
#[derive(Debug, Clone, Default)]
pub struct Named<'a> {
    cause: Option<&'static str>,
    namespace: Option<&'a str>,
    pod: Option<&'a str>,
    job: Option<&'a str>,
    id: String,
    node: &'a str,
}

impl<'a> From<&'a Death> for Named<'a> {
    fn from(death: &'a Death) -> Self {
        Self {
            cause: Some(death.cause.as_str()),
            namespace: death.workload.namespace.as_deref(),
            pod: death.workload.pod.as_deref(),
            job: death.job.as_ref().and_then(|job| job.id.as_deref()),
            id: death.id.to_string(),
            node: &death.node,
        }
    }
}

impl<'a> From<&'a Summary> for Named<'a> {
    fn from(summary: &'a Summary) -> Self {
        Self {
            cause: Some(summary.summary.as_str()),
            namespace: summary.workload.namespace.as_deref(),
            pod: summary.workload.pod.as_deref(),
            job: summary.jobs.last().map(String::as_str),
            id: summary.id.to_string(),
            node: &summary.node,
        }
    }
}

impl<'a> From<&'a Alert> for Named<'a> {
    fn from(alert: &'a Alert) -> Self {
        let plain = Self { id: alert.id.to_string(), node: &alert.node, ..Self::default() };
        match &alert.kind {
            AlertKind::PoisonJob(poison) => Self {
                cause: poison.deaths.last().map(|death| death.cause.as_str()),
                job: poison.job.id.as_deref(),
                ..plain
            },
            AlertKind::NearLimit(near) => Self {
                namespace: near.workload.namespace.as_deref(),
                pod: near.workload.pod.as_deref(),
                job: near.job.as_ref().and_then(|job| job.id.as_deref()),
                ..plain
            },
        }
    }
}

/// An address with places such as `{pod}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Place(Place),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Cause,
    Namespace,
    Pod,
    Job,
    Id,
    Node,
}

impl Place {
    const ALL: [Self; 6] =
        [Self::Cause, Self::Namespace, Self::Pod, Self::Job, Self::Id, Self::Node];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Cause => "cause",
            Self::Namespace => "namespace",
            Self::Pod => "pod",
            Self::Job => "job",
            Self::Id => "id",
            Self::Node => "node",
        }
    }

    fn of<'a>(self, named: &'a Named<'_>) -> Option<&'a str> {
        match self {
            Self::Cause => named.cause,
            Self::Namespace => named.namespace,
            Self::Pod => named.pod,
            Self::Job => named.job,
            Self::Id => Some(&named.id),
            Self::Node => Some(named.node),
        }
    }
}

impl Template {
    fn fill(&self, named: &Named<'_>) -> Option<String> {
        let mut url = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => url.push_str(text),
                Part::Place(place) => {
                    url.extend(utf8_percent_encode(place.of(named)?, ENCODED));
                }
            }
        }
        Some(url)
    }
}

impl FromStr for Template {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let allowed = || {
            Refused::new(format!(
                "must be an http:// or https:// address of at most {MAX_TEMPLATE} bytes without blanks, a host that is written out, and after it {{cause}}, {{namespace}}, {{pod}}, {{job}}, {{id}} or {{node}}"
            ))
        };
        let strange = |c: char| c.is_control() || c.is_whitespace();
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
        let host_is_plain = host.is_some_and(|host| !host.is_empty() && !host.contains(['{', '@']));
        if text.len() > MAX_TEMPLATE || text.chars().any(strange) || !host_is_plain {
            return Err(allowed());
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or_else(allowed)?;
            let place = Place::ALL.into_iter().find(|place| place.as_str() == name);
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Place(place.ok_or_else(allowed)?));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        let stray = |part: &Part| matches!(part, Part::Text(text) if text.contains('}'));
        if parts.iter().any(stray) { Err(allowed()) } else { Ok(Self(parts)) }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Place(place) => write!(f, "{{{}}}", place.as_str()),
        })
    }
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

values::through_from_str!(Template);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::death::sample;

    fn links(template: &str) -> Links {
        Links { runbook_url: Some(template.parse().unwrap()), dashboard_url: None }
    }

    #[test]
    fn places_are_filled_in() {
        let links =
            links("https://runs.example/{cause}?ns={namespace}&pod={pod}#{job}-{id}@{node}");
        assert_eq!(
            links.runbook(&sample::in_a_pod()).unwrap(),
            "https://runs.example/oom_memcg?ns=shop&pod=render-x7k2p#render-42-01975f3e-8c00-7000-8000-000000000001@node-1"
        );
        assert_eq!(links.runbook(&sample::killed()), None, "it has no pod");
        assert_eq!(links.dashboard(&sample::in_a_pod()), None);
    }

    #[test]
    fn a_near_limit_has_all_but_a_cause() {
        let alert = crate::alert::sample::near_limit();
        let of = |template| links(template).runbook(&alert);
        assert_eq!(
            of("https://h/{namespace}/{pod}?{job}#{id}@{node}").unwrap(),
            format!("https://h/shop/render-x7k2p?render-42#{}@node-1", alert.id)
        );
        assert_eq!(of("https://h/{cause}"), None, "nothing was killed");
    }

    #[test]
    fn a_hostile_name_stays_in_its_place() {
        let url = links("https://h/{pod}/x?{namespace}").runbook(&sample::hostile()).unwrap();
        let nasty = "%29%20Z%0A%22%7D%201%1B%5B2J%3C%2Fscript%3E%5C";
        assert_eq!(url, format!("https://h/{nasty}/x?{nasty}"));
    }

    #[test]
    fn what_is_not_an_address() {
        let long = format!("https://h/{}", "a".repeat(MAX_TEMPLATE));
        for text in [
            "",
            "runbook",
            "ftp://h/",
            "https://",
            "https:///x",
            "https://h/{what}",
            "https://h/{pod",
            "https://h/pod}",
            "https://{node}/",
            "https://user:secret@h/",
            "https://h/a b",
            "javascript:alert(1)",
            &long,
        ] {
            assert!(text.parse::<Template>().is_err(), "{text}");
        }
        let text = "http://h:1/{pod}?a={id}";
        assert_eq!(text.parse::<Template>().unwrap().to_string(), text);
    }
}
