//! Gives a death the names that others know: its container's and pod's, and from them its job. Between the verdict and the ledger.
//!
//! * A death whose container is known leaves at once. One whose container a source is being asked for waits for the answer, at most
//!   `containers.deadline` from when it came here, and then leaves with what is known; `missing` says who owed the answer.
//! * Deaths leave in the order in which they came, so that a child is told before the parent that relays its death. Each has its own deadline, so
//!   whoever waits behind another waits no longer for it.
//! * Containers that appear wait in the same way, so that their series get their names before they are first shown. One that got none is looked
//!   for again each second: its runtime may have started after this daemon.
//! * Whoever is asked is asked by the tasks of [`crate::containers`]; the only I/O here is the reading of one link of systemd's in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::attribute;
use crate::containers::pods::PodInfo;
use crate::containers::{Info, Lookup, Size, SourceReport};
use crate::death::{Death, Workload};

mod names;

pub use names::Names;
use names::bare_id;

/// Deaths that may wait; with one more, the oldest leaves as it is.
const MAX_DEATHS: usize = 1024;
/// Containers that may wait, and that may be without names; with one more, the oldest is shown without, and is not looked for again.
const MAX_SEEN: usize = 4096;

/// Deaths and containers that wait for names.
#[derive(Debug)]
pub struct Naming {
    names: Arc<Names>,
    deadline_ns: u64,
    deaths: VecDeque<Waiting<Death>>,
    seen: VecDeque<Waiting<Seen>>,
    /// Containers that were shown without names, by id.
    nameless: HashMap<Box<str>, Workload>,
    late: u64,
}

/// A container that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its names, as far as they are known.
    pub workload: Workload,
    /// Whether it went while it waited for them.
    pub gone: bool,
}

#[derive(Debug)]
struct Waiting<T> {
    what: T,
    /// When it leaves at the latest, ns since boot.
    until_ns: u64,
}

impl Naming {
    /// `deadline`: how long a death waits for names.
    #[must_use]
    pub fn new(names: Arc<Names>, deadline: Duration) -> Self {
        Self {
            names,
            deadline_ns: u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX),
            deaths: VecDeque::new(),
            seen: VecDeque::new(),
            nameless: HashMap::new(),
            late: 0,
        }
    }

    /// What a cgroup's path says, as far as what the sources know lets it be believed.
    #[must_use]
    pub fn workload(&self, path: Option<&str>, cgroup_id: Option<u64>) -> Workload {
        self.names.workload(path, cgroup_id)
    }

    /// A death that is to be named. `now_ns`: ns since boot, here and below.
    pub fn death(&mut self, mut death: Death, now_ns: u64) {
        death.workload = self.workload(death.workload.cgroup.as_deref(), death.workload.cgroup_id);
        self.ask(&death.workload, now_ns);
        let until_ns = now_ns.saturating_add(self.deadline_ns);
        self.deaths.push_back(Waiting { what: death, until_ns });
    }

    /// The next death that has its names, or may not wait for them any longer.
    pub fn next_death(&mut self, now_ns: u64) -> Option<Death> {
        let waiting = self.deaths.front()?;
        let found = self.find(&waiting.what.workload);
        let pod = self.pod(&found, now_ns);
        let may_wait = waiting.until_ns > now_ns && self.deaths.len() <= MAX_DEATHS;
        let late = matches!(found, Lookup::Pending) || matches!(pod, Lookup::Pending);
        if late && may_wait {
            return None;
        }
        let mut death = self.deaths.pop_front()?.what;
        if late && let Some(id) = bare_id(&death.workload) {
            self.late += 1;
            self.names.registry.too_late(id);
            if let Lookup::Known(info) = &found
                && let Some(uid) = &info.pod_uid
            {
                self.names.pods.too_late(uid);
            }
        }
        self.finish(&mut death, found, pod);
        Some(death)
    }

    /// A container has appeared.
    pub fn seen(&mut self, workload: Workload, now_ns: u64) {
        self.ask(&workload, now_ns);
        let until_ns = now_ns.saturating_add(self.deadline_ns);
        self.seen.push_back(Waiting { what: Seen { workload, gone: false }, until_ns });
    }

    /// The next container that has its names, or may not wait for them any longer; one may come a second time, with its names.
    pub fn next_seen(&mut self, now_ns: u64) -> Option<Seen> {
        let waiting = self.seen.front()?;
        let found = self.find(&waiting.what.workload);
        let may_wait = waiting.until_ns > now_ns && self.seen.len() <= MAX_SEEN;
        if matches!(found, Lookup::Pending) && may_wait {
            return None;
        }
        let mut seen = self.seen.pop_front()?.what;
        match (found, bare_id(&seen.workload)) {
            (Lookup::Known(info), _) => {
                self.ask_pod(&info, now_ns);
                // What is not taken is a made-up name, and stays one.
                let _ = attribute::named(&mut seen.workload, &info, &self.names.asked);
            }
            (_, Some(id)) if !seen.gone && self.nameless.len() < MAX_SEEN => {
                self.nameless.insert(id.into(), seen.workload.clone());
            }
            _ => {}
        }
        Some(seen)
    }

    /// A container is gone, or a pod. It keeps its names for as long as its death may be on its way.
    pub fn gone(&mut self, workload: &Workload, now_ns: u64) {
        let Some(id) = bare_id(workload) else {
            if let Some(uid) = &workload.pod_uid {
                self.names.pods.gone(uid, now_ns);
            }
            return;
        };
        self.names.registry.gone(id, now_ns);
        self.nameless.remove(id);
        let waiting =
            self.seen.iter_mut().filter(|seen| seen.what.workload.cgroup == workload.cgroup);
        waiting.for_each(|seen| seen.what.gone = true);
    }

    /// Looks for the names of those that were shown without. To be called every now and then.
    pub fn tick(&mut self, now_ns: u64) {
        self.names.registry.forget_gone(now_ns);
        self.names.pods.forget_gone(now_ns);
        let registry = Arc::clone(&self.names.registry);
        let named =
            self.nameless.extract_if(|id, _| matches!(registry.lookup(id), Lookup::Known(_)));
        let until_ns = now_ns;
        self.seen.extend(
            named.map(|(_, workload)| Waiting { what: Seen { workload, gone: false }, until_ns }),
        );
    }

    /// Whether something waits.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.deaths.is_empty() || !self.seen.is_empty()
    }

    /// Deaths that left while a source still owed their names.
    #[must_use]
    pub const fn late(&self) -> u64 {
        self.late
    }

    /// Waits until a source has told something since this was last awaited. For one task.
    pub async fn changed(&self) {
        tokio::select! {
            () = self.names.registry.changed() => {}
            () = self.names.pods.changed() => {}
        }
    }

    /// How the sources fare.
    #[must_use]
    pub fn reports(&self) -> Vec<SourceReport> {
        self.names.registry.reports().into_iter().chain([self.names.pods.report()]).collect()
    }

    /// How much is held of containers.
    #[must_use]
    pub fn size(&self) -> Size {
        self.names.registry.size()
    }

    /// What the Kubernetes API says of the pod of a container, once that is known.
    fn pod(&self, found: &Lookup<Info>, now_ns: u64) -> Lookup<PodInfo> {
        let Lookup::Known(info) = found else { return Lookup::Unknown };
        self.ask_pod(info, now_ns);
        info.pod_uid.as_ref().map_or(Lookup::Unknown, |uid| self.names.pods.lookup(uid))
    }

    fn ask_pod(&self, info: &Info, now_ns: u64) {
        if let (Some(namespace), Some(pod), Some(uid)) = (&info.namespace, &info.pod, &info.pod_uid)
        {
            self.names.pods.ask(namespace, pod, uid, now_ns);
        }
    }

    fn ask(&self, workload: &Workload, now_ns: u64) {
        if let Some(id) = bare_id(workload) {
            self.names.registry.ask(id, workload.runtime.as_deref(), now_ns);
        }
    }

    fn find(&self, workload: &Workload) -> Lookup<Info> {
        self.names.find(workload)
    }

    fn finish(&self, death: &mut Death, found: Lookup<Info>, pod: Lookup<PodInfo>) {
        let named = self.names.finish(&mut death.workload, found, pod);
        death.missing.extend(named.missing.clone());
        death.job = self.names.job(&named, &death.workload, &death.tags, &death.victim.environ);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use crate::attribute::{Asked, Rules};
    use crate::containers::pods::Pods;
    use crate::containers::systemd::Invocations;
    use crate::containers::{ContainersConfig, Registry, SourceState};
    use crate::death::{Owner, sample};

    const MS: u64 = 1_000_000;
    const DEADLINE: Duration = Duration::from_millis(250);

    fn names(registry: &Arc<Registry>, pods: Arc<Pods>) -> Arc<Names> {
        Arc::new(Names {
            registry: Arc::clone(registry),
            pods,
            rules: Rules::new(&[]).unwrap(),
            asked: Asked::default(),
            invocations: Invocations::new(false),
        })
    }

    fn naming() -> (Naming, Arc<Registry>) {
        let registry = Arc::new(Registry::new(&ContainersConfig::default()));
        let pods = Pods::new(&ContainersConfig::default()).0;
        let names = names(&registry, pods);
        let naming = Naming::new(names, DEADLINE);
        (naming, registry)
    }

    /// An id that looks like one.
    fn id(letter: &str) -> String {
        letter.repeat(64)
    }

    /// The death of a process in a container whose id repeats `letter`, in none if that is empty; told apart by its pid.
    fn death(pid: u32, letter: &str) -> Death {
        let mut death = sample::killed();
        death.victim.pid = pid;
        death.missing.clear();
        death.workload = attribute::workload(Some(&format!("/x/{}", id(letter))), None);
        death
    }

    fn info(letter: &str, name: &str) -> Info {
        Info { id: id(letter), source: "cri", name: Some(name.to_owned()), ..Info::default() }
    }

    fn left(naming: &mut Naming, now_ns: u64) -> Vec<(u32, Option<String>)> {
        let next = || naming.next_death(now_ns);
        std::iter::from_fn(next).map(|death| (death.victim.pid, death.workload.container)).collect()
    }

    #[test]
    fn what_is_known_leaves_at_once_and_in_order() {
        let (mut naming, registry) = naming();
        let (source, mut asks) = registry.source("cri", String::new(), |_| true).unwrap();
        source.up();
        source.put(info("a", "web"));
        naming.death(death(1, "a"), 0);
        naming.death(death(2, "b"), 0);
        naming.death(death(3, ""), 0);
        assert_eq!(left(&mut naming, 0), [(1, Some("web".to_owned()))], "2 waits, and 3 behind it");
        assert_eq!(asks.try_recv(), Ok(id("b")));
        source.put(info("b", "worker"));
        assert_eq!(left(&mut naming, MS), [(2, Some("worker".to_owned())), (3, None)]);
        assert_eq!(naming.late(), 0);
    }

    #[test]
    fn nobody_waits_longer_than_the_deadline_and_only_once() {
        let (mut naming, registry) = naming();
        let (source, _asks) = registry.source("cri", String::new(), |_| true).unwrap();
        source.up();
        naming.death(death(1, "a"), 0);
        naming.death(death(2, "b"), 100 * MS);
        assert_eq!(left(&mut naming, 249 * MS), []);
        let late = naming.next_death(250 * MS).unwrap();
        assert_eq!((late.victim.pid, naming.late()), (1, 1));
        assert_eq!(late.missing.len(), 1, "{:?}", late.missing);
        assert!(late.missing[0].why.starts_with("cri: "), "{:?}", late.missing);
        assert_eq!(registry.reports()[0].state, SourceState::Slow);
        assert_eq!(left(&mut naming, 250 * MS), [(2, None)], "one that is slow is not waited for");
        naming.death(death(3, "c"), 300 * MS);
        assert_eq!(left(&mut naming, 300 * MS), [(3, None)]);
        source.nothing(&id("a"));
        source.up();
        naming.death(death(4, "d"), 400 * MS);
        assert_eq!(left(&mut naming, 400 * MS), [], "it answers again");
        source.down(SourceState::Down, "gone".to_owned());
        assert_eq!(left(&mut naming, 400 * MS), [(4, None)]);
    }

    #[test]
    fn without_a_source_nothing_waits_and_nothing_is_missing() {
        let (mut naming, registry) = naming();
        naming.death(death(1, "a"), 0);
        assert_eq!(naming.next_death(0).unwrap().missing, []);
        let (source, _asks) =
            registry.source("docker", String::new(), |runtime| runtime == Some("docker")).unwrap();
        source.up();
        naming.death(death(2, "a"), 0);
        assert_eq!(left(&mut naming, 0), [(2, None)], "it is not Docker's");
    }

    #[test]
    fn too_many_push_out_the_oldest_as_it_is() {
        let (mut naming, registry) = naming();
        let (source, _asks) = registry.source("cri", String::new(), |_| true).unwrap();
        source.up();
        naming.death(death(0, "a"), 0);
        (1..=MAX_DEATHS).for_each(|pid| naming.death(death(u32::try_from(pid).unwrap(), "b"), 0));
        assert_eq!(
            left(&mut naming, 0).len(),
            1 + MAX_DEATHS,
            "with the first, its source is slow"
        );
    }

    #[test]
    fn a_container_that_goes_while_it_waits_is_shown_as_gone() {
        let (mut naming, registry) = naming();
        let (source, _asks) = registry.source("cri", String::new(), |_| true).unwrap();
        source.up();
        let workload = death(1, "a").workload;
        naming.seen(workload.clone(), 0);
        assert_eq!(naming.next_seen(0), None);
        naming.gone(&workload, MS);
        source.put(info("a", "web"));
        let seen = naming.next_seen(MS).unwrap();
        assert_eq!((seen.workload.container.as_deref(), seen.gone), (Some("web"), true));
        // Its death comes after it.
        naming.death(death(1, "a"), 2 * MS);
        assert_eq!(left(&mut naming, 2 * MS), [(1, Some("web".to_owned()))]);
    }

    #[test]
    fn a_runtime_that_starts_later_names_what_was_there() {
        let (mut naming, registry) = naming();
        naming.seen(death(1, "a").workload, 0);
        assert_eq!(naming.next_seen(0).unwrap().workload.container, None);
        let (source, _asks) = registry.source("cri", String::new(), |_| true).unwrap();
        naming.tick(0);
        assert_eq!(naming.next_seen(0), None);
        source.all(vec![info("a", "web")], 0);
        naming.tick(0);
        assert_eq!(naming.next_seen(0).unwrap().workload.container.as_deref(), Some("web"));
        naming.tick(0);
        assert_eq!(naming.next_seen(0), None);
    }

    #[test]
    fn the_api_adds_what_a_pod_belongs_to_and_is_waited_for_no_longer_than_a_runtime() {
        let (mut naming, registry) = naming();
        let (pods, api, _asks) = Pods::new(&ContainersConfig::default());
        naming.names = names(&registry, pods);
        api.up(None);
        let (source, _asks) = registry.source("cri", String::new(), |_| true).unwrap();
        source.up();
        let in_pod = |letter: &str| Info {
            pod: Some(format!("pod-{letter}")),
            namespace: Some("shop".to_owned()),
            pod_uid: Some(format!("uid-{letter}")),
            ..info(letter, "web")
        };
        source.put(in_pod("a"));
        naming.death(death(1, "a"), 0);
        assert_eq!(left(&mut naming, 0), [], "the API is asked");
        let owner = Owner { kind: "Job".to_owned(), name: "render".to_owned(), uid: None };
        api.put(PodInfo {
            uid: "uid-a".to_owned(),
            owners: vec![owner.clone()],
            labels: BTreeMap::from([("job-name".to_owned(), "render".to_owned())]),
            ..PodInfo::default()
        });
        let told = naming.next_death(MS).unwrap();
        assert_eq!(told.workload.owners, [owner]);
        assert_eq!(told.workload.sources["owners"], "kubernetes");
        assert_eq!(
            told.job.and_then(|job| job.name).as_deref(),
            Some("render"),
            "by the API's labels"
        );
        source.put(in_pod("b"));
        naming.death(death(2, "b"), 0);
        assert_eq!(
            left(&mut naming, 250 * MS),
            [(2, Some("web".to_owned()))],
            "with all but the owner"
        );
        naming.death(death(3, "b"), 300 * MS);
        assert_eq!(left(&mut naming, 300 * MS).len(), 1, "one that is slow is not waited for");
    }
}
