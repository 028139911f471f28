//! The host's memory. `/proc/meminfo` is kept open; the rest is read beside it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::parse;
use crate::death::HostMemory;

/// Longest file that is read: `/proc/vmstat` has about 6 KiB.
const MAX_FILE: usize = 32 << 10;

/// The host's memory files.
#[derive(Debug)]
pub(super) struct Host {
    proc: PathBuf,
    meminfo: File,
    buffer: Vec<u8>,
}

impl Host {
    /// `proc`: where a process file system is mounted.
    pub(super) fn open(proc: &Path) -> io::Result<Self> {
        let meminfo = File::open(proc.join("meminfo"))?;
        Ok(Self { proc: proc.to_owned(), meminfo, buffer: vec![0; MAX_FILE] })
    }

    /// How much there is, and how much could be given out.
    pub(super) fn memory(&mut self) -> io::Result<HostMemory> {
        let length = self.meminfo.read_at(&mut self.buffer, 0)?;
        Ok(of_meminfo(self.buffer.get(..length).unwrap_or_default()))
    }

    /// The same with counters and pressure.
    pub(super) fn story(&mut self) -> io::Result<HostMemory> {
        let mut memory = self.memory()?;
        if let Ok(text) = std::fs::read(self.proc.join("vmstat")) {
            of_vmstat(&text, &mut memory);
        }
        let pressure = std::fs::read(self.proc.join("pressure/memory"));
        memory.pressure = pressure.ok().and_then(|text| parse::pressure(&text));
        Ok(memory)
    }
}

fn of_meminfo(text: &[u8]) -> HostMemory {
    let mut memory = HostMemory::default();
    for (key, value) in parse::kibibytes(text) {
        match key {
            b"MemTotal" => memory.total_bytes = value,
            b"MemAvailable" => memory.available_bytes = value,
            b"SwapTotal" => memory.swap_total_bytes = value,
            b"SwapFree" => memory.swap_free_bytes = value,
            _ => {}
        }
    }
    memory
}

fn of_vmstat(text: &[u8], memory: &mut HostMemory) {
    for (key, value) in parse::keyed(text) {
        match key {
            b"oom_kill" => memory.oom_kills = Some(value),
            b"pgscan_direct" => memory.direct_reclaim_pages = Some(value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_host() {
        let mut host = Host::open(Path::new("/proc")).unwrap();
        let memory = host.story().unwrap();
        assert!(memory.total_bytes > memory.available_bytes, "{memory:?}");
        assert!(memory.available_bytes > 0 && memory.oom_kills.is_some(), "{memory:?}");
        assert_eq!(host.memory().unwrap().total_bytes, memory.total_bytes);
    }
}
