//! The thread: waits for what is due, for files that tell of a change, and for questions.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::fd::OwnedFd;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::mpsc as tokio_mpsc;
use uuid::{NoContext, Uuid};

use super::book::Book;
use super::config::WatchConfig;
use super::followed::{Followed, SECOND, as_f64};
use super::handle::{self, Ask, Tell, Told, Watch};
use super::host::Host;
use super::listing::{CgroupUse, Cgroups};
use super::near::Change;
use super::processes::{self, MAX_COUNTED};
use super::ring::Ring;
use super::scene::{self, Hit, LookAt, MOST_PROCESSES, Scene};
use crate::alert::{Alert, AlertKind, NearLimit, NearReason, SCHEMA};
use crate::cgroup::mounts::Hierarchy;
use crate::clock::Clock;
use crate::death::{History, HostMemory, UsageAt};
use crate::metrics::Metrics;
use crate::naming::Names;
use crate::procfs::Proc;
use crate::tags::Tags;

/// Questions that wait at most.
const MAX_ASKS: usize = 8192;
/// Answers that wait at most.
const MAX_TOLD: usize = 1024;
/// Questions that are taken in one go, before what is due is looked at.
const BURST: usize = 256;
/// The host is looked at this often, ns.
const HOST: u64 = 2_000_000_000;
/// Counters are shown this often, ns.
const COUNTERS: u64 = 1_000_000_000;
/// Processes that a warning names.
const NEAR_PROCESSES: usize = 5;
/// What tells the wake-up from the id of a cgroup.
const WAKE: u64 = u64::MAX;
/// One that tells of changes again and again is looked at this often at most, ns.
const STIR_GAP: u64 = 50_000_000;
/// File descriptors that the rest of the daemon may need.
const OTHER_FILES: u64 = 1024;

/// What the watch is made of.
pub struct Parts {
    /// What a user may set.
    pub config: WatchConfig,
    /// Name of the node.
    pub node: String,
    /// The hierarchy that accounts memory.
    pub hierarchy: Hierarchy,
    /// Where a process file system is mounted.
    pub proc: PathBuf,
    /// Bytes of a page.
    pub page_size: u64,
    /// Who knows names.
    pub names: Arc<Names>,
    /// What workers said of themselves.
    pub tags: Arc<Tags>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// The clock.
    pub clock: Clock,
}

/// Starts the thread.
///
/// # Errors
/// If the cgroups or `/proc` cannot be opened, or the thread cannot be started.
pub fn start(parts: Parts) -> io::Result<(Watch, tokio_mpsc::Receiver<Told>)> {
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poller, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
    make_room_for_files(parts.config.max.get());
    let wake_here = wake.try_clone()?;
    let (asks, questions) = mpsc::sync_channel(MAX_ASKS);
    let (watch, tell, told) = handle::ends(asks, wake, MAX_TOLD);
    let book = Book::new(
        parts.config.clone(),
        &parts.hierarchy,
        Arc::clone(&parts.names),
        poller.try_clone()?,
    )?;
    let host = Host::open(&parts.proc)?;
    let state = Thread {
        book,
        host,
        host_ring: Ring::default(),
        host_memory: None,
        host_due_ns: 0,
        counters_due_ns: 0,
        proc: Proc::at(&parts.proc),
        parts,
        tell,
        last: None,
    };
    std::thread::Builder::new()
        .name("killwatch-watch".to_owned())
        .spawn(move || state.run(&questions, &poller, &wake_here))?;
    Ok((watch, told))
}

/// Two files of each cgroup are open at a time, and a third of those that are close to their limit.
fn make_room_for_files(cgroups: usize) {
    let wanted = (cgroups as u64).saturating_mul(3).saturating_add(OTHER_FILES);
    let mut limits = getrlimit(Resource::Nofile);
    if limits.current.is_some_and(|current| current < wanted) {
        limits.current = Some(limits.maximum.map_or(wanted, |most| most.min(wanted)));
        if let Err(error) = setrlimit(Resource::Nofile, limits) {
            tracing::warn!(%error, wanted, "the limit of open files cannot be raised: some cgroups may not be followed");
        }
    }
}

struct Thread {
    parts: Parts,
    book: Book,
    host: Host,
    host_ring: Ring,
    host_memory: Option<HostMemory>,
    host_due_ns: u64,
    counters_due_ns: u64,
    proc: Proc,
    tell: Tell,
    /// The last scene of a kill, and of which cgroup.
    last: Option<(Option<Arc<str>>, Arc<Scene>)>,
}

impl Thread {
    fn run(mut self, questions: &Receiver<Ask>, poller: &OwnedFd, wake: &OwnedFd) {
        let mut events = Vec::with_capacity(64);
        loop {
            // A kill does not wait for what is due.
            for _ in 0..BURST {
                match questions.try_recv() {
                    Ok(ask) => self.answer(ask),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            let now = self.parts.clock.boot_ns();
            if let Some(id) = self.book.pop_due(now) {
                let change = self.book.look(id, now);
                self.changed(id, change, now);
                continue;
            }
            self.upkeep(now);
            events.clear();
            let wait = self.wait_ns(now);
            let timeout = Timespec {
                tv_sec: i64::try_from(wait / 1_000_000_000).unwrap_or(1),
                tv_nsec: i64::try_from(wait % 1_000_000_000).unwrap_or(0),
            };
            let waited =
                epoll::wait(poller, rustix::buffer::spare_capacity(&mut events), Some(&timeout));
            if let Err(error) = waited
                && error != rustix::io::Errno::INTR
            {
                tracing::error!(%error, "the watch cannot wait any more: memory is followed no longer");
                return;
            }
            let now = self.parts.clock.boot_ns();
            for event in events.drain(..) {
                match event.data.u64() {
                    WAKE => {
                        let _ = rustix::io::read(wake, &mut [0u8; 8]);
                    }
                    id => self.stirred(id, now),
                }
            }
        }
    }

    fn answer(&mut self, ask: Ask) {
        let now = self.parts.clock.boot_ns();
        match ask {
            Ask::Seen { id, path, named, made } => self.book.follow(id, &path, named, now, made),
            Ask::Gone { id } => {
                if let Some(workload) = self.book.let_go(id, now) {
                    self.parts.metrics.near_limit(&workload, false);
                }
            }
            Ask::Look(at) => {
                let scene = self.scene(&at);
                self.tell.tell(Told::Scene(*at, scene));
            }
            Ask::List(answer) => {
                let _ = answer.send(self.list());
            }
        }
    }

    fn stirred(&mut self, id: u64, now: u64) {
        let looked = self.book.get(id).map_or(0, |followed| followed.last.at_ns);
        if now.saturating_sub(looked) >= STIR_GAP {
            let change = self.book.stirred(id, now);
            self.changed(id, change, now);
        }
    }

    fn changed(&mut self, id: u64, change: Option<Change>, now: u64) {
        match change {
            None => {}
            Some(Change::Left) => {
                let shown = self.book.get_mut(id).and_then(|followed| followed.shown.take());
                if let Some(workload) = shown {
                    self.parts.metrics.near_limit(&workload, false);
                }
            }
            Some(Change::Came { why, tell }) => self.came(id, why, tell, now),
        }
    }

    fn came(&mut self, id: u64, why: NearReason, tell: bool, now: u64) {
        // One below that grew since it was looked at could not say that it is the one.
        for older in self.book.older_below(id, now.saturating_sub(STIR_GAP)) {
            let change = self.book.look(older, now);
            self.changed(older, change, now);
        }
        let more_precise = self.book.is_of_one_below(id);
        let Some(followed) = self.book.get(id) else { return };
        let path = Arc::clone(&followed.path);
        let (pids, _) = self.book.files.processes(&path, MAX_COUNTED);
        let (proc, tags, page) = (&self.proc, &self.parts.tags, self.parts.page_size);
        let (processes, _) = processes::largest(proc, tags, &pids, NEAR_PROCESSES, page);
        let none = Default::default();
        let tagged = processes.iter().map(|process| &process.tags).find(|tags| !tags.is_empty());
        let (workload, job) = self.book.names().now(&path, id, tagged.unwrap_or(&none));
        self.parts.metrics.near_limit(&workload, true);
        let Some(followed) = self.book.get_mut(id) else { return };
        followed.shown = Some(Box::new(workload.clone()));
        let (Some(limit), Some(firm)) = (followed.limit.clone(), followed.last.firm) else {
            return;
        };
        if tell && more_precise {
            followed.near.not_told();
        }
        if !tell || more_precise {
            return;
        }
        let trend = followed.trend();
        let near = NearLimit {
            workload,
            job,
            reason: why,
            unreclaimable_bytes: firm,
            usage_bytes: followed.last.usage,
            limit_bytes: limit.bytes,
            limit_cgroup: limit.cgroup.to_string(),
            share: thousandths(as_f64(firm) / as_f64(limit.bytes).max(1.0)),
            growth_bytes_per_minute: trend.map(|trend| (trend.slope * 60.0).round()),
            seconds_left: trend
                .and_then(|trend| trend.seconds_left)
                .map(|s| (s * 10.0).round() / 10.0),
            processes,
        };
        let time = self.parts.clock.wall(now);
        let seconds = u64::try_from(time.as_second()).unwrap_or(0);
        let nanos = u32::try_from(time.subsec_nanosecond()).unwrap_or(0);
        let alert = Alert {
            id: Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, nanos)),
            schema: SCHEMA,
            node: self.parts.node.clone(),
            time,
            kind: AlertKind::NearLimit(Box::new(near)),
        };
        self.tell.tell(Told::Near(Box::new(alert)));
    }

    /// What is to be seen of a kill. Whoever was decided on before the last look at the same cgroup, as the others of a group, shares it.
    fn scene(&mut self, at: &LookAt) -> Arc<Scene> {
        if !at.kill {
            let history = self.history(at);
            let mut scene = Scene { looked_ns: self.parts.clock.boot_ns(), ..Scene::default() };
            scene.missing.extend(history.is_none().then(not_followed));
            scene.history = history;
            return Arc::new(scene);
        }
        let hit = at.hit.as_ref().map(|hit| Arc::clone(&hit.cgroup));
        let place = hit.or_else(|| at.own.clone());
        if let Some((same, scene)) = &self.last
            && *same == place
            && at.at_ns <= scene.looked_ns
        {
            return Arc::clone(scene);
        }
        let scene = Arc::new(self.look(at, place.as_deref()));
        if let Some(seconds) = scene.warned_seconds {
            self.parts.metrics.warned(seconds);
        }
        self.last = Some((place, Arc::clone(&scene)));
        scene
    }

    fn look(&mut self, at: &LookAt, place: Option<&str>) -> Scene {
        let mut scene = Scene::default();
        // First what changes fastest: the victim gives its memory back.
        match place.map(|path| self.book.files.story(path)) {
            Some(Ok(cgroup)) => {
                scene.missing.extend(scene::untold(&cgroup));
                scene.cgroup = Some(cgroup);
            }
            Some(Err(error)) => {
                scene.missing.push(scene::lack("memory.cgroup", &error.to_string()))
            }
            None => scene.missing.push(scene::lack("memory.cgroup", "its path is not known")),
        }
        scene.looked_ns = self.parts.clock.boot_ns();
        let (pids, are_all) = match &at.hit {
            Some(hit) => self.book.files.processes(&hit.cgroup, MAX_COUNTED),
            None => {
                let pids: Vec<u32> = self.proc.pids().take(MAX_COUNTED).collect();
                let are_all = pids.len() < MAX_COUNTED;
                (pids, are_all)
            }
        };
        let (proc, tags, page) = (&self.proc, &self.parts.tags, self.parts.page_size);
        let (largest, looked_at) = processes::largest(proc, tags, &pids, MOST_PROCESSES, page);
        scene.processes = largest;
        if looked_at < pids.len() || !are_all {
            let why = format!("there were too many to look at: {looked_at} were looked at");
            scene.missing.push(scene::lack("memory.processes", &why));
        }
        let victim = u32::from(!pids.contains(&at.victim.tgid));
        let counted = u32::try_from(pids.len()).unwrap_or(u32::MAX).saturating_add(victim);
        scene.process_count = Some(counted);
        scene.history = self.history(at);
        scene.missing.extend(scene.history.is_none().then(not_followed));
        let warned = |hit: &Hit| {
            let since = self.book.at(&hit.cgroup)?.near.warned_ns();
            Some(since.map_or(0.0, |since| super::tenths(at.at_ns.saturating_sub(since))))
        };
        scene.warned_seconds = at.hit.as_ref().and_then(warned);
        match self.host.story() {
            Ok(host) => scene.host = Some(host),
            Err(error) => scene.missing.push(scene::lack("memory.host", &error.to_string())),
        }
        scene
    }

    /// Of the cgroup whose limit was hit, else the victim's own, else the host.
    fn history(&self, at: &LookAt) -> Option<History> {
        let now = at.at_ns;
        if let Some(hit) = &at.hit {
            // However short it lived, the kernel said how it ended.
            let mut history = self.book.history(&hit.cgroup, now).unwrap_or_default();
            history.cgroup = hit.cgroup.to_string();
            history.limit_bytes = hit.limit_bytes.or(history.limit_bytes);
            let last = hit.usage_bytes.map(|bytes| UsageAt { ago_seconds: 0.0, bytes });
            history.usage.retain(|at| at.ago_seconds > 0.0 || last.is_none());
            history.usage.extend(last);
            return Some(history).filter(|history| !history.usage.is_empty());
        }
        if let Some(own) = at.own.as_deref().and_then(|own| self.book.history(own, now)) {
            return Some(own);
        }
        let usage = self.host_ring.history(now);
        let trend = self.host_ring.trend(now);
        (at.kill && !usage.is_empty()).then(|| History {
            cgroup: "/".to_owned(),
            limit_bytes: self.host_memory.map(|host| host.total_bytes),
            usage,
            growth_bytes_per_minute: trend.map(|line| (line.slope * 60.0).round()),
            fit: trend.map(|line| thousandths(line.fit)),
            ..History::default()
        })
    }

    fn list(&self) -> Cgroups {
        let names = self.book.names();
        let none = Default::default();
        let row = |followed: &Followed| {
            let trend = followed.trend();
            CgroupUse {
                cgroup: followed.path.to_string(),
                workload: names.now(&followed.path, followed.id, &none).0,
                usage_bytes: followed.last.usage,
                unreclaimable_bytes: followed.last.firm,
                working_set_bytes: followed.last.working_set,
                limit_bytes: followed.limit.as_ref().map(|limit| limit.bytes),
                limit_cgroup: followed.limit.as_ref().map(|limit| limit.cgroup.to_string()),
                share: followed.place().map(|place| thousandths(place.share)),
                peak_bytes: followed.last.beside.peak.map(|peak| peak.max(followed.last.usage)),
                at_limit: followed.last.beside.at_limit,
                pressure: followed.last.beside.pressure,
                near: followed.near.is_near(),
                growth_bytes_per_minute: trend.map(|trend| (trend.slope * 60.0).round()),
                seconds_left: trend.and_then(|trend| trend.seconds_left).map(f64::round),
            }
        };
        // One that was not looked at yet has nothing to show.
        let rows = self.book.all().filter(|followed| followed.last.at_ns > 0).map(row);
        let counts = self.book.counts();
        Cgroups {
            cgroups: rows.collect(),
            host: self.host_memory,
            followed: counts.followed as u64,
            refused: counts.refused,
        }
    }

    fn upkeep(&mut self, now: u64) {
        if now >= self.host_due_ns {
            // With cgroups that are quiet.
            self.host_due_ns = (now - now % SECOND).saturating_add(HOST);
            if let Ok(memory) = self.host.story() {
                let used = memory.total_bytes.saturating_sub(memory.available_bytes);
                self.host_ring.usage(now, used);
                self.host_memory = Some(memory);
            }
        }
        if now >= self.counters_due_ns {
            self.counters_due_ns = now.saturating_add(COUNTERS);
            self.parts.metrics.set_watch(self.book.counts());
        }
    }

    fn wait_ns(&mut self, now: u64) -> u64 {
        let due = self.book.next_due().unwrap_or(u64::MAX);
        // The counters are shown when something happens anyway: nothing wakes for them alone.
        due.min(self.host_due_ns).saturating_sub(now).min(HOST)
    }
}

fn not_followed() -> crate::death::Missing {
    scene::lack(
        "memory.history",
        "its cgroup was not followed: it had neither a name nor a limit, or there was no room (watch.max)",
    )
}

fn thousandths(share: f64) -> f64 {
    (share * 1000.0).round() / 1000.0
}
