//! The auditor over a kernel of files.

use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::*;
use crate::cgroup::index::Limits;
use crate::cgroup::mounts::{Hierarchy, Version};
use crate::metrics::{Metrics, MetricsConfig};
use crate::ops::Ops;

/// A v1 kernel with a cgroup `/a`.
struct Kernel {
    dir: tempfile::TempDir,
    hierarchy: Hierarchy,
}

impl Kernel {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["proc", "cgroup/a"] {
            fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        let hierarchy = Hierarchy { id: 4, version: Version::V1, root: dir.path().join("cgroup") };
        let kernel = Self { dir, hierarchy };
        kernel.counts(0, 0);
        kernel
    }

    fn path(&self, sub: &str) -> std::path::PathBuf {
        self.dir.path().join(sub)
    }

    fn counts(&self, host: u64, a: u64) {
        fs::write(self.path("proc/vmstat"), format!("oom_kill {host}\n")).unwrap();
        fs::write(self.path("cgroup/a/memory.oom_control"), format!("oom_kill {a}\n")).unwrap();
    }

    fn a(&self) -> u64 {
        fs::metadata(self.path("cgroup/a")).unwrap().ino()
    }

    fn index(&self) -> Index {
        let live = NonZeroUsize::new(10).unwrap();
        let mut index = Index::new(Limits { live, ..Limits::default() });
        index.made(CgroupId { hierarchy: 4, id: self.a() }, b"/a", false);
        index
    }

    fn auditor(&self, state: Option<&Path>) -> (Auditor, Account, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new(MetricsConfig::default()));
        let account = Account::default();
        let ops = Arc::new(Ops::new(Arc::clone(&metrics)));
        let reporter = Reporter::new(Arc::clone(&metrics), ops, account.clone());
        let counters = Counters::new(self.path("proc"), &self.hierarchy);
        let store = state.map(|path| Store::open(path, "boot").unwrap());
        (Auditor::new(counters, 4, store, reporter), account, metrics)
    }
}

/// One look, now.
async fn look(auditor: &mut Auditor, index: &Index) {
    auditor.next = Instant::now();
    auditor.saved.at = Some(Instant::now());
    auditor.tick(index);
    auditor.turn().await;
}

fn shows(metrics: &Metrics, line: &str) -> bool {
    metrics.encode().unwrap().lines().any(|shown| shown == line)
}

#[tokio::test]
async fn missed_once_and_never_again() {
    let kernel = Kernel::new();
    let (index, state) = (kernel.index(), kernel.path("state"));
    kernel.counts(3, 2);
    {
        let (mut auditor, account, metrics) = kernel.auditor(Some(&state));
        look(&mut auditor, &index).await;
        assert_eq!(account.numbers(), Numbers::default(), "one look is none");
        // One more while it starts, whose mark comes.
        kernel.counts(4, 3);
        auditor.killed(kernel.a(), &index);
        look(&mut auditor, &index).await;
        assert_eq!(account.numbers().missed, None, "it was not quiet");
        look(&mut auditor, &index).await;
        let numbers = account.numbers();
        assert_eq!((numbers.kernel, numbers.missed, numbers.unaccounted), (Some(4), Some(3), 0));
        let places: Vec<_> =
            numbers.places.iter().map(|place| (place.cgroup.as_deref(), place.kills)).collect();
        assert_eq!(places, [(Some("/a"), 2), (None, 1)]);
        assert!(shows(&metrics, "killwatch_oom_kills_missed_total 3"));
        auditor.finish().await;
    }
    // One while nobody runs.
    kernel.counts(5, 4);
    let (mut auditor, account, _) = kernel.auditor(Some(&state));
    look(&mut auditor, &index).await;
    look(&mut auditor, &index).await;
    let numbers = account.numbers();
    assert_eq!((numbers.missed, numbers.places.len()), (Some(1), 1));
    auditor.finish().await;
    drop(auditor);
    let (mut auditor, account, _) = kernel.auditor(Some(&state));
    look(&mut auditor, &index).await;
    look(&mut auditor, &index).await;
    assert_eq!((account.numbers().missed, account.numbers().places), (Some(0), vec![]));
}

#[tokio::test]
async fn without_a_state_nothing_is_called_missed() {
    let kernel = Kernel::new();
    kernel.counts(3, 2);
    let (mut auditor, account, metrics) = kernel.auditor(None);
    let index = kernel.index();
    look(&mut auditor, &index).await;
    look(&mut auditor, &index).await;
    assert_eq!(account.numbers(), Numbers { kernel: Some(3), ..Numbers::default() });
    assert!(shows(&metrics, "killwatch_oom_kills_missed_total 0"));
}

#[tokio::test]
async fn what_lasts_is_unaccounted_until_it_is_told() {
    let kernel = Kernel::new();
    let (index, state) = (kernel.index(), kernel.path("state"));
    let (mut auditor, account, metrics) = kernel.auditor(Some(&state));
    for _ in 0..3 {
        look(&mut auditor, &index).await;
    }
    kernel.counts(1, 1);
    look(&mut auditor, &index).await;
    assert_eq!(account.numbers().unaccounted, 0, "its mark may be on its way");
    look(&mut auditor, &index).await;
    assert_eq!(account.numbers().unaccounted, 1);
    assert!(shows(&metrics, "killwatch_oom_kills_unaccounted 1"));
    auditor.killed(kernel.a(), &index);
    look(&mut auditor, &index).await;
    assert_eq!(account.numbers().unaccounted, 0);
    assert!(shows(&metrics, "killwatch_oom_kills_unaccounted 0"));
    // Told twice.
    auditor.killed(kernel.a(), &index);
    look(&mut auditor, &index).await;
    look(&mut auditor, &index).await;
    assert_eq!(account.numbers().unaccounted, -1);
}

#[tokio::test]
async fn what_was_unaccounted_is_missed_at_the_next_start() {
    let kernel = Kernel::new();
    let (index, state) = (kernel.index(), kernel.path("state"));
    {
        let (mut auditor, ..) = kernel.auditor(Some(&state));
        for _ in 0..3 {
            look(&mut auditor, &index).await;
        }
        kernel.counts(2, 2);
        auditor.killed(kernel.a(), &index);
        for _ in 0..2 {
            look(&mut auditor, &index).await;
        }
        auditor.finish().await;
    }
    let (mut auditor, account, _) = kernel.auditor(Some(&state));
    for _ in 0..2 {
        look(&mut auditor, &index).await;
    }
    assert_eq!(account.numbers().missed, Some(1));
}

#[tokio::test]
async fn a_kill_told_of_another_cgroup_is_no_difference_of_the_host() {
    let kernel = Kernel::new();
    let index = kernel.index();
    let (mut auditor, account, _) = kernel.auditor(None);
    for _ in 0..3 {
        look(&mut auditor, &index).await;
    }
    // The kernel counted it elsewhere.
    kernel.counts(1, 0);
    auditor.killed(kernel.a(), &index);
    for _ in 0..2 {
        look(&mut auditor, &index).await;
    }
    assert_eq!(account.numbers().unaccounted, 0);
    assert_eq!(auditor.book.own.get(&kernel.a()).map(|own| own.kills), Some(0));
}

#[tokio::test]
async fn a_host_whose_counter_cannot_be_read_is_a_gap() {
    let kernel = Kernel::new();
    fs::remove_file(kernel.path("proc/vmstat")).unwrap();
    let (mut auditor, account, metrics) = kernel.auditor(None);
    look(&mut auditor, &kernel.index()).await;
    assert_eq!(account.numbers(), Numbers::default());
    assert!(shows(&metrics, "killwatch_gaps_total{gap=\"unaudited\"} 1"));
}
