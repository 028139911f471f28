//! The kernel side outlives its daemon: what happens while none runs is told once, by the next, or counted.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::bpffs::{BpfFs, files};
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::daemon::{self, Daemon, Launch};
use killwatch_tests::metrics::sample;
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::Truth;
use killwatch_tests::wait::{in_vm, wait_until};
use serde_json::Value;

use crate::{LIMIT, at_the_gate};

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(what_happens_after_a_kill_of_the_daemon_is_told_once),
    play!(what_happens_after_a_stop_of_the_daemon_is_told_once),
    play!(the_rights_of_the_unit_are_enough),
    play!(other_programs_take_the_place_of_old_ones),
    play!(records_of_another_layout_are_counted_and_not_misread),
    play!(a_ring_that_overflows_meanwhile_is_counted),
    play!(what_is_pinned_by_half_is_removed),
    play!(detach_takes_all_away_once_no_daemon_runs),
    play!(a_second_daemon_has_its_own).needs(&[Need::NoVm]),
    play!(without_a_bpf_file_system_it_works_unpinned).needs(&[Need::NoVm]),
];

/// How long the daemon may take to say what it has read.
const READS_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

fn what_happens_after_a_kill_of_the_daemon_is_told_once(stage: &mut Stage) -> Result<()> {
    let again = |daemon: &Daemon, truth: &Truth| daemon.resunk_death_of(truth).map(drop);
    told_once(stage, Daemon::kill, again, nothing_of_ours_is_lost)
}

fn what_happens_after_a_stop_of_the_daemon_is_told_once(stage: &mut Stage) -> Result<()> {
    let stop = |daemon: &mut Daemon| {
        let ended = daemon.stop()?;
        ensure!(ended.success(), "the daemon was to end well, but: {ended}");
        Ok(())
    };
    told_once(stage, stop, |daemon, truth| daemon.sunk_death_of(truth).map(drop), nothing_is_lost)
}

/// Root has more than the unit leaves it (`CapabilityBoundingSet`).
fn the_rights_of_the_unit_are_enough(stage: &mut Stage) -> Result<()> {
    let bpffs = BpfFs::mount()?;
    let kept = "BPF,PERFMON,SYS_RESOURCE,SYSLOG,SYS_PTRACE".into();
    let wrapper = vec![stage.victim().into(), "bounded".into(), kept, "--".into()];
    let flags = vec!["--probe.pin".into(), bpffs.pins().into()];
    let mut daemon = Daemon::start_as(Launch { wrapper, flags })?;
    is_an_abort(&aborts(stage)?, &daemon)?;
    daemon.stop()?;
    let aborted = aborts(stage)?;
    daemon.start_again()?;
    is_an_abort(&aborted, &daemon)?;
    ensure!(pins(&daemon)?["state"] == "taken_over", "{:#}", pins(&daemon)?);
    // Of each program the kernel says how often it skipped it; of the two that look at an end, the second's word counts.
    let log = daemon.whole_log()?;
    let said = log.lines().find(|line| line.contains("what is pinned is taken over"));
    let said = said.context("the log is silent")?;
    let number = |key: &str| -> Option<u32> {
        let value = said.split(' ').find_map(|word| word.strip_prefix(key))?;
        value.parse().ok()
    };
    let (programs, watched) = (number("programs="), number("watched="));
    ensure!(programs > Some(0) && watched.map(|w| w + 1) >= programs, "{said}");
    nothing_is_lost(&daemon)
}

fn told_once(
    stage: &Stage,
    end: impl Fn(&mut Daemon) -> Result<()>,
    sunk: impl Fn(&Daemon, &Truth) -> Result<()>,
    complete: impl Fn(&Daemon) -> Result<()>,
) -> Result<()> {
    let bpffs = BpfFs::mount()?;
    let mut daemon = pinned(&bpffs.pins(), &[])?;
    ensure!(pins(&daemon)?["state"] == "pinned", "{:#}", pins(&daemon)?);
    let before = aborts(stage)?;
    daemon.death_of(&before)?;
    daemon.sunk_death_of(&before)?;
    let sets = bpffs.sets();
    // More than once: each goes on where the last one was.
    for round in 0..3 {
        end(&mut daemon)?;
        let group = stage.tree.limited(&format!("round-{round}-{}", daemon.pid()), LIMIT)?;
        let (mut hog, hogged) = at_the_gate(&stage.cast().within(&group).args(["--gate", "hog"]))?;
        hog.go()?;
        hog.reap_killed_by(9)?;
        let aborted = aborts(stage)?;
        daemon.start_again()?;
        let expected = Expected::death(&hogged, daemon.node())
            .oom(&hogged, &group, LIMIT)
            .looked_at_late(std::time::Duration::from_secs(10));
        expected.compare(&daemon.death_of(&hogged)?)?;
        is_an_abort(&aborted, &daemon)?;
        let pins = read(&daemon)?;
        ensure!(pins["state"] == "taken_over", "{pins:#}");
        ensure!(pins["meanwhile"]["deaths"].as_u64() >= Some(2), "{pins:#}");
        // What was told is not told again, and what comes now is told once.
        let told = daemon.deaths_of(&before)?.len();
        ensure!(told == 1, "told {told} times");
        is_an_abort(&aborts(stage)?, &daemon)?;
        for truth in [&before, &hogged, &aborted] {
            sunk(&daemon, truth)?;
        }
        ensure!(bpffs.sets() == sets, "{:?}, and before {sets:?}", bpffs.sets());
        complete(&daemon)?;
    }
    Ok(())
}

fn other_programs_take_the_place_of_old_ones(stage: &mut Stage) -> Result<()> {
    let bpffs = BpfFs::mount()?;
    let mut daemon = pinned(&bpffs.pins(), &[])?;
    daemon.kill()?;
    let aborted = aborts(stage)?;
    // As if another build had loaded them.
    let old = rename(&bpffs, |name| {
        let (front, object, id) = (&name[..7], &name[7..23], &name[23..]);
        let other = if object.starts_with('0') { "1" } else { "0" };
        format!("{front}{other}{}{id}", &object[1..])
    })?;
    daemon.start_again()?;
    is_an_abort(&aborted, &daemon)?;
    let pins = read(&daemon)?;
    ensure!(pins["state"] == "replaced", "{pins:#}");
    ensure!(pins["meanwhile"]["deaths"].as_u64() >= Some(1), "{pins:#}");
    is_an_abort(&aborts(stage)?, &daemon)?;
    daemon.sunk_death_of(&aborted)?;
    is_replaced(&bpffs, &old)?;
    nothing_of_ours_is_lost(&daemon)
}

fn records_of_another_layout_are_counted_and_not_misread(stage: &mut Stage) -> Result<()> {
    const DEATHS: u64 = 3;
    let bpffs = BpfFs::mount()?;
    let mut daemon = pinned(&bpffs.pins(), &[])?;
    daemon.kill()?;
    let mut aborted = Vec::new();
    for _ in 0..DEATHS {
        aborted.push(aborts(stage)?);
    }
    let old = rename(&bpffs, |name| name.replacen("set-v", "set-v1", 1))?;
    daemon.start_again()?;
    is_an_abort(&aborts(stage)?, &daemon)?;
    let lost = wait_until(READS_WITHIN, "the deaths are counted as lost", || {
        let lost = lost(&daemon, "layout")?;
        Ok((lost > 0.0).then_some(lost))
    })?;
    let pins = read(&daemon)?;
    let waited = pins["meanwhile"]["deaths"].as_f64();
    ensure!(waited == Some(lost) && lost >= DEATHS as f64, "{lost} of {pins:#}");
    for truth in &aborted {
        ensure!(daemon.deaths_of(truth)?.is_empty(), "a record of another layout was read");
    }
    ensure!(sample(&daemon.metrics()?, "killwatch_decode_errors_total", &[])? == Some(0.0));
    ensure!(daemon.whole_log()?.contains("deaths are lost with an earlier daemon"));
    is_replaced(&bpffs, &old)
}

fn a_ring_that_overflows_meanwhile_is_counted(_: &mut Stage) -> Result<()> {
    const DEATHS: u64 = 100;
    let bpffs = BpfFs::mount()?;
    let mut daemon = pinned(&bpffs.pins(), &["--probe.ring-bytes", "64KiB"])?;
    daemon.kill()?;
    let script =
        format!("i=0; while [ $i -lt {DEATHS} ]; do sh -c 'kill -ABRT $$'; i=$((i+1)); done");
    let mut shell = Command::new("sh").args(["-c", &script]).spawn().context("start a shell")?;
    let parent = shell.id();
    shell.wait().context("wait for the shell")?;
    daemon.start_again()?;
    read(&daemon)?;
    let own = |record: &Value| record["victim"]["ppid"] == parent;
    let account = || -> Result<(u64, f64)> {
        let told = daemon.deaths("limit=1000")?.iter().filter(|record| own(record)).count() as u64;
        let page = daemon.metrics()?;
        let mut unread = 0.0;
        for program in ["sched_process_exit", "exit_rcu"] {
            let labels = [("program", program)];
            unread += sample(&page, "killwatch_kernel_records_lost_total", &labels)?.unwrap_or(0.0);
        }
        Ok((told, unread))
    };
    // Others may die at the same time, and theirs are lost too.
    wait_until(READS_WITHIN, "each to be told or counted as lost", || {
        let (told, unread) = account()?;
        Ok((told as f64 + unread >= DEATHS as f64).then_some(()))
    })?;
    let (told, _) = account()?;
    ensure!(told > 0 && told < DEATHS, "{told} of {DEATHS} are told");
    Ok(())
}

fn what_is_pinned_by_half_is_removed(stage: &mut Stage) -> Result<()> {
    let bpffs = BpfFs::mount()?;
    let half = bpffs.pins().join("new-0123");
    std::fs::create_dir_all(&half).context("make a directory")?;
    let daemon = pinned(&bpffs.pins(), &[])?;
    ensure!(!half.exists() && bpffs.sets().len() == 1, "{:?}", bpffs.sets());
    is_an_abort(&aborts(stage)?, &daemon)
}

fn detach_takes_all_away_once_no_daemon_runs(stage: &mut Stage) -> Result<()> {
    let bpffs = BpfFs::mount()?;
    let mut daemon = pinned(&bpffs.pins(), &[])?;
    let (code, said) = detach(&bpffs)?;
    ensure!(code == Some(1) && said.contains("another killwatch runs"), "{code:?}: {said}");
    is_an_abort(&aborts(stage)?, &daemon)?;
    daemon.kill()?;
    let [set] = &bpffs.sets()[..] else { anyhow::bail!("{:?}", bpffs.sets()) };
    let links = files(set).iter().filter(|file| is_link(file)).count();
    ensure!(links >= 4, "{:?}", files(set));
    let (code, said) = detach(&bpffs)?;
    let line = format!("removed {}: {links} programs are detached", set.display());
    ensure!(code == Some(0) && said.contains(&line), "{code:?}: {said}");
    ensure!(!bpffs.pins().exists(), "{:?}", bpffs.sets());
    let (code, said) = detach(&bpffs)?;
    ensure!(code == Some(0) && said.contains("nothing is pinned"), "{code:?}: {said}");
    let unseen = aborts(stage)?;
    daemon.start_again()?;
    ensure!(pins(&daemon)?["state"] == "pinned", "{:#}", pins(&daemon)?);
    is_an_abort(&aborts(stage)?, &daemon)?;
    ensure!(daemon.deaths_of(&unseen)?.is_empty(), "what was detached has told a death");
    Ok(())
}

fn a_second_daemon_has_its_own(stage: &mut Stage) -> Result<()> {
    let bpffs = BpfFs::mount()?;
    let first = pinned(&bpffs.pins(), &[])?;
    let mut second = pinned(&bpffs.pins(), &[])?;
    let said = pins(&second)?;
    let why = said["why"].as_str().unwrap_or_default();
    ensure!(said["state"] == "unpinned" && why.contains("another killwatch"), "{said:#}");
    ensure!(second.whole_log()?.contains("the kernel side is not pinned"), "the log is silent");
    let truth = aborts(stage)?;
    is_an_abort(&truth, &first)?;
    is_an_abort(&truth, &second)?;
    ensure!(second.stop()?.success());
    is_an_abort(&aborts(stage)?, &first)?;
    ensure!(bpffs.sets().len() == 1, "{:?}", bpffs.sets());
    let doctor = run(&bpffs, "doctor")?.1;
    ensure!(doctor.contains("a daemon runs with what is pinned"), "{doctor}");
    Ok(())
}

fn without_a_bpf_file_system_it_works_unpinned(stage: &mut Stage) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("killwatch-test-").tempdir()?;
    let daemon = pinned(&dir.path().join("pins"), &[])?;
    let said = pins(&daemon)?;
    let why = said["why"].as_str().unwrap_or_default();
    ensure!(said["state"] == "unpinned" && why.contains("BPF file system"), "{said:#}");
    ensure!(files(dir.path()).is_empty(), "{:?}", files(dir.path()));
    is_an_abort(&aborts(stage)?, &daemon)
}

fn pinned(pins: &Path, more: &[&str]) -> Result<Daemon> {
    let mut flags: Vec<OsString> = vec!["--probe.pin".into(), pins.into()];
    flags.extend(more.iter().map(Into::into));
    Daemon::start_as(Launch { wrapper: vec![], flags })
}

/// What the daemon says of its pins.
fn pins(daemon: &Daemon) -> Result<Value> {
    Ok(daemon.json("/api/v1/status")?["pins"].clone())
}

/// The same, as soon as all that waited has been read.
fn read(daemon: &Daemon) -> Result<Value> {
    wait_until(READS_WITHIN, "what waited has been read", || {
        Ok(Some(pins(daemon)?).filter(|pins| pins.get("meanwhile").is_some()))
    })
}

fn lost(daemon: &Daemon, reason: &str) -> Result<f64> {
    let labels = [("reason", reason)];
    let lost = sample(&daemon.metrics()?, "killwatch_deaths_lost_total", &labels)?;
    lost.with_context(|| format!("no number of deaths lost by {reason}"))
}

fn nothing_is_lost(daemon: &Daemon) -> Result<()> {
    for reason in ["killed", "layout"] {
        ensure!(lost(daemon, reason)? == 0.0, "deaths are lost by {reason}");
    }
    Ok(())
}

/// For a daemon that was killed. It may have had deaths of scenarios beside this one in its hands, which are then counted, rightly; one by one there are none.
fn nothing_of_ours_is_lost(daemon: &Daemon) -> Result<()> {
    if in_vm() {
        return nothing_is_lost(daemon);
    }
    ensure!(lost(daemon, "layout")? == 0.0, "deaths are lost by layout");
    Ok(())
}

/// Gives the one set another name, and says which.
fn rename(bpffs: &BpfFs, other: impl Fn(&str) -> String) -> Result<PathBuf> {
    let [set] = &bpffs.sets()[..] else { anyhow::bail!("{:?}", bpffs.sets()) };
    let name = set.file_name().and_then(|name| name.to_str()).context("a name")?;
    let renamed = set.with_file_name(other(name));
    std::fs::rename(set, &renamed).context("rename a set")?;
    Ok(renamed)
}

/// One other set is there in the place of the old.
fn is_replaced(bpffs: &BpfFs, old: &Path) -> Result<()> {
    wait_until(READS_WITHIN, "the old set is gone", || Ok((!old.exists()).then_some(())))?;
    ensure!(bpffs.sets().len() == 1, "{:?}", bpffs.sets());
    Ok(())
}

fn is_link(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("link_"))
}

fn detach(bpffs: &BpfFs) -> Result<(Option<i32>, String)> {
    run(bpffs, "detach")
}

fn run(bpffs: &BpfFs, command: &str) -> Result<(Option<i32>, String)> {
    let output = Command::new(daemon::binary())
        .args([command, "--probe.pin"])
        .arg(bpffs.pins())
        .output()
        .context("run the daemon's program")?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

fn aborts(stage: &Stage) -> Result<Truth> {
    // One of its own each time: on cgroup v2 nobody may live where others are limited below.
    static GROUPS: AtomicU32 = AtomicU32::new(0);
    let group = stage.tree.make(&format!("aborts-{}", GROUPS.fetch_add(1, Ordering::Relaxed)))?;
    let casting = stage.cast().within(&group).args(["--gate", "abort"]);
    let (mut victim, truth) = at_the_gate(&casting)?;
    victim.go()?;
    victim.reap_killed_by(6)?;
    Ok(truth)
}

fn is_an_abort(truth: &Truth, daemon: &Daemon) -> Result<()> {
    Expected::death(truth, daemon.node())
        .signal(6, "SIGABRT")
        .by_itself("abort", "tgkill", truth)
        .compare(&daemon.death_of(truth)?)
}
