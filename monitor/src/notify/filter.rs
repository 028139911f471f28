//! Which sink wants which entry. Pure.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::alert::AlertKind;
use crate::config::{Refused, values};
use crate::death::{Cause, Job};
use crate::ledger::{Entry, Item};

/// Most namespaces of one filter.
const MAX_NAMESPACES: usize = 64;
/// Longest namespace, in bytes.
const MAX_NAMESPACE: usize = 253;
/// Longest pattern, in bytes.
const MAX_PATTERN: usize = 1024;
/// Memory that a compiled pattern may take, and the search with it, in bytes each. It bounds the time of a search too.
const MAX_COMPILED: usize = 128 << 10;

/// What a sink is told; what is not set lets everything through.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FilterConfig {
    /// Deaths of these causes, and alerts with one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub causes: Option<Listed<Cause, 14>>,
    /// Deaths in these namespaces. Alerts have no namespace and are not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Listed<Namespace, MAX_NAMESPACES>>,
    /// Deaths and alerts of a job whose id or name this pattern is found in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jobs: Option<JobPattern>,
}

/// A list of 1 to `MAX` items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T, const MAX: usize>(Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Listed<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = Vec::deserialize(deserializer)?;
        if (1..=MAX).contains(&list.len()) {
            return Ok(Self(list));
        }
        Err(serde::de::Error::custom(format!(
            "a list of {} is not allowed: must have 1 to {MAX} items",
            list.len()
        )))
    }
}

impl<T: Serialize, const MAX: usize> Serialize for Listed<T, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// A Kubernetes namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Namespace(String);

impl FromStr for Namespace {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let plain = !text.chars().any(|c| c.is_control() || c.is_whitespace());
        if plain && (1..=MAX_NAMESPACE).contains(&text.len()) {
            return Ok(Self(text.to_owned()));
        }
        Err(Refused::new(format!(
            "must be the whole name of one namespace, 1 to {MAX_NAMESPACE} bytes, no pattern"
        )))
    }
}

/// A regular expression that is searched in the id and the name of a job.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct JobPattern(Regex);

impl JobPattern {
    fn is_in(&self, job: Option<&Job>) -> bool {
        let texts = job.map(|job| [job.id.as_deref(), job.name.as_deref()]);
        texts.into_iter().flatten().flatten().any(|text| self.0.is_match(text))
    }
}

impl FromStr for JobPattern {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let allowed = || {
            Refused::new(format!(
                "must be a regular expression of 1 to {MAX_PATTERN} bytes that takes at most {MAX_COMPILED} bytes of memory, such as ^render-"
            ))
        };
        if !(1..=MAX_PATTERN).contains(&text.len()) {
            return Err(allowed());
        }
        let mut builder = RegexBuilder::new(text);
        let built = builder.size_limit(MAX_COMPILED).dfa_size_limit(MAX_COMPILED).build();
        built.map(Self).map_err(|_| allowed())
    }
}

impl PartialEq for JobPattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for JobPattern {}

impl fmt::Display for JobPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl Serialize for JobPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

values::through_from_str!(Namespace, JobPattern);

/// A filter, ready for use.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    causes: Option<HashSet<Cause>>,
    namespaces: Option<HashSet<String>>,
    jobs: Option<JobPattern>,
}

impl Filter {
    /// Whether an entry is to be told.
    #[must_use]
    pub fn lets(&self, entry: &Entry) -> bool {
        match &entry.item {
            Item::Death(death) => {
                self.cause(death.cause)
                    && self.namespace(death.workload.namespace.as_deref())
                    && self.job(death.job.as_ref())
            }
            Item::Alert(alert) => match &alert.kind {
                AlertKind::PoisonJob(poison) => {
                    poison.deaths.iter().any(|death| self.cause(death.cause))
                        && self.namespace(None)
                        && self.job(Some(&poison.job))
                }
                // What it warns of is a kill at a cgroup's limit.
                AlertKind::NearLimit(near) => {
                    self.cause(Cause::OomMemcg)
                        && self.namespace(near.workload.namespace.as_deref())
                        && self.job(near.job.as_ref())
                }
            },
        }
    }

    fn cause(&self, cause: Cause) -> bool {
        self.causes.as_ref().is_none_or(|causes| causes.contains(&cause))
    }

    fn namespace(&self, namespace: Option<&str>) -> bool {
        let listed = |names: &HashSet<String>| namespace.is_some_and(|name| names.contains(name));
        self.namespaces.as_ref().is_none_or(listed)
    }

    fn job(&self, job: Option<&Job>) -> bool {
        self.jobs.as_ref().is_none_or(|pattern| pattern.is_in(job))
    }
}

impl From<&FilterConfig> for Filter {
    fn from(config: &FilterConfig) -> Self {
        Self {
            causes: config.causes.as_ref().map(|list| list.0.iter().copied().collect()),
            namespaces: config
                .namespaces
                .as_ref()
                .map(|list| list.0.iter().map(|name| name.0.clone()).collect()),
            jobs: config.jobs.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::death::{Death, sample};
    use crate::poison::{Poison, PoisonConfig};

    fn filter(json: &str) -> Filter {
        (&serde_json::from_str::<FilterConfig>(json).unwrap()).into()
    }

    fn entry(item: impl Into<Item>) -> Entry {
        Entry { seq: 1, item: item.into(), json: Bytes::new() }
    }

    fn told(json: &str, death: Death) -> bool {
        filter(json).lets(&entry(death))
    }

    #[test]
    fn each_part_must_let_it_through() {
        assert!(told("{}", sample::unknown()));
        assert!(told(r#"{"causes":["oom_memcg","killed"]}"#, sample::killed()));
        assert!(!told(r#"{"causes":["oom_memcg","killed"]}"#, sample::oom_global()));
        assert!(told(r#"{"namespaces":["shop"]}"#, sample::in_a_pod()));
        assert!(!told(r#"{"namespaces":["sho"]}"#, sample::in_a_pod()));
        assert!(!told(r#"{"namespaces":["shop"]}"#, sample::oom_memcg()), "it has none");
        assert!(told(r#"{"jobs":"^render-[0-9]+$"}"#, sample::in_a_pod()));
        assert!(told(r#"{"jobs":"^render$"}"#, sample::in_a_pod()), "by its name");
        assert!(!told(r#"{"jobs":"."}"#, sample::killed()), "it has none");
        assert!(!told(r#"{"jobs":"render","causes":["killed"]}"#, sample::in_a_pod()));
    }

    #[test]
    fn an_alert_is_told_for_its_job_and_causes() {
        let mut poison = Poison::new(PoisonConfig::default());
        let alerts: Vec<_> = (0..3)
            .filter_map(|n| {
                let mut death = sample::oom_memcg();
                death.oom.as_mut().unwrap().incident_ktime_ns += n;
                poison.died(&death)
            })
            .collect();
        let alert = entry(Item::Alert(Arc::new(alerts[0].clone())));
        for (json, told) in [
            ("{}", true),
            (r#"{"jobs":"render"}"#, true),
            (r#"{"jobs":"other"}"#, false),
            (r#"{"causes":["oom_memcg"]}"#, true),
            (r#"{"causes":["crash"]}"#, false),
            (r#"{"namespaces":["shop"]}"#, false),
        ] {
            assert_eq!(filter(json).lets(&alert), told, "{json}");
        }
    }

    #[test]
    fn a_near_limit_is_told_as_the_kill_that_it_warns_of() {
        let alert = entry(Item::Alert(Arc::new(crate::alert::sample::near_limit())));
        for (json, told) in [
            ("{}", true),
            (r#"{"causes":["oom_memcg"]}"#, true),
            (r#"{"causes":["oom_global"]}"#, false),
            (r#"{"namespaces":["shop"]}"#, true),
            (r#"{"namespaces":["bank"]}"#, false),
            (r#"{"jobs":"^render-42$"}"#, true),
            (r#"{"jobs":"other"}"#, false),
        ] {
            assert_eq!(filter(json).lets(&alert), told, "{json}");
        }
    }

    #[test]
    fn what_is_not_allowed() {
        for json in [
            r#"{"causes":[]}"#,
            r#"{"causes":["oom"]}"#,
            r#"{"namespaces":[""]}"#,
            r#"{"namespaces":["a b"]}"#,
            r#"{"jobs":"("}"#,
            r#"{"jobs":""}"#,
            r#"{"jobs":"((a{1,100}){1,100}){1,100}"}"#,
            r#"{"pods":["a"]}"#,
        ] {
            assert!(serde_json::from_str::<FilterConfig>(json).is_err(), "{json}");
        }
    }
}
