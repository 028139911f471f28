//! The thread as the pipeline meets it, over files that look like a hierarchy's: what a real kernel does is for the scenarios.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Ask, Cgroups, Hit, LookAt, Parts, Told, Watch, WatchConfig, start};
use crate::alert::{AlertKind, NearLimit, NearReason};
use crate::attribute::{Asked, Rules};
use crate::cgroup::mounts::{Hierarchy, Version};
use crate::clock::Clock;
use crate::containers::pods::Pods;
use crate::containers::systemd::Invocations;
use crate::containers::{ContainersConfig, Registry};
use crate::join::ProcessId;
use crate::metrics::{Metrics, MetricsConfig};
use crate::naming::Names;
use crate::tags::Tags;

const MIB: u64 = 1 << 20;
const DEADLINE: Duration = Duration::from_secs(10);

/// A hierarchy of plain files.
struct Fake {
    root: tempfile::TempDir,
    metrics: Arc<Metrics>,
    watch: Watch,
    told: tokio::sync::mpsc::Receiver<Told>,
}

impl Fake {
    fn new(config: WatchConfig) -> Self {
        let root = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new(MetricsConfig::default()));
        let containers = ContainersConfig::default();
        let (watch, told) = start(Parts {
            config,
            node: "node-1".into(),
            hierarchy: Hierarchy { id: 0, version: Version::V2, root: root.path().to_owned() },
            proc: PathBuf::from("/proc"),
            page_size: 4096,
            names: Arc::new(Names {
                registry: Arc::new(Registry::new(&containers)),
                pods: Pods::new(&containers).0,
                rules: Rules::new(&[]).unwrap(),
                asked: Asked::default(),
                invocations: Invocations::new(false),
            }),
            tags: Arc::new(Tags::default()),
            metrics: Arc::clone(&metrics),
            clock: Clock,
        })
        .unwrap();
        Self { root, metrics, watch, told }
    }

    fn quick() -> Self {
        Self::new(WatchConfig { interval: "250ms".parse().unwrap(), ..WatchConfig::default() })
    }

    /// A cgroup that uses `anon` and `file`, in MiB.
    fn has(&self, path: &str, limit: Option<u64>, anon: u64, file: u64) {
        let directory = self.root.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(&directory).unwrap();
        // In place, as the kernel's own change: who reads it finds no moment without a number.
        let write = |name: &str, text: String| {
            let mut file = fs::OpenOptions::new();
            let file = file.create(true).write(true).truncate(false).open(directory.join(name));
            file.unwrap().write_all(text.as_bytes()).unwrap();
        };
        write("memory.current", format!("{}\n", (anon + file) * MIB));
        write(
            "memory.stat",
            format!(
                "anon {}\nfile {}\nshmem 0\ninactive_file {}\nactive_file 0\n",
                anon * MIB,
                file * MIB,
                file * MIB
            ),
        );
        write("cgroup.procs", format!("{}\n", std::process::id()));
        write("memory.events", "max 3\noom_kill 1\n".into());
        write("memory.max", limit.map_or("max\n".into(), |mib| format!("{}\n", mib * MIB)));
    }

    fn seen(&self, id: u64, path: &str, named: bool) {
        assert!(self.watch.ask(Ask::Seen { id, path: path.into(), named, made: true }));
    }

    async fn next(&mut self) -> Told {
        tokio::time::timeout(DEADLINE, self.told.recv()).await.unwrap().unwrap()
    }

    async fn near(&mut self) -> NearLimit {
        let Told::Near(alert) = self.next().await else { panic!("not a warning") };
        let AlertKind::NearLimit(near) = alert.kind else { panic!("not of this kind") };
        *near
    }

    /// Lists until what is listed is as wanted.
    async fn until(&self, what: &str, wanted: impl Fn(&Cgroups) -> bool) -> Cgroups {
        let until = Instant::now() + DEADLINE;
        loop {
            let listing = self.watch.list().await.unwrap();
            if wanted(&listing) {
                return listing;
            }
            assert!(Instant::now() < until, "{what}: {listing:?}");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn nearness_is_told_with_who_and_how_much() {
    let mut fake = Fake::quick();
    fake.has("/limited", Some(100), 90, 5);
    fake.seen(7, "/limited", false);
    let near = fake.near().await;
    assert_eq!((near.reason, near.share), (NearReason::Share, 0.9));
    assert_eq!((near.unreclaimable_bytes, near.usage_bytes), (90 * MIB, 95 * MIB));
    assert_eq!((near.limit_bytes, near.limit_cgroup.as_str()), (100 * MIB, "/limited"));
    assert_eq!(near.workload.cgroup.as_deref(), Some("/limited"));
    assert_eq!(near.processes[0].pid, std::process::id());
    let text = fake.metrics.encode().unwrap();
    let series = text.lines().find(|line| line.starts_with("container_memory_near_limit{"));
    assert!(series.unwrap().contains("cgroup=\"/limited\""), "{text}");
    // It goes: so does its series.
    assert!(fake.watch.ask(Ask::Gone { id: 7 }));
    fake.until("it is let go", |listing| listing.cgroups.is_empty()).await;
    assert!(!fake.metrics.encode().unwrap().contains("container_memory_near_limit{"));
}

#[tokio::test]
async fn the_tightest_limit_on_the_path_counts_and_where_it_stands() {
    let mut fake = Fake::quick();
    fake.has("/pod", Some(50), 0, 0);
    fake.has("/pod/a", Some(100), 46, 0);
    fake.seen(8, "/pod/a", true);
    let near = fake.near().await;
    assert_eq!((near.limit_bytes, near.limit_cgroup.as_str()), (50 * MIB, "/pod"));
}

#[tokio::test]
async fn a_pod_of_one_container_is_told_once_and_by_the_container() {
    for pod_first in [true, false] {
        let mut fake = Fake::quick();
        fake.has("/pod", Some(100), 12, 0);
        fake.has("/pod/a", Some(100), 10, 0);
        // Of those that are due together the one with the lower id is looked at first.
        let (pod, container) = if pod_first { (7, 8) } else { (8, 7) };
        fake.seen(pod, "/pod", true);
        fake.seen(container, "/pod/a", true);
        fake.until("both are looked at", |listing| listing.cgroups.len() == 2).await;
        fake.has("/pod/a", Some(100), 90, 0);
        fake.has("/pod", Some(100), 92, 0);
        let near = fake.near().await;
        assert_eq!(near.workload.cgroup.as_deref(), Some("/pod/a"));
        let both = |listing: &Cgroups| listing.cgroups.iter().filter(|row| row.near).count() == 2;
        fake.until("both are near", both).await;
        assert!(fake.told.try_recv().is_err(), "it was told twice");
    }
}

#[tokio::test]
async fn page_cache_is_no_nearness_and_what_has_neither_name_nor_limit_is_not_shown() {
    let fake = Fake::quick();
    fake.has("/cached", Some(100), 60, 40);
    fake.has("/plain", None, 10, 0);
    fake.has("/named", None, 10, 0);
    fake.seen(1, "/cached", false);
    fake.seen(2, "/plain", false);
    fake.seen(3, "/named", true);
    let listing = fake.until("both are looked at", |listing| listing.cgroups.len() == 2).await;
    let mut rows = listing.cgroups;
    rows.sort_by_key(|row| row.usage_bytes);
    assert_eq!((rows[0].usage_bytes, rows[0].share), (10 * MIB, None));
    assert_eq!((rows[1].share, rows[1].near), (Some(0.6), false));
    assert_eq!(listing.followed, 3);
}

#[tokio::test]
async fn the_scene_of_a_kill_has_kinds_processes_history_and_how_long_it_was_warned_of() {
    let mut fake = Fake::quick();
    fake.has("/limited", Some(100), 90, 5);
    fake.seen(7, "/limited", false);
    fake.near().await;
    let victim = ProcessId { tgid: 4242, start_ns: 1 };
    let own: Arc<str> = "/limited".into();
    let hit = Hit {
        cgroup: Arc::clone(&own),
        usage_bytes: Some(100 * MIB),
        limit_bytes: Some(100 * MIB),
    };
    let at_ns = Clock.boot_ns();
    let at = LookAt { victim, at_ns, hit: Some(hit), own: Some(own), kill: true };
    assert!(fake.watch.ask(Ask::Look(Box::new(at.clone()))));
    let Told::Scene(whose, scene) = fake.next().await else { panic!("not a scene") };
    assert_eq!(whose, at);
    let cgroup = scene.cgroup.as_ref().unwrap();
    assert_eq!((cgroup.anon_bytes, cgroup.file_bytes), (Some(90 * MIB), Some(5 * MIB)));
    assert_eq!(cgroup.events["oom_kill"], 1);
    assert_eq!(scene.process_count, Some(2), "with the victim, which is gone");
    let history = scene.history.as_ref().unwrap();
    let last = history.usage.last().unwrap();
    assert_eq!((last.ago_seconds, last.bytes / MIB), (0.0, 100), "as the kernel had it");
    assert_eq!(history.kinds.last().unwrap().anon_bytes, 90 * MIB);
    assert!(scene.warned_seconds.is_some() && scene.host.is_some(), "{scene:?}");
    // A second victim of the same moment shares it.
    let second = LookAt { victim: ProcessId { tgid: 4243, start_ns: 1 }, ..at };
    assert!(fake.watch.ask(Ask::Look(Box::new(second))));
    let Told::Scene(_, same) = fake.next().await else { panic!("not a scene") };
    assert!(Arc::ptr_eq(&scene, &same));
    let text = fake.metrics.encode().unwrap();
    assert!(text.contains("killwatch_oom_warning_lead_seconds_count 1"), "{text}");
}

#[tokio::test]
async fn the_host_stands_in_where_no_limit_was_hit() {
    let mut fake = Fake::quick();
    let own: Option<Arc<str>> = Some("/unknown".into());
    let victim = ProcessId { tgid: 1, start_ns: 1 };
    fake.until("the host is looked at", |listing| listing.host.is_some()).await;
    let at = LookAt { victim, at_ns: Clock.boot_ns(), hit: None, own, kill: true };
    assert!(fake.watch.ask(Ask::Look(Box::new(at))));
    let Told::Scene(_, scene) = fake.next().await else { panic!("not a scene") };
    let history = scene.history.as_ref().unwrap();
    assert_eq!(history.cgroup, "/");
    assert_eq!(history.limit_bytes, scene.host.map(|host| host.total_bytes));
    assert!(scene.missing.iter().any(|missing| missing.field == "memory.cgroup"));
}

#[tokio::test]
async fn too_many_are_refused_and_counted_and_names_come_first() {
    let fake = Fake::new(WatchConfig { max: "16".parse().unwrap(), ..WatchConfig::default() });
    (0..20).for_each(|id| {
        fake.has(&format!("/plain{id}"), None, 1, 0);
        fake.seen(id, &format!("/plain{id}"), false);
    });
    fake.has("/named", None, 1, 0);
    fake.seen(99, "/named", true);
    let listing = fake.until("the named one is in", |listing| listing.cgroups.len() == 1).await;
    assert_eq!((listing.followed, listing.refused), (16, 4));
}
