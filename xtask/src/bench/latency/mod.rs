//! From the kernel's stamp on a record to who is told of it: the stream, the API, `/metrics`, a webhook, a real Alertmanager.
//!
//! The stamp is the kernel side's own `ktime_ns` (CLOCK_BOOTTIME), taken as the process ends; of an OOM kill also that of the decision. Arrival is read from the same clock by who is told,
//! so no clocks are compared.

mod alertmanager;
mod stages;
mod stream;
mod tap;

use std::env;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

use self::alertmanager::Alertmanager;
use self::stages::Delays;
use self::stream::Stream;
use self::tap::Tap;
use super::bed::Bed;
use super::figure::{Figure, Part, Spread, Target};
use super::load::{self, Saturated};
use super::plot::{Plot, Shape};
use super::tree::Tree;
use crate::apt::{self, Need};
use crate::daemon::{Api, Daemon};
use crate::process::{self, Owned};
use crate::storm::account::Account;

const HOW: &str = "From the stamp that the kernel side puts on the end of a process (`ktime_ns`) to its arrival, both of CLOCK_BOOTTIME on the same machine. *Read from the ring* and *in the ledger*: the daemon's own \
    `killwatch_death_delay_seconds`, by what a single death adds to its sum; in a storm by its buckets, on a straight line within each and with the bound of the last as the largest. *Stream*: server-sent \
    events of the daemon's socket. *API* and */metrics*: asked without a pause until the death is there, so up to one request more. *Webhook*: the request read by a receiver on the loopback \
    (`group: 0s`). *Alertmanager*: a real one has answered with success, behind a relay on the loopback. Single kills, one after another; *in a storm*: every \
    death, while one core kills without a pause; *saturated*: while twice as many loops as cores want all CPUs, the daemon at its default priority. Deaths are told once the ledger has them, which on a disk takes one sync or two: \
    its time is the first row, and *ledger in memory* (`state.path: none`) is without. What asks and listens shares these cores.";

/// How long one record may take to come.
const LIMIT: Duration = Duration::from_secs(10);

/// When nothing has arrived for so long, nothing will.
const QUIET: Duration = Duration::from_secs(5);

/// ns since boot, now.
pub(super) fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).unwrap_or(0)
}

/// What goes on meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum While {
    Idle,
    /// The same without a disk: deaths are told once they are kept, and to keep one on a disk takes a sync.
    InMemory,
    Storm,
    Saturated,
}

impl While {
    fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::InMemory => "idle, ledger in memory",
            Self::Storm => "in a storm",
            Self::Saturated => "CPUs saturated",
        }
    }
}

/// Of every death of a storm, by the daemon's histograms: read and kept.
type Counted = [Option<Spread>; 2];

/// Times in ms.
#[derive(Default)]
struct Times {
    read: Vec<f64>,
    kept: Vec<f64>,
    stream: Vec<f64>,
    webhook: Vec<f64>,
    alertmanager: Vec<f64>,
    api: Vec<f64>,
    metrics: Vec<f64>,
    oom: Vec<f64>,
    counted: Counted,
}

/// The part.
pub(super) fn measure(bed: &Bed<'_>) -> Result<Part> {
    let mut part = Part::new("latency", "From the kernel to who is told", HOW);
    let mut bars = Vec::new();
    if let Err(error) = apt::ensure(&[Need::new(
        "prometheus-alertmanager",
        "is told of deaths: the time until it knows is measured",
    )]) {
        part.note(format!("Without a real Alertmanager: {error:#}"));
    }
    syncs(bed, &mut part)?;
    for during in [While::Idle, While::InMemory, While::Storm, While::Saturated] {
        let times = one(bed, during, &mut part)?;
        let name = |what: &str| format!("{what}, {}", during.name());
        let promise = |idle: f64, saturated: Option<f64>| match during {
            While::Idle => Some(Target::P99AtMost(idle)),
            While::Saturated => saturated.map(Target::P99AtMost),
            While::Storm | While::InMemory => None,
        };
        let [read, kept] = times.counted;
        let of = |values| Figure::events("", "ms", values).map(|figure| figure.spread);
        let all = [
            ("read from the ring", read.or(of(times.read)), None),
            ("in the ledger", kept.or(of(times.kept)), None),
            ("stream", of(times.stream), promise(5.0, Some(50.0))),
            ("API", of(times.api), promise(5.0, Some(50.0))),
            ("/metrics", of(times.metrics), None),
            ("webhook", of(times.webhook), promise(20.0, None)),
            ("Alertmanager", of(times.alertmanager), None),
            ("OOM decision to stream", of(times.oom), None),
        ];
        for (what, spread, target) in all {
            let Some(figure) = Figure::spread(name(what), "ms", spread) else { continue };
            if let Spread::Events { p50, p99, .. } = figure.spread {
                bars.push((figure.name.clone(), p50, p50, p99));
            }
            part.push(figure.promised(target));
        }
    }
    part.plots.push(Plot {
        slug: "latency",
        title: "From the kernel's stamp to who is told: median, and the line to p99".into(),
        x: "",
        y: "ms",
        shape: Shape::Bars(bars),
    });
    Ok(part)
}

/// What this disk takes for what the ledger waits for: a page written and synced.
fn syncs(bed: &Bed<'_>, part: &mut Part) -> Result<()> {
    let mut file = tempfile::tempfile().context("cannot make a temporary file")?;
    let times = (0..bed.pick(300, 30))
        .map(|_| {
            let began = Instant::now();
            file.write_all(&[1; 4096])?;
            file.sync_data()?;
            Ok(began.elapsed().as_secs_f64() * 1e3)
        })
        .collect::<std::io::Result<_>>()
        .context("cannot sync a file")?;
    part.push(Figure::events("a page written and synced, on the disk of the ledger", "ms", times));
    Ok(())
}

fn one(bed: &Bed<'_>, during: While, part: &mut Part) -> Result<Times> {
    eprintln!("    {}", during.name());
    let dir = tempfile::Builder::new().prefix("killwatch-bench-").tempdir()?;
    let webhook = Tap::open(None)?;
    // In a storm its default pace would be what is measured.
    let real = match during {
        While::Storm => None,
        _ => match Alertmanager::start(&bed.stop) {
            Ok(real) => Some(real),
            Err(error) => {
                part.note(format!("Without a real Alertmanager: {error:#}"));
                None
            }
        },
    };
    let relay = real.as_ref().map(|real| Tap::open(Some(real.base()))).transpose()?;
    let config = dir.path().join("killwatch.yaml");
    let mut yaml = format!(
        "log_sink: none\nledger: {{max_deaths: 1000000, max_bytes: 4GiB}}\nsinks:\n  - {{name: webhook, webhook: {{url: \"{}/\", batch: 50}}, group: 0s, rate: 10000}}\n",
        webhook.base()
    );
    if let Some(relay) = &relay {
        yaml += &format!(
            "  - {{name: alertmanager, alertmanager: {{urls: [\"{}\"]}}, group: 0s}}\n",
            relay.base()
        );
    }
    fs::write(&config, yaml).context("cannot write the configuration")?;
    let socket = dir.path().join("killwatch.sock");
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let flags = [
        "--config.file".to_owned(),
        text(&config),
        "--api.socket".to_owned(),
        text(&socket),
        "--state.path".to_owned(),
        if during == While::InMemory { "none".to_owned() } else { text(dir.path()) },
    ];
    let daemon = bed.start(&flags)?;
    let stream = Stream::open(&socket)?;
    let mut times = Times::default();
    let load = match during {
        While::Idle | While::InMemory => None,
        While::Saturated => Some((Some(Saturated::start()?), None)),
        While::Storm => {
            let storm = load::start(&bed.victim, &["aborts", "100000000"])?;
            Some((None, Some(storm)))
        }
    };
    let at_first = Delays::of(daemon.api())?;
    kills(bed, &daemon, &mut times, during).map_err(|error| daemon.explain(error))?;
    drop(load);
    if during == While::Idle {
        oom_kills(bed, &stream, &mut times).map_err(|error| daemon.explain(error))?;
    }
    settle(bed, &daemon, &stream, &webhook, during, part)?;
    if during == While::Storm {
        let [read, kept] = Delays::of(daemon.api())?;
        let [read_before, kept_before] = &at_first;
        times.counted = [read.since(read_before).spread(), kept.since(kept_before).spread()];
    }
    let records = stream.close();
    if during == While::Storm {
        let span = records.iter().map(|one| one.ktime_ns).max().unwrap_or(0)
            - records.iter().map(|one| one.ktime_ns).min().unwrap_or(0);
        let rate = records.len() as f64 / Duration::from_nanos(span.max(1)).as_secs_f64();
        part.push(Figure::exact("deaths of the storm", "a second", rate));
        let lost = Account::of(daemon.api())?.dropped;
        if lost > 0 {
            part.note(format!("{lost} deaths of the storm found no room on the ring, counted."));
        }
    }
    times.stream = records.iter().map(stream::Seen::ms).collect();
    times.webhook =
        webhook.seen().iter().filter_map(|seen| Some(ms(seen.at, seen.ktime_ns?))).collect();
    if let Some(relay) = &relay {
        // An alert says which process, not when in the kernel's clock: that the record says.
        let by_pid: std::collections::BTreeMap<u32, u64> =
            records.iter().filter_map(|one| Some((one.pid?, one.ktime_ns))).collect();
        let mut told = std::collections::BTreeSet::new();
        for seen in relay.seen() {
            if let Some(pid) = seen.pid
                && let Some(ktime) = by_pid.get(&pid)
                && told.insert(pid)
            {
                times.alertmanager.push(ms(seen.at, *ktime));
            }
        }
    }
    Ok(times)
}

/// ms between two times of the same clock.
pub(super) fn ms(later: u64, earlier: u64) -> f64 {
    Duration::from_nanos(later.saturating_sub(earlier)).as_secs_f64() * 1e3
}

/// Single kills, every other asked of the API and of `/metrics`.
fn kills(bed: &Bed<'_>, daemon: &Daemon, times: &mut Times, during: While) -> Result<()> {
    let count = bed.pick(400, 60);
    let api = daemon.api();
    for number in 0..count {
        let victim = Victim::start()?;
        bed.stop.pause(Duration::from_millis(2))?;
        let before = Account::of(api)?.recorded;
        // In a storm others die in between.
        let delays = (during != While::Storm).then(|| Delays::of(api)).transpose()?;
        let pid = victim.kill()?;
        if number % 2 == 0 {
            times.api.push(until_api(api, pid)?);
        } else {
            let there = until_counted(api, before)?;
            let record = until_there(api, pid)?;
            times.metrics.push(ms(there, record));
        }
        if let Some([read_before, kept_before]) = &delays {
            let [read, kept] = Delays::of(api)?;
            times.read.extend(read.since(read_before).single());
            times.kept.extend(kept.since(kept_before).single());
        }
    }
    Ok(())
}

fn until_api(api: &Api, pid: u32) -> Result<f64> {
    let ktime = until_there(api, pid)?;
    Ok(ms(boot_ns(), ktime))
}

/// The record's stamp, once there is one.
fn until_there(api: &Api, pid: u32) -> Result<u64> {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(record) = api.death_of(pid)? {
            return record["ktime_ns"].as_u64().context("a record without its ktime_ns");
        }
        if Instant::now() >= deadline {
            bail!("no record of process {pid} within {} s", LIMIT.as_secs());
        }
    }
}

/// When more deaths are counted than before.
fn until_counted(api: &Api, before: u64) -> Result<u64> {
    let deadline = Instant::now() + LIMIT;
    while Account::of(api)?.recorded <= before {
        if Instant::now() >= deadline {
            bail!("no death was counted within {} s", LIMIT.as_secs());
        }
    }
    Ok(boot_ns())
}

/// Kills at the limit of a cgroup: the decision comes before the end, which takes the victim's memory down first.
fn oom_kills(bed: &Bed<'_>, stream: &Stream, times: &mut Times) -> Result<()> {
    let mut tree = Tree::create("latency")?;
    let dir = tree.add("oom", Some(32 << 20))?;
    let dir = dir.to_string_lossy();
    for _ in 0..bed.pick(50, 10) {
        let mut hog = load::start(&bed.victim, &["--cgroup", &dir, "hog", "--limit-mib", "64"])?;
        let pid = hog.child.id();
        bed.stop.until("a kill at the limit", LIMIT, || {
            hog.child.try_wait().context("cannot watch the hog")
        })?;
        let seen = bed.stop.until("its record", LIMIT, || Ok(stream.of(pid)))?;
        times.oom.extend(seen.decided_ns.map(|decided| ms(seen.at, decided)));
    }
    Ok(())
}

/// Waits until all that was recorded has arrived, or nothing more comes; says what did not.
fn settle(
    bed: &Bed<'_>,
    daemon: &Daemon,
    stream: &Stream,
    webhook: &Tap,
    during: While,
    part: &mut Part,
) -> Result<()> {
    let (mut seen, mut since) = ((0, 0), Instant::now());
    let recorded = || -> Result<usize> {
        Ok(usize::try_from(Account::of(daemon.api())?.recorded).unwrap_or(usize::MAX))
    };
    bed.stop.until("no more deaths arrive", Duration::from_secs(300), || {
        let now = (stream.count(), webhook.count());
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        let all = recorded()?;
        Ok((seen.0.min(seen.1) >= all || since.elapsed() > QUIET).then_some(()))
    })?;
    let all = recorded()?;
    for (who, heard) in [("stream", seen.0), ("webhook", seen.1)] {
        if heard < all {
            part.note(format!(
                "{}: {} of {all} deaths did not reach the {who} while it was listened to; times are of the others.",
                during.name(),
                all - heard
            ));
        }
    }
    Ok(())
}

/// A process that waits to be killed.
struct Victim(Owned);

impl Victim {
    fn start() -> Result<Self> {
        let exe = env::current_exe().context("cannot tell where this program is")?;
        let child = Command::new(exe)
            .arg("pause")
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot start a process to kill")?;
        Ok(Self(Owned { child, grace: Duration::ZERO }))
    }

    /// Kills it, and says who it was.
    fn kill(mut self) -> Result<u32> {
        let pid = self.0.child.id();
        process::signal(&self.0.child, Signal::KILL);
        self.0.child.wait().context("cannot wait for the killed process")?;
        Ok(pid)
    }
}

/// A number that follows `key` in a text.
pub(super) fn number_after(text: &str, key: &str) -> Option<u64> {
    let (_, rest) = text.split_once(key)?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(rest, |end| &rest[..end]);
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_where_they_stand() {
        let text = r#"{"ktime_ns":12345,"x":"process a (pid 77): b"}"#;
        assert_eq!(number_after(text, "\"ktime_ns\":"), Some(12_345));
        assert_eq!(number_after(text, "(pid "), Some(77));
        assert_eq!(number_after(text, "none"), None);
        assert_eq!(ms(3_000_000, 1_000_000), 2.0);
    }
}
