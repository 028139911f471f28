//! How long before a kill it is warned of: leaks of different speeds under a limit, and a steady workload that must not be warned of.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::bed::Bed;
use super::figure::{Figure, Part};
use super::load;
use super::plot::{Plot, Shape};
use super::tree::Tree;
use crate::daemon::{Api, Daemon};
use crate::process::Owned;

const HOW: &str = "Leaks of so many MiB a second, each in a cgroup of 256 MiB of its own, all at the same time, until the kernel kills them: `memory.warned_seconds` of their records, which is the time \
    from the warning to the kill. None: not warned. Then a workload that holds 60 % of its limit while a file is written and read again and again in the same cgroup, so that its page cache \
    always fills the rest: it must not be warned of.";

/// Of each cgroup, in MiB.
const LIMIT_MIB: u64 = 256;
/// MiB a second.
const RATES: &[u64] = &[1, 2, 5, 10, 20, 50];
/// MiB of the steady one: 60 %.
const STEADY_MIB: &str = "154";

/// How long it must be so.
const CALM: Duration = Duration::from_secs(15);
/// From the start of the steady one until it is not near its limit any more.
const SETTLES_WITHIN: Duration = Duration::from_secs(120);

/// The part.
pub(super) fn measure(bed: &Bed<'_>) -> Result<Part> {
    let mut part = Part::new("lead", "Warned before a kill", HOW);
    let daemon = bed.start::<&str>(&[])?;
    leaks(bed, &daemon, &mut part)?;
    steady(bed, &daemon, &mut part)?;
    Ok(part)
}

fn leaks(bed: &Bed<'_>, daemon: &Daemon, part: &mut Part) -> Result<()> {
    let mut tree = Tree::create("lead")?;
    let rates = bed.pick(RATES, &RATES[3..]);
    let mut hogs = Vec::new();
    for rate in rates {
        let dir = tree.add(&format!("leak-{rate}"), Some(LIMIT_MIB << 20))?;
        let (dir, rate_text) = (dir.to_string_lossy().into_owned(), rate.to_string());
        let arguments = ["--cgroup", &dir, "hog", "--rate", &rate_text, "--limit-mib", "300"];
        hogs.push((*rate, load::start(&bed.victim, &arguments)?));
    }
    let slowest = rates.iter().min().copied().unwrap_or(1);
    let limit = Duration::from_secs(2 * LIMIT_MIB / slowest + 60);
    let mut points = Vec::new();
    for (rate, mut hog) in hogs {
        let pid = hog.child.id();
        bed.stop.until("a leak meets its limit", limit, || {
            hog.child.try_wait().context("cannot watch the leak")
        })?;
        let record =
            bed.stop.until("its record", Duration::from_secs(10), || daemon.api().death_of(pid))?;
        ensure!(
            record["cause"] == "oom_memcg",
            "a leak died of {}, not of its limit",
            record["cause"]
        );
        match record["memory"]["warned_seconds"].as_f64() {
            Some(warned) => {
                part.push(Figure::exact(
                    format!("leak of {rate} MiB a second: warned before"),
                    "s",
                    warned,
                ));
                points.push((rate as f64, warned));
            }
            None => part.note(format!("A leak of {rate} MiB a second was not warned of.")),
        }
    }
    part.plots.push(Plot {
        slug: "lead",
        title: format!("Seconds of warning before a kill at {LIMIT_MIB} MiB"),
        x: "MiB a second",
        y: "s",
        shape: Shape::Lines(vec![("warned".into(), points)]),
    });
    Ok(())
}

/// Anonymous memory that stays, and page cache that comes and goes.
fn steady(bed: &Bed<'_>, daemon: &Daemon, part: &mut Part) -> Result<()> {
    let mut tree = Tree::create("steady")?;
    let dir = tree.add("steady", Some(LIMIT_MIB << 20))?;
    let cgroup = dir.to_string_lossy().into_owned();
    let files = tempfile::Builder::new().prefix("killwatch-bench-").tempdir_in(&bed.ctx.target)?;
    let arguments =
        ["--cgroup", &cgroup, "hog", "--limit-mib", STEADY_MIB, "--rate", "50", "--hold"];
    let mut holder = load::start(&bed.victim, &arguments)?;
    // What it needs it takes as fast as a leak would, and may be warned of for that: steady begins when that is over.
    let mut calm: Option<Instant> = None;
    let filled = bed.stop.until("the steady workload holds what it needs", SETTLES_WITHIN, || {
        let (is_near, share) = of(daemon.api(), "steady")?;
        // Nearly all of it is there, and what came fast is forgotten.
        calm = (share > 0.58 && !is_near).then(|| calm.unwrap_or_else(Instant::now));
        Ok(calm.is_some_and(|since| since.elapsed() > CALM).then_some(()))
    });
    if let Err(error) = filled {
        if error.is::<crate::stop::Interrupted>() {
            return Err(error);
        }
        part.note(format!("Before the page cache came, the steady workload: {error:#}."));
    }
    let on_disk = files.path().to_string_lossy().into_owned();
    let churn = [
        "--cgroup",
        &cgroup,
        "hog",
        "--kind",
        "cache",
        "--directory",
        &on_disk,
        "--limit-mib",
        "400",
        "--rate",
        "100",
    ];
    let mut writer: Option<Owned> = None;
    let span = bed.pick(Duration::from_secs(600), Duration::from_secs(20));
    let (began, mut rounds, mut near, mut fullest) = (Instant::now(), 0, 0, 0.0_f64);
    while began.elapsed() < span {
        ensure!(
            holder.child.try_wait().context("cannot watch the steady one")?.is_none(),
            "the steady workload ended"
        );
        let idle = match &mut writer {
            None => true,
            Some(running) => running.child.try_wait().context("cannot watch the writer")?.is_some(),
        };
        if idle {
            writer = Some(load::start(&bed.victim, &churn)?);
            rounds += 1;
        }
        let (is_near, share) = of(daemon.api(), "steady")?;
        near += u32::from(is_near);
        fullest = fullest.max(share);
        bed.stop.pause(Duration::from_millis(500))?;
    }
    part.push(
        Figure::exact(
            "steady workload: looks at which it was near its limit",
            "looks",
            f64::from(near),
        )
        .promised(super::figure::Target::AtMost(0.0)),
    );
    part.push(Figure::exact("steady workload: for", "s", began.elapsed().as_secs_f64()));
    part.push(Figure::exact(
        "steady workload: fullest, page cache included",
        "of its limit",
        fullest,
    ));
    part.push(Figure::exact(
        "steady workload: files of 400 MiB written",
        "files",
        f64::from(rounds),
    ));
    Ok(())
}

/// Whether that cgroup is near its limit, and how much of the limit is used, page cache included.
fn of(api: &Api, name: &str) -> Result<(bool, f64)> {
    let text =
        api.get("/api/v1/cgroups?limit=10000").context("this daemon does not follow cgroups")?;
    let answer: Value = serde_json::from_str(&text).context("the answer is not JSON")?;
    let rows = answer["cgroups"].as_array().context("the answer has no `cgroups`")?;
    let ours =
        rows.iter().find(|row| row["cgroup"].as_str().is_some_and(|path| path.ends_with(name)));
    let Some(row) = ours else { return Ok((false, 0.0)) };
    let used = row["usage_bytes"].as_f64().unwrap_or(0.0) / (LIMIT_MIB << 20) as f64;
    Ok((row["near"].as_bool().unwrap_or(false), used))
}
