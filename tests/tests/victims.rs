//! The victims themselves: each dies as it says, where it says. Needs cgroups, no daemon.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::cgroup::{CEILING, Tree};
use killwatch_tests::containerd::Containerd;
use killwatch_tests::corpus::{self, Need, Scenario, skipped};
use killwatch_tests::stage::{cgroup_obstacle, victim_program};
use killwatch_tests::truth::Truth;
use killwatch_tests::victim::{Casting, Victim};
use killwatch_tests::wait::wait_until;

/// The limit that hogs meet, in bytes.
const LIMIT: u64 = 24 << 20;

const ALL: &[Scenario] = &[
    Scenario::bare(
        "a_hog_dies_at_its_limit_on_the_thread_that_allocates",
        a_hog_dies_at_its_limit_on_the_thread_that_allocates,
    ),
    Scenario::bare("a_hog_without_a_limit_is_refused", a_hog_without_a_limit_is_refused),
    Scenario::bare("nothing_of_a_tree_is_left", nothing_of_a_tree_is_left),
    Scenario::bare("each_end_is_what_it_says", each_end_is_what_it_says),
    Scenario::bare("company_is_as_it_says", company_is_as_it_says),
    Scenario::bare("a_crowd_dies_in_less_than_a_second", a_crowd_dies_in_less_than_a_second),
    Scenario::bare("a_parent_outlives_its_child", a_parent_outlives_its_child),
    Scenario::bare(
        "a_name_may_be_hostile_and_a_user_another",
        a_name_may_be_hostile_and_a_user_another,
    ),
    Scenario::bare("a_victim_is_gone_when_dropped", a_victim_is_gone_when_dropped),
    Scenario::bare("a_pod_runs_and_leaves_nothing", a_pod_runs_and_leaves_nothing)
        .needs(CONTAINERD),
];

const CONTAINERD: &[Need] =
    &[Need::Program("containerd"), Need::Program("runc"), Need::Program("busybox")];

fn main() -> ExitCode {
    corpus::run(None, &[("victims", ALL)])
}

fn cast() -> Result<Casting> {
    Ok(Casting::new(victim_program(option_env!("CARGO_BIN_EXE_victim"))?))
}

/// Runs `play` with cgroups of its own, where this host lets us make some.
fn with_tree(play: impl FnOnce(&Tree) -> Result<()>) -> Result<()> {
    match cgroup_obstacle() {
        Some(obstacle) => Err(skipped(obstacle)),
        None => play(&Tree::new()?),
    }
}

fn a_hog_dies_at_its_limit_on_the_thread_that_allocates() -> Result<()> {
    with_tree(|tree| {
        let group = tree.limited("a/b", LIMIT)?;
        for options in [&["--threads", "1"][..], &["--threads", "8", "--allocate-on-thread"]] {
            let mut hog =
                cast()?.within(&group).args(["--gate", "hog"]).args(options.to_vec()).start()?;
            let said = hog.hear("tids")?;
            let truth = Truth::of(hog.pid())?;
            ensure!(truth.cgroup == group.path(), "{truth:?} is not in {}", group.path());
            ensure!(truth.cgroup_id == group.id()?);
            ensure!(said["tids"] == serde_json::json!(truth.tids), "{said} {truth:?}");
            ensure!(truth.tids.len() == options[1].parse::<usize>()?);
            ensure!(truth.comm == "victim" && truth.uid == 0);
            hog.go()?;
            hog.reap_killed_by(9)?;
        }
        Ok(())
    })
}

fn a_hog_without_a_limit_is_refused() -> Result<()> {
    with_tree(|tree| {
        let group = tree.make("free")?;
        let refused = cast()?.within(&group).args(["hog", "--limit-mib", "1"]).start().map(drop);
        ensure!(refused.is_err(), "a hog ran without a limit");
        ensure!(group.set_limit(CEILING + 4096).is_err(), "a limit above the ceiling was taken");
        group.set_limit(LIMIT)?;
        let mut hog = cast()?.within(&group).args(["hog", "--limit-mib", "1"]).start()?;
        hog.reap_exited(3)
    })
}

fn nothing_of_a_tree_is_left() -> Result<()> {
    with_tree(|_| {
        let tree = Tree::new()?;
        let dir = tree.top().dir().to_owned();
        let mut sleeper = cast()?.within(&tree.make("a/b")?).args(["sleep"]).start()?;
        sleeper.hear("pid")?;
        drop(tree);
        ensure!(!dir.exists(), "{} is still there", dir.display());
        sleeper.reap_killed_by(9)
    })
}

fn each_end_is_what_it_says() -> Result<()> {
    let end =
        |arguments: &[&str]| -> Result<_> { cast()?.args(arguments.to_vec()).start()?.reap() };
    let signal = |arguments: &[&str]| -> Result<_> {
        Ok(std::os::unix::process::ExitStatusExt::signal(&end(arguments)?))
    };
    ensure!(signal(&["abort"])? == Some(6));
    ensure!(signal(&["segv"])? == Some(11));
    ensure!(signal(&["bus"])? == Some(7));
    ensure!(signal(&["ill"])? == Some(4));
    ensure!(signal(&["fpe"])? == Some(8));
    ensure!(signal(&["trap"])? == Some(5));
    ensure!(signal(&["seccomp-filter"])? == Some(31));
    ensure!(signal(&["seccomp-strict"])? == Some(9));
    ensure!(signal(&["pipe"])? == Some(13));
    ensure!(signal(&["alarm"])? == Some(14));
    ensure!(signal(&["raise", "10"])? == Some(10));
    ensure!(end(&["forgetful"])?.code() == Some(1), "there was no environment to forget");
    let padding = "x".repeat(16 << 10);
    let mut forgetful = cast()?.with_env("PADDING", &padding).args(["forgetful"]).start()?;
    forgetful.reap_killed_by(6)?;
    let mut brief = cast()?.args(["brief", "2", "--kill", "said", "--", "sleep"]).start()?;
    for turn in 0..2 {
        let ended = brief.hear("child")?;
        ensure!(ended["turn"] == turn && ended["signal"] == 9, "{ended}");
    }
    brief.reap_exited(0)?;
    ensure!(signal(&["cpu-limit", "1", "9"])? == Some(24));
    ensure!(signal(&["cpu-limit", "--ignore", "1", "1"])? == Some(9));
    ensure!(signal(&["file-limit", "4096"])? == Some(25));
    ensure!(end(&["exit", "0"])?.code() == Some(0));
    ensure!(end(&["exit", "137"])?.code() == Some(137));
    let program = cast()?.program().display().to_string();
    ensure!(end(&["relay", "--", &program, "abort"])?.code() == Some(134));
    ensure!(end(&["relay", "--", &program, "exit", "7"])?.code() == Some(7));
    ensure!(end(&["nest", "3", "--", &program, "segv"])?.code() == Some(139));
    ensure!(end(&["exits", "20"])?.success());
    ensure!(end(&["aborts", "20"])?.success());
    ensure!(end(&["signals", "20", "17"])?.success());
    Ok(())
}

/// Each child is where and what it says, and goes with the one that made it or is killed here.
fn company_is_as_it_says() -> Result<()> {
    with_tree(|tree| {
        let group = tree.make("company")?;
        let child = |arguments: &[&str]| -> Result<(Victim, Truth)> {
            let casting = cast()?.within(&group).args(["--gate"]).args(arguments.to_vec());
            let mut victim = casting.start()?;
            victim.hear("tids")?;
            let said = victim.hear("child")?["child"].as_u64().context("no pid")?;
            Ok((victim, Truth::of(u32::try_from(said)?)?))
        };
        let (mut parent, forked) = child(&["fork", "--tied", "--", "exit", "0"])?;
        ensure!(forked.ppid == parent.pid() && forked.ns_pid == forked.pid);
        parent.go()?;
        parent.reap_exited(0)?;
        is_gone(forked.pid)?;
        let (mut outer, inner) = child(&["pidns", "--", "fork", "--", "exit", "4"])?;
        ensure!(inner.ns_pid == 2 && inner.ppid != outer.pid());
        outer.go()?;
        ensure!(outer.hear("reaped")?["code"] == 4);
        is_gone(inner.pid)?;
        let (mut sharer, shared) = child(&["share", "--", "exit", "5"])?;
        ensure!(shared.ppid == sharer.pid() && shared.tids.len() == 1);
        sharer.go()?;
        sharer.reap_exited(5)
    })
}

fn is_gone(pid: u32) -> Result<()> {
    wait_until(Duration::from_secs(5), &format!("{pid} is gone"), || {
        Ok(Truth::of(pid).is_err().then_some(()))
    })
}

fn a_crowd_dies_in_less_than_a_second() -> Result<()> {
    let mut parent = cast()?.args(["--gate", "deaths", "200"]).start()?;
    let waiting = parent.hear("pids")?;
    for pid in waiting["pids"].as_array().context("no pids")? {
        let truth = Truth::of(u32::try_from(pid.as_u64().context("no pid")?)?)?;
        ensure!(truth.ppid == parent.pid());
    }
    parent.go()?;
    let dead = parent.hear("seconds")?;
    ensure!(
        dead["pids"] == waiting["pids"]
            && dead["pids"].as_array().is_some_and(|pids| pids.len() == 200)
    );
    ensure!(dead["seconds"].as_f64().is_some_and(|seconds| seconds < 1.0), "{dead}");
    parent.reap_exited(0)
}

fn a_parent_outlives_its_child() -> Result<()> {
    let program = cast()?.program().display().to_string();
    let mut parent = cast()?.args(["parent", "--", &program, "--gate", "abort"]).start()?;
    let child = parent.hear("child")?["child"].clone();
    ensure!(parent.hear("tids")?["pid"] == child);
    parent.go()?;
    ensure!(parent.hear("reaped")?["signal"] == 6);
    Truth::of(parent.pid())?;
    parent.release();
    parent.reap_exited(0)
}

fn a_name_may_be_hostile_and_a_user_another() -> Result<()> {
    let mut named =
        cast()?.args(["--uid", "65534", "--gate", "named", ") Z\n\"} 1", "--", "sleep"]).start()?;
    named.hear("pid")?;
    let truth = Truth::of(named.pid())?;
    ensure!(truth.comm == ") Z\n\"} 1" && truth.uid == 65534, "{truth:?}");
    named.release();
    named.reap_exited(0)
}

fn a_victim_is_gone_when_dropped() -> Result<()> {
    let mut sleeper = cast()?.args(["sleep"]).start()?;
    sleeper.hear("pid")?;
    let pid = sleeper.pid();
    drop(sleeper);
    is_gone(pid)
}

/// A real pod meets its limit, its runtime says so, and nothing of either stays: no process, mount, cgroup or file.
fn a_pod_runs_and_leaves_nothing() -> Result<()> {
    with_tree(|_| {
        let mut containerd = Containerd::start()?;
        let (dir, cgroup) = (containerd.directory().to_owned(), containerd.cgroup().to_owned());
        let pod = containerd.run_pod("a-pod", "a-namespace", &[], &[])?;
        let hog = ["/bin/busybox", "sh", "-c", "sleep 1; x=aaaaaaaa; while :; do x=$x$x; done"];
        let (hog, init) = containerd.run(&pod, "hog", 0, LIMIT, &hog)?;
        ensure!(init.cgroup == hog.cgroup && init.ns_pid == 1, "{init:?} {hog:?}");
        let ended = containerd.ended(&hog)?;
        ensure!(ended.exit_code == 137 && ended.reason == "OOMKilled", "{ended:?}");
        let sleep = ["/bin/busybox", "sleep", "1000"];
        let (sleeper, init) = containerd.run(&pod, "sleeper", 2, LIMIT, &sleep)?;
        containerd.restart()?;
        containerd.stop()?;
        ensure!(Truth::of(init.pid)?.started == init.started, "it went with containerd");
        containerd.begin()?;
        let told = containerd.client().status(&sleeper.id)?.status.context("no status")?;
        ensure!(told.metadata.is_some_and(|which| which.name == "sleeper" && which.attempt == 2));
        containerd.wedge()?;
        drop(containerd);
        is_gone(init.pid)?;
        ensure!(!dir.exists(), "{} is there", dir.display());
        for line in std::fs::read_to_string("/proc/self/mounts")?.lines() {
            ensure!(!line.contains(&*dir.to_string_lossy()), "still mounted: {line}");
            let mut fields = line.split(' ').skip(1);
            let (place, kind) =
                (fields.next().context("a mount")?, fields.next().context("a mount")?);
            let left = std::path::Path::new(place).join(cgroup.trim_start_matches('/'));
            ensure!(!kind.starts_with("cgroup") || !left.exists(), "{} is there", left.display());
        }
        Ok(())
    })
}
