//! What the victim belonged to and worked on, as lines of the page.

use std::collections::BTreeMap;

use super::Page;
use crate::death::{Death, Job, Workload};

/// Container, pod and what they belong to.
pub(super) fn workload(workload: &Workload, page: &mut Page) {
    let in_brackets = |parts: &[Option<String>]| {
        let parts: Vec<&str> = parts.iter().flatten().map(String::as_str).collect();
        if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
    };
    let qos = workload.qos.map(|qos| format!("{qos:?}"));
    match (&workload.pod, &workload.pod_uid) {
        (Some(pod), uid) => {
            let namespace = workload.namespace.as_ref().map(|namespace| format!("{namespace}/"));
            let uid = uid.as_ref().map(|uid| format!("uid {uid}"));
            let more = in_brackets(&[uid, qos]);
            page.value("pod", &format!("{}{pod}{more}", namespace.unwrap_or_default()));
        }
        (None, Some(uid)) => page.value("pod uid", &format!("{uid}{}", in_brackets(&[qos]))),
        (None, None) => {}
    }
    let runtime = workload.runtime.clone();
    let again = workload.attempt.filter(|attempt| *attempt > 0);
    let again = again.map(|attempt| format!("attempt {attempt}"));
    match (&workload.container, &workload.container_id) {
        (Some(name), id) => {
            page.value("container", &format!("{name}{}", in_brackets(&[id.clone(), again])));
        }
        (None, Some(id)) => page.value("container", &format!("{id}{}", in_brackets(&[runtime]))),
        (None, None) => {}
    }
    page.maybe("image", workload.image.as_ref());
    let owners: Vec<String> =
        workload.owners.iter().map(|owner| format!("{} {}", owner.kind, owner.name)).collect();
    if !owners.is_empty() {
        page.value("part of", &owners.join(", of "));
    }
    pairs("labels", &workload.labels, page);
    pairs("annotations", &workload.annotations, page);
    let run = in_brackets(&[workload.invocation_id.as_ref().map(|id| format!("invocation {id}"))]);
    page.maybe("unit", workload.unit.as_ref().map(|unit| format!("{unit}{run}")).as_ref());
    page.maybe("cgroup", workload.cgroup.as_ref());
}

/// The job, and what the worker said of itself.
pub(super) fn job(death: &Death, page: &mut Page) {
    if death.job.is_none() && death.tags.is_empty() {
        return;
    }
    page.section("Job");
    let none = Job::default();
    let job = death.job.as_ref().unwrap_or(&none);
    let parts = [
        ("id", &job.id),
        ("name", &job.name),
        ("scheduler", &job.scheduler),
        ("attempt", &job.attempt),
        ("index", &job.index),
    ];
    for (name, value) in parts {
        let source =
            job.sources.get(name).map_or_else(String::new, |source| format!("  (from {source})"));
        page.maybe(name, value.as_ref().map(|value| format!("{value}{source}")).as_ref());
    }
    pairs("tags", &death.tags, page);
}

fn pairs(name: &'static str, pairs: &BTreeMap<String, String>, page: &mut Page) {
    if !pairs.is_empty() {
        let pairs: Vec<String> =
            pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        page.value(name, &pairs.join(", "));
    }
}
