//! Tests of [`Registry`]: who is asked, who is waited for, and whose word goes first.

use super::*;

fn source(
    registry: &Arc<Registry>,
    name: &'static str,
    serves: fn(Option<&str>) -> bool,
) -> (Handle, mpsc::Receiver<String>) {
    registry.source(name, format!("/{name}"), serves).unwrap()
}

fn info(source: &'static str, id: &str, pod: Option<&str>) -> Info {
    Info { id: id.to_owned(), source, pod: pod.map(str::to_owned), ..Info::default() }
}

fn known(registry: &Registry, id: &str) -> Option<&'static str> {
    match registry.lookup(id) {
        Lookup::Known(info) => Some(info.source),
        Lookup::Pending | Lookup::Unknown => None,
    }
}

#[test]
fn asks_those_who_are_up_and_may_know() {
    let registry = Arc::new(Registry::new(&ContainersConfig::default()));
    let (cri, mut cri_asks) = source(&registry, "cri", |runtime| runtime != Some("podman"));
    let (podman, mut podman_asks) =
        source(&registry, "podman", |runtime| runtime == Some("podman"));
    let (absent, mut absent_asks) = source(&registry, "absent", |_| true);
    absent.down(SourceState::Absent, "there is no socket".to_owned());
    cri.up();
    podman.up();
    registry.ask("a", Some("containerd"), 0);
    registry.ask("b", Some("podman"), 0);
    registry.ask("b", Some("podman"), 0);
    assert_eq!((cri_asks.try_recv().as_deref(), cri_asks.try_recv().is_err()), (Ok("a"), true));
    assert_eq!(
        (podman_asks.try_recv().as_deref(), podman_asks.try_recv().is_err()),
        (Ok("b"), true)
    );
    assert!(absent_asks.try_recv().is_err());
    cri.nothing("a");
    assert!(matches!(registry.lookup("a"), Lookup::Unknown));
    assert!(matches!(registry.lookup("b"), Lookup::Pending));
    podman.down(SourceState::Down, "a\nb".to_owned());
    assert!(matches!(registry.lookup("b"), Lookup::Unknown));
    let reports = registry.reports();
    assert_eq!(reports[1].why.as_deref(), Some("a\\nb"));
    assert_eq!((reports[0].answered, reports[1].failed), (1, 1));
}

/// What happened before the daemon ran is told as it starts, and the runtimes are being connected to.
#[test]
fn who_has_not_tried_yet_is_waited_for_until_it_has() {
    let registry = Arc::new(Registry::new(&ContainersConfig::default()));
    let (first, mut asks) = source(&registry, "first", |_| true);
    let (second, _second_asks) = source(&registry, "second", |_| true);
    registry.ask("a", None, 0);
    assert_eq!(asks.try_recv().as_deref(), Ok("a"));
    second.down(SourceState::Absent, "there is no socket".to_owned());
    assert!(matches!(registry.lookup("a"), Lookup::Pending));
    first.put(info("first", "a", Some("p")));
    assert_eq!(known(&registry, "a"), Some("first"));
    first.down(SourceState::Absent, "there is no socket".to_owned());
    registry.ask("b", None, 0);
    assert!(asks.try_recv().is_err() && matches!(registry.lookup("b"), Lookup::Unknown));
}

#[test]
fn who_has_not_tried_and_is_late_owes_the_answer() {
    let registry = Arc::new(Registry::new(&ContainersConfig::default()));
    let (_late, _asks) = source(&registry, "late", |_| true);
    registry.ask("a", None, 0);
    registry.too_late("a");
    assert!(matches!(registry.lookup("a"), Lookup::Unknown));
    assert!(registry.why_not(None).is_some_and(|why| why.contains("late")));
}

#[test]
fn who_is_late_is_not_waited_for_until_it_has_answered() {
    let registry = Arc::new(Registry::new(&ContainersConfig::default()));
    let (slow, mut asks) = source(&registry, "slow", |_| true);
    let (quick, _quick_asks) = source(&registry, "quick", |_| true);
    slow.up();
    quick.up();
    registry.ask("a", None, 0);
    quick.nothing("a");
    registry.too_late("a");
    let states: Vec<SourceState> = registry.reports().iter().map(|report| report.state).collect();
    assert_eq!(states, [SourceState::Slow, SourceState::Up]);
    // It is asked all the same, since it may answer the next death in time.
    registry.ask("b", None, 0);
    quick.nothing("b");
    assert!(matches!(registry.lookup("b"), Lookup::Unknown));
    assert_eq!((asks.try_recv().as_deref(), asks.try_recv().as_deref()), (Ok("a"), Ok("b")));
    slow.up();
    slow.put(info("slow", "a", None));
    assert_eq!((known(&registry, "a"), registry.reports()[0].why.as_deref()), (Some("slow"), None));
}

#[test]
fn a_full_queue_is_waited_for_by_nobody() {
    let registry = Arc::new(Registry::new(&ContainersConfig::default()));
    let (source, mut asks) = source(&registry, "cri", |_| true);
    source.up();
    for n in 0..=QUEUE {
        registry.ask(&n.to_string(), None, 0);
    }
    assert!(matches!(registry.lookup(&(QUEUE - 1).to_string()), Lookup::Pending));
    assert!(matches!(registry.lookup(&QUEUE.to_string()), Lookup::Unknown));
    assert_eq!(std::iter::from_fn(|| asks.try_recv().ok()).count(), QUEUE);
}

#[test]
fn who_knows_the_pod_knows_more() {
    let registry = Arc::new(Registry::new(&ContainersConfig::default()));
    let (cri, _cri_asks) = source(&registry, "cri", |_| true);
    let (docker, _docker_asks) = source(&registry, "docker", |_| true);
    docker.put(info("docker", "a", None));
    cri.put(info("cri", "a", Some("pod")));
    docker.all(vec![info("docker", "a", None), info("docker", "b", None)], 0);
    assert_eq!((known(&registry, "a"), known(&registry, "b")), (Some("cri"), Some("docker")));
    // The one does not take away what the other told of.
    cri.all(vec![info("cri", "a", Some("pod"))], 0);
    registry.forget_gone(u64::MAX);
    assert_eq!((known(&registry, "a"), known(&registry, "b")), (Some("cri"), Some("docker")));
    cri.all(Vec::new(), 0);
    registry.forget_gone(u64::MAX);
    assert_eq!((known(&registry, "a"), known(&registry, "b")), (None, Some("docker")));
}

#[test]
fn there_may_be_eight_sources() {
    let registry = Arc::new(Registry::new(&ContainersConfig::default()));
    let sources: Vec<_> = (0..9).map(|_| registry.source("x", String::new(), |_| true)).collect();
    assert_eq!(sources.iter().flatten().count(), 8);
}
