//! The memory story: what a record says of the minutes before, the warning that came, and what is to be done; each against what was caused.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::cgroup::Group;
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::Truth;
use killwatch_tests::victim::Victim;
use killwatch_tests::wait::{scaled, wait_until};
use serde_json::Value;

use crate::{LIMIT, at_the_gate};

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(a_leak_is_warned_of_and_told_as_one),
    play!(leaks_are_warned_of_ten_seconds_before_where_physics_allows).needs(&[Need::NoVm]),
    play!(a_spike_is_told_as_one_and_was_not_warned_of),
    play!(a_file_in_memory_fills_the_cgroup),
    play!(page_cache_is_no_danger).needs(&[Need::NoVm]),
    play!(many_children_fill_it_together),
    play!(a_sibling_took_the_memory_under_a_shared_limit),
    play!(node_at_its_own_limit_and_at_its_cgroups).needs(&[Need::NoVm, Need::Program("node")]),
    play!(a_pool_of_python_workers).needs(&[Need::NoVm, Need::Program("python3")]),
];

const MIB: u64 = 1 << 20;
/// Nothing here grows for longer.
const PATIENCE: Duration = Duration::from_secs(90);

fn a_leak_is_warned_of_and_told_as_one(stage: &mut Stage) -> Result<()> {
    let limit = 48 * MIB;
    let group = stage.tree.limited("leak", limit)?;
    let act = ["--gate", "hog", "--rate", "3"];
    let (mut hog, truth) = at_the_gate(&stage.cast().within(&group).args(act))?;
    hog.go()?;
    hog.reap_killed_by(9)?;
    let expected = Expected::death(&truth, stage.daemon.node())
        .oom(&truth, &group, limit)
        .like("/memory/history/growth_bytes_per_minute", "180 MiB, more or less", |growth| {
            growth.as_f64().is_some_and(|g| (140.0..220.0).contains(&(g / MIB as f64)))
        })
        .like("/memory/history/fit", "a straight line", |fit| fit.as_f64() > Some(0.95))
        .like("/memory/warned_seconds", "4 s before or more", |s| s.as_f64() >= Some(4.0))
        .like("/findings", "a leak", |findings| has_rule(findings, "leak"));
    let record = stage.holds(&truth, &expected)?;
    let story = usage(&record)?;
    let age = record["memory"]["history"]["age_seconds"].as_f64().context("no age")?;
    let first = story.first().context("no history")?.0;
    // From the making of the cgroup; the limit, without which there is no reason to look, came a moment later.
    let within = scaled(Duration::from_millis(300)).as_secs_f64();
    ensure!(age - first <= within, "first looked at {} s after it was made", age - first);
    ensure!(story.iter().is_sorted_by(|a, b| a.1 <= b.1 + MIB), "it only grew: {story:?}");
    ensure!(story.last().is_some_and(|at| at.0 < 2.0), "up to the kill: {story:?}");

    let alert = near_limit_of(stage, &group)?;
    ensure!(alert["limit_bytes"] == limit && alert["limit_cgroup"] == group.path(), "{alert}");
    ensure!(alert["processes"][0]["pid"] == truth.pid, "{alert}");
    let share = alert["share"].as_f64().context("no share")?;
    ensure!((0.1..1.0).contains(&share), "{alert}");
    if alert["reason"] == "trend" {
        let left = alert["seconds_left"].as_f64().context("no forecast")?;
        let came = record["memory"]["warned_seconds"].as_f64().context("no warning")?;
        ensure!((left - came).abs() < 5.0, "{left} s were left, it took {came} s");
    }
    Ok(())
}

/// 1 MiB a second takes four minutes and more, 5 nearly one: `cargo xtask bench` has it.
fn leaks_are_warned_of_ten_seconds_before_where_physics_allows(stage: &mut Stage) -> Result<()> {
    let limit = 256 * MIB;
    let mut leaks = Vec::new();
    for rate in [10_u32, 20, 50] {
        let group = stage.tree.limited(&format!("leak{rate}"), limit)?;
        let rate_arg = rate.to_string();
        let act = ["--gate", "hog", "--limit-mib", "300", "--rate", &rate_arg];
        let (mut hog, truth) = at_the_gate(&stage.cast().within(&group).args(act))?;
        hog.go()?;
        leaks.push((rate, hog, truth));
    }
    let mut late = Vec::new();
    for (rate, mut hog, truth) in leaks {
        wait_until(PATIENCE, "the leak to be killed", || {
            Ok(Path::new(&format!("/proc/{}/maps", truth.pid))
                .metadata()
                .map_or(true, |_| {
                    std::fs::read(format!("/proc/{}/maps", truth.pid))
                        .unwrap_or_default()
                        .is_empty()
                })
                .then_some(()))
        })?;
        hog.reap_killed_by(9)?;
        let record = stage.daemon.death_of(&truth)?;
        let lead = record["memory"]["warned_seconds"].as_f64().context("no lead time")?;
        // What it takes to see that it is a line at all, from the first MiB on.
        let possible = 256.0 / f64::from(rate) - 3.5;
        eprintln!(
            "leak of {rate} MiB/s under 256 MiB: warned {lead} s before, {possible:.1} s are possible"
        );
        if lead < possible.min(10.0) {
            late.push((rate, lead));
        }
    }
    ensure!(late.is_empty(), "warned of too late (MiB/s, s): {late:?}");
    Ok(())
}

fn a_spike_is_told_as_one_and_was_not_warned_of(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.limited("spike", LIMIT)?;
    let (mut hog, truth) = at_the_gate(&stage.cast().within(&group).args(["--gate", "hog"]))?;
    // It was quiet before, and seen to be.
    followed(stage, &group)?;
    let began = Instant::now();
    hog.go()?;
    hog.reap_killed_by(9)?;
    // 20 ms; on an emulated machine that has no processor for itself, seconds.
    let filling = began.elapsed().as_secs_f64();
    let expected = Expected::death(&truth, stage.daemon.node())
        .oom(&truth, &group, LIMIT)
        .like("/memory/warned_seconds", "not before it began", move |warned| {
            warned.as_f64().is_some_and(|warned| warned <= filling + 0.1)
        })
        .like("/findings", "a spike", |findings| has_rule(findings, "spike"));
    stage.holds(&truth, &expected)?;
    Ok(())
}

fn a_file_in_memory_fills_the_cgroup(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.limited("tmpfs", LIMIT)?;
    let act = ["--gate", "hog", "--kind", "tmpfs", "--rate", "20"];
    let (mut hog, truth) = at_the_gate(&stage.cast().within(&group).args(act))?;
    hog.go()?;
    // It stays when the process goes, as a file of a tmpfs does.
    let _file = wait_until(Duration::from_secs(5), "its file in memory", || {
        let fds = std::fs::read_dir(format!("/proc/{}/fd", truth.pid))?.flatten();
        let is_it = |fd: &std::fs::DirEntry| {
            fd.path().read_link().is_ok_and(|to| to.to_string_lossy().starts_with("/memfd:hog"))
        };
        Ok(fds.into_iter().find(is_it).and_then(|fd| std::fs::File::open(fd.path()).ok()))
    })?;
    hog.reap_killed_by(9)?;
    let expected = Expected::death(&truth, stage.daemon.node())
        .oom(&truth, &group, LIMIT)
        // None of it is the victim's own.
        .like("/memory/anon_bytes", "little", |size| size.as_u64() < Some(LIMIT / 2))
        .like("/memory/peak_rss_bytes", "little", |size| size.as_u64() < Some(LIMIT / 2))
        .like("/memory/cgroup/shmem_bytes", "most of it", |size| {
            size.as_u64() > Some(LIMIT / 4 * 3)
        })
        .like("/findings", "tmpfs", |findings| has_rule(findings, "tmpfs"));
    stage.holds(&truth, &expected)?;
    Ok(())
}

/// A cgroup full of page cache is neither killed nor warned of.
fn page_cache_is_no_danger(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.limited("cache", 64 * MIB)?;
    let directory = stage.daemon.directory().to_str().context("a strange path")?.to_owned();
    let act = ["--gate", "hog", "--kind", "cache", "--hold", "--directory", &directory];
    let (mut hog, _) = at_the_gate(&stage.cast().within(&group).args(act))?;
    hog.go()?;
    hog.hear("held")?;
    let row = wait_until(PATIENCE, "it to be seen full", || {
        Ok(row_of(stage, &group)?.filter(|row| row["usage_bytes"].as_u64() > Some(48 * MIB)))
    })?;
    // A few more looks at it.
    let since = Instant::now();
    wait_until(PATIENCE, "some seconds of looks", || {
        let row = row_of(stage, &group)?.context("it is followed no more")?;
        ensure!(row["near"] == false, "{row}");
        Ok((since.elapsed() > Duration::from_secs(5)).then_some(()))
    })?;
    ensure!(row["unreclaimable_bytes"].as_u64() < Some(32 * MIB), "{row}");
    ensure!(group.oom_kills()? == 0, "it was killed");
    ensure!(!alerts_of(stage, &group)?.iter().any(|_| true), "it was warned of");
    hog.kill()?;
    hog.reap().map(drop)
}

fn many_children_fill_it_together(stage: &mut Stage) -> Result<()> {
    let limit = 64 * MIB;
    let group = stage.tree.limited("pool", limit)?;
    let workers: Vec<(Victim, Truth)> = (0..8)
        .map(|_| {
            let act = ["--gate", "hog", "--limit-mib", "6", "--hold"];
            at_the_gate(&stage.cast().within(&group).args(act))
        })
        .collect::<Result<_>>()?;
    let mut held = Vec::new();
    for (mut worker, truth) in workers {
        worker.go()?;
        worker.hear("held")?;
        held.push((worker, truth));
    }
    let act = ["--oom-score-adj", "500", "--gate", "hog"];
    let (mut last, truth) = at_the_gate(&stage.cast().within(&group).args(act))?;
    last.go()?;
    last.reap_killed_by(9)?;
    let record = stage.daemon.death_of(&truth)?;
    let table = record["memory"]["processes"].as_array().context("no table")?.clone();
    let seen: Vec<u64> = table.iter().filter_map(|process| process["pid"].as_u64()).collect();
    for (_, worker) in &held {
        ensure!(seen.contains(&u64::from(worker.pid)), "{} is not in {table:#?}", worker.pid);
    }
    ensure!(record["memory"]["process_count"].as_u64() >= Some(9), "{record:#}");
    ensure!(has_rule(&record["findings"], "too_many_workers"), "{:#}", record["findings"]);
    for (mut worker, _) in held {
        worker.kill()?;
        worker.reap()?;
    }
    Ok(())
}

/// Who dies is not who took the memory: the record names that one.
fn a_sibling_took_the_memory_under_a_shared_limit(stage: &mut Stage) -> Result<()> {
    let limit = 64 * MIB;
    let small = stage.tree.make("pod/small")?;
    let pod = small.parent().context("no parent")?;
    let large = stage.tree.make("pod/large")?;
    pod.set_limit(limit)?;
    let act = ["--gate", "hog", "--limit-mib", "44", "--hold"];
    let (mut sibling, culprit) = at_the_gate(&stage.cast().within(&large).args(act))?;
    sibling.go()?;
    sibling.hear("held")?;
    // The kernel would choose the larger one, unless it is told to prefer another.
    let act = ["--oom-score-adj", "900", "--gate", "hog"];
    let (mut hog, truth) = at_the_gate(&stage.cast().within(&small).args(act))?;
    hog.go()?;
    hog.reap_killed_by(9)?;
    let record = stage.daemon.death_of(&truth)?;
    ensure!(record["memory"]["limit_cgroup"] == pod.path(), "{record:#}");
    let first = &record["memory"]["processes"][0];
    ensure!(first["pid"] == culprit.pid && first.get("victim").is_none(), "{record:#}");
    ensure!(has_rule(&record["findings"], "sibling"), "{:#}", record["findings"]);
    let said = record["findings"].to_string();
    ensure!(said.contains(&culprit.pid.to_string()), "it names the culprit: {said}");
    sibling.kill()?;
    sibling.reap().map(drop)
}

/// One script: under V8's own limit it aborts, above it the kernel kills.
fn node_at_its_own_limit_and_at_its_cgroups(stage: &mut Stage) -> Result<()> {
    const SCRIPT: &str =
        "const held = []; for (;;) held.push(new Array(1 << 14).fill(Math.random()))";
    let run = |name: &str, heap: &str| -> Result<(Group, Value)> {
        let group = stage.tree.limited(name, 160 * MIB)?;
        let flag = format!("--max-old-space-size={heap}");
        let act = ["become", "--", "node", &flag, "-e", SCRIPT];
        let mut node = stage.cast().within(&group).args(act).start()?;
        let query = format!("pid={}", node.pid());
        node.reap()?;
        let record = wait_until(PATIENCE, "the record of node", || {
            Ok(stage.daemon.deaths(&query)?.into_iter().next())
        })?;
        Ok((group, record))
    };
    let (_, own) = run("heap", "40")?;
    ensure!(own["cause"] == "abort" && own["victim"]["status"] == 134, "{own:#}");
    ensure!(has_rule(&own["findings"], "runtime"), "{:#}", own["findings"]);
    ensure!(own["memory"]["history"]["usage"].is_array(), "{own:#}");
    let (group, killed) = run("cgroup", "4096")?;
    ensure!(killed["cause"] == "oom_memcg" && killed["victim"]["status"] == 137, "{killed:#}");
    ensure!(killed["memory"]["limit_cgroup"] == group.path(), "{killed:#}");
    ensure!(has_rule(&killed["findings"], "runtime"), "{:#}", killed["findings"]);
    let said = killed["findings"].to_string();
    ensure!(said.contains("--max-old-space-size"), "{said}");
    Ok(())
}

fn a_pool_of_python_workers(stage: &mut Stage) -> Result<()> {
    const SCRIPT: &str = "
import multiprocessing, os
def work(n):
    held = bytearray(os.urandom(1)) * (24 << 20)
    barrier.wait()
    return len(held)
barrier = multiprocessing.Barrier(9)
workers = [multiprocessing.Process(target=work, args=(n,)) for n in range(8)]
for worker in workers: worker.start()
for worker in workers: worker.join()
";
    let group = stage.tree.limited("python", 128 * MIB)?;
    let act = ["become", "--", "python3", "-c", SCRIPT];
    let mut python = stage.cast().within(&group).args(act).start()?;
    let record = wait_until(PATIENCE, "a worker to be killed", || {
        let all = stage.daemon.deaths("limit=1000")?;
        let ours = |record: &&Value| record["workload"]["cgroup"] == group.path();
        Ok(all.iter().find(ours).cloned())
    })?;
    python.kill()?;
    python.reap()?;
    ensure!(record["cause"] == "oom_memcg", "{record:#}");
    ensure!(record["victim"]["pid"] != python.pid(), "the worker, not its parent: {record:#}");
    ensure!(has_rule(&record["findings"], "too_many_workers"), "{:#}", record["findings"]);
    Ok(())
}

fn has_rule(findings: &Value, rule: &str) -> bool {
    findings.as_array().is_some_and(|all| all.iter().any(|finding| finding["rule"] == rule))
}

/// The usage of the last minutes: seconds before, bytes.
fn usage(record: &Value) -> Result<Vec<(f64, u64)>> {
    let list = record["memory"]["history"]["usage"].as_array().context("no history")?;
    let at = |at: &Value| Some((at["ago_seconds"].as_f64()?, at["bytes"].as_u64()?));
    list.iter().map(at).collect::<Option<_>>().context("a strange history")
}

fn alerts_of(stage: &Stage, group: &Group) -> Result<Vec<Value>> {
    let mut alerts = stage.daemon.alerts()?;
    alerts.retain(|alert| {
        alert["alert"] == "near_limit" && alert["workload"]["cgroup"] == group.path()
    });
    Ok(alerts)
}

fn near_limit_of(stage: &Stage, group: &Group) -> Result<Value> {
    wait_until(Duration::from_secs(5), "the warning in the log sink", || {
        let alerts = alerts_of(stage, group)?;
        ensure!(alerts.len() <= 1, "more than once: {alerts:#?}");
        Ok(alerts.into_iter().next())
    })
}

/// What the API says of a cgroup.
fn row_of(stage: &Stage, group: &Group) -> Result<Option<Value>> {
    let listing = stage.daemon.json("/api/v1/cgroups")?;
    let rows = listing["cgroups"].as_array().context("no list")?;
    Ok(rows.iter().find(|row| row["cgroup"] == group.path()).cloned())
}

fn followed(stage: &Stage, group: &Group) -> Result<Value> {
    wait_until(Duration::from_secs(5), "the cgroup to be followed", || row_of(stage, group))
}
