//! What the memory is, where it is not heaps.

use crate::text::bytes;

use super::case::{Case, Found, percent};
use super::words::list;

/// tmpfs or shared memory fills the cgroup. It does not go with a process.
pub(super) fn tmpfs(case: &Case<'_>) -> Option<Found> {
    let (used, shmem) = (case.used()?, case.kinds()?.shmem?);
    (shmem >= used / 2 && shmem > 0).then(|| Found {
        evidence: format!(
            "{} of the {} in use, {} %, were tmpfs and shared memory",
            bytes(shmem),
            bytes(used),
            percent(shmem, used)
        ),
        advice: "Files in memory count against the limit, and stay when a process goes: look at emptyDir volumes with medium: Memory, /dev/shm and other tmpfs mounts. Delete what \
                 is done with, give them a size (sizeLimit, size=), or use a disk."
            .to_owned(),
    })
}

/// The page cache fills it. Clean pages are taken back before anybody is killed.
pub(super) fn page_cache(case: &Case<'_>) -> Option<Found> {
    let (used, kinds) = (case.used()?, case.kinds()?);
    let dirty = kinds.dirty.filter(|dirty| *dirty > 0 && *dirty >= used / 4);
    let file = kinds.file.filter(|file| *file > 0 && *file >= used / 2);
    // What is left of the victim's heap after the kill is not what it held: its own number counts too.
    let anon = kinds.anon.max(case.held());
    if let Some(dirty) = dirty {
        return Some(Found {
            evidence: format!(
                "{} of the {} in use, {} %, were file pages that waited to be written",
                bytes(dirty),
                bytes(used),
                percent(dirty, used)
            ),
            advice: "It writes files faster than the disk takes them, and what is not written yet cannot be given back: write at the disk's pace (fsync every some MiB, O_DIRECT), to a \
                     faster disk, or set memory.high somewhat below the limit, which slows the writer down."
                .to_owned(),
        });
    }
    let file = file.filter(|_| anon.is_some_and(|anon| anon < used / 4))?;
    Some(Found {
        evidence: format!(
            "{} of the {} in use, {} %, were file pages, and only {} anonymous memory",
            bytes(file),
            bytes(used),
            percent(file, used),
            bytes(anon.unwrap_or(0))
        ),
        advice: "The page cache filled it. The kernel takes clean pages back before it kills, so these were being written, mapped and in use, or locked: write at the disk's pace \
                 (fsync, O_DIRECT), and look for what maps or locks large files."
            .to_owned(),
    })
}

/// The kernel's own memory fills it.
pub(super) fn kernel(case: &Case<'_>) -> Option<Found> {
    let (used, kinds) = (case.used()?, case.kinds()?);
    let kernel = kinds.kernel.filter(|kernel| *kernel > 0 && *kernel >= used / 2)?;
    let parts = [
        (kinds.slab, "slab", "many open or cached files, directories and sockets make slab grow"),
        (
            kinds.sock,
            "buffers of sockets",
            "connections that are not read from fast enough fill their buffers (tcp_rmem, tcp_wmem)",
        ),
        (
            case.memory().page_tables_bytes,
            "the victim's page tables",
            "page tables grow with what is mapped, shared memory once for each process: huge pages make them small",
        ),
    ];
    let known: Vec<_> =
        parts.iter().filter_map(|(size, name, why)| Some(((*size)?, *name, *why))).collect();
    let named: Vec<String> = known
        .iter()
        .filter(|(size, ..)| *size >= kernel / 10 && *size > 0)
        .map(|(size, name, _)| format!("{} {name}", bytes(*size)))
        .collect();
    let of_it = if named.is_empty() { String::new() } else { format!(", of it {}", list(&named)) };
    let largest =
        known.iter().max_by_key(|(size, ..)| *size).filter(|(size, ..)| *size >= kernel / 2);
    let why = largest.map_or(
        "threads' stacks, page tables, slab and sockets are charged to whoever makes the kernel need them",
        |(_, _, why)| why,
    );
    Some(Found {
        evidence: format!(
            "{} of the {} in use, {} %, were the kernel's own{of_it}",
            bytes(kernel),
            bytes(used),
            percent(kernel, used)
        ),
        advice: format!(
            "Most of it is no program's heap: {why}. Have less of that, or count it into the limit."
        ),
    })
}

/// Nothing could be put off to swap. True of most hosts, so it is told only where nothing else is known.
pub(super) fn no_swap(case: &Case<'_>) -> Option<Found> {
    let used = case.used().or(case.held())?;
    let anon = case.held().max(case.kinds().and_then(|kinds| kinds.anon))?;
    if anon < used / 2 || anon == 0 {
        return None;
    }
    let host = case.memory().host.filter(|host| host.total_bytes > 0 && host.swap_total_bytes == 0);
    let level = case.memory().levels.iter().find(|level| level.swap_limit_bytes == Some(0));
    let what = match (host, level) {
        (Some(_), _) => "the host has no swap",
        (None, Some(_)) => "its cgroup may not swap (memory.swap.max is 0)",
        (None, None) => return None,
    };
    Some(Found {
        evidence: format!("{what}, and {} of what was in use was anonymous memory", bytes(anon)),
        advice: "Without swap, memory that is not in use cannot be put off. If part of this was idle, some swap (zram, or memory.swap.max above 0) would have made room; it does not help \
                 what is in use."
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::sample::{MIB, charged, fires, oom};
    use crate::death::{CgroupMemory, Death, History, HostMemory, KindsAt, Rule, UsageAt};

    #[test]
    fn tmpfs_from_half_on() {
        let found = fires(&charged(128, |c| c.shmem_bytes = Some(64 * MIB)), Rule::Tmpfs).unwrap();
        assert!(found.evidence.starts_with("64.0 MiB of the 128.0 MiB in use, 50 %"), "{found:?}");
        assert!(found.advice.contains("medium: Memory"), "{found:?}");
        assert_eq!(fires(&charged(128, |c| c.shmem_bytes = Some(63 * MIB)), Rule::Tmpfs), None);
        assert_eq!(fires(&charged(128, |_| {}), Rule::Tmpfs), None);
        assert_eq!(fires(&oom(128), Rule::Tmpfs), None);
    }

    #[test]
    fn what_the_victim_gave_back_is_not_taken_for_tmpfs() {
        // After the kill 70 of 80 MiB are shmem; at the decision they were 70 of 256.
        let mut death = charged(256, |c| c.shmem_bytes = Some(70 * MIB));
        death.memory.cgroup.as_mut().unwrap().usage_bytes = Some(80 * MIB);
        assert_eq!(fires(&death, Rule::Tmpfs), None);
    }

    #[test]
    fn without_a_look_the_last_sample_counts_if_it_is_fresh() {
        let with = |ago_seconds| {
            let mut death = oom(128);
            death.memory.history = Some(History {
                cgroup: death.memory.limit_cgroup.clone().unwrap(),
                usage: vec![UsageAt { ago_seconds, bytes: 120 * MIB }],
                kinds: vec![KindsAt { ago_seconds, shmem_bytes: 100 * MIB, ..KindsAt::default() }],
                ..History::default()
            });
            fires(&death, Rule::Tmpfs)
        };
        assert!(with(1.0).is_some());
        for stale in [6.0, -1.0, f64::NAN] {
            assert_eq!(with(stale), None, "{stale}");
        }
    }

    /// Of 128 MiB, with a victim that held so many of anonymous memory.
    fn cached(anon: u64, change: impl FnOnce(&mut CgroupMemory)) -> Death {
        let mut death = charged(128, |c| {
            c.anon_bytes = Some(MIB);
            change(c);
        });
        death.memory.anon_bytes = Some(anon * MIB);
        death
    }

    #[test]
    fn a_cache_that_cannot_be_written_in_time() {
        let dirty =
            |mib: u64| fires(&cached(60, |c| c.dirty_bytes = Some(mib * MIB)), Rule::PageCache);
        let found = dirty(40).unwrap();
        assert!(found.evidence.contains("waited to be written"), "{found:?}");
        assert_eq!(dirty(31), None);
        let file = |anon, mib: u64| {
            fires(&cached(anon, |c| c.file_bytes = Some(mib * MIB)), Rule::PageCache)
        };
        let found = file(8, 100).unwrap();
        assert!(found.evidence.contains("only 8.0 MiB anonymous"), "{found:?}");
        assert_eq!(file(8, 60), None, "less than half");
        assert_eq!(
            file(60, 68),
            None,
            "clean pages are taken back: the heap is what is in the way"
        );
    }

    #[test]
    fn the_kernels_own_and_what_of_it() {
        let found = fires(
            &charged(128, |c| {
                (c.kernel_bytes, c.slab_bytes, c.sock_bytes) =
                    (Some(100 * MIB), Some(80 * MIB), Some(MIB));
            }),
            Rule::KernelMemory,
        )
        .unwrap();
        assert!(found.evidence.ends_with("of it 80.0 MiB slab"), "{found:?}");
        assert!(found.advice.contains("open or cached files"), "{found:?}");
        let alone =
            fires(&charged(128, |c| c.kernel_bytes = Some(64 * MIB)), Rule::KernelMemory).unwrap();
        assert!(alone.evidence.ends_with("the kernel's own"), "{alone:?}");
        assert_eq!(
            fires(&charged(128, |c| c.kernel_bytes = Some(63 * MIB)), Rule::KernelMemory),
            None
        );
    }

    #[test]
    fn no_swap_is_told_where_nothing_else_is() {
        let mut death = oom(128);
        let host = HostMemory { total_bytes: 8 << 30, ..HostMemory::default() };
        (death.memory.anon_bytes, death.memory.host) = (Some(100 * MIB), Some(host));
        let found = fires(&death, Rule::NoSwap).unwrap();
        assert!(found.evidence.starts_with("the host has no swap"), "{found:?}");
        death.memory.host = Some(HostMemory { swap_total_bytes: 1, ..host });
        assert_eq!(fires(&death, Rule::NoSwap), None);
        death.memory.levels[0].swap_limit_bytes = Some(0);
        assert!(fires(&death, Rule::NoSwap).unwrap().evidence.contains("memory.swap.max is 0"));
        death.memory.anon_bytes = Some(10 * MIB);
        assert_eq!(fires(&death, Rule::NoSwap), None);
        let mut death = charged(128, |c| c.shmem_bytes = Some(100 * MIB));
        (death.memory.anon_bytes, death.memory.host) = (Some(100 * MIB), Some(host));
        assert_eq!(fires(&death, Rule::NoSwap), None, "there is something else");
    }
}
