//! Kubernetes-shaped pods in a real containerd: whoever dies in one has its names, whatever happens to the runtime meanwhile.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::cgroup::{Group, Hierarchy};
use killwatch_tests::containerd::{Container, Containerd, IMAGE, Pod};
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::daemon::{Daemon, Launch};
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::{Truth, handles};
use killwatch_tests::wait::{scaled, wait_until};
use serde_json::{Value, json};

use crate::{LIMIT, at_the_gate, kill_by_shell};

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(the_first_process_of_a_container_meets_its_limit).needs(CONTAINERD),
    play!(a_child_in_a_container_meets_the_limit).needs(CONTAINERD),
    play!(each_container_of_a_pod_has_its_own_name).needs(CONTAINERD),
    play!(a_pod_that_is_gone_at_once_has_its_names).needs(CONTAINERD),
    play!(each_attempt_of_a_container_is_told_apart).needs(CONTAINERD),
    play!(a_restart_of_containerd_takes_no_names).needs(CONTAINERD),
    play!(without_containerd_deaths_are_told_in_time).needs(CONTAINERD),
    play!(a_wedged_containerd_delays_no_death_for_long).needs(CONTAINERD),
];

pub(crate) const CONTAINERD: &[Need] =
    &[Need::Program("containerd"), Need::Program("runc"), Need::Program("busybox")];

/// From a death until its record must be there, whatever the runtime does: `containers.deadline` of 250 ms, and the rest for a busy machine.
const TELLS_WITHIN: Duration = Duration::from_secs(1);
/// Until a runtime that went is known to be gone, or one that came back to be there.
const NOTICED_WITHIN: Duration = Duration::from_secs(45);

const HOG: &str =
    "trap 'go=1' USR1; while [ -z \"$go\" ]; do :; done; x=aaaaaaaa; while :; do x=$x$x; done";
const SLEEP: [&str; 3] = ["/bin/busybox", "sleep", "100000"];
const SIGUSR1: u32 = 10;

/// Has a daemon of its own, which asks at this socket, watch the scenario.
fn watched(stage: &mut Stage, socket: &Path) -> Result<()> {
    watched_with(stage, socket, "{}")
}

/// Like [`watched`], with this configuration file.
fn watched_with(stage: &mut Stage, socket: &Path, config: &str) -> Result<()> {
    let file = socket.with_file_name("killwatch.yaml");
    std::fs::write(&file, config).context("write a configuration")?;
    let flags = vec!["--config.file".into(), file.into(), "--containers.cri".into(), socket.into()];
    stage.daemon = Arc::new(Daemon::start_as(Launch { wrapper: vec![], flags })?);
    source_is(&stage.daemon, &["up"])
}

/// Waits until the source `cri` is in one of these states.
pub(crate) fn source_is(daemon: &Daemon, states: &[&str]) -> Result<()> {
    let mut last = Value::Null;
    let seen = wait_until(NOTICED_WITHIN, &format!("cri is one of {states:?}"), || {
        last = source(daemon)?;
        Ok(states.iter().any(|state| last["state"] == *state).then_some(()))
    });
    seen.with_context(|| format!("it was last {last}"))
}

/// What the status says of the source `cri`.
pub(crate) fn source(daemon: &Daemon) -> Result<Value> {
    let status = daemon.json("/api/v1/status")?;
    let sources = status.get("sources").and_then(Value::as_array);
    let cri = sources.and_then(|all| all.iter().find(|source| source["name"] == "cri"));
    cri.cloned().with_context(|| format!("no source cri in {status}"))
}

/// What the runtime knows of a container is in the record, and it says from whom.
fn named(expected: Expected, pod: &Pod, container: &Container) -> Expected {
    expected
        .is("/workload/container_id", format!("containerd://{}", container.id))
        .is("/workload/runtime", "containerd")
        .is("/workload/container", container.name.clone())
        .is("/workload/pod", pod.name.clone())
        .is("/workload/namespace", pod.namespace.clone())
        .is("/workload/pod_uid", pod.uid.clone())
        .is("/workload/qos", "Burstable")
        .is("/workload/sandbox_id", pod.sandbox_id.clone())
        .is("/workload/image", IMAGE)
        .is("/workload/attempt", container.attempt)
        .like("/workload/sources", "who said which", |sources| {
            let by = |key: &str, source: &str| sources.get(key).is_some_and(|by| by == source);
            ["runtime", "container", "pod", "namespace", "sandbox_id", "image", "attempt"]
                .iter()
                .all(|key| by(key, "cri"))
                && by("qos", "cgroup_path")
                && sources.get("container_id").is_some()
                && sources.get("pod_uid").is_some()
        })
}

/// Only the path of its cgroup tells of it, and that says nothing of a runtime.
fn nameless(expected: Expected, pod_uid: &str, id: &str) -> Expected {
    expected
        .is("/workload/container_id", id)
        .is("/workload/pod_uid", pod_uid)
        .is("/workload/qos", "Burstable")
        .is(
            "/workload/sources",
            json!({ "container_id": "cgroup_path", "pod_uid": "cgroup_path", "qos": "cgroup_path" }),
        )
}

/// A shell hog that waits until it is looked at, as the first process of a container.
pub(crate) fn hog(
    containerd: &Containerd,
    pod: &Pod,
    name: &str,
    attempt: u32,
) -> Result<(Container, Truth)> {
    let (container, init) =
        containerd.run(pod, name, attempt, LIMIT, &["/bin/busybox", "sh", "-c", HOG])?;
    wait_until_ready(init.pid)?;
    Ok((container, init))
}

/// Until the shell has a handler for it, the first process of a namespace is sent a signal in vain.
fn wait_until_ready(pid: u32) -> Result<()> {
    wait_until(Duration::from_secs(5), "the shell to have its handler", || {
        Ok(handles(pid, SIGUSR1)?.then_some(()))
    })
}

fn oom(stage: &Stage, victim: &Truth, container: &Container) -> Result<Expected> {
    let group = Group::at(&Hierarchy::find()?, &container.cgroup);
    Ok(Expected::death(victim, stage.daemon.node())
        .oom(victim, &group, LIMIT)
        // The text that did not fit any more was as long as all before.
        .like("/memory/anon_bytes", "a good part of the limit", |size| {
            size.as_u64().is_some_and(|size| (LIMIT / 4..=LIMIT + LIMIT / 8).contains(&size))
        }))
}

/// Has the first process of a container meet its limit, and holds the record to its names.
fn holds_oom(stage: &Stage, pod: &Pod, (container, init): &(Container, Truth)) -> Result<()> {
    kill_by_shell("USR1", init.pid, 0)?;
    let expected = named(oom(stage, init, container)?, pod, container);
    stage.holds(init, &expected).map(drop)
}

/// Kills a process, and holds the record to these names. It must be there in time.
fn holds_kill(
    stage: &Stage,
    victim: &Truth,
    names: impl FnOnce(Expected) -> Expected,
) -> Result<()> {
    let killed = kill_by_shell("KILL", victim.pid, 0)?;
    let began = Instant::now();
    let expected =
        names(Expected::death(victim, stage.daemon.node()).signal(9, "SIGKILL").killed_by(&killed));
    stage.holds(victim, &expected)?;
    let took = began.elapsed();
    ensure!(took < scaled(TELLS_WITHIN), "the record came {took:?} after the kill");
    Ok(())
}

fn the_first_process_of_a_container_meets_its_limit(stage: &mut Stage) -> Result<()> {
    let containerd = Containerd::start()?;
    let asked = "workload: { labels: [app, absent], annotations: [example.com/note] }";
    watched_with(stage, &containerd.socket(), asked)?;
    let labels = [("app", "web"), ("not-asked-for", "secret")];
    let annotations = [("example.com/note", "of\n\"the\" pod"), ("not-asked-for", "secret")];
    let pod = containerd.run_pod("web-7f9c", "shop", &labels, &annotations)?;
    let victim = hog(&containerd, &pod, "server", 0)?;
    kill_by_shell("USR1", victim.1.pid, 0)?;
    let expected = named(oom(stage, &victim.1, &victim.0)?, &pod, &victim.0)
        .is("/workload/labels", json!({ "app": "web" }))
        .is("/workload/annotations", json!({ "example.com/note": "of\n\"the\" pod" }));
    stage.holds(&victim.1, &expected)?;
    let ended = containerd.ended(&victim.0)?;
    ensure!(ended.exit_code == 137 && ended.reason == "OOMKilled", "containerd says {ended:?}");
    Ok(())
}

/// The first process lives on, so that the container does, and the runtime calls it no OOM kill of the container.
fn a_child_in_a_container_meets_the_limit(stage: &mut Stage) -> Result<()> {
    let containerd = Containerd::start()?;
    watched(stage, &containerd.socket())?;
    let labels = [
        ("batch.kubernetes.io/controller-uid", "0e0f1a2b-0000-4000-8000-000000000001"),
        ("batch.kubernetes.io/job-name", "batch"),
        ("batch.kubernetes.io/job-completion-index", "1"),
    ];
    let pod = containerd.run_pod("batch-1", "jobs", &labels, &[])?;
    let script = format!(
        "/bin/busybox sh -c '{}' & wait; exec /bin/busybox sleep 100000",
        HOG.replace('\'', "'\\''")
    );
    let (container, init) =
        containerd.run(&pod, "worker", 0, LIMIT, &["/bin/busybox", "sh", "-c", &script])?;
    let group = Group::at(&Hierarchy::find()?, &container.cgroup);
    let child = wait_until(Duration::from_secs(5), "the child of the container", || {
        let child = group.processes()?.into_iter().find(|pid| *pid != init.pid);
        Ok(child.filter(|pid| handles(*pid, SIGUSR1).unwrap_or(false)))
    })?;
    let child = Truth::of(child)?;
    ensure!(child.ppid == init.pid && child.ns_pid > 1, "{child:?}");
    kill_by_shell("USR1", child.pid, 0)?;
    let expected = named(oom(stage, &child, &container)?, &pod, &container)
        .is("/job/scheduler", "kubernetes")
        .is("/job/id", "0e0f1a2b-0000-4000-8000-000000000001")
        .is("/job/name", "batch")
        .is("/job/index", "1")
        .like("/job/sources", "labels", |sources| {
            sources.as_object().is_some_and(|sources| {
                ["id", "name", "index"].iter().all(|key| {
                    sources
                        .get(*key)
                        .and_then(Value::as_str)
                        .is_some_and(|by| by.starts_with("label:"))
                })
            })
        });
    stage.holds(&child, &expected)?;
    ensure!(Truth::of(init.pid)?.started == init.started, "the first process went too");
    Ok(())
}

fn each_container_of_a_pod_has_its_own_name(stage: &mut Stage) -> Result<()> {
    let containerd = Containerd::start()?;
    watched(stage, &containerd.socket())?;
    let pod = containerd.run_pod("pair", "shop", &[], &[])?;
    let main = hog(&containerd, &pod, "main", 0)?;
    let (sidecar, second) = containerd.run(&pod, "sidecar", 0, LIMIT, &SLEEP)?;
    holds_oom(stage, &pod, &main)?;
    holds_kill(stage, &second, |expected| named(expected, &pod, &sidecar))
}

/// As the kubelet does when a pod is deleted: the runtime knows nothing of it any more, a moment after it died.
fn a_pod_that_is_gone_at_once_has_its_names(stage: &mut Stage) -> Result<()> {
    let containerd = Containerd::start()?;
    watched(stage, &containerd.socket())?;
    let pod = containerd.run_pod("short", "jobs", &[], &[])?;
    let (container, init) = hog(&containerd, &pod, "once", 0)?;
    let expected = named(oom(stage, &init, &container)?, &pod, &container);
    kill_by_shell("USR1", init.pid, 0)?;
    containerd.ended(&container)?;
    let died = Instant::now();
    containerd.client().stop(&container.id)?;
    containerd.client().remove(&container.id)?;
    containerd.remove_pod(&pod.sandbox_id)?;
    let took = died.elapsed();
    ensure!(containerd.client().status(&container.id).is_err(), "containerd still knows it");
    ensure!(
        !Group::at(&Hierarchy::find()?, &container.cgroup).dir().exists(),
        "its cgroup is there"
    );
    stage.holds(&init, &expected)?;
    ensure!(
        took < scaled(Duration::from_secs(1)),
        "the pod was gone {took:?} after the death only"
    );
    Ok(())
}

/// A restart is a new container in the same sandbox.
fn each_attempt_of_a_container_is_told_apart(stage: &mut Stage) -> Result<()> {
    let containerd = Containerd::start()?;
    watched(stage, &containerd.socket())?;
    let pod = containerd.run_pod("crashes", "shop", &[], &[])?;
    let mut ids = Vec::new();
    for attempt in 0..3 {
        let victim = hog(&containerd, &pod, "looper", attempt)?;
        holds_oom(stage, &pod, &victim)?;
        containerd.ended(&victim.0)?;
        ids.push(victim.0.id);
    }
    ids.dedup();
    ensure!(ids.len() == 3, "the same container thrice: {ids:?}");
    Ok(())
}

/// Those that died while it was away, those that lived on, and those that came after.
fn a_restart_of_containerd_takes_no_names(stage: &mut Stage) -> Result<()> {
    let mut containerd = Containerd::start()?;
    watched(stage, &containerd.socket())?;
    let pod = containerd.run_pod("steady", "shop", &[], &[])?;
    let (during, dies_during) = containerd.run(&pod, "during", 0, LIMIT, &SLEEP)?;
    let (after, dies_after) = containerd.run(&pod, "after", 0, LIMIT, &SLEEP)?;
    containerd.stop()?;
    holds_kill(stage, &dies_during, |expected| named(expected, &pod, &during))?;
    containerd.begin()?;
    holds_kill(stage, &dies_after, |expected| named(expected, &pod, &after))?;
    source_is(&stage.daemon, &["up"])?;
    let fresh = hog(&containerd, &pod, "fresh", 1)?;
    holds_oom(stage, &pod, &fresh)
}

/// Known names stay; of a container that came after containerd went, nobody can say a name, and nobody waits for one.
fn without_containerd_deaths_are_told_in_time(stage: &mut Stage) -> Result<()> {
    let mut containerd = Containerd::start()?;
    watched(stage, &containerd.socket())?;
    let pod = containerd.run_pod("orphan", "shop", &[], &[])?;
    let (known, init) = containerd.run(&pod, "known", 0, LIMIT, &SLEEP)?;
    containerd.stop()?;
    source_is(&stage.daemon, &["down", "absent"])?;
    holds_kill(stage, &init, |expected| named(expected, &pod, &known))?;
    dies_nameless(stage)?;
    ensure!(source(&stage.daemon)?["state"] != "up", "it passes for one that answers");
    containerd.begin()?;
    source_is(&stage.daemon, &["up"])
}

/// Its socket takes connections and requests, and nothing comes back.
fn a_wedged_containerd_delays_no_death_for_long(stage: &mut Stage) -> Result<()> {
    let containerd = Containerd::start()?;
    watched(stage, &containerd.socket())?;
    let pod = containerd.run_pod("stuck", "shop", &[], &[])?;
    let (known, init) = containerd.run(&pod, "known", 0, LIMIT, &SLEEP)?;
    containerd.wedge()?;
    holds_kill(stage, &init, |expected| named(expected, &pod, &known))?;
    for _ in 0..3 {
        dies_nameless(stage)?;
    }
    ensure!(source(&stage.daemon)?["state"] != "up", "it passes for one that answers");
    containerd.unwedge()?;
    source_is(&stage.daemon, &["up"])?;
    let fresh = hog(&containerd, &pod, "fresh", 0)?;
    holds_oom(stage, &pod, &fresh)
}

/// One dies in a container that the runtime does not tell of.
pub(crate) fn dies_nameless(stage: &Stage) -> Result<()> {
    let (uid, id) = ("3f6c1a52-9d1e-4b7a-8c55-0d2f7be0ffff", container_id());
    let group = stage.tree.make(&format!("kubepods/burstable/pod{uid}/{id}"))?;
    let (mut victim, truth) = at_the_gate(&stage.cast().within(&group).args(["--gate", "sleep"]))?;
    holds_kill(stage, &truth, |expected| {
        // The one that owed an answer is named as what lacks, if it was waited for.
        nameless(expected, uid, &id)
    })?;
    victim.reap_killed_by(9)?;
    group.remove()
}

/// An id that no other scenario of this or another process has.
fn container_id() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{:e>64}", format!("{:x}{number:04x}", std::process::id()))
}
