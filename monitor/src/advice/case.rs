//! What a rule is given: the record, its earlier deaths, and the arithmetic that rules share.

use crate::death::{Death, History, KindsAt, LevelUse, MemoryStory, ProcessMemory};

use super::earlier::{Earlier, Known};

/// A look at the kinds of a cgroup's memory that is older than this at the death says nothing of it, seconds.
const FRESH: f64 = 5.0;

/// A death, as rules look at it.
#[derive(Debug)]
pub(super) struct Case<'a> {
    /// The record.
    pub(super) death: &'a Death,
    /// Its job's or workload's earlier deaths.
    pub(super) earlier: Known<'a>,
}

/// What a rule found: two sentences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The numbers that it rests on.
    pub(super) evidence: String,
    /// What to do.
    pub(super) advice: String,
}

/// What a cgroup was charged for, by kind, as far as it is known. Bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Kinds {
    pub(super) anon: Option<u64>,
    pub(super) file: Option<u64>,
    pub(super) dirty: Option<u64>,
    pub(super) shmem: Option<u64>,
    pub(super) kernel: Option<u64>,
    pub(super) slab: Option<u64>,
    pub(super) sock: Option<u64>,
}

impl<'a> Case<'a> {
    pub(super) fn new(death: &'a Death, earlier: &'a Earlier) -> Self {
        Self { death, earlier: earlier.of(death) }
    }

    pub(super) const fn memory(&self) -> &'a MemoryStory {
        &self.death.memory
    }

    /// The limit that was hit.
    pub(super) fn limit(&self) -> Option<u64> {
        self.memory().limit_bytes.filter(|limit| *limit > 0)
    }

    /// What was in use below it as the kernel decided. What was in use at a later look is no measure: the victim had given back some by then.
    pub(super) fn used(&self) -> Option<u64> {
        self.memory().usage_bytes.filter(|used| *used > 0)
    }

    /// What the victim held for itself. File pages are left out: a library's are charged to whoever touched it first.
    pub(super) fn held(&self) -> Option<u64> {
        let memory = self.memory();
        Some(memory.anon_bytes?.saturating_add(memory.shmem_bytes.unwrap_or(0)))
    }

    /// The level whose limit was hit, if it is above the victim's own.
    pub(super) fn hit_above(&self) -> Option<(&'a LevelUse, &'a LevelUse)> {
        let limit_cgroup = self.memory().limit_cgroup.as_ref()?;
        let (own, above) = self.memory().levels.split_first()?;
        let hit = above.iter().find(|level| level.cgroup.as_ref() == Some(limit_cgroup))?;
        (own.cgroup.as_ref() != Some(limit_cgroup)).then_some((own, hit))
    }

    /// The processes below the limit but the victim.
    pub(super) fn others(&self) -> impl Iterator<Item = &'a ProcessMemory> {
        let victim = self.death.victim.pid;
        self.memory().processes.iter().filter(move |p| !p.victim && p.pid != victim)
    }

    /// What the cgroup at its limit was charged for: looked at after the decision, or else at the last sample before it.
    pub(super) fn kinds(&self) -> Option<Kinds> {
        let memory = self.memory();
        if let Some(cgroup) = &memory.cgroup {
            return Some(Kinds {
                anon: cgroup.anon_bytes,
                file: cgroup.file_bytes,
                dirty: cgroup.dirty_bytes,
                shmem: cgroup.shmem_bytes,
                kernel: cgroup.kernel_bytes,
                slab: cgroup.slab_bytes,
                sock: cgroup.sock_bytes,
            });
        }
        let history = memory.history.as_ref()?;
        let last = history.kinds.last().filter(|last| (0.0..=FRESH).contains(&last.ago_seconds))?;
        (Some(&history.cgroup) == memory.limit_cgroup.as_ref()).then(|| Kinds {
            anon: Some(last.anon_bytes),
            file: Some(last.file_bytes),
            shmem: Some(last.shmem_bytes),
            kernel: Some(last.kernel_bytes),
            ..Kinds::default()
        })
    }

    /// The minutes before, if anything was seen in them.
    pub(super) fn history(&self) -> Option<&'a History> {
        self.memory().history.as_ref().filter(|history| !history.usage.is_empty())
    }

    /// The limit that a runtime has to fit into: the one that was hit, else the tightest on the path, as it was last seen.
    pub(super) fn room(&self) -> Option<u64> {
        let seen = || self.memory().history.as_ref().and_then(|history| history.limit_bytes);
        self.limit().or_else(seen).filter(|limit| *limit > 0)
    }
}

/// What a process holds for itself.
pub(super) fn holds(process: &ProcessMemory) -> u64 {
    match process.anon_bytes {
        Some(anon) => anon.saturating_add(process.shmem_bytes.unwrap_or(0)),
        None => process.rss_bytes,
    }
}

/// What several processes hold together: shared memory counts once, as the largest of them sees it.
pub(super) fn hold<'a>(processes: impl Iterator<Item = &'a ProcessMemory>) -> u64 {
    let (own, shared) = processes.fold((0_u64, 0_u64), |(own, shared), process| {
        let mapped = process.anon_bytes.and(process.shmem_bytes).unwrap_or(0);
        let anon = process.anon_bytes.unwrap_or(process.rss_bytes);
        (own.saturating_add(anon), shared.max(mapped))
    });
    own.saturating_add(shared)
}

/// What the kernel cannot take back.
pub(super) fn unreclaimable(kinds: &KindsAt) -> u64 {
    kinds.anon_bytes.saturating_add(kinds.shmem_bytes).saturating_add(kinds.kernel_bytes)
}

/// A part in percent of the whole, rounded down.
pub(super) fn percent(part: u64, whole: u64) -> u64 {
    let share = (u128::from(part) * 100).checked_div(u128::from(whole)).unwrap_or(0);
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// Bytes, of what was computed: what is no number is none, what is too large is the largest.
pub(super) fn whole(bytes: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float cast saturates, and of what is not a number makes 0"
    )]
    let whole = bytes as u64;
    whole
}

/// As a number to calculate with; the last digits do not matter here.
pub(super) fn float(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "it is for shares and rates")]
    let float = bytes as f64;
    float
}
