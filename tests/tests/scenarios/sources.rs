//! A runtime that many containers come and go in, and one that answers badly. Both are a **mock** of CRI ([`killwatch_tests::fake_cri`]): a real
//! containerd makes some ten containers a second on two processors, and gives no such answers. The cgroups and the deaths are real.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::cgroup::Group;
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::daemon::{Daemon, Launch};
use killwatch_tests::fake_cri::{FakeCri, Listed, Mode, OVERSIZED};
use killwatch_tests::play;
use killwatch_tests::stage::Stage;
use killwatch_tests::victim::Victim;
use killwatch_tests::wait::{scaled, wait_until};
use serde_json::Value;

use crate::pods::{dies_nameless, source, source_is};

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(a_thousand_containers_a_minute_are_named_and_forgotten).needs(&[Need::NoVm]),
    play!(no_bad_answer_delays_a_death_or_costs_much_memory).needs(&[Need::NoVm]),
];

/// Containers of one round.
const ROUND: usize = 1000;
/// In each of so many, one is killed.
const KILLED: usize = 4;
/// Time that a round may take.
const MINUTE: Duration = Duration::from_secs(60);
/// How long the mock goes on telling of a container that has ended: as long as a death may wait for names. A runtime does until the kubelet removes
/// the container, mostly for longer.
const LINGER: Duration = Duration::from_millis(250);

/// So that what is kept on purpose is full after [`WARM_UP`]: names that go after a second instead of five minutes, and few deaths and series.
const CONFIG: &str =
    "{ledger: {max_deaths: 200}, metrics: {max_series: 200}, containers: {keep_gone: 1s}}";
/// Rounds until everything that is kept is full. What has no switch: the paths of 8192 cgroups that are gone, the labels of as many containers.
const WARM_UP: usize = 9;
/// Rounds that memory is watched over.
const WATCHED: usize = 6;
/// What these rounds together may add: below a tenth of what is written down of so many containers.
const GROWS_AT_MOST: u64 = 1 << 20;

/// Memory that bad answers may cost at their height: two messages of 16 MiB, which is the most that the client takes, and what is read of one before
/// it is refused. [`OVERSIZED`] is far beyond.
const HEIGHT_AT_MOST: u64 = 32 << 20;
const _: () = assert!(OVERSIZED as u64 >= 4 * HEIGHT_AT_MOST);

/// Starts the mock, and a daemon of its own that asks it.
fn watched(stage: &mut Stage) -> Result<FakeCri> {
    let fake = FakeCri::start()?;
    let config = fake.socket().with_extension("yaml");
    std::fs::write(&config, CONFIG).with_context(|| format!("write {}", config.display()))?;
    let flags =
        ["--config.file".into(), config.into(), "--containers.cri".into(), fake.socket().into()];
    stage.daemon = Arc::new(Daemon::start_as(Launch { wrapper: vec![], flags: flags.to_vec() })?);
    source_is(&stage.daemon, &["up"])?;
    Ok(fake)
}

fn a_thousand_containers_a_minute_are_named_and_forgotten(stage: &mut Stage) -> Result<()> {
    let fake = watched(stage)?;
    let mut sizes = Vec::new();
    for round in 0..WARM_UP + WATCHED {
        come_and_go(stage, &fake, round)?;
        sizes.push(memory(&stage.daemon, "smaps_rollup", "Anonymous:")?);
    }
    let (warm, last) = (sizes[WARM_UP - 1], sizes[WARM_UP + WATCHED - 1]);
    let kib: Vec<u64> = sizes.iter().map(|size| size >> 10).collect();
    eprintln!("KiB in use after each {ROUND} containers: {kib:?}");
    ensure!(last <= warm + GROWS_AT_MOST, "it grows: {kib:?} KiB after each {ROUND} containers");
    Ok(())
}

/// So many containers come and go, each with a cgroup of its own; in some of them a process is killed. Each of these must be told with its names.
fn come_and_go(stage: &Stage, fake: &FakeCri, round: usize) -> Result<()> {
    let began = Instant::now();
    let uid = format!("5a9b8c7d-0000-4000-8000-{round:0>12}");
    let pod = stage.tree.make(&format!("kubepods/burstable/pod{uid}"))?;
    let mut killed = HashMap::new();
    let mut ended: VecDeque<(Instant, String)> = VecDeque::new();
    for number in 0..ROUND {
        let id = format!("{:f>64}", format!("{:x}{round:02x}{number:04x}", std::process::id()));
        let which = Listed {
            name: format!("main-{number}"),
            pod: format!("pod-{round}"),
            pod_uid: uid.clone(),
            namespace: "crowd".to_owned(),
        };
        fake.put(&id, which.clone());
        let group = pod.child(&id);
        std::fs::create_dir(group.dir())
            .with_context(|| format!("make {}", group.dir().display()))?;
        if number % KILLED == 0 {
            kill_one(stage, &group)?;
            killed.insert(id.clone(), which);
        }
        group.remove()?;
        ended.push_back((Instant::now(), id));
        forget(fake, &mut ended);
    }
    wait_until(2 * LINGER, "the mock forgets the last", || {
        forget(fake, &mut ended);
        Ok(ended.is_empty().then_some(()))
    })?;
    let took = began.elapsed();
    ensure!(took < scaled(MINUTE), "{ROUND} containers took {took:?}");
    let records = all_told(stage, &killed)?;
    let told_wrong = |(id, record): &(&String, &Value)| {
        let named = |key: &str, name: &str| record["workload"][key] == name;
        !killed.get(*id).is_some_and(|which| {
            named("container", &which.name)
                && named("pod", &which.pod)
                && named("namespace", &which.namespace)
                && record["cause"] == "killed"
        })
    };
    let wrong: Vec<_> = records.iter().filter(told_wrong).collect();
    ensure!(
        wrong.is_empty(),
        "{} of {} are told without their names, or with others; the first: {:#}",
        wrong.len(),
        records.len(),
        wrong.first().map_or(&Value::Null, |(_, record)| record)
    );
    Ok(())
}

/// Has the mock tell no more of those that ended a while ago.
fn forget(fake: &FakeCri, ended: &mut VecDeque<(Instant, String)>) {
    while let Some((_, id)) = ended.pop_front_if(|(at, _)| at.elapsed() >= scaled(LINGER)) {
        fake.remove(&id);
    }
}

fn kill_one(stage: &Stage, group: &Group) -> Result<()> {
    let mut victim: Victim = stage.cast().within(group).args(["sleep"]).start()?;
    victim.hear("pid")?;
    victim.kill()?;
    victim.reap_killed_by(9)
}

/// The records of these containers' deaths, by their bare ids.
fn all_told(stage: &Stage, killed: &HashMap<String, Listed>) -> Result<HashMap<String, Value>> {
    let what = format!("the records of {} containers", killed.len());
    wait_until(Duration::from_secs(10), &what, || {
        // Not from the ledger: it may be small, and others die meanwhile.
        let records = stage.daemon.sink()?;
        let by_id = records.into_iter().filter_map(|record| {
            let id = record.pointer("/workload/container_id")?.as_str()?;
            let id = id.rsplit('/').next()?.to_owned();
            killed.contains_key(&id).then_some((id, record))
        });
        let by_id: HashMap<String, Value> = by_id.collect();
        Ok((by_id.len() == killed.len()).then_some(by_id))
    })
}

/// Each way of answering badly: while the runtime is thought to be well, a container appears that it is asked for, and dies.
fn no_bad_answer_delays_a_death_or_costs_much_memory(stage: &mut Stage) -> Result<()> {
    let fake = watched(stage)?;
    dies_named(stage, &fake, '0')?;
    let before = memory(&stage.daemon, "smaps_rollup", "Anonymous:")?;
    let bad = [
        Mode::Slow(Duration::from_secs(1)),
        Mode::Wedged,
        Mode::Garbage,
        Mode::Oversized,
        Mode::WrongTypes,
        Mode::Refuses,
        Mode::NotHttp,
    ];
    for (digit, mode) in ('1'..).zip(bad) {
        play_badly(stage, &fake, mode, digit).with_context(|| format!("{mode:?}"))?;
    }
    let height = memory(&stage.daemon, "status", "RssAnon:")?.max(before);
    let peak = memory(&stage.daemon, "status", "VmHWM:")?;
    let files = memory(&stage.daemon, "status", "RssFile:")?;
    ensure!(
        peak.saturating_sub(files) <= before + HEIGHT_AT_MOST,
        "at their height bad answers took {peak} bytes ({files} of files), {before} were in use before"
    );
    ensure!(
        height <= before + HEIGHT_AT_MOST / 2,
        "{before} bytes before the bad answers, {height} after them"
    );
    Ok(())
}

fn play_badly(stage: &Stage, fake: &FakeCri, mode: Mode, digit: char) -> Result<()> {
    let (asked, before) = (fake.asked(), source(&stage.daemon)?);
    fake.answer(mode);
    // Asked as its cgroup is made, and killed at once.
    dies_nameless(stage)?;
    wait_until(Duration::from_secs(5), "the runtime to be asked", || {
        Ok((fake.asked() > asked).then_some(()))
    })?;
    // And a second one, when it is known to be slow or down, or is being found to be.
    dies_nameless(stage)?;
    match mode {
        // Each next request may be in time.
        Mode::Slow(_) | Mode::Good => {}
        // Its messages are well-formed: what is in them is refused, not the runtime.
        Mode::WrongTypes => ensure!(source(&stage.daemon)?["refused"] != before["refused"]),
        Mode::Wedged | Mode::Garbage | Mode::NotHttp | Mode::Oversized | Mode::Refuses => {
            source_is(&stage.daemon, &["slow", "down"])?;
        }
    }
    fake.answer(Mode::Good);
    source_is(&stage.daemon, &["up"])?;
    dies_named(stage, fake, digit)
}

/// One dies in a container that the runtime has told of: on a busy machine its answer may take longer than a death waits.
fn dies_named(stage: &Stage, fake: &FakeCri, digit: char) -> Result<()> {
    let id = format!("{:d>64}", format!("{:x}{digit}", std::process::id()));
    let uid = "5a9b8c7d-0000-4000-8000-00000000ffff";
    let which = Listed {
        name: "well".to_owned(),
        pod: "again".to_owned(),
        pod_uid: uid.to_owned(),
        namespace: "crowd".to_owned(),
    };
    fake.put(&id, which.clone());
    let group = stage.tree.make(&format!("kubepods/burstable/pod{uid}/{id}"))?;
    wait_until(Duration::from_secs(5), "the runtime to tell of it", || {
        Ok(fake.told(&id).then_some(()))
    })?;
    kill_one(stage, &group)?;
    group.remove()?;
    let told = all_told(stage, &HashMap::from([(id.clone(), which)]))?;
    fake.remove(&id);
    let record = told.get(&id).context("no record")?;
    ensure!(record["workload"]["container"] == "well", "it is told as {record:#}");
    Ok(())
}

/// A line of kB in a file of the daemon's in `/proc`, in bytes.
fn memory(daemon: &Daemon, file: &str, key: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/{file}", daemon.pid()))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next());
    let kib: u64 = number.with_context(|| format!("no {key} in {file}"))?.parse()?;
    Ok(kib << 10)
}
