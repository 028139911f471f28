//! Containers of real Podman and Docker services: their names in the record, whatever becomes of container or service.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::cgroup::Group;
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::daemon::{Daemon, Launch};
use killwatch_tests::engine::{Container, Engine, IMAGE, Kind, Order};
use killwatch_tests::metrics::sample;
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::{Truth, handles};
use killwatch_tests::wait::{scaled, wait_until};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{LIMIT, at_the_gate, kill_by_shell};

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(podman_names_an_oom_kill).needs(PODMAN),
    play!(podman_removes_it_at_once).needs(PODMAN),
    play!(podman_starts_it_anew).needs(PODMAN),
    play!(podman_stands_still).needs(PODMAN),
    play!(docker_names_an_oom_kill).needs(DOCKER),
    play!(docker_removes_it_at_once).needs(DOCKER),
    play!(docker_starts_it_anew).needs(DOCKER),
    play!(docker_stands_still).needs(DOCKER),
];

const PODMAN: &[Need] = &[
    Need::Program("podman"),
    Need::Program("conmon"),
    Need::Program("runc"),
    Need::Program("busybox"),
    Need::Program("tar"),
];
const DOCKER: &[Need] = &[
    Need::Program("dockerd"),
    Need::Program("containerd"),
    Need::Program("runc"),
    Need::Program("busybox"),
    Need::Program("tar"),
];

/// The label that the daemon is asked to tell.
const LABEL: &str = "team.example.org/name";
const LABELS: &[(&str, &str)] = &[(LABEL, "data"), ("secret.example.org/token", "not asked for")];
/// Waits for a signal, and then doubles a text until its limit is reached.
const HOG: &[&str] = &[
    "/bin/busybox",
    "sh",
    "-c",
    "trap 'go=1' USR1; while [ -z \"$go\" ]; do :; done; x=aaaaaaaa; while :; do x=$x$x; done",
];
const SLEEP: &[&str] = &["/bin/busybox", "sleep", "1000"];
const SOON: Duration = Duration::from_secs(15);

fn podman_names_an_oom_kill(_: &mut Stage) -> Result<()> {
    names_an_oom_kill(Kind::Podman)
}

fn docker_names_an_oom_kill(_: &mut Stage) -> Result<()> {
    names_an_oom_kill(Kind::Docker)
}

/// One that was there before the daemon, and one that came later.
fn names_an_oom_kill(kind: Kind) -> Result<()> {
    let engine = Engine::start(kind)?;
    let earlier = engine.run(order("earlier", HOG))?;
    let daemon = Watch::start(kind, &engine.socket())?;
    let later = engine.run(order("later", HOG))?;
    for (container, name) in [(&earlier, "earlier"), (&later, "later")] {
        let init = engine.init(container, None)?;
        // Until the shell has a handler for it, the first process of a namespace is sent it in vain.
        wait_until(SOON, "the shell to have its handler", || {
            Ok(handles(init.pid, 10)?.then_some(()))
        })?;
        daemon.knows(name)?;
        kill_by_shell("USR1", init.pid, 0)?;
        let expected = Expected::death(&init, daemon.daemon.node())
            .oom(&init, &engine.group(&init)?, LIMIT)
            // The text that did not fit any more was as long as all before.
            .like("/memory/anon_bytes", "a good part of the limit", |size| {
                size.as_u64().is_some_and(|size| (LIMIT / 4..=LIMIT + LIMIT / 8).contains(&size))
            });
        daemon.holds(&init, &named(expected, kind, container, name, 0))?;
    }
    Ok(())
}

fn podman_removes_it_at_once(_: &mut Stage) -> Result<()> {
    removes_it_at_once(Kind::Podman)
}

fn docker_removes_it_at_once(_: &mut Stage) -> Result<()> {
    removes_it_at_once(Kind::Docker)
}

/// The names stay until the death is told, and the death is told with them though the engine does not know the container any more.
fn removes_it_at_once(kind: Kind) -> Result<()> {
    let engine = Engine::start(kind)?;
    let daemon = Watch::start(kind, &engine.socket())?;
    let container = engine.run(Order { remove: true, ..order("fleeting", SLEEP) })?;
    let init = engine.init(&container, None)?;
    daemon.knows("fleeting")?;
    let sender = kill_by_shell("KILL", init.pid, 0)?;
    engine.removed(&container)?;
    let expected =
        Expected::death(&init, daemon.daemon.node()).signal(9, "SIGKILL").killed_by(&sender);
    daemon.holds(&init, &named(expected, kind, &container, "fleeting", 0))
}

fn podman_starts_it_anew(_: &mut Stage) -> Result<()> {
    starts_it_anew(Kind::Podman)
}

fn docker_starts_it_anew(_: &mut Stage) -> Result<()> {
    starts_it_anew(Kind::Docker)
}

/// The same container, with the same id, a second time and by another name.
fn starts_it_anew(kind: Kind) -> Result<()> {
    let engine = Engine::start(kind)?;
    let daemon = Watch::start(kind, &engine.socket())?;
    let container = engine.run(Order { restart: true, ..order("first-name", SLEEP) })?;
    let node = daemon.daemon.node();
    let first = engine.init(&container, None)?;
    daemon.knows("first-name")?;
    let sender = kill_by_shell("KILL", first.pid, 0)?;
    let expected = Expected::death(&first, node).signal(9, "SIGKILL").killed_by(&sender);
    daemon.holds(&first, &named(expected, kind, &container, "first-name", 0))?;

    // It cannot be renamed while it is being started.
    engine.init(&container, Some(&first))?;
    engine.rename(&container, "second-name")?;
    // The engine tells of the new start and the new name a moment later than they are, and then is asked what they are. Nothing shows when that is
    // done, so a process that is killed before tells by its death what was known before, and the next one is looked at.
    let (mut last, mut told) = (first, Ok(()));
    for attempt in 1..=10 {
        let next = engine.init(&container, Some(&last))?;
        ensure!(engine.restarts(&container)? == u64::from(attempt), "it was started anew once");
        let sender = kill_by_shell("KILL", next.pid, 0)?;
        let expected = Expected::death(&next, node).signal(9, "SIGKILL").killed_by(&sender);
        told = daemon.holds(&next, &named(expected, kind, &container, "second-name", attempt));
        if told.is_ok() {
            break;
        }
        last = next;
    }
    told
}

fn podman_stands_still(stage: &mut Stage) -> Result<()> {
    stands_still(stage, Kind::Podman)
}

fn docker_stands_still(stage: &mut Stage) -> Result<()> {
    stands_still(stage, Kind::Docker)
}

/// What is known stays known; what is not is told without names, in time and saying so; and all is well again when the engine is.
fn stands_still(stage: &mut Stage, kind: Kind) -> Result<()> {
    let engine = Engine::start(kind)?;
    let daemon = Watch::start(kind, &engine.socket())?;
    let node = daemon.daemon.node();
    let known = engine.run(order("known", SLEEP))?;
    let init = engine.init(&known, None)?;
    daemon.knows("known")?;
    engine.wedge()?;
    let sender = kill_by_shell("KILL", init.pid, 0)?;
    let expected = Expected::death(&init, node).signal(9, "SIGKILL").killed_by(&sender);
    daemon.holds(&init, &named(expected, kind, &known, "known", 0))?;

    let id = format!("{:c>64}", format!("{:x}", std::process::id()));
    let below = if kind == Kind::Podman { format!("libpod-{id}") } else { format!("docker/{id}") };
    let group = stage.tree.make(&below)?;
    for _ in 0..2 {
        unknown(stage, &daemon, kind, &group, &id)?;
    }

    engine.unwedge()?;
    let after = engine.run(order("after", SLEEP))?;
    let init = engine.init(&after, None)?;
    daemon.listens(kind)?;
    daemon.knows("after")?;
    let sender = kill_by_shell("KILL", init.pid, 0)?;
    let expected = Expected::death(&init, node).signal(9, "SIGKILL").killed_by(&sender);
    daemon.holds(&init, &named(expected, kind, &after, "after", 0))
}

/// The death of a container of which the daemon could not hear.
fn unknown(stage: &Stage, watch: &Watch, kind: Kind, group: &Group, id: &str) -> Result<()> {
    let (mut victim, truth) = at_the_gate(&stage.cast().within(group).args(["--gate", "sleep"]))?;
    let sender = kill_by_shell("KILL", truth.pid, 0)?;
    let began = Instant::now();
    victim.reap_killed_by(9)?;
    let name = kind.name();
    let expected = Expected::death(&truth, watch.daemon.node())
        .signal(9, "SIGKILL")
        .killed_by(&sender)
        .is("/workload/container_id", format!("{name}://{id}"))
        .is("/workload/runtime", name)
        .like("/missing", "the name of the container, and who owes it", move |missing| {
            missing.as_array().into_iter().flatten().any(|one| {
                one["field"] == "workload.container"
                    && one["why"].as_str().is_some_and(|why| why.starts_with(name))
            })
        });
    watch.holds(&truth, &expected)?;
    // The deadline is 250 ms; the rest is this machine's.
    let took = began.elapsed();
    ensure!(took < scaled(Duration::from_millis(1500)), "it was told after {took:?}");
    Ok(())
}

fn order<'a>(name: &'a str, command: &'a [&'a str]) -> Order<'a> {
    Order { name, labels: LABELS, limit: LIMIT, command, remove: false, restart: false }
}

/// All that the engine knows of its container.
fn named(
    expected: Expected,
    kind: Kind,
    container: &Container,
    name: &str,
    attempt: u32,
) -> Expected {
    let source = kind.name();
    let by = move |sources: &Value| {
        let by_engine = ["container", "image", "attempt", "labels"]
            .into_iter()
            .all(|key| sources[key] == source);
        by_engine && sources["container_id"].is_string()
    };
    expected
        .is("/workload/container", name)
        .is("/workload/image", IMAGE)
        .is("/workload/runtime", source)
        .is("/workload/container_id", format!("{source}://{}", container.id))
        .is("/workload/attempt", attempt)
        .is("/workload/labels", json!({ LABEL: "data" }))
        .like("/workload/sources", "the engine for what it told", by)
        .maybe_like("/missing", "nothing of the workload", |missing| {
            !missing.to_string().contains("workload.")
        })
}

/// A daemon that asks one engine.
struct Watch {
    daemon: Daemon,
    // Holds its configuration.
    _dir: TempDir,
}

impl Watch {
    /// Starts one, and waits until it listens to the engine.
    fn start(kind: Kind, socket: &Path) -> Result<Self> {
        let dir = TempDir::with_prefix("killwatch-test-").context("make a directory")?;
        let file = dir.path().join("killwatch.yaml");
        std::fs::write(&file, format!("workload:\n  labels: ['{LABEL}']\n"))
            .context("write the configuration")?;
        let mut flags: Vec<OsString> = vec!["--config.file".into(), file.into()];
        flags.extend(["--containers.cri", "off"].map(OsString::from));
        for other in [Kind::Podman, Kind::Docker] {
            flags.push(format!("--containers.{}", other.name()).into());
            flags.push(if other == kind { socket.into() } else { "off".into() });
        }
        let daemon = Daemon::start_as(Launch { wrapper: vec![], flags })?;
        let watch = Self { daemon, _dir: dir };
        watch.listens(kind)?;
        Ok(watch)
    }

    /// Waits until it listens to the engine.
    fn listens(&self, kind: Kind) -> Result<()> {
        wait_until(2 * SOON, "the daemon to listen to the engine", || {
            let source = self.source()?;
            let is = source["name"] == kind.name() && source["state"] == "up";
            Ok((is && source["events"] == true).then_some(()))
        })
        .with_context(|| format!("{:?}; the daemon's log:\n{:?}", self.source(), self.daemon.log()))
    }

    /// Waits until it has a container's name: then its series bear it.
    fn knows(&self, name: &str) -> Result<()> {
        wait_until(SOON, "the daemon to know a container's name", || {
            let page = self.daemon.metrics()?;
            let named = sample(&page, "container_oom_killed_total", &[("container", name)])?;
            Ok(named.map(drop))
        })
    }

    fn source(&self) -> Result<Value> {
        let status = self.daemon.json("/api/v1/status")?;
        status.pointer("/sources/0").cloned().context("no source")
    }

    fn holds(&self, truth: &Truth, expected: &Expected) -> Result<()> {
        let log = || format!("the daemon's log:\n{}", self.daemon.log().unwrap_or_default());
        expected.compare(&self.daemon.death_of(truth).with_context(log)?).with_context(log)
    }
}
