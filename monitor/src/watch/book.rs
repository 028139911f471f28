//! The cgroups that are followed, and which is to be looked at next.
//!
//! When there is no room, one that is gone gives way, or to one that has a name one that nothing names and that has no limit; else the newcomer is refused, and counted.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use super::config::WatchConfig;
use super::files::{Beside, Files};
use super::followed::{Followed, Hot, Limit, is_due, on_the_tick};
use super::near::Change;
use super::ring::MadeOf;
use crate::cgroup::mounts::Hierarchy;
use crate::death::{History, Workload};
use crate::naming::Names;

/// How long the history of a cgroup that is gone stays: a death may still be on its way. ns.
const KEEP_GONE: u64 = 5_000_000_000;
/// Cgroups below one that is near its limit that are looked at before that is told.
const MAX_BELOW: usize = 64;
/// How long the limits above a cgroup are believed, ns.
const ABOVE: u64 = 5_000_000_000;
/// What stands beside the kinds is read this often, ns.
const BESIDE: u64 = 5_000_000_000;
/// When there are no more file descriptors, it is tried again after this long, ns.
const RETRY: u64 = 10_000_000_000;

/// Counts of the watch since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Cgroups that are followed.
    pub followed: usize,
    /// Looks at the usage of one.
    pub samples: u64,
    /// Cgroups that found no room.
    pub refused: u64,
    /// Looks that failed for want of file descriptors.
    pub starved: u64,
}

/// Limits above a cgroup, by the path of its parent.
#[derive(Debug, Default)]
struct Above {
    known: HashMap<Box<str>, Option<Limit>>,
    since_ns: u64,
}

/// All cgroups that are followed.
pub(super) struct Book {
    config: WatchConfig,
    pub(super) files: Files,
    names: Arc<Names>,
    cgroups: HashMap<u64, Box<Followed>>,
    by_path: HashMap<Arc<str>, u64>,
    due: BinaryHeap<Reverse<(u64, u64)>>,
    above: Above,
    epoll: OwnedFd,
    counts: Counts,
}

/// Why a cgroup cannot be looked at.
enum Blind {
    Gone,
    Starved,
}

impl From<io::Error> for Blind {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => Self::Starved,
            _ => Self::Gone,
        }
    }
}

impl Book {
    /// `epoll`: where files that tell of a change are registered, by the id of their cgroup.
    pub(super) fn new(
        config: WatchConfig,
        hierarchy: &Hierarchy,
        names: Arc<Names>,
        epoll: OwnedFd,
    ) -> io::Result<Self> {
        Ok(Self {
            config,
            files: Files::open(hierarchy)?,
            names,
            cgroups: HashMap::new(),
            by_path: HashMap::new(),
            due: BinaryHeap::new(),
            above: Above::default(),
            epoll,
            counts: Counts::default(),
        })
    }

    pub(super) fn counts(&self) -> Counts {
        Counts { followed: self.cgroups.len(), ..self.counts }
    }

    pub(super) fn get(&self, id: u64) -> Option<&Followed> {
        self.cgroups.get(&id).map(|followed| &**followed)
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Followed> {
        self.cgroups.get_mut(&id).map(|followed| &mut **followed)
    }

    pub(super) fn at(&self, path: &str) -> Option<&Followed> {
        self.by_path.get(path).and_then(|id| self.get(*id))
    }

    /// Those that there is reason to look at.
    pub(super) fn all(&self) -> impl Iterator<Item = &Followed> {
        let all = self.cgroups.values().map(|followed| &**followed);
        all.filter(|followed| followed.counts() && followed.gone_ns.is_none())
    }

    /// A cgroup is there. `made`: it was just made.
    pub(super) fn follow(
        &mut self,
        id: u64,
        path: &Arc<str>,
        named: bool,
        now_ns: u64,
        made: bool,
    ) {
        // The root has neither a limit nor a usage of its own.
        if &**path == "/" {
            return;
        }
        if let Some(known) = self.cgroups.get_mut(&id).filter(|known| known.gone_ns.is_none()) {
            known.named |= named;
            if known.path != *path {
                self.by_path.remove(&known.path);
                known.path = Arc::clone(path);
                // Files that are open stay those of the same cgroup; what is opened next goes by the new path.
                self.by_path.insert(Arc::clone(path), id);
            }
            return;
        }
        self.remove(id);
        if self.cgroups.len() >= self.config.max.get() && !self.make_room(named) {
            self.counts.refused += 1;
            return;
        }
        let bounds = self.config.bounds(None);
        let mut followed = Followed::new(id, Arc::clone(path), named, now_ns, made, bounds);
        if !made {
            // Those that were there before are not all looked at in the same moment.
            let interval = self.interval_ns();
            followed.due_ns = now_ns.saturating_add(id.wrapping_mul(0x9e37_79b9) % interval);
        }
        self.due.push(Reverse((followed.due_ns, id)));
        self.by_path.insert(Arc::clone(path), id);
        self.cgroups.insert(id, Box::new(followed));
    }

    /// A cgroup is gone; its history stays for a while. Who it was shown as, if it was near.
    pub(super) fn let_go(&mut self, id: u64, now_ns: u64) -> Option<Box<Workload>> {
        let followed = self.cgroups.get_mut(&id)?;
        followed.gone_ns.get_or_insert(now_ns);
        (followed.usage, followed.hot) = (None, None);
        followed.shown.take()
    }

    /// When the next one is due, ns since boot.
    pub(super) fn next_due(&mut self) -> Option<u64> {
        while let Some(Reverse((due, id))) = self.due.peek().copied() {
            // One that was looked at in between has another time.
            if self.cgroups.get(&id).is_some_and(|followed| followed.due_ns == due) {
                return Some(due);
            }
            self.due.pop();
        }
        None
    }

    /// The next one that is due by now.
    pub(super) fn pop_due(&mut self, now_ns: u64) -> Option<u64> {
        let due = self.next_due().filter(|due| *due <= now_ns)?;
        self.due.pop().map(|Reverse((at, id))| {
            debug_assert_eq!(at, due);
            id
        })
    }

    /// Looks at one; says if it came near its limit or left it.
    pub(super) fn look(&mut self, id: u64, now_ns: u64) -> Option<Change> {
        let interval = self.interval_ns();
        let followed = self.cgroups.get_mut(&id)?;
        if let Some(gone) = followed.gone_ns {
            if is_due(now_ns.saturating_sub(gone), KEEP_GONE) {
                self.remove(id);
            } else {
                self.schedule(id, now_ns, gone.saturating_add(KEEP_GONE));
            }
            return None;
        }
        let looked = self.read(id, now_ns);
        let change = match looked {
            Ok(change) => change,
            Err(Blind::Starved) => {
                self.counts.starved += 1;
                self.schedule(id, now_ns, now_ns.saturating_add(RETRY));
                return None;
            }
            Err(Blind::Gone) => {
                let change = self.get(id)?.near.is_near().then_some(Change::Left);
                let followed = self.cgroups.get_mut(&id)?;
                followed.gone_ns = Some(now_ns);
                (followed.usage, followed.hot) = (None, None);
                self.schedule(id, now_ns, now_ns.saturating_add(KEEP_GONE));
                return change;
            }
        };
        let next = self.get(id)?.next_ns(now_ns, interval);
        self.schedule(id, now_ns, next);
        change
    }

    /// A file of it told that something happened at its limit.
    pub(super) fn stirred(&mut self, id: u64, now_ns: u64) -> Option<Change> {
        let followed = self.cgroups.get_mut(&id)?;
        if let Some(events) = followed.hot.as_ref().and_then(|hot| hot.events.as_ref()) {
            self.files.acknowledge(events);
        }
        self.look(id, now_ns)
    }

    /// The last minutes of a cgroup.
    pub(super) fn history(&self, path: &str, now_ns: u64) -> Option<History> {
        let followed = self.at(path)?;
        let usage = followed.ring.history(now_ns);
        let trend = followed.ring.trend(now_ns);
        (!usage.is_empty()).then(|| History {
            cgroup: path.to_owned(),
            limit_bytes: followed.limit.as_ref().map(|limit| limit.bytes),
            usage,
            kinds: followed.ring.composition(now_ns),
            growth_bytes_per_minute: trend.map(|line| (line.slope * 60.0).round()),
            fit: trend.map(|line| (line.fit * 1000.0).round() / 1000.0),
            age_seconds: followed
                .made
                .then(|| super::tenths(now_ns.saturating_sub(followed.since_ns))),
        })
    }

    /// Of those below a cgroup whose last look is older than `since_ns` the largest, and those that were not looked at yet.
    pub(super) fn older_below(&self, id: u64, since_ns: u64) -> Vec<u64> {
        let older = self.below(id).filter(|followed| followed.last.at_ns < since_ns);
        let size = |followed: &Followed| match followed.last.at_ns {
            0 => u64::MAX,
            _ => followed.last.usage,
        };
        let mut older: Vec<_> =
            older.map(|followed| (Reverse(size(followed)), followed.id)).collect();
        older.sort_unstable();
        older.into_iter().take(MAX_BELOW).map(|(_, id)| id).collect()
    }

    /// Whether a cgroup is near its limit because of one below it, which is told by itself and says more: a pod of one container has the same limit twice.
    pub(super) fn is_of_one_below(&self, id: u64) -> bool {
        let Some(above) = self.get(id) else { return false };
        let (Some(firm), Some(place)) = (above.last.firm, above.place()) else { return false };
        self.below(id).any(|followed| {
            let holds = followed.last.firm.is_some_and(|own| own >= firm / 5 * 4);
            holds && followed.place().is_some_and(|own| own.share >= place.share * 0.9)
        })
    }

    fn below(&self, id: u64) -> impl Iterator<Item = &Followed> {
        let path = self.get(id).map(|followed| Arc::clone(&followed.path));
        self.all().filter(move |followed| {
            let rest = path.as_ref().and_then(|path| followed.path.strip_prefix(&**path));
            rest.is_some_and(|rest| rest.starts_with('/'))
        })
    }

    /// The workload of a cgroup, as far as it is known now.
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    fn read(&mut self, id: u64, now_ns: u64) -> Result<Option<Change>, Blind> {
        let followed = self.cgroups.get(&id).ok_or(Blind::Gone)?;
        if followed.limit_is_old(now_ns) {
            self.read_limit(id, now_ns);
        }
        let followed = self.cgroups.get_mut(&id).ok_or(Blind::Gone)?;
        if !followed.counts() {
            return Ok(None);
        }
        let usage = match &followed.usage {
            Some(file) => self.files.number(file)?,
            None => {
                let file = self.files.usage_file(&followed.path)?;
                let usage = self.files.number(&file)?;
                followed.usage = Some(file);
                usage
            }
        };
        self.counts.samples += 1;
        followed.used(now_ns, usage);
        if !followed.wants_kinds(now_ns) {
            return Ok(None);
        }
        self.read_kinds(id, now_ns, usage)?;
        let followed = self.cgroups.get_mut(&id).ok_or(Blind::Gone)?;
        let Some(place) = followed.place() else { return Ok(followed.near.unlimited()) };
        // A limit may have been raised since it was read.
        if followed.near.comes(place, followed.bounds) {
            self.above.known.clear();
            self.read_limit(id, now_ns);
        }
        let followed = self.cgroups.get_mut(&id).ok_or(Blind::Gone)?;
        let Some(place) = followed.place() else { return Ok(followed.near.unlimited()) };
        Ok(followed.near.step(place, followed.bounds, now_ns))
    }

    fn read_kinds(&mut self, id: u64, now_ns: u64, usage: u64) -> Result<(), Blind> {
        let followed = self.cgroups.get_mut(&id).ok_or(Blind::Gone)?;
        if !followed.is_hot() {
            followed.hot = None;
        } else if followed.hot.is_none() {
            let stat = self.files.stat_file(&followed.path)?;
            let events = self.files.notifies.then(|| self.files.events_file(&followed.path));
            let events = events.and_then(Result::ok);
            if let Some(events) = &events {
                self.files.acknowledge(events);
                let data = epoll::EventData::new_u64(id);
                // Without it the next look is as good, only later.
                let _ = epoll::add(
                    &self.epoll,
                    events.as_fd(),
                    data,
                    epoll::EventFlags::PRI | epoll::EventFlags::ET,
                );
            }
            followed.hot = Some(Hot { stat, events });
        }
        let kinds = match &followed.hot {
            Some(hot) => self.files.kinds(&hot.stat)?,
            None => {
                let stat = self.files.stat_file(&followed.path)?;
                self.files.kinds(&stat)?
            }
        };
        if followed.last.beside_ns == 0
            || is_due(now_ns.saturating_sub(followed.last.beside_ns), BESIDE)
        {
            followed.last.beside = self.files.beside(&followed.path);
            followed.last.beside_ns = now_ns;
        }
        let Beside { swap, kernel, .. } = followed.last.beside;
        followed.last.working_set = kinds.working_set(usage);
        followed.firm(now_ns, kinds.unreclaimable(usage).unwrap_or(usage));
        let of = MadeOf {
            anon: kinds.anon.unwrap_or(0),
            file: kinds.file().unwrap_or(0),
            shmem: kinds.shmem.unwrap_or(0),
            kernel: kinds.all_kernel().or(kernel).unwrap_or(0),
            swap: kinds.swap.or(swap).unwrap_or(0),
        };
        followed.ring.kinds(now_ns, of);
        Ok(())
    }

    fn read_limit(&mut self, id: u64, now_ns: u64) {
        let Some(path) = self.get(id).map(|followed| Arc::clone(&followed.path)) else { return };
        let own = self.files.own_limit(&path).flatten();
        let counts = self.get(id).is_some_and(|f| f.named) || own.is_some();
        let above = if counts { self.limit_above(&path, now_ns) } else { None };
        // By namespace and unit only where a rule asks.
        let bounds = (counts && !self.config.near_limit.is_empty()).then(|| {
            let (workload, _) = self.names.now(&path, id, &Default::default());
            self.config.bounds(Some(&workload))
        });
        let Some(followed) = self.get_mut(id) else { return };
        followed.own_limit = own.is_some();
        let own = own.map(|bytes| Limit { bytes, cgroup: path });
        // Of two that are the same, the nearer one.
        followed.limit = match (own, above) {
            (Some(own), Some(above)) if above.bytes < own.bytes => Some(above),
            (own, above) => own.or(above),
        };
        followed.limit_ns = Some(now_ns);
        if let Some(bounds) = bounds {
            followed.bounds = bounds;
        }
    }

    fn limit_above(&mut self, path: &str, now_ns: u64) -> Option<Limit> {
        let (parent, _) = path.rsplit_once('/')?;
        if is_due(now_ns.saturating_sub(self.above.since_ns), ABOVE) {
            self.above.known.clear();
            self.above.since_ns = now_ns;
        }
        if let Some(known) = self.above.known.get(parent) {
            return known.clone();
        }
        let found = self.files.limit_above(path);
        let limit = found.map(|(bytes, cgroup)| Limit { bytes, cgroup: cgroup.into() });
        self.above.known.insert(parent.into(), limit.clone());
        limit
    }

    fn schedule(&mut self, id: u64, now_ns: u64, at_ns: u64) {
        let at_ns = on_the_tick(now_ns, at_ns);
        if let Some(followed) = self.cgroups.get_mut(&id) {
            followed.due_ns = at_ns;
            self.due.push(Reverse((at_ns, id)));
        }
    }

    /// Lets one go that nobody would miss: one that is gone, or for one with a name one that has neither name nor limit. False if there is none.
    fn make_room(&mut self, named: bool) -> bool {
        let spare =
            |followed: &Followed| followed.gone_ns.is_some() || (named && !followed.counts());
        let found = self.cgroups.iter().find(|(_, followed)| spare(followed)).map(|(id, _)| *id);
        match found {
            Some(id) => {
                self.remove(id);
                true
            }
            None => false,
        }
    }

    fn remove(&mut self, id: u64) {
        if let Some(old) = self.cgroups.remove(&id)
            && self.by_path.get(&old.path) == Some(&id)
        {
            self.by_path.remove(&old.path);
        }
    }

    fn interval_ns(&self) -> u64 {
        u64::try_from(self.config.interval.get().as_nanos()).unwrap_or(u64::MAX).max(1)
    }
}
