//! The one task through which each record passes: join, verdict, naming, ledger, in this order. It never waits for a disk or the network: besides the ledger's, its
//! only I/O are a few small reads of kernel memory (`/proc` of a victim that seems stuck, marks of a userspace OOM killer).
//!
//! It owns the index of cgroups, so that a death and the making of its cgroup are seen in the order in which the kernel told of them.

use std::{
    num::NonZeroUsize,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle},
    time::MissedTickBehavior,
};

use tracing_appender::non_blocking::ErrorCounter;

use crate::{
    advice::{self, Earlier},
    alert::AlertKind,
    audit::Auditor,
    cgroup::{
        CgroupId,
        index::Index,
        mounts::Hierarchy,
        scan::{Found, Outcome, Walk},
    },
    clock::Clock,
    death::{Death, State, Workload},
    host,
    join::{Join, ProcessId},
    kmsg::story::Event,
    ledger::{Item, Ledger},
    metrics::Metrics,
    naming::{Naming, Seen},
    ops::Ops,
    poison::Poison,
    probe::{
        Loss, News, Record,
        pins::dir,
        stats::Lost,
        tally::{KEY, Note, Tally},
    },
    queue,
    record::Recorder,
    verdict::kin::Kin,
    watch::{Hit, LookAt, Scenes, Told, Watch},
    watchdog::Pulse,
};

mod memory;
mod upkeep;

use upkeep::Losses;

/// How often ends that wait for their mark are looked at. Their wait ends with the mark, nearly always at once.
const HELD_TICK: Duration = Duration::from_millis(5);
/// How often counters are taken over and old things let go.
const UPKEEP: Duration = Duration::from_secs(1);
/// How often the kernel is asked which programs it skipped: a file for each.
const SKIPS: Duration = Duration::from_secs(10);
/// At least this long between two walks over the cgroups.
const RESCAN: Duration = Duration::from_secs(10);

/// What the pipeline is made of.
pub struct Pipeline {
    /// Records from the reader.
    pub records: queue::Receiver<Record>,
    /// What the queue of the daemon's own log dropped.
    pub log_lost: ErrorCounter,
    /// What the kernel side could not put on the ring.
    pub lost: Option<Lost>,
    /// Makes records.
    pub recorder: Recorder,
    /// Which path an id stands for.
    pub index: Index,
    /// The hierarchy that deaths are named by.
    pub hierarchy: Hierarchy,
    /// Whether the records tell which cgroups are made and removed. If not, walks do.
    pub hears_of_cgroups: bool,
    /// Cgroups that a walk may find.
    pub max_cgroups: NonZeroUsize,
    /// Gives deaths their names.
    pub naming: Naming,
    /// Watches for jobs that are killed again and again.
    pub poison: Poison,
    /// Earlier deaths at limits.
    pub earlier: Earlier,
    /// How long a death waits for what was seen of its memory.
    pub deadline: Duration,
    /// Where deaths go.
    pub ledger: Arc<Ledger>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Tells what goes wrong.
    pub ops: Arc<Ops>,
    /// Holds the count of OOM kills to the kernel's.
    pub audit: Auditor,
    /// Follows the memory of cgroups, and what it tells; `None` if that is switched off.
    pub watch: Option<(Watch, mpsc::Receiver<Told>)>,
    /// Beats as long as it moves.
    pub pulse: Pulse,
    /// The clock.
    pub clock: Clock,
}

/// The state of a running pipeline.
struct Running {
    parts: Pipeline,
    join: Join,
    kin: Kin,
    tally: Tally,
    /// Deaths that wait for what was seen of their cgroup.
    scenes: Scenes,
    /// Ends that wait for names.
    unnamed_ends: u64,
    noted: Option<Note>,
    /// Losses that were told already.
    lost: Losses,
    /// When the kernel is asked next which programs it skipped.
    skips_due: Instant,
    walk: Option<JoinHandle<Walked>>,
    last_walk: Instant,
    /// Something was lost since the last walk began; it may have been the making of a cgroup.
    must_walk: bool,
}

/// What a walk over the cgroups brings home.
type Walked = std::io::Result<(Vec<Found>, Outcome)>;

impl Pipeline {
    /// Runs until the reader is gone and all that it sent has passed. `ready` is called once the cgroups that were there before are known.
    pub async fn run(self, ready: impl FnOnce()) {
        let scenes = Scenes::new(self.deadline);
        let mut running = Running {
            parts: self,
            join: Join::default(),
            kin: Kin::default(),
            tally: Tally::default(),
            scenes,
            unnamed_ends: 0,
            noted: None,
            lost: Losses::default(),
            skips_due: Instant::now(),
            walk: None,
            last_walk: Instant::now(),
            must_walk: false,
        };
        running.start_walk();
        let walked = ended(&mut running.walk).await;
        running.learn(walked);
        ready();
        running.work().await;
    }
}

impl Running {
    async fn work(&mut self) {
        let first = Instant::now() + self.parts.clock.until_next(UPKEEP);
        let mut upkeep = tokio::time::interval_at(first.into(), UPKEEP);
        // Skipped, or one that is late once would be at another time than all else from then on.
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let waiting = self.join.is_waiting()
                || self.parts.naming.is_waiting()
                || self.scenes.is_waiting();
            tokio::select! {
                biased;
                // First, or a flood of records would hide that some of it was dropped.
                _ = upkeep.tick() => {
                    self.upkeep();
                    self.tell_stuck();
                }
                walked = ended(&mut self.walk) => self.learn(walked),
                () = self.parts.audit.turn() => {}
                told = memory::told(&mut self.parts.watch) => self.hear_of_memory(told),
                record = self.parts.records.recv() => match record {
                    Some(record) => self.take(record),
                    None => break,
                },
                () = self.parts.naming.changed(), if waiting => {}
                () = tokio::time::sleep(HELD_TICK), if waiting => {}
            }
            self.pass_on(self.parts.clock.boot_ns());
        }
        // Nothing comes any more, so nothing is worth waiting for but what was told already.
        while let Some(told) = self.parts.watch.as_mut().and_then(|(_, told)| told.try_recv().ok())
        {
            self.hear_of_memory(told);
        }
        self.pass_on(u64::MAX);
        self.skips_due = Instant::now();
        self.upkeep();
        self.parts.audit.finish().await;
    }

    fn take(&mut self, record: Record) {
        match record {
            Record::Mark(mark) => {
                self.parts.audit.killed(mark.victim.cgroup_memory, &self.parts.index);
                self.look(self.parts.recorder.scene(&mark, &self.parts.index));
                self.join.mark(mark);
            }
            Record::Words(words) => self.join.words(words),
            Record::Exit(exit) => {
                self.tally.read();
                self.join.exit(exit, self.parts.clock.boot_ns());
            }
            Record::Ring(news) => self.hear(news),
            Record::CountedAgain(again) => {
                self.parts.audit.killed(again.victim.cgroup_memory, &self.parts.index);
            }
            Record::Logged(event) => self.take_logged(&event),
            Record::CgroupMade { id, path, truncated } => {
                self.parts.index.made(id, &path, truncated);
                self.follow(id, true);
                self.see(id);
            }
            Record::CgroupRenamed { id, path, truncated } => {
                self.let_go(id);
                self.parts.index.renamed(id, &path, truncated);
                self.follow(id, true);
                self.see(id);
            }
            Record::CgroupGone { id, ktime_ns } => {
                self.let_go(id);
                self.parts.audit.gone(id, &self.parts.index);
                self.parts.index.gone(id, ktime_ns);
                self.unfollow(id);
            }
        }
    }

    /// Keeps the count of what was on the ring and was dealt with.
    fn hear(&mut self, news: News) {
        match news {
            News::Begins { set, base, done_with } => {
                self.tally.begin(set, base);
                self.note();
                for set in done_with {
                    if let Err(error) = dir::remove(&set) {
                        tracing::warn!(set = %set.display(), %error, "what is pinned cannot be removed");
                    }
                }
            }
            News::Lost(why, deaths) => {
                self.parts.ops.deaths_lost(why, deaths);
                if why == Loss::Killed {
                    self.tally.told(deaths);
                }
                self.note();
            }
            News::Repeated => self.tally.read(),
        }
    }

    /// How many of the ring's ends are dealt with, if that has changed.
    fn news(&mut self) -> Option<Note> {
        let note = self.tally.note(self.join.held() as u64 + self.unnamed_ends);
        let note = note.filter(|note| self.noted != Some(*note))?;
        self.noted = Some(note);
        Some(note)
    }

    /// Notes it for the next daemon.
    fn note(&mut self) {
        if let Some(note) = self.news()
            && let Err(error) = self.parts.ledger.note(KEY, note.to_bytes().to_vec())
        {
            self.parts.ops.not_noted(&error);
        }
    }

    fn take_logged(&mut self, event: &Event) {
        let (Event::Kill(kill) | Event::CountedAgain(kill)) = event;
        let id = kill.cgroup.as_ref().and_then(|cgroup| cgroup.id);
        // It may have been made since the last walk.
        if let (Some(id), Some(cgroup)) = (id, &kill.cgroup) {
            let id = CgroupId { hierarchy: self.parts.hierarchy.id, id };
            self.parts.index.made(id, &cgroup.path, false);
            self.see(id);
        }
        self.parts.audit.killed(id.unwrap_or(0), &self.parts.index);
        if let Event::Kill(kill) = event {
            let death = self.parts.recorder.record_logged(kill);
            let own = death.workload.cgroup.as_deref().map(Arc::from);
            let hit = death.memory.limit_cgroup.as_deref().map(|path| Hit {
                cgroup: path.into(),
                usage_bytes: death.memory.usage_bytes,
                limit_bytes: death.memory.limit_bytes,
            });
            let victim = ProcessId { tgid: death.victim.tgid, start_ns: 0 };
            self.look(LookAt { victim, at_ns: death.ktime_ns, hit, own, kill: true });
            self.parts.naming.death(death, self.parts.clock.boot_ns());
        }
    }

    /// Has a container named as it appears, so that its names are there before a death needs them; then its series are made.
    fn see(&mut self, id: CgroupId) {
        if let Some(workload) = self.workload(id).filter(|seen| seen.container_id.is_some()) {
            self.parts.naming.seen(workload, self.parts.clock.boot_ns());
        }
    }

    /// Lets the series of a container go, in their time.
    fn let_go(&mut self, id: CgroupId) {
        if let Some(workload) = self.workload(id).filter(|gone| !self.is_part(gone)) {
            self.parts.naming.gone(&workload, self.parts.clock.boot_ns());
            if workload.container_id.is_some() {
                self.parts.metrics.container_gone(&workload, Instant::now());
            }
        }
    }

    /// The workload of a cgroup that names a container or a pod, in the hierarchy that deaths are named by.
    fn workload(&self, id: CgroupId) -> Option<Workload> {
        let path = self.parts.index.path(id).filter(|_| id.hierarchy == self.parts.hierarchy.id)?;
        let workload = self.parts.naming.workload(Some(&path), Some(id.id));
        (workload.container_id.is_some() || workload.pod_uid.is_some()).then_some(workload)
    }

    /// Whether a cgroup is only a part of one above it that goes by the same names.
    fn is_part(&self, workload: &Workload) -> bool {
        let above = workload.cgroup.as_deref().and_then(|path| path.rsplit_once('/'));
        above.is_some_and(|(parent, _)| {
            is_part(workload, &self.parts.naming.workload(Some(parent), None))
        })
    }

    fn pass_on(&mut self, now_ns: u64) {
        while let Some(ended) = self.join.next(now_ns) {
            let death = self.parts.recorder.record(&ended, &self.parts.index, &mut self.kin);
            self.look_back(&death, &ended);
            self.unnamed_ends += 1;
            self.parts.naming.death(death, self.parts.clock.boot_ns());
        }
        while let Some(Seen { workload, gone }) = self.parts.naming.next_seen(now_ns) {
            self.parts.metrics.container_seen(&workload, Instant::now());
            if gone {
                self.parts.metrics.container_gone(&workload, Instant::now());
            }
        }
        while let Some(death) = self.parts.naming.next_death(now_ns) {
            self.scenes.death(death, now_ns);
        }
        while let Some(death) = self.scenes.next(now_ns) {
            self.keep(death);
        }
        // Of some ends no death comes.
        self.note();
    }

    /// Tells of victims that are stuck in the kernel.
    fn tell_stuck(&mut self) {
        let now_ns = self.parts.clock.boot_ns();
        let runs = |id: ProcessId| host::process_runs(Path::new("/proc"), id.tgid, id.start_ns);
        while let Some(stuck) = self.join.stuck(now_ns, runs) {
            let recorder = &self.parts.recorder;
            let death = recorder.record_stuck(&stuck, &self.parts.index, &self.kin, now_ns);
            self.parts.naming.death(death, now_ns);
        }
    }

    fn keep(&mut self, mut death: Death) {
        advice::advise(&mut death, &self.parts.earlier);
        self.parts.earlier.remember(&death);
        let alert = self.parts.poison.died(&death);
        if death.state == State::Dead {
            self.unnamed_ends = self.unnamed_ends.saturating_sub(1);
        }
        // In one go, so that a crash leaves both or none.
        let appended = match self.news() {
            Some(note) => self.parts.ledger.append_noting(death, KEY, note.to_bytes().to_vec()),
            None => self.parts.ledger.append(death),
        };
        match appended {
            Ok(entry) => {
                if let Some(death) = entry.death() {
                    self.parts.metrics.observe(death, Instant::now());
                }
            }
            Err(error) => self.parts.ops.not_recorded(&error),
        }
        if let Some(alert) = alert {
            if let AlertKind::PoisonJob(poison) = &alert.kind {
                self.parts.ops.poison_job(poison);
            }
            if let Err(error) = self.parts.ledger.append(Item::Alert(Arc::new(alert))) {
                self.parts.ops.not_recorded(&error);
            }
        }
    }

    fn start_walk(&mut self) {
        let (root, max) = (self.parts.hierarchy.root.clone(), self.parts.max_cgroups);
        self.parts.index.begin_scan();
        self.last_walk = Instant::now();
        self.must_walk = false;
        self.walk = Some(tokio::task::spawn_blocking(move || {
            let mut walk = Walk::new(&root, max)?;
            let found = walk.by_ref().collect();
            Ok((found, walk.outcome()))
        }));
    }

    fn learn(&mut self, walked: Result<Walked, JoinError>) {
        let hierarchy = self.parts.hierarchy.id;
        match walked {
            Ok(Ok((found, outcome))) => {
                for Found { id, path } in found {
                    let id = CgroupId { hierarchy, id };
                    self.parts.index.scanned(id, &path);
                    self.follow(id, false);
                    self.see(id);
                }
                if outcome.complete() {
                    for lost in self.parts.index.sweep(hierarchy, self.parts.clock.boot_ns()) {
                        self.let_go(lost);
                        self.unfollow(lost);
                        self.parts.audit.gone(lost, &self.parts.index);
                    }
                }
                tracing::debug!(?outcome, "walked over the cgroups");
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "the cgroups cannot be read: paths will be missing")
            }
            Err(error) => {
                tracing::error!(%error, "the walk over the cgroups ended early: paths will be missing")
            }
        }
    }
}

/// Whether a cgroup is only a part of the one `above` it: a container outlives the cgroups that it makes inside.
fn is_part(workload: &Workload, above: &Workload) -> bool {
    above.container_id == workload.container_id && above.unit == workload.unit
}

/// The outcome of the walk, once it has ended; never, if there is none.
async fn ended(walk: &mut Option<JoinHandle<Walked>>) -> Result<Walked, JoinError> {
    match walk {
        Some(running) => {
            let walked = running.await;
            *walk = None;
            walked
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribute;

    #[test]
    fn a_container_is_not_gone_with_a_cgroup_inside_it() {
        let container = format!("/docker/{}", "a".repeat(64));
        for (path, part) in [
            (container.clone(), false),
            (format!("{container}/worker"), true),
            (format!("{container}/worker/inner"), true),
            // A unit has a series of its own.
            (format!("{container}/system.slice/web.service"), false),
        ] {
            let workload = attribute::workload(Some(&path), None);
            assert!(workload.container_id.is_some());
            let above = attribute::workload(path.rsplit_once('/').map(|(above, _)| above), None);
            assert_eq!(is_part(&workload, &above), part, "{path}");
        }
    }
}
