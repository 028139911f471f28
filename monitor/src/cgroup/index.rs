//! Which path a cgroup id stands for, kept current by kernel events and by scans. No I/O and no clock.
//!
//! What must hold:
//! * The path of a removed cgroup stays for a grace period, since the death that emptied it may still be on its way.
//! * An id is an inode number and may be given again: the newer path wins.
//! * Events and a scan may be applied in any order. An event that came in after [`Index::begin_scan`] is newer than
//!   the scan; one before it is older. So a removal is remembered also for an id that nobody has named yet.
//! * Memory is bounded by [`Limits`]: about 200 bytes for each of `live + gone` entries, and `bytes` of text.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;

use super::CgroupId;
use crate::text;

/// What an [`Index`] may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Cgroups that exist. When full: [`Full::RefuseNew`].
    pub live: NonZeroUsize,
    /// Cgroups that are gone. When full: [`Full::ForgetOldestGone`].
    pub gone: NonZeroUsize,
    /// Bytes of path text of both. When full: [`Full::ForgetOldestGone`], then [`Full::RefuseNew`].
    pub bytes: NonZeroUsize,
    /// How long a gone one is kept, in ns.
    pub grace_ns: u64,
}

impl Default for Limits {
    /// Room for a node of some thousand containers: 32768 live, 8192 gone, 16 MiB of text, one minute.
    fn default() -> Self {
        const fn size(n: usize) -> NonZeroUsize {
            match NonZeroUsize::new(n) {
                Some(n) => n,
                None => NonZeroUsize::MIN,
            }
        }
        Self {
            live: size(32_768),
            gone: size(8192),
            bytes: size(16 << 20),
            grace_ns: 60_000_000_000,
        }
    }
}

/// What gives way when a limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The cgroup that has been gone for longest is forgotten before its time.
    ForgetOldestGone,
    /// The new path is not taken in: whoever floods the table must not push out those that were there before.
    RefuseNew,
}

#[derive(Debug)]
struct Entry {
    /// `None`: only its removal was seen.
    path: Option<Arc<str>>,
    /// The kernel gave the beginning of the path only.
    cut: bool,
    gone: Option<Gone>,
    /// The scan that was the latest when this was last heard of.
    scan: u64,
}

#[derive(Debug, Clone, Copy)]
struct Gone {
    /// Key in `Index::gone`.
    turn: u64,
    since_ns: u64,
}

/// Cgroup id → path.
#[derive(Debug)]
pub struct Index {
    limits: Limits,
    entries: HashMap<CgroupId, Entry>,
    /// Those that are gone, the oldest first.
    gone: BTreeMap<u64, CgroupId>,
    turns: u64,
    bytes: usize,
    scans: u64,
    forgotten: u64,
    refused: u64,
}

impl Index {
    /// An empty index.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: HashMap::new(),
            gone: BTreeMap::new(),
            turns: 0,
            bytes: 0,
            scans: 0,
            forgotten: 0,
            refused: 0,
        }
    }

    /// A cgroup was made. `truncated` says that `path` is only the beginning: the kernel's tracepoints give 1023 bytes.
    pub fn made(&mut self, cgroup: CgroupId, path: &[u8], truncated: bool) {
        self.put(cgroup, &text::from_c(path), truncated);
    }

    /// A cgroup was renamed (v1 only): so were those below it. O(n).
    pub fn renamed(&mut self, cgroup: CgroupId, path: &[u8], truncated: bool) {
        let live = self.entries.get(&cgroup).filter(|entry| entry.gone.is_none());
        // Of a cut path it is not known what lies below it.
        let old = live.filter(|entry| !entry.cut).and_then(|entry| entry.path.clone());
        let new = text::from_c(path);
        self.put(cgroup, &new, truncated);
        if let Some(old) = old.filter(|old| **old != *new && &**old != "/") {
            self.move_below(cgroup, &old, &new, truncated);
        }
    }

    /// A cgroup was removed at `now_ns`. Its path stays for the grace period.
    pub fn gone(&mut self, cgroup: CgroupId, now_ns: u64) {
        let turn = self.turns;
        let entry = self.entries.entry(cgroup).or_insert(Entry {
            path: None,
            cut: false,
            gone: None,
            scan: 0,
        });
        entry.scan = self.scans;
        if entry.gone.is_some() {
            return;
        }
        entry.gone = Some(Gone { turn, since_ns: now_ns });
        self.turns += 1;
        self.gone.insert(turn, cgroup);
        if self.gone.len() > self.limits.gone.get() && self.drop_oldest() {
            self.forgotten += 1;
        }
    }

    /// The path of a cgroup, from the root of its hierarchy, also of one that went lately. Of a cut path, its beginning.
    #[must_use]
    pub fn path(&self, cgroup: CgroupId) -> Option<Arc<str>> {
        self.entries.get(&cgroup)?.path.clone()
    }

    /// Whether what [`Self::path`] gives is only the beginning of a longer path. A scan completes it.
    #[must_use]
    pub fn is_cut(&self, cgroup: CgroupId) -> bool {
        self.entries.get(&cgroup).is_some_and(|entry| entry.cut)
    }

    /// Forgets what has been gone for the grace period.
    pub fn forget_gone(&mut self, now_ns: u64) {
        while let Some((_, oldest)) = self.gone.first_key_value() {
            let gone = self.entries.get(oldest).and_then(|entry| entry.gone);
            if gone.is_some_and(|gone| now_ns.saturating_sub(gone.since_ns) < self.limits.grace_ns)
            {
                break;
            }
            self.drop_oldest();
        }
    }

    /// Call before a walk begins, then [`Self::scanned`] for what it finds, then [`Self::sweep`] if it was complete.
    pub fn begin_scan(&mut self) {
        self.scans += 1;
    }

    /// A walk found this cgroup under this path. What an event said since [`Self::begin_scan`] stands, but a path that is missing
    /// or cut is completed.
    pub fn scanned(&mut self, cgroup: CgroupId, path: &[u8]) {
        let path = text::from_c(path);
        match self.entries.get(&cgroup) {
            Some(entry) if entry.scan == self.scans => {
                if entry.path.is_none() || entry.cut {
                    self.replace(cgroup, &path, false);
                }
            }
            _ => self.put(cgroup, &path, false),
        }
    }

    /// After a complete walk of `hierarchy`: what neither it nor an event has named since [`Self::begin_scan`] is gone, and is
    /// returned.
    pub fn sweep(&mut self, hierarchy: u32, now_ns: u64) -> Vec<CgroupId> {
        let unseen = |(cgroup, entry): (&CgroupId, &Entry)| {
            (cgroup.hierarchy == hierarchy && entry.gone.is_none() && entry.scan < self.scans)
                .then_some(*cgroup)
        };
        let unseen: Vec<CgroupId> = self.entries.iter().filter_map(unseen).collect();
        for cgroup in &unseen {
            self.gone(*cgroup, now_ns);
        }
        unseen
    }

    /// The cgroups that exist, in no order.
    pub fn live(&self) -> impl Iterator<Item = (CgroupId, &Arc<str>)> {
        let live = self.entries.iter().filter(|(_, entry)| entry.gone.is_none());
        live.filter_map(|(cgroup, entry)| Some((*cgroup, entry.path.as_ref()?)))
    }

    /// Entries held, gone ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of path text held.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How often a limit was reached and this gave way.
    #[must_use]
    pub const fn dropped(&self, what: Full) -> u64 {
        match what {
            Full::ForgetOldestGone => self.forgotten,
            Full::RefuseNew => self.refused,
        }
    }

    /// Makes a cgroup live under `path`, whatever was known of it.
    fn put(&mut self, cgroup: CgroupId, path: &str, cut: bool) {
        self.remove(cgroup);
        let live = self.entries.len() - self.gone.len();
        if live >= self.limits.live.get() || !self.make_room(path.len()) {
            self.refused += 1;
            return;
        }
        self.bytes += path.len();
        self.entries
            .insert(cgroup, Entry { path: Some(path.into()), cut, gone: None, scan: self.scans });
    }

    /// Gives another path to a cgroup and leaves the rest as it is. Without room for it, the cgroup is forgotten.
    fn replace(&mut self, cgroup: CgroupId, path: &str, cut: bool) {
        let Some(entry) = self.entries.get_mut(&cgroup) else {
            return;
        };
        self.bytes -= entry.path.take().map_or(0, |old| old.len());
        if !self.make_room(path.len()) {
            self.remove(cgroup);
            self.refused += 1;
            return;
        }
        // Making room may have forgotten this very one, if it was gone.
        if let Some(entry) = self.entries.get_mut(&cgroup) {
            entry.path = Some(path.into());
            entry.cut = cut;
            entry.scan = self.scans;
            self.bytes += path.len();
        }
    }

    /// Moves what is below `parent`, which was `old` and is `new`. Those that are gone keep the path under which they went.
    fn move_below(&mut self, parent: CgroupId, old: &str, new: &str, cut: bool) {
        let below = |path: &str| {
            path.strip_prefix(old).filter(|rest| rest.starts_with('/')).map(str::to_owned)
        };
        let moved = |(cgroup, entry): (&CgroupId, &Entry)| {
            // The new name of the parent itself may read as if it lay below the old one.
            let other =
                cgroup.hierarchy == parent.hierarchy && *cgroup != parent && entry.gone.is_none();
            other.then(|| Some((*cgroup, below(entry.path.as_deref()?)?, entry.cut)))?
        };
        let moved: Vec<(CgroupId, String, bool)> = self.entries.iter().filter_map(moved).collect();
        for (cgroup, rest, was_cut) in moved {
            // Below a cut path, all that is certain is the beginning.
            let path = if cut { new.to_owned() } else { format!("{new}{rest}") };
            self.replace(cgroup, &path, cut || was_cut);
        }
    }

    fn make_room(&mut self, bytes: usize) -> bool {
        while self.bytes.saturating_add(bytes) > self.limits.bytes.get() {
            if !self.drop_oldest() {
                return false;
            }
            self.forgotten += 1;
        }
        true
    }

    /// Drops the one that has been gone for longest; false if none is gone.
    fn drop_oldest(&mut self) -> bool {
        let Some((_, oldest)) = self.gone.pop_first() else { return false };
        self.remove(oldest);
        true
    }

    fn remove(&mut self, cgroup: CgroupId) {
        let Some(entry) = self.entries.remove(&cgroup) else { return };
        self.bytes -= entry.path.map_or(0, |path| path.len());
        if let Some(gone) = entry.gone {
            self.gone.remove(&gone.turn);
        }
    }
}
