//! Which deaths are of one job, and which of one workload: what stays the same from one run of it to the next.

use crate::death::{Death, Workload};

/// What makes a job the same, its scheduler and its id.
pub(super) fn job(death: &Death) -> Option<[&str; 2]> {
    let job = death.job.as_ref()?;
    Some([job.scheduler.as_deref().unwrap_or_default(), job.id.as_deref()?])
}

/// What makes a workload the same: the first of these that is known. Never a pid, a pod's own name, or a container's id.
pub(super) fn workload(workload: &Workload) -> Option<[&str; 4]> {
    let container = workload.container.as_deref().unwrap_or_default();
    if let Some(namespace) = workload.namespace.as_deref() {
        // The last owner outlives the others: a Deployment its ReplicaSets, a CronJob its Jobs.
        if let Some(owner) = workload.owners.last() {
            return Some([namespace, &owner.kind, &owner.name, container]);
        }
        if let Some(pod) = workload.pod.as_deref() {
            return Some([namespace, "", template(pod), container]);
        }
    }
    if let Some(unit) = workload.unit.as_deref() {
        return Some(["", "unit", unit, ""]);
    }
    if !container.is_empty() {
        let image = workload.image.as_deref().unwrap_or_default();
        return Some(["", "container", container, image]);
    }
    Some(["", "cgroup", workload.cgroup.as_deref()?, ""])
}

/// A pod's name without what its controller appends: five letters and the hash of a ReplicaSet, or the ordinal of a StatefulSet.
fn template(pod: &str) -> &str {
    // Neither has vowels, nor 0, 1 and 3 (apimachinery/pkg/util/rand).
    let random = |text: &str| text.bytes().all(|b| b"bcdfghjklmnpqrstvwxz2456789".contains(&b));
    let Some((name, last)) = pod.rsplit_once('-') else { return pod };
    if !last.is_empty() && last.len() <= 4 && last.bytes().all(|b| b.is_ascii_digit()) {
        return name;
    }
    if last.len() != 5 || !random(last) {
        return pod;
    }
    match name.rsplit_once('-') {
        Some((set, hash)) if (8..=10).contains(&hash.len()) && random(hash) => set,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::death::sample;

    #[test]
    fn a_pods_name_is_that_of_its_template() {
        for (pod, name) in [
            ("web-7d4b9c6f5d-x7k2p", "web"),
            ("render-x7k2p", "render"),
            ("db-0", "db"),
            ("db-12", "db"),
            ("cache", "cache"),
            ("web-front", "web-front"),
            ("a-", "a-"),
            ("", ""),
        ] {
            assert_eq!(template(pod), name, "{pod}");
        }
    }

    #[test]
    fn the_best_name_that_stays() {
        let mut of = sample::in_a_pod().workload;
        assert_eq!(workload(&of).unwrap(), ["shop", "CronJob", "render-nightly", "worker"]);
        of.owners.clear();
        assert_eq!(workload(&of).unwrap(), ["shop", "", "render", "worker"]);
        of.namespace = None;
        let image = "registry.example/shop/render:1.4";
        assert_eq!(workload(&of).unwrap(), ["", "container", "worker", image]);
        of.unit = Some("a.service".into());
        assert_eq!(workload(&of).unwrap(), ["", "unit", "a.service", ""]);
        let bare = sample::oom_memcg().workload;
        assert_eq!(workload(&bare).unwrap()[1], "cgroup");
        assert_eq!(workload(&Workload::default()), None);
    }
}
