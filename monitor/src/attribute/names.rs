//! What a runtime says of a container, put into a record: names, and what the user asked for of labels and annotations.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::jobs::Rules;
use super::rule::{RuleError, RuleSpec, check_key};
use crate::config::Refused;
use crate::containers::pods::{self, PodInfo};
use crate::containers::{Info, Wanted};
use crate::death::Workload;

/// Rules that make a job of what is known of a victim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobsConfig {
    /// The user's own rules, before the built-in ones. At most [`Rules::MAX`].
    pub rules: Vec<RuleSpec>,
}

impl JobsConfig {
    /// These rules and the built-in ones.
    ///
    /// # Errors
    /// Which rule is not allowed, and why.
    pub fn rules(&self) -> Result<Rules, RuleError> {
        Rules::new(&self.rules)
    }
}

/// What of a pod or container is told in the record, beside its names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkloadConfig {
    /// Labels that a record shows, by key. At most [`WorkloadConfig::MAX_KEYS`].
    pub labels: Vec<Key>,
    /// Annotations that a record shows, by key. At most [`WorkloadConfig::MAX_KEYS`].
    pub annotations: Vec<Key>,
}

impl WorkloadConfig {
    /// More keys, of labels or of annotations, are refused: each is kept for each container.
    pub const MAX_KEYS: usize = crate::containers::MAX_LABELS;
}

/// Key of a label or an annotation: 1 to 317 bytes without blanks or control characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(String);

impl FromStr for Key {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        check_key(text).map(|()| Self(text.to_owned()))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.0
    }
}

crate::config::values::through_from_str!(Key);

/// The labels and annotations that the user asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Keys of labels.
    pub labels: BTreeSet<String>,
    /// Keys of annotations.
    pub annotations: BTreeSet<String>,
}

impl From<&WorkloadConfig> for Asked {
    fn from(config: &WorkloadConfig) -> Self {
        let set = |keys: &[Key]| keys.iter().map(ToString::to_string).collect();
        Self { labels: set(&config.labels), annotations: set(&config.annotations) }
    }
}

impl Asked {
    /// What sources must keep: this, and what the rules look at.
    #[must_use]
    pub fn wanted(&self, rules: &Rules) -> Wanted {
        let mut wanted = rules.wanted();
        wanted.labels.extend(self.labels.iter().cloned());
        wanted.annotations.extend(self.annotations.iter().cloned());
        wanted
    }
}

/// Puts what the Kubernetes API says of the victim's pod into its workload: what it belongs to, and labels and annotations as they are now, over those
/// that the runtime keeps from when the pod was made.
pub fn owned(workload: &mut Workload, pod: &PodInfo, asked: &Asked) {
    let mut filled = Vec::new();
    if !pod.owners.is_empty() {
        workload.owners.clone_from(&pod.owners);
        filled.push("owners");
    }
    let labels = pick(&asked.labels, &pod.labels);
    if !labels.is_empty() {
        workload.labels = labels;
        filled.push("labels");
    }
    let annotations = pick(&asked.annotations, &pod.annotations);
    if !annotations.is_empty() {
        workload.annotations = annotations;
        filled.push("annotations");
    }
    workload.sources.extend(filled.into_iter().map(|key| (key.to_owned(), pods::NAME.to_owned())));
}

/// Those of a pod's labels or annotations that were asked for.
fn pick(asked: &BTreeSet<String>, said: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let asked = said.iter().filter(|(key, _)| asked.contains(*key));
    asked.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Puts what a runtime says of the victim's container into its workload, with the source of each. What is known already stays; only a bare
/// container id gets the form `containerd://…` once the runtime is known.
///
/// Returns whether it was taken. It is not if it speaks of another container or another pod than the path does: then somebody made a cgroup
/// that is called like a container of another's, and the names would be another's too.
#[must_use]
pub fn named(workload: &mut Workload, info: &Info, asked: &Asked) -> bool {
    let bare = workload.container_id.as_deref().map(|id| id.rsplit("://").next().unwrap_or(id));
    let other_container = bare.is_some_and(|id| id != info.id);
    let other_pod =
        matches!((&workload.pod_uid, &info.pod_uid), (Some(known), Some(said)) if known != said);
    if other_container || other_pod {
        return false;
    }
    let Workload {
        container_id,
        runtime,
        pod_uid,
        container,
        pod,
        namespace,
        sandbox_id,
        image,
        attempt,
        ..
    } = workload;
    let mut filled = Vec::new();
    if container_id.is_none() && !info.id.is_empty() {
        *container_id = Some(info.id.clone());
        filled.push("container_id");
    }
    let texts = [
        ("runtime", runtime, &info.runtime),
        ("container", container, &info.name),
        ("pod", pod, &info.pod),
        ("namespace", namespace, &info.namespace),
        ("pod_uid", pod_uid, &info.pod_uid),
        ("sandbox_id", sandbox_id, &info.sandbox_id),
        ("image", image, &info.image),
    ];
    for (key, known, said) in texts {
        if known.is_none() && said.is_some() {
            known.clone_from(said);
            filled.push(key);
        }
    }
    if attempt.is_none() && info.attempt.is_some() {
        *attempt = info.attempt;
        filled.push("attempt");
    }
    if let (Some(id), Some(runtime)) = (&mut workload.container_id, &workload.runtime)
        && !id.contains("://")
    {
        *id = format!("{runtime}://{id}");
    }
    if workload.labels.is_empty() {
        workload.labels = pick(&asked.labels, &info.labels);
        filled.extend((!workload.labels.is_empty()).then_some("labels"));
    }
    if workload.annotations.is_empty() {
        workload.annotations = pick(&asked.annotations, &info.annotations);
        filled.extend((!workload.annotations.is_empty()).then_some("annotations"));
    }
    let sources = filled.into_iter().map(|key| (key.to_owned(), info.source.to_owned()));
    workload.sources.extend(sources);
    true
}
