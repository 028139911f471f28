//! The attributes of a record, by the names of the semantic conventions where there is one, else below `killwatch.`. What is not known is left out.
//!
//! The names are those of <https://opentelemetry.io/docs/specs/semconv/registry/attributes/> (process, container, k8s).

use std::borrow::Cow;

use serde::Serialize;

use super::wire::{Array, Attribute, Value};
use crate::death::{Death, Job, State, Workload};

/// Kinds of owners that have attributes of their own.
#[rustfmt::skip]
const OWNERS: &[(&str, &str, &str)] = &[
    ("CronJob", "k8s.cronjob.name", "k8s.cronjob.uid"),
    ("DaemonSet", "k8s.daemonset.name", "k8s.daemonset.uid"),
    ("Deployment", "k8s.deployment.name", "k8s.deployment.uid"),
    ("Job", "k8s.job.name", "k8s.job.uid"),
    ("ReplicaSet", "k8s.replicaset.name", "k8s.replicaset.uid"),
    ("ReplicationController", "k8s.replicationcontroller.name", "k8s.replicationcontroller.uid"),
    ("StatefulSet", "k8s.statefulset.name", "k8s.statefulset.uid"),
];

/// Attributes as they are put together.
#[derive(Debug, Default)]
pub(super) struct Attributes<'a>(Vec<Attribute<'a>>);

impl<'a> Attributes<'a> {
    /// What was put together.
    pub(super) fn into_vec(self) -> Vec<Attribute<'a>> {
        self.0
    }

    fn put(&mut self, key: impl Into<Cow<'a, str>>, value: Value<'a>) {
        self.0.push(Attribute { key: key.into(), value });
    }

    /// A text, unless there is none or it is empty.
    pub(super) fn text<T: Into<Cow<'a, str>>>(&mut self, key: &'static str, text: Option<T>) {
        if let Some(text) = text.map(Into::into).filter(|text| !text.is_empty()) {
            self.put(key, Value::text(text));
        }
    }

    /// A whole number, unless there is none or it is too large for the form.
    pub(super) fn number<N: TryInto<i64>>(&mut self, key: &'static str, number: Option<N>) {
        if let Some(number) = number.and_then(|number| number.try_into().ok()) {
            self.put(key, Value::Whole(number));
        }
    }

    /// A number with a fraction, unless there is none.
    pub(super) fn fraction(&mut self, key: &'static str, number: Option<f64>) {
        if let Some(number) = number.filter(|number| number.is_finite()) {
            self.put(key, Value::Double(number));
        }
    }

    /// Whether something holds.
    fn flag(&mut self, key: &'static str, flag: Option<bool>) {
        if let Some(flag) = flag {
            self.put(key, Value::Flag(flag));
        }
    }

    /// Texts, unless there are none.
    pub(super) fn texts<T: Into<Cow<'a, str>>>(
        &mut self,
        key: &'static str,
        texts: impl IntoIterator<Item = T>,
    ) {
        let values: Vec<_> = texts.into_iter().map(Value::text).collect();
        if !values.is_empty() {
            self.put(key, Value::Array(Array { values }));
        }
    }

    /// The word that stands for a value in the JSON of a record.
    pub(super) fn word(&mut self, key: &'static str, value: Option<impl Serialize>) {
        let json = value.and_then(|value| serde_json::to_value(value).ok());
        self.text(key, json.as_ref().and_then(|json| json.as_str()).map(str::to_owned));
    }

    /// One attribute for each pair, below `prefix`.
    fn below(&mut self, prefix: &str, pairs: impl IntoIterator<Item = (&'a String, &'a String)>) {
        for (key, value) in pairs {
            self.put(format!("{prefix}{key}"), Value::text(value));
        }
    }

    /// What a victim belonged to.
    pub(super) fn workload(&mut self, of: &'a Workload) {
        let in_pod = of.pod.is_some() || of.pod_uid.is_some();
        self.text("killwatch.cgroup", of.cgroup.as_deref());
        self.text("killwatch.unit", of.unit.as_deref());
        // The conventions want the bare id.
        let bare = |id: &'a str| id.split_once("://").map_or(id, |(_, bare)| bare);
        self.text("container.id", of.container_id.as_deref().map(bare));
        self.text("container.runtime.name", of.runtime.as_deref());
        self.image(of.image.as_deref());
        // By the conventions a container in a pod has a name there, and another one in its runtime, which is not known here.
        let name = if in_pod { "k8s.container.name" } else { "container.name" };
        self.text(name, of.container.as_deref());
        self.text("k8s.namespace.name", of.namespace.as_deref());
        self.text("k8s.pod.name", of.pod.as_deref());
        self.text("k8s.pod.uid", of.pod_uid.as_deref());
        self.number("k8s.container.restart_count", of.attempt);
        self.word("killwatch.qos", of.qos);
        for (kind, name, uid) in OWNERS {
            if let Some(owner) = of.owners.iter().find(|owner| owner.kind == *kind) {
                self.text(name, Some(&*owner.name));
                self.text(uid, owner.uid.as_deref());
            }
        }
        self.below(if in_pod { "k8s.pod.label." } else { "container.label." }, &of.labels);
        self.below("k8s.pod.annotation.", &of.annotations);
    }

    /// `registry:5000/name:tag@digest`, in its parts.
    fn image(&mut self, image: Option<&'a str>) {
        let Some(image) = image else { return };
        let tagged = image.split_once('@').map_or(image, |(tagged, _)| tagged);
        // A colon before a slash belongs to the registry's port.
        let (name, tag) = match tagged.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (tagged, None),
        };
        self.text("container.image.name", Some(name));
        self.texts("container.image.tags", tag.filter(|tag| !tag.is_empty()));
        if let Some((_, digest)) = image.split_once('@').filter(|(_, digest)| !digest.is_empty()) {
            self.texts("container.image.repo_digests", [format!("{name}@{digest}")]);
        }
    }

    /// A job.
    pub(super) fn job(&mut self, of: &'a Job) {
        self.text("killwatch.job.id", of.id.as_deref());
        self.text("killwatch.job.name", of.name.as_deref());
        self.text("killwatch.job.scheduler", of.scheduler.as_deref());
        self.text("killwatch.job.attempt", of.attempt.as_deref());
        self.text("killwatch.job.index", of.index.as_deref());
    }

    /// All of a death but its id.
    pub(super) fn death(&mut self, death: &'a Death) {
        self.text("killwatch.cause", Some(death.cause.as_str()));
        self.word("killwatch.confidence", Some(death.confidence));
        self.word("killwatch.state", Some(death.state));
        self.fraction("killwatch.stuck_seconds", death.stuck_seconds);
        self.text("killwatch.advice", Some(&*death.advice));
        self.texts("killwatch.evidence", death.evidence.iter().map(String::as_str));
        self.texts("killwatch.inferred", death.inferred.iter().map(String::as_str));
        self.text("killwatch.boot_id", death.boot_id.as_deref());
        self.victim(death);
        self.killer(death);
        self.memory(death);
        self.workload(&death.workload);
        if let Some(job) = &death.job {
            self.job(job);
        }
        self.below("killwatch.tag.", &death.tags);
    }

    fn victim(&mut self, death: &'a Death) {
        let victim = &death.victim;
        self.number("process.pid", Some(victim.pid));
        self.number("process.vpid", victim.ns_pid);
        self.number("process.parent_pid", victim.ppid);
        self.text("process.executable.name", Some(&*victim.comm));
        // Not the arguments: by the conventions they are not for sending, since they may hold secrets.
        let first = victim.cmdline.as_ref().and_then(|args| args.first());
        self.text("process.command", first.map(String::as_str));
        self.number("process.real_user.id", victim.uid);
        self.text("process.creation.time", victim.start_time.map(|time| time.to_string()));
        let gone = (death.state == State::Dead).then(|| death.time.to_string());
        self.text("process.exit.time", gone);
        self.number("process.exit.code", victim.exit_code);
        self.text("killwatch.signal", victim.signal_name.as_deref());
        self.number("killwatch.status", victim.status);
        self.number("killwatch.oom_score_adj", victim.oom_score_adj);
        self.flag("killwatch.core_dumped", victim.core_dumped);
        self.fraction("killwatch.lifetime_seconds", victim.lifetime_seconds);
    }

    fn killer(&mut self, death: &'a Death) {
        let killer = &death.killer;
        self.word("killwatch.killer.kind", Some(killer.kind));
        self.word("killwatch.killer.via", killer.via);
        self.number("killwatch.killer.pid", killer.pid);
        self.text("killwatch.killer.comm", killer.comm.as_deref());
        self.number("killwatch.killer.uid", killer.uid);
        self.text("killwatch.killer.unit", killer.unit.as_deref());
        self.text("killwatch.killer.container_id", killer.container_id.as_deref());
        if let Some(related) = &death.related {
            self.word("killwatch.related.role", Some(related.role));
            self.text("killwatch.related.id", related.id.map(|id| id.to_string()));
        }
        if let Some(stop) = &death.stop {
            self.fraction("killwatch.stop.grace_seconds", Some(stop.grace_seconds));
        }
        self.text("killwatch.rlimit.resource", death.rlimit.as_ref().map(|r| &*r.resource));
    }

    fn memory(&mut self, death: &'a Death) {
        let memory = &death.memory;
        self.number("killwatch.memory.anon_bytes", memory.anon_bytes);
        self.number("killwatch.memory.file_bytes", memory.file_bytes);
        self.number("killwatch.memory.shmem_bytes", memory.shmem_bytes);
        self.number("killwatch.memory.swap_bytes", memory.swap_bytes);
        self.number("killwatch.memory.page_tables_bytes", memory.page_tables_bytes);
        self.number("killwatch.memory.peak_rss_bytes", memory.peak_rss_bytes);
        self.number("killwatch.oom.limit_bytes", memory.limit_bytes);
        self.number("killwatch.oom.usage_bytes", memory.usage_bytes);
        self.text("killwatch.oom.limit_cgroup", memory.limit_cgroup.as_deref());
        self.word("killwatch.oom.limit_counter", memory.limit_counter);
        if let Some(oom) = &death.oom {
            self.number("killwatch.oom.incident_ktime_ns", Some(oom.incident_ktime_ns));
            self.flag("killwatch.oom.group", Some(oom.group));
            self.word("killwatch.oom.constraint", oom.constraint);
        }
    }
}
