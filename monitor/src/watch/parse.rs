//! What the kernel's memory files say: small texts, parsed without trust and without allocation. Pure.

use crate::death::Pressure;

/// From here on a v1 limit is none: the kernel rounds `LONG_MAX` down to whole pages, whatever their size (mm/page_counter.c).
const NO_LIMIT: u64 = 1 << 62;

/// A number, as `memory.current` has it.
pub fn number(text: &[u8]) -> Option<u64> {
    let digits = text.trim_ascii();
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// A limit. `Some(None)`: there is none, `max` or v1's largest number.
pub fn limit(text: &[u8]) -> Option<Option<u64>> {
    match text.trim_ascii() {
        b"max" => Some(None),
        digits => number(digits).map(|bytes| Some(bytes).filter(|bytes| *bytes < NO_LIMIT)),
    }
}

/// Lines of a name and a number, as `memory.stat` and `/proc/vmstat` have them; other lines are left out.
pub fn keyed(text: &[u8]) -> impl Iterator<Item = (&[u8], u64)> {
    text.split(|byte| *byte == b'\n').filter_map(|line| {
        let at = line.iter().position(|byte| *byte == b' ')?;
        let (key, value) = line.split_at_checked(at)?;
        Some((key, number(value)?))
    })
}

/// Lines of `/proc/meminfo`, in bytes.
pub fn kibibytes(text: &[u8]) -> impl Iterator<Item = (&[u8], u64)> {
    text.split(|byte| *byte == b'\n').filter_map(|line| {
        let at = line.iter().position(|byte| *byte == b':')?;
        let (key, value) = (line.get(..at)?, line.get(at + 1..)?);
        let value = value.trim_ascii_end().strip_suffix(b"kB")?;
        Some((key, number(value)?.saturating_mul(1024)))
    })
}

/// A pressure file (PSI). `None` if there is no line of `some`.
pub fn pressure(text: &[u8]) -> Option<Pressure> {
    let text = std::str::from_utf8(text).ok()?;
    let average = |line: &str, name: &str| {
        let value = line.split(' ').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))?;
        value.parse::<f64>().ok().filter(|share| (0.0..=100.0).contains(share))
    };
    let line = |kind: &str| text.lines().find(|line| line.split(' ').next() == Some(kind));
    let (some, full) = (line("some")?, line("full"));
    Some(Pressure {
        some_avg10: average(some, "avg10")?,
        some_avg60: average(some, "avg60")?,
        full_avg10: full.and_then(|line| average(line, "avg10")),
        full_avg60: full.and_then(|line| average(line, "avg60")),
    })
}

/// What is charged to a cgroup by kind, from its `memory.stat`. Bytes; `None` where this kernel does not say it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kinds {
    /// Anonymous memory.
    pub anon: Option<u64>,
    /// Page cache, tmpfs and shared memory included.
    pub cache: Option<u64>,
    /// tmpfs and shared memory.
    pub shmem: Option<u64>,
    /// Page cache of files that is not in use.
    pub inactive_file: Option<u64>,
    /// Page cache of files that is in use.
    pub active_file: Option<u64>,
    /// Page cache that waits to be written.
    pub dirty: Option<u64>,
    /// Page cache that is being written.
    pub writeback: Option<u64>,
    /// What cannot be evicted.
    pub unevictable: Option<u64>,
    /// The kernel's own, all of it (from 5.18 on).
    pub kernel: Option<u64>,
    /// The parts of it that older kernels tell apart, summed.
    pub kernel_parts: Option<u64>,
    /// Slab.
    pub slab: Option<u64>,
    /// Slab that can be taken back.
    pub slab_reclaimable: Option<u64>,
    /// Buffers of sockets.
    pub sock: Option<u64>,
    /// v1: what is in swap.
    pub swap: Option<u64>,
}

impl Kinds {
    /// Reads `memory.stat` of v2 and of v1. Of v1 the sums over all that is below (`total_…`).
    pub fn parse(text: &[u8]) -> Self {
        let mut kinds = Self::default();
        for (key, value) in keyed(text) {
            let place = match key {
                b"anon" | b"total_rss" => &mut kinds.anon,
                b"file" | b"total_cache" => &mut kinds.cache,
                b"shmem" | b"total_shmem" => &mut kinds.shmem,
                // Plain on v2; v1 has both, and the sums are later in the file.
                b"inactive_file" | b"total_inactive_file" => &mut kinds.inactive_file,
                b"active_file" | b"total_active_file" => &mut kinds.active_file,
                b"file_dirty" | b"total_dirty" => &mut kinds.dirty,
                b"file_writeback" | b"total_writeback" => &mut kinds.writeback,
                b"unevictable" | b"total_unevictable" => &mut kinds.unevictable,
                b"kernel" => &mut kinds.kernel,
                b"slab" => &mut kinds.slab,
                b"slab_reclaimable" => &mut kinds.slab_reclaimable,
                b"sock" => &mut kinds.sock,
                b"total_swap" => &mut kinds.swap,
                b"kernel_stack" | b"pagetables" | b"percpu" | b"vmalloc" => {
                    kinds.kernel_parts =
                        Some(kinds.kernel_parts.unwrap_or(0).saturating_add(value));
                    continue;
                }
                _ => continue,
            };
            *place = Some(value);
        }
        kinds
    }

    /// Page cache of files on disks.
    pub fn file(&self) -> Option<u64> {
        Some(self.cache?.saturating_sub(self.shmem.unwrap_or(0)))
    }

    /// The kernel's own.
    pub fn all_kernel(&self) -> Option<u64> {
        let parts = [self.kernel_parts, self.slab, self.sock].into_iter().flatten();
        self.kernel.or_else(|| parts.reduce(u64::saturating_add))
    }

    /// Of `usage`, what cannot be taken back under pressure.
    pub fn unreclaimable(&self, usage: u64) -> Option<u64> {
        let files = self.inactive_file?.saturating_add(self.active_file?);
        Some(usage.saturating_sub(files.saturating_add(self.slab_reclaimable.unwrap_or(0))))
    }

    /// The kubelet's working set of `usage`.
    pub fn working_set(&self, usage: u64) -> Option<u64> {
        Some(usage.saturating_sub(self.inactive_file?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_and_limits() {
        assert_eq!(number(b"4096\n"), Some(4096));
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        for bad in ["", "\n", "18446744073709551616", "-1", "4 096", "0x10"] {
            assert_eq!(number(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(limit(b"max\n"), Some(None));
        assert_eq!(limit(b"9223372036854771712\n"), Some(None));
        assert_eq!(limit(b"33554432\n"), Some(Some(32 << 20)));
        assert_eq!(limit(b"maximum"), None);
    }

    #[test]
    fn kinds_of_v2_and_v1() {
        let v2 = Kinds::parse(
            b"anon 100\nfile 70\nkernel 30\nkernel_stack 3\nsock 2\nshmem 20\nfile_dirty 5\ninactive_file 15\nactive_file 35\nslab_reclaimable 4\nslab 9\nnot a number\n\n",
        );
        assert_eq!((v2.anon, v2.file(), v2.all_kernel()), (Some(100), Some(50), Some(30)));
        assert_eq!(v2.unreclaimable(200), Some(146));
        assert_eq!(v2.working_set(200), Some(185));
        let old = Kinds::parse(b"anon 1\nkernel_stack 3\nslab 9\nsock 2\npercpu 1\n");
        assert_eq!((old.all_kernel(), old.unreclaimable(5)), (Some(15), None));
        let v1 = Kinds::parse(
            b"cache 1\nrss 2\ninactive_file 3\ntotal_cache 70\ntotal_rss 100\ntotal_shmem 20\ntotal_swap 7\ntotal_inactive_file 15\ntotal_active_file 35\n",
        );
        assert_eq!((v1.anon, v1.file(), v1.swap), (Some(100), Some(50), Some(7)));
        assert_eq!(v1.unreclaimable(200), Some(150));
    }

    #[test]
    fn pressure_of_host_and_cgroup() {
        let both = b"some avg10=1.50 avg60=0.25 avg300=0.00 total=59\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=2\n";
        let said = pressure(both).unwrap();
        assert_eq!((said.some_avg10, said.some_avg60, said.full_avg10), (1.5, 0.25, Some(0.5)));
        assert_eq!(pressure(b"some avg10=1.50 avg60=0.25\n").unwrap().full_avg10, None);
        assert_eq!(pressure(b"full avg10=1.50 avg60=0.25\n"), None);
        assert_eq!(pressure(b"some avg10=NaN avg60=0\n"), None);
    }

    #[test]
    fn meminfo() {
        let text = b"MemTotal:       24684480 kB\nHugePages_Total:       0\nSwapFree: 0 kB\n";
        let lines: Vec<_> = kibibytes(text).collect();
        assert_eq!(lines, [(&b"MemTotal"[..], 24_684_480 << 10), (b"SwapFree", 0)]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (number(&text), limit(&text), pressure(&text));
            let kinds = Kinds::parse(&text);
            let _ = (kinds.all_kernel(), kinds.file(), kinds.unreclaimable(u64::MAX), kibibytes(&text).count());
        }

        #[test]
        fn stat_like_lines_are_survived(text in "((anon|file|kernel|slab|total_rss|shmem) [0-9]{0,22}\n){0,9}") {
            let kinds = Kinds::parse(text.as_bytes());
            let _ = (kinds.all_kernel(), kinds.file(), kinds.unreclaimable(0), kinds.working_set(0));
        }
    }
}
