//! Which deaths a question is about, and which of them whoever asks may see. Pure.

use jiff::Timestamp;
use uuid::Uuid;

use super::Entry;
use crate::death::{Cause, Death};
use crate::procfs::Process;

/// So many digits of a container's id stand for it, as `docker ps` and `crictl ps` show it.
const SHORT_ID: usize = 12;

/// Conditions that all must hold. The default lets every death through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The record with this id.
    pub id: Option<Uuid>,
    /// Not before this time.
    pub since: Option<Timestamp>,
    /// Before this time, so that what is until and what is since one moment overlap in nothing.
    pub until: Option<Timestamp>,
    /// Of one of these causes; empty for any.
    pub causes: Vec<Cause>,
    /// The victim's process id.
    pub pid: Option<u32>,
    /// The victim's process id in a pid namespace, its own, known by its inode.
    pub ns_pid: Option<NsPid>,
    /// The victim's start in clock ticks since boot, as `/proc/PID/stat` showed it.
    pub start_ticks: Option<u64>,
    /// The job's id, or the tag `job_id`.
    pub job: Option<String>,
    /// The container's id, with or without its runtime before it (`containerd://…`); the first 12 or more of its hexadecimal digits; or its name.
    pub container: Option<String>,
    /// In this cgroup or below.
    pub cgroup: Option<String>,
    /// The pod: `namespace/name`, or its uid.
    pub pod: Option<String>,
    /// Of this decision of the OOM killer: `oom.incident_ktime_ns`.
    pub incident: Option<u64>,
    /// Those that follow from the death with this id.
    pub follows: Option<Uuid>,
    /// Entries before this number.
    pub before: Option<u64>,
    /// Who asks; `None` sees all.
    pub viewer: Option<Viewer>,
}

/// A process id in a pid namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NsPid {
    /// The namespace's inode.
    pub ns: u64,
    /// The number in it.
    pub pid: u32,
}

/// Who may not see all deaths. It sees those that one of these lets it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Viewer {
    /// Those of this user.
    pub uid: Option<u32>,
    /// Those in this cgroup or below.
    pub cgroup: Option<String>,
}

impl Viewer {
    /// Whether it may see a process of this user in this cgroup.
    #[must_use]
    pub fn sees(&self, uid: Option<u32>, cgroup: Option<&str>) -> bool {
        let own = self.uid.is_some() && self.uid == uid;
        own || self.cgroup.as_deref().zip(cgroup).is_some_and(|(top, path)| is_within(top, path))
    }
}

/// Whether a cgroup is `top` or below it.
fn is_within(top: &str, path: &str) -> bool {
    let top = top.trim_end_matches('/');
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Filter {
    /// A number that the victim's process id must be, somewhere.
    pub(super) fn any_pid(&self) -> Option<u32> {
        self.pid.or(self.ns_pid.map(|number| number.pid))
    }

    /// Whether an entry is a death that meets all conditions.
    #[must_use]
    pub fn lets(&self, entry: &Entry) -> bool {
        self.before.is_none_or(|before| entry.seq < before)
            && entry.death().is_some_and(|death| self.matches(death))
    }

    /// Whether the death meets all conditions but that on its entry's number.
    #[must_use]
    pub fn matches(&self, death: &Death) -> bool {
        let (victim, workload) = (&death.victim, &death.workload);
        let cgroup = workload.cgroup.as_deref();
        self.id.is_none_or(|id| death.id == id)
            && self.since.is_none_or(|since| death.time >= since)
            && self.until.is_none_or(|until| death.time < until)
            && (self.causes.is_empty() || self.causes.contains(&death.cause))
            && self.pid.is_none_or(|pid| victim.pid == pid)
            && self.ns_pid.is_none_or(|number| {
                victim.ns_pid == Some(number.pid) && victim.pid_ns.map(u64::from) == Some(number.ns)
            })
            && self.start_ticks.is_none_or(|ticks| {
                let start = victim.start_ktime_ns.map(|ns| Process::of_ns(victim.pid, ns));
                start.is_some_and(|start| start.start_ticks == ticks)
            })
            && self.job.as_deref().is_none_or(|job| is_of_job(death, job))
            && self.container.as_deref().is_none_or(|container| is_in_container(death, container))
            && self
                .cgroup
                .as_deref()
                .is_none_or(|top| cgroup.is_some_and(|path| is_within(top, path)))
            && self.pod.as_deref().is_none_or(|pod| is_of_pod(death, pod))
            && self.incident.is_none_or(|incident| {
                death.oom.as_ref().is_some_and(|oom| oom.incident_ktime_ns == incident)
            })
            && self.follows.is_none_or(|id| {
                death.related.as_ref().is_some_and(|related| related.id == Some(id))
            })
            && self.viewer.as_ref().is_none_or(|viewer| viewer.sees(victim.uid, cgroup))
    }
}

fn is_of_job(death: &Death, job: &str) -> bool {
    let told = death.job.as_ref().and_then(|told| told.id.as_deref());
    told == Some(job) || death.tags.get("job_id").is_some_and(|tag| tag == job)
}

fn is_of_pod(death: &Death, pod: &str) -> bool {
    let workload = &death.workload;
    match pod.split_once('/') {
        Some((namespace, name)) => {
            workload.namespace.as_deref() == Some(namespace)
                && workload.pod.as_deref() == Some(name)
        }
        None => workload.pod_uid.as_deref() == Some(pod),
    }
}

/// Whether it was in the container with this id, or with one that begins so, or with this name.
fn is_in_container(death: &Death, asked: &str) -> bool {
    let (id, name) = (&death.workload.container_id, &death.workload.container);
    let (id, asked_id) = (id.as_deref().map(bare), bare(asked));
    let hex = asked_id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hex && asked_id.len() >= SHORT_ID {
        return id.is_some_and(|id| id.starts_with(asked_id));
    }
    // What looks like an id is no name: whoever gives a container the name of another's id does not answer for that.
    id == Some(asked_id) || (asked == asked_id && name.as_deref() == Some(asked))
}

/// A container's id without its runtime.
fn bare(id: &str) -> &str {
    id.split_once("://").map_or(id, |(_, bare)| bare)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::death::sample;

    fn lets(filter: Filter, death: &Death) -> bool {
        filter.matches(death)
    }

    #[test]
    fn each_condition_holds_by_itself() {
        let mut death = sample::oom_memcg();
        death.workload.container_id = Some("containerd://abc".into());
        death.workload.pod_uid = Some("u-1".into());
        (death.workload.namespace, death.workload.pod) = (Some("ns".into()), Some("web".into()));
        death.workload.cgroup = Some("/a/b".into());
        death.tags.insert("job_id".into(), "tagged".into());
        (death.victim.ns_pid, death.victim.pid_ns) = (Some(7), Some(99));
        death.victim.start_ktime_ns = Some(4_009_999_999);
        let text = |text: &str| Some(text.to_owned());
        for (id, yes) in [("abc", true), ("containerd://abc", true), ("ab", false), ("abcd", false)]
        {
            assert_eq!(
                lets(Filter { container: text(id), ..Filter::default() }, &death),
                yes,
                "{id}"
            );
        }
        for (pod, yes) in
            [("u-1", true), ("ns/web", true), ("ns/we", false), ("web", false), ("/web", false)]
        {
            assert_eq!(lets(Filter { pod: text(pod), ..Filter::default() }, &death), yes, "{pod}");
        }
        for (job, yes) in [("render-42", true), ("tagged", true), ("tag", false)] {
            assert_eq!(lets(Filter { job: text(job), ..Filter::default() }, &death), yes, "{job}");
        }
        for (ns, pid, yes) in [(99, 7, true), (98, 7, false), (99, 8, false)] {
            let ns_pid = Some(NsPid { ns, pid });
            assert_eq!(lets(Filter { ns_pid, ..Filter::default() }, &death), yes);
        }
        for (ticks, yes) in [(399, false), (400, true), (401, false)] {
            let start_ticks = Some(ticks);
            assert_eq!(lets(Filter { start_ticks, ..Filter::default() }, &death), yes, "{ticks}");
        }
        for (cgroup, yes) in [
            ("/", true),
            ("/a", true),
            ("/a/b", true),
            ("/a/b/", true),
            ("/a/bc", false),
            ("/b", false),
        ] {
            assert_eq!(
                lets(Filter { cgroup: text(cgroup), ..Filter::default() }, &death),
                yes,
                "{cgroup}"
            );
        }
    }

    #[test]
    fn a_container_is_known_by_its_id_a_part_of_it_and_its_name() {
        let id = "4d6c1b2a3f4e5d6c7b8a9f0e1d2c3b4a5f6e7d8c9b0a1f2e3d4c5b6a7f8e9d0c";
        let mut death = sample::in_a_pod();
        let is = |death: &Death, asked: &str| {
            lets(Filter { container: Some(asked.into()), ..Filter::default() }, death)
        };
        for (asked, yes) in [
            (id, true),
            (&id[..12], true),
            (&format!("containerd://{}", &id[..20]), true),
            (&id[..11], false),
            (&id[1..14], false),
            (&format!("{id}0"), false),
            ("worker", true),
            ("containerd://worker", false),
            ("work", false),
            ("Worker", false),
        ] {
            assert_eq!(is(&death, asked), yes, "{asked}");
        }
        let other = "b".repeat(64);
        death.workload.container = Some(other.clone());
        assert!(!is(&death, &other), "a name that looks like an id is none");
        (death.workload.container, death.workload.container_id) = (None, None);
        assert!(!is(&death, id) && !is(&death, "worker"));
    }

    #[test]
    fn spans_of_time_tile_and_causes_are_any_of() {
        let death = sample::oom_memcg();
        let second = jiff::SignedDuration::from_secs(1);
        for (moment, before) in
            [(death.time, false), (death.time + second, true), (death.time - second, false)]
        {
            let until = lets(Filter { until: Some(moment), ..Filter::default() }, &death);
            let since = lets(Filter { since: Some(moment), ..Filter::default() }, &death);
            assert_eq!((until, since), (before, !before), "{moment}");
        }
        for (causes, yes) in [
            (&[][..], true),
            (&[Cause::OomMemcg], true),
            (&[Cause::Crash, Cause::OomMemcg], true),
            (&[Cause::Crash, Cause::OomGlobal], false),
        ] {
            let causes = causes.to_vec();
            assert_eq!(lets(Filter { causes, ..Filter::default() }, &death), yes);
        }
    }

    #[test]
    fn what_is_not_known_is_nobodys() {
        let viewer = Viewer { uid: Some(0), cgroup: Some("/a".into()) };
        assert!(!viewer.sees(None, None));
        assert!(!Viewer::default().sees(Some(0), Some("/")));
        assert!(viewer.sees(Some(0), None) && viewer.sees(None, Some("/a/b")));
        assert!(!viewer.sees(Some(1), Some("/ab")));
        assert!(!Viewer { uid: None, cgroup: Some("/a".into()) }.sees(Some(0), Some("/b")));
    }

    proptest! {
        #[test]
        fn within_is_by_whole_names(top in "(/[ab]{1,2}){1,3}", path in "(/[ab]{1,2}){1,4}") {
            let names = |path: &str| path.split('/').skip(1).map(str::to_owned).collect::<Vec<_>>();
            prop_assert_eq!(is_within(&top, &path), names(&path).starts_with(&names(&top)));
        }
    }
}
