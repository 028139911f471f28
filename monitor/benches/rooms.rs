//! The pure rooms, each many times over, without a kernel: what `cargo xtask bench` times and `cargo xtask counts` counts the instructions of.
//!
//! A line of JSON a room: `{"room", "records", "seconds"}`. With `--room NAME` that one alone. The work does not depend on the clock or on chance, so the instructions of
//! `2n` records less those of `n` are those of `n` records.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use jiff::Timestamp;
use killwatch::advice::{self, Earlier};
use killwatch::attribute::Asked;
use killwatch::audit::kernel::Counters;
use killwatch::audit::{Auditor, Reporter};
use killwatch::cgroup::CgroupId;
use killwatch::cgroup::index::{Index, Limits};
use killwatch::cgroup::marks::Marks;
use killwatch::cgroup::mounts::{Hierarchy, Version};
use killwatch::clock::Clock;
use killwatch::config::Config;
use killwatch::containers::Registry;
use killwatch::containers::pods::Pods;
use killwatch::containers::systemd::Invocations;
use killwatch::death::Workload;
use killwatch::death::drill::drill;
use killwatch::join::Join;
use killwatch::ledger::Ledger;
use killwatch::metrics::Metrics;
use killwatch::naming::{Names, Naming};
use killwatch::ops::Ops;
use killwatch::pipeline::Pipeline;
use killwatch::poison::Poison;
use killwatch::probe::Record;
use killwatch::probe::decode::decode;
use killwatch::probe::words::Assembler;
use killwatch::queue::{self, OnFull, Weigh as _};
use killwatch::record::Recorder;
use killwatch::tags::Tags;
use killwatch::verdict::kin::Kin;
use killwatch::watchdog::Pulse;
use killwatch_ebpf::wire::{
    Ancestor, CgroupPath, Exit, Header, Kind, LastWords, Level, Memory, Origin, Sent, SmallChunk,
    Task, Text, VERSION,
};
use zerocopy::{FromZeros as _, IntoBytes as _};

/// As in the daemon, whose counts it would not be otherwise.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The cgroup of all victims.
const CGROUP: u64 = 4711;
const PATH: &[u8] = b"/batch.slice/render.service";
const ARGS: &[u8] = b"python3\0/srv/render/worker.py\0--queue\0renders\0--snapshot\0s-2041\0";
const ENV: &[u8] = b"PATH=/usr/bin:/bin\0HOME=/srv/render\0LANG=C.UTF-8\0JOB_ID=4711\0SECRET_TOKEN=of-no-concern\0PYTHONUNBUFFERED=1\0";
/// Series of containers in the metrics that are encoded.
const SERIES: usize = 1_000;

#[derive(Parser)]
struct Arguments {
    /// Records to put through each room
    #[arg(long, default_value_t = 20_000)]
    records: u32,
    /// Only this room
    #[arg(long)]
    room: Option<String>,
    /// What cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

type Work = fn(u32) -> Result<(u32, Duration)>;

/// Each does its work for so many records; how often it did what it does, and how long that took without what led to it.
const ROOMS: &[(&str, Work)] = &[
    ("decode", decoding),
    ("death", judging),
    ("ledger", into_the_ledger),
    ("json", json),
    ("metrics", metrics),
];

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let asked = |room: &str| arguments.room.as_deref().is_none_or(|wanted| wanted == room);
    let mut done = 0;
    for (room, work) in ROOMS.iter().filter(|(room, _)| asked(room)) {
        let (records, took) = work(arguments.records)?;
        let seconds = took.as_secs_f64();
        println!("{{\"room\":\"{room}\",\"records\":{records},\"seconds\":{seconds}}}");
        done += 1;
    }
    ensure!(
        done > 0,
        "--room: must be one of {:?}",
        ROOMS.iter().map(|(room, _)| room).collect::<Vec<_>>()
    );
    Ok(())
}

/// What the kernel writes of one death: last words, command line, environment, end.
struct Ring {
    words: LastWords,
    args: SmallChunk,
    env: SmallChunk,
    exit: Exit,
}

impl Ring {
    fn new() -> Result<Self> {
        let mut words = LastWords::new_zeroed();
        words.header = header::<LastWords>(Kind::LastWords)?;
        words.signal = 9;
        words.threads = 4;
        words.memory = Memory {
            file: 900,
            anon: 60_000,
            hiwater_rss: 61_000,
            total_vm: 90_000,
            pgtables_bytes: 300_000,
            ..words.memory
        };
        words.tightest = Level { cgroup: CGROUP, usage: 65_000, max: 65_536, ..words.tightest };
        words.args_len = ARGS.len() as u64;
        words.env_len = ENV.len() as u64;
        let mut exit = Exit::new_zeroed();
        exit.header = header::<Exit>(Kind::Exit)?;
        exit.status = 9;
        exit.parent_comm[..10].copy_from_slice(b"supervisor");
        exit.cpu_ns = 5_000_000_000;
        (exit.cpu_limit, exit.file_size_limit, exit.realtime_limit) =
            ([u64::MAX; 2], [u64::MAX; 2], [u64::MAX; 2]);
        let mut sent = Sent::NONE;
        (sent.signal, sent.group, sent.delivered, sent.origin) = (9, 1, 1, Origin::Info as u32);
        sent.sender = task(4_000, b"kubectl");
        sent.ancestors[0] = Ancestor { tgid: 1, comm: comm(b"systemd") };
        exit.fatal = sent;
        Ok(Self { words, args: piece(Text::Args, ARGS)?, env: piece(Text::Env, ENV)?, exit })
    }

    /// The next process, of the same kind.
    fn next(&mut self, number: u32) {
        let now = 1_000_000_000 + u64::from(number) * 50_000;
        let victim = task(10_000 + number, b"worker");
        self.words.victim = victim;
        self.exit.victim = victim;
        for chunk in [&mut self.args, &mut self.env] {
            (chunk.tgid, chunk.start_ns) = (victim.tgid, victim.start_ns);
            chunk.header.ktime_ns = now;
        }
        (self.words.header.ktime_ns, self.exit.header.ktime_ns) = (now, now + 20_000);
        (self.exit.fatal.target_start_ns, self.exit.fatal.ktime_ns) =
            (victim.start_ns, now - 9_000);
    }

    /// In the order in which the kernel writes them.
    fn records(&self) -> [&[u8]; 4] {
        [self.words.as_bytes(), self.args.as_bytes(), self.env.as_bytes(), self.exit.as_bytes()]
    }
}

fn header<T>(kind: Kind) -> Result<Header> {
    let len = u32::try_from(size_of::<T>())?;
    Ok(Header { kind: kind as u16, version: VERSION, len, ktime_ns: 0 })
}

fn piece(text: Text, bytes: &[u8]) -> Result<SmallChunk> {
    let mut chunk = SmallChunk::new_zeroed();
    chunk.header = header::<SmallChunk>(Kind::SmallChunk)?;
    (chunk.text, chunk.len) = (text as u32, u32::try_from(bytes.len())?);
    chunk
        .data
        .get_mut(..bytes.len())
        .context("a text that is longer than a piece")?
        .copy_from_slice(bytes);
    Ok(chunk)
}

fn comm(name: &[u8]) -> [u8; 16] {
    let mut comm = [0; 16];
    for (to, from) in comm.iter_mut().zip(name) {
        *to = *from;
    }
    comm
}

fn task(tgid: u32, name: &[u8]) -> Task {
    let start_ns = u64::from(tgid) * 1_000;
    Task {
        tgid,
        tid: tgid,
        start_ns,
        ppid: 900,
        uid: 1000,
        parent_start_ns: 900_000,
        cgroup_v2: CGROUP,
        cgroup_memory: CGROUP,
        comm: comm(name),
    }
}

/// Bytes → whole records.
fn decoding(records: u32) -> Result<(u32, Duration)> {
    let (mut ring, mut assembler) =
        (Ring::new()?, Assembler::new(Config::default().allowlist().map_err(anyhow::Error::msg)?));
    let mut whole = 0_u64;
    let began = Instant::now();
    for number in 0..records {
        ring.next(number);
        for bytes in ring.records() {
            assembler.push(decode(bytes)?, |record| {
                black_box(&record);
                whole += 1;
            });
        }
    }
    let took = began.elapsed();
    ensure!(whole == 2 * u64::from(records), "{whole} whole records of {records} deaths");
    Ok((records, took))
}

/// The same, and on through join, verdict, naming and advice into a ledger in memory: no thread, no disk, no runtime.
fn judging(records: u32) -> Result<(u32, Duration)> {
    let dir = tempfile::tempdir().context("a directory")?;
    let config = Config::default();
    let (_sender, receiver) = queue::bounded(1, 1, OnFull::DropNewest);
    let ledger = Arc::new(Ledger::new(config.ledger.clone()));
    let Pipeline { recorder, mut index, mut naming, mut earlier, metrics, .. } =
        pipeline(&config, receiver, Arc::clone(&ledger), dir.path())?;
    index.made(CgroupId { hierarchy: 0, id: CGROUP }, PATH, false);
    let (mut join, mut kin) = (Join::default(), Kin::default());
    let mut assembler = Assembler::new(config.allowlist().map_err(anyhow::Error::msg)?);
    let mut ring = Ring::new()?;
    let (began, mut kept) = (Instant::now(), 0_u32);
    for number in 0..records {
        ring.next(number);
        let now = ring.exit.header.ktime_ns;
        for bytes in ring.records() {
            assembler.push(decode(bytes)?, |record| match record {
                Record::Words(words) => join.words(words),
                Record::Exit(exit) => join.exit(exit, now),
                _ => {}
            });
        }
        while let Some(ended) = join.next(now) {
            naming.death(recorder.record(&ended, &index, &mut kin), now);
        }
        while let Some(mut death) = naming.next_death(now) {
            advice::advise(&mut death, &earlier);
            earlier.remember(&death);
            if let Some(death) = ledger.append(death)?.death() {
                metrics.observe(death, began);
            }
            kept += 1;
        }
    }
    let took = began.elapsed();
    ensure!(kept == records, "{kept} deaths were judged, of {records}");
    Ok((records, took))
}

/// The same, and on through the pipeline of the daemon into a ledger on disk, all on one thread but for the ledger's own.
fn into_the_ledger(records: u32) -> Result<(u32, Duration)> {
    let dir = tempfile::tempdir().context("a directory for the ledger")?;
    let config = Config::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ledger = Arc::new(Ledger::open(
        &config.ledger,
        &dir.path().to_string_lossy().parse().map_err(anyhow::Error::msg)?,
    ));
    let (sender, receiver) =
        queue::bounded::<Record>(config.queue.records.get(), 8 << 20, OnFull::DropNewest);
    let pipeline = pipeline(&config, receiver, Arc::clone(&ledger), dir.path())?;
    let mut assembler = Assembler::new(config.allowlist().map_err(anyhow::Error::msg)?);
    let took = runtime.block_on(async {
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let tell = move || {
            // Nobody waits for it if the bench is over.
            let _ = ready.send(());
        };
        let running = tokio::spawn(pipeline.run(tell));
        is_ready.await.context("the pipeline ended before it was ready")?;
        let mut made = CgroupPath::new_zeroed();
        made.header = header::<CgroupPath>(Kind::CgroupMade)?;
        (made.id, made.len) = (CGROUP, u32::try_from(PATH.len())?);
        made.path.get_mut(..PATH.len()).context("a long path")?.copy_from_slice(PATH);
        assembler.push(decode(made.as_bytes())?, |record| sender.offer(record));
        let mut ring = Ring::new()?;
        let began = Instant::now();
        for number in 0..records {
            ring.next(number);
            for bytes in ring.records() {
                let mut whole = Vec::with_capacity(2);
                assembler.push(decode(bytes)?, |record| whole.push(record));
                for record in whole {
                    while !sender.has_room(1, record.bytes()) {
                        tokio::task::yield_now().await;
                    }
                    sender.offer(record);
                }
            }
        }
        drop(sender);
        running.await.context("the pipeline ended")?;
        ledger.settled().await;
        anyhow::Ok(began.elapsed())
    })?;
    // All are of one job, so it is also told that the job is killed again and again.
    let kept = ledger.len() as u64 + ledger.evicted();
    if !(u64::from(records)..=u64::from(records) + 16).contains(&kept) {
        bail!("{kept} deaths in the ledger, of {records}");
    }
    Ok((records, took))
}

fn pipeline(
    config: &Config,
    records: queue::Receiver<Record>,
    ledger: Arc<Ledger>,
    root: &Path,
) -> Result<Pipeline> {
    let hierarchy = Hierarchy { id: 0, version: Version::V2, root: root.to_owned() };
    let metrics = Arc::new(Metrics::new(config.metrics));
    let ops = Arc::new(Ops::new(Arc::clone(&metrics)));
    let (pods, _, _) = Pods::new(&config.containers);
    let tags = Arc::new(Tags::default());
    let names = Arc::new(Names {
        registry: Arc::new(Registry::new(&config.containers)),
        pods,
        rules: config.jobs.rules()?,
        asked: Asked::from(&config.workload),
        invocations: Invocations::new(false),
    });
    let status = killwatch::api::Status::new("node".into(), None);
    let reporter = Reporter::new(Arc::clone(&metrics), Arc::clone(&ops), status.account());
    let counters = Counters::new("/proc".into(), &hierarchy);
    let (writer, _guard) = tracing_appender::non_blocking(std::io::sink());
    let live = NonZeroUsize::new(config.cgroup.max.get()).unwrap_or(NonZeroUsize::MIN);
    Ok(Pipeline {
        records,
        log_lost: writer.error_counter(),
        lost: None,
        recorder: Recorder {
            node: "node".into(),
            boot_id: None,
            page_size: 4096,
            memory_hierarchy: 0,
            clock: Clock,
            names: config.verdict.clone().into(),
            marks: Marks::new(root.to_owned()),
            tags,
        },
        index: Index::new(Limits { live, ..Limits::default() }),
        audit: Auditor::new(counters, 0, None, reporter),
        hierarchy,
        hears_of_cgroups: true,
        max_cgroups: live,
        naming: Naming::new(names, config.containers.deadline.get()),
        poison: Poison::new(config.poison),
        earlier: Earlier::default(),
        ledger,
        metrics,
        ops,
        watch: None,
        pulse: Pulse::default(),
        deadline: config.containers.deadline.get(),
        clock: Clock,
    })
}

/// A death as JSON.
fn json(records: u32) -> Result<(u32, Duration)> {
    let death = drill("node", Timestamp::UNIX_EPOCH);
    let began = Instant::now();
    for _ in 0..records {
        black_box(serde_json::to_vec(&death)?);
    }
    Ok((records, began.elapsed()))
}

/// A scrape of a node with many workloads, once for a thousand records.
fn metrics(records: u32) -> Result<(u32, Duration)> {
    let metrics = Metrics::new(Config::default().metrics);
    let now = Instant::now();
    for number in 0..SERIES {
        let workload = Workload {
            container_id: Some(format!("{number:064x}")),
            namespace: Some("render".into()),
            pod: Some(format!("render-{number}")),
            container: Some("worker".into()),
            ..Workload::default()
        };
        metrics.container_seen(&workload, now);
    }
    let (scrapes, began) = (records.div_ceil(1_000), Instant::now());
    for _ in 0..scrapes {
        black_box(metrics.encode()?);
    }
    Ok((scrapes, began.elapsed()))
}
