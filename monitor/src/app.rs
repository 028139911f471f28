//! Builds every stage and every channel, runs until told to stop, drains. The only room that knows them all.
//!
//! Order of the start: addresses and sinks are taken (a bad one ends the start), the kernel side is taken over as an earlier daemon left it, or
//! loaded and attached, then its reader runs, and once the cgroups that were there before are known the daemon is ready. Order of the end: the
//! probes detach unless they are pinned, the reader reads what is left, the pipeline empties, the sinks deliver, all within one deadline.
//!
//! Two daemons at once are sound: the second has programs, ring and maps of its own. Only an address that both want ends it.

use std::{num::NonZeroUsize, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing_appender::non_blocking::ErrorCounter;

use crate::{
    advice::Earlier,
    api,
    attribute::Asked,
    audit::{
        Auditor, Reporter,
        kernel::Counters,
        state::{StatePath, Store},
    },
    cgroup::{
        index::{Index, Limits},
        marks::Marks,
        mounts::{Hierarchy, Mounts},
    },
    cli,
    clock::Clock,
    config::{Config, KernelLogLevel},
    containers::{
        Registry, Switch, Wanted, kubernetes, pods::Pods, sources::Sources, systemd::Invocations,
    },
    death::{Cause, State},
    footprint,
    host::{Facts, Roots},
    kmsg,
    ledger::{Filter, Item, Ledger},
    metrics::{Metrics, Stage},
    naming::{Names, Naming},
    notify,
    ops::{Gap, Ops},
    pipeline::Pipeline,
    poison::{Poison, PoisonConfig},
    privileges::Opener,
    probe::{
        load::Options,
        reader,
        tally::{KEY, Note},
    },
    procfs::Proc,
    protect,
    record::Recorder,
    source::{self, Kind},
    tags::Tags,
    watch,
    watchdog::{self, Pulse},
};

/// Part of the shutdown's deadline that is for the sinks; the rest is for what comes before and after them.
const SINKS_SHARE: f64 = 0.8;

/// Time for answers that are on their way when everything else has ended.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// Time for the ledger to be written at the very end, also if the drain took all of its own.
const CLOSE: Duration = Duration::from_secs(1);

/// How far back, and how many deaths, advice looks after a start.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
const MAX_REMEMBERED: usize = 500;

/// Runs the daemon until SIGTERM or SIGINT. `log_lost` counts the lines of its own log that standard error was too slow for; `opener` has the rights of the
/// start, which nothing else here has.
///
/// # Errors
/// If it cannot start: an address is taken, a file cannot be opened, the kernel refuses the kernel side.
pub async fn run(config: Config, log_lost: ErrorCounter, opener: Opener) -> anyhow::Result<()> {
    let mut stop_signals = StopSignals::new()?;
    let facts = opener.run(|| Facts::gather(&Roots::default())).await?;
    let mounts = Mounts::detect(Path::new("/proc"), Some(&config.cgroup.root()))
        .context("the cgroups of this host cannot be used; see --cgroup.root")?;
    {
        let (config, memory) = (config.clone(), mounts.memory.clone());
        opener.run(move || protect(&config, &memory)).await?;
    }
    let metrics = Arc::new(Metrics::new(config.metrics));
    let ops = Arc::new(Ops::new(Arc::clone(&metrics)));
    let ledger = tokio::task::block_in_place(|| Ledger::open(&config.ledger, &config.state.path));
    {
        let metrics = Arc::clone(&metrics);
        // A stuck victim has not ended yet, and is told late on purpose.
        ledger.on_death(move |death| {
            if death.state == State::Dead {
                metrics.delayed(Stage::Kept, Clock.since(death.ktime_ns));
            }
        });
    }
    let ledger = Arc::new(ledger);
    let status = Arc::new(api::Status::new(config.node.as_str().to_owned(), facts.boot_id.clone()));
    status.set_findings(cli::doctor::of_host(&facts, &mounts));
    status.set_cgroup_mode(format!("{:?}", mounts.mode).to_lowercase());
    let door = Arc::new(tokio::task::block_in_place(|| {
        api::Guard::open(
            config.web.config_file.as_ref(),
            config.node.as_str(),
            Arc::clone(&metrics),
        )
    })?);
    status.set_guard(Arc::clone(&door));
    let (addresses, socket) = (config.web.listen_address.clone(), config.api.clone());
    let server = opener.run(move || api::bind(&addresses)).await??;
    let worker_socket = opener.run(move || api::socket::bind::open(&socket)).await??;
    let house = notify::driver::House {
        ledger: Arc::clone(&ledger),
        cursors: Arc::clone(&ledger) as Arc<dyn notify::driver::Cursors>,
        ops: Arc::clone(&ops),
        now: Arc::new(|| Clock.now()),
    };
    let drivers = notify::open(&config, &house, &metrics).map_err(anyhow::Error::msg)?;
    status.set_sinks(drivers.iter().map(|driver| driver.health()).collect());

    let wanted = source::Wanted {
        source: config.probe.source,
        options: options(&config, mounts.memory.id),
        pin: config.probe.pin.clone(),
        note: ledger.noted(KEY).and_then(|note| Note::parse(&note)),
        allowlist: config.allowlist().map_err(anyhow::Error::msg)?,
        records: config.queue.records.get(),
        hierarchy: mounts.memory.clone(),
    };
    let observer = Arc::new(Observer {
        metrics: Arc::clone(&metrics),
        ops: Arc::clone(&ops),
        status: Arc::clone(&status),
    });
    let source::Source { kind, records, lost, pins, reports, lacks, guard } =
        opener.run(move || source::open(wanted, &observer)).await??;
    for lack in &opener.lacks {
        tracing::warn!(%lack, "the daemon keeps rights that it does not need");
    }
    tracing::info!(left = ?opener.report, "the rights of the start are let go of");
    status.set_rights(opener.report.clone());
    drop(opener);
    match kind {
        Some(Kind::Bpf) => ops.probes(&reports),
        _ => metrics.set_probes(&reports),
    }
    if let Some(pins) = pins {
        ops.pinned(&pins);
        status.set_pins(pins);
    }
    for lack in &lacks {
        tracing::error!(%lack, "degraded");
    }
    let audit = {
        let reporter = Reporter::new(Arc::clone(&metrics), Arc::clone(&ops), status.account());
        let counters = Counters::new("/proc".into(), &mounts.memory);
        let store = store(&config.state.path, facts.boot_id.as_deref());
        Auditor::new(counters, mounts.memory.id, store, reporter)
    };
    let max_cgroups = NonZeroUsize::new(config.cgroup.max.get()).unwrap_or(NonZeroUsize::MIN);
    let clock = Clock;
    let registry = Arc::new(Registry::new(&config.containers));
    let rules = config.jobs.rules()?;
    let asked = Asked::from(&config.workload);
    let wanted = Arc::new(asked.wanted(&rules));
    let (pods, pods_handle, pods_asked) = Pods::new(&config.containers);
    status.set_names(Arc::clone(&registry), Arc::clone(&pods));
    let tags = Arc::new(Tags::default());
    let host = api::socket::peer::Host::new(Proc::default(), mounts.memory.id);
    let names = Arc::new(Names {
        registry: Arc::clone(&registry),
        pods,
        rules,
        asked,
        invocations: Invocations::new(config.containers.systemd == Switch::Auto),
    });
    let watch = watch(&config, &facts, &mounts.memory, &names, &tags, &metrics);
    let shown = watch.as_ref().map(|(watch, _)| watch.clone());
    let (poison, earlier) = tokio::task::block_in_place(|| {
        (remembered(config.poison, &ledger, clock), earlier(&ledger, clock))
    });
    let pulse = Pulse::default();
    let pipeline = Pipeline {
        records,
        log_lost,
        lost,
        recorder: Recorder {
            node: config.node.as_str().to_owned(),
            boot_id: facts.boot_id,
            page_size: facts.page_size,
            memory_hierarchy: mounts.memory.id,
            clock,
            names: config.verdict.into(),
            marks: Marks::new(mounts.memory.root.clone()),
            tags: Arc::clone(&tags),
        },
        index: Index::new(limits(max_cgroups)),
        hierarchy: mounts.memory,
        hears_of_cgroups: kind == Some(Kind::Bpf),
        max_cgroups,
        naming: Naming::new(names, config.containers.deadline.get()),
        deadline: config.containers.deadline.get(),
        poison,
        earlier,
        ledger: Arc::clone(&ledger),
        metrics: Arc::clone(&metrics),
        ops: Arc::clone(&ops),
        audit,
        watch,
        pulse: pulse.clone(),
        clock,
    };
    let addresses: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
    let (stop_serving, stop_sinks) = (CancellationToken::new(), CancellationToken::new());
    let state = Arc::new(api::State {
        ledger: Arc::clone(&ledger),
        metrics: Arc::clone(&metrics),
        status: Arc::clone(&status),
        links: config.links.clone(),
        deaths: config.web.deaths,
        watch: shown,
    });
    let workers = api::socket::State::new(
        Arc::clone(&ledger),
        tags,
        Arc::clone(&metrics),
        host,
        stop_serving.clone(),
    )
    .with_api(Arc::clone(&state));
    let deadline = config.shutdown.deadline.get();
    let tracker = TaskTracker::new();
    let router = api::router(state, &config.web.telemetry_path, Arc::clone(&door));
    tracker.spawn(server.run(router, door, stop_serving.clone()));
    if let Some(bound) = worker_socket {
        tracker.spawn(api::socket::serve::run(bound, Arc::new(workers)));
    }
    let sinks = TaskTracker::new();
    for driver in drivers {
        sinks.spawn(driver.run(stop_sinks.clone(), deadline.mul_f64(SINKS_SHARE)));
    }
    let announce = {
        let status = Arc::clone(&status);
        move || {
            status.set_sight(api::Sight { source: kind, probes: reports, lacks });
            match status.ready() {
                Ok([]) => tracing::info!(?addresses, "ready: watching for deaths"),
                Ok(_) => tracing::warn!(?addresses, "ready, degraded: watching for deaths"),
                Err(reasons) => tracing::error!(?addresses, %reasons, "running, but not ready"),
            }
            // Without systemd there is nobody to tell.
            let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
        }
    };
    // They only ask: what they are in the middle of is not waited for at the end.
    let names = TaskTracker::new();
    let stop_names = CancellationToken::new();
    let _stop_names = stop_names.clone().drop_guard();
    let sources = Sources {
        config: &config.containers,
        registry: &registry,
        wanted: Arc::clone(&wanted),
        clock,
        tasks: &names,
        stop: stop_names.clone(),
    };
    sources.start();
    names.spawn(kubernetes::run(
        config.kubernetes.clone(),
        Wanted::clone(&wanted),
        pods_handle,
        pods_asked,
        stop_names.clone(),
    ));
    // It ends with the runtime.
    tokio::spawn(watchdog::run(pulse));
    let mut pipeline = tokio::spawn(pipeline.run(announce));

    let failure = tokio::select! {
        signal = stop_signals.any() => {
            tracing::info!(signal, ?deadline, "stopping");
            None
        }
        ended = &mut pipeline => Some(ended),
    };
    status.set_stopping();
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
    let drain = async {
        // Detaching waits for programs that run; then, unless they are pinned, no record can come after the reader's last look. On a thread that may be
        // left behind: what blocks the task itself would block the deadline too.
        let stopped = tokio::task::spawn_blocking(move || guard.close());
        let _ = stopped.await;
        if failure.is_none() {
            let _ = (&mut pipeline).await;
        }
        // A sink ends when it has told all that it sees.
        ledger.settled().await;
        stop_sinks.cancel();
        sinks.close();
        sinks.wait().await;
        stop_serving.cancel();
        // A client that reads slowly holds up nothing but its own answer.
        tracker.close();
        let _ = tokio::time::timeout(LAST_ANSWERS, tracker.wait()).await;
    };
    if tokio::time::timeout(deadline, drain).await.is_err() {
        tracing::error!(?deadline, "the shutdown took too long; what was on its way is lost");
    }
    // After the sinks, whose cursors are in it.
    let _ = tokio::task::spawn_blocking(move || ledger.close(CLOSE)).await;
    match failure {
        None => Ok(()),
        Some(Ok(())) => anyhow::bail!("the reader of the ring ended: deaths are no longer seen"),
        Some(Err(error)) => Err(error).context("the pipeline ended"),
    }
}

/// Keeps the daemon alive where memory is short, as far as it is allowed to.
fn protect(config: &Config, memory: &Hierarchy) {
    let wanted = config.protect.oom_score_adj;
    if let Err(error) = protect::from_the_oom_killer(wanted, Path::new("/proc")) {
        tracing::info!(%wanted, %error, "protect.oom_score_adj cannot be set: whoever starts the daemon can (systemd: OOMScoreAdjust=)");
    }
    let needed = footprint::of(config).at_most();
    if let Some(limit) = protect::own_limit(memory, &Proc::at("/proc"))
        && limit.bytes < needed
    {
        let file = limit.file.display();
        tracing::warn!(
            %file,
            limit = limit.bytes,
            needed,
            "the daemon's own memory limit is below what its configuration may need: raise it, or lower the bounds that `killwatch check-config` shows"
        );
    }
}

/// A watch over jobs that knows what was told before the daemon was started anew.
fn remembered(config: PoisonConfig, ledger: &Ledger, clock: Clock) -> Poison {
    let mut poison = Poison::new(config);
    let since = clock.now().checked_sub(config.window.get()).unwrap_or_default();
    ledger.replay(since, |entry| match &entry.item {
        Item::Death(death) => poison.remember(death),
        Item::Alert(alert) => poison.remember_alert(alert),
    });
    poison
}

/// What advice knows of deaths before the daemon was started anew.
fn earlier(ledger: &Ledger, clock: Clock) -> Earlier {
    let mut earlier = Earlier::default();
    let since = clock.now().checked_sub(REMEMBERED).ok();
    let filter = Filter { since, causes: vec![Cause::OomMemcg], ..Filter::default() };
    for entry in ledger.newest(&filter, MAX_REMEMBERED).iter().rev() {
        entry.death().iter().for_each(|death| earlier.remember(death));
    }
    earlier
}

/// The watch over the memory of cgroups. Without it the daemon runs all the same.
fn watch(
    config: &Config,
    facts: &Facts,
    hierarchy: &Hierarchy,
    names: &Arc<Names>,
    tags: &Arc<Tags>,
    metrics: &Arc<Metrics>,
) -> Option<(watch::Watch, tokio::sync::mpsc::Receiver<watch::Told>)> {
    if !config.watch.enabled {
        return None;
    }
    let parts = watch::Parts {
        config: config.watch.clone(),
        node: config.node.as_str().to_owned(),
        hierarchy: hierarchy.clone(),
        proc: "/proc".into(),
        page_size: facts.page_size,
        names: Arc::clone(names),
        tags: Arc::clone(tags),
        metrics: Arc::clone(metrics),
        clock: Clock,
    };
    match watch::start(parts) {
        Ok(watch) => Some(watch),
        Err(error) => {
            tracing::error!(%error, "memory cannot be followed: records will lack the minutes before, and nothing warns");
            None
        }
    }
}

/// What outlives the daemon. Without it the daemon runs all the same.
fn store(path: &StatePath, boot_id: Option<&str>) -> Option<Store> {
    let StatePath::Directory(path) = path else { return None };
    let opened = match boot_id {
        Some(boot_id) => Store::open(path, boot_id),
        None => Err(std::io::Error::other("this boot has no id (/proc/sys/kernel/random/boot_id)")),
    };
    match opened {
        Ok(store) => Some(store),
        Err(error) => {
            tracing::warn!(
                %path,
                %error,
                "state.path cannot be used: what happens while no daemon runs will not be told"
            );
            None
        }
    }
}

/// The index's bounds: a quarter as many removed cgroups as live ones, and 256 bytes of path for each live one.
fn limits(live: NonZeroUsize) -> Limits {
    let times =
        |factor: usize| NonZeroUsize::new(live.get().saturating_mul(factor)).unwrap_or(live);
    let gone = NonZeroUsize::new(live.get() / 4).unwrap_or(live);
    Limits { live, gone, bytes: times(256), ..Limits::default() }
}

fn options(config: &Config, memory_hierarchy: u32) -> Options {
    Options {
        ring_bytes: config.probe.ring_bytes.get(),
        memory_hierarchy,
        log: match config.probe.log_level {
            KernelLogLevel::Off => None,
            KernelLogLevel::Error => Some(aya_log::Level::Error),
            KernelLogLevel::Warn => Some(aya_log::Level::Warn),
            KernelLogLevel::Info => Some(aya_log::Level::Info),
            KernelLogLevel::Debug => Some(aya_log::Level::Debug),
            KernelLogLevel::Trace => Some(aya_log::Level::Trace),
        },
        empty_programs: config.probe.empty_programs,
    }
}

/// Tells the rest of the house what a reader sees.
struct Observer {
    metrics: Arc<Metrics>,
    ops: Arc<Ops>,
    status: Arc<api::Status>,
}

impl reader::Observer for Observer {
    fn end_read(&self, ktime_ns: u64) {
        self.metrics.delayed(Stage::Read, Clock.since(ktime_ns));
    }

    fn undecodable(&self, why: &dyn std::fmt::Display) {
        self.ops.decode_error(why);
    }

    fn blind(&self, why: &dyn std::fmt::Display) {
        self.status.set_blind(why);
        tracing::error!(%why, "the ring cannot be read any more: deaths are no longer seen");
    }
}

impl kmsg::reader::Observer for Observer {
    fn overwritten(&self, messages: u64) {
        self.ops.gap(Gap::KernelLog, messages);
    }

    fn blind(&self, why: &dyn std::fmt::Display) {
        self.status.set_blind(why);
        tracing::error!(%why, "the kernel log cannot be read any more: deaths are no longer seen");
    }
}

impl source::Observer for Observer {}

/// The signals that end the daemon.
struct StopSignals {
    term: Signal,
    int: Signal,
}

impl StopSignals {
    fn new() -> anyhow::Result<Self> {
        let of = |kind| signal(kind).context("signals cannot be waited for");
        Ok(Self { term: of(SignalKind::terminate())?, int: of(SignalKind::interrupt())? })
    }

    async fn any(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}
