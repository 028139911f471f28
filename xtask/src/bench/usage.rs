//! What a process takes: memory, and CPU by thread, to the ns.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;

use anyhow::{Context as _, Result};

/// MiB resident, and of these the ones that are of no file.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Memory {
    pub(super) resident: f64,
    pub(super) anonymous: f64,
}

/// Of a process, now.
pub(super) fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let mib = |key: &str| -> Option<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        let kib: f64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        Some(kib / 1024.0)
    };
    let (resident, anonymous) = (mib("VmRSS:"), mib("RssAnon:"));
    let told = resident.zip(anonymous).with_context(|| format!("{path} tells no memory"))?;
    Ok(Memory { resident: told.0, anonymous: told.1 })
}

/// ns of CPU by the id of a thread, with its name; those of threads that have ended are not in it.
pub(super) type Cpu = BTreeMap<OsString, (String, u64)>;

/// Of a process, since its start (proc(5), `schedstat`).
pub(super) fn cpu(pid: u32) -> Result<Cpu> {
    let dir = format!("/proc/{pid}/task");
    let mut cpu = Cpu::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("cannot list {dir}"))? {
        let thread = entry?.path();
        // A thread may end between two looks.
        let (Ok(name), Ok(stat)) =
            (fs::read_to_string(thread.join("comm")), fs::read_to_string(thread.join("schedstat")))
        else {
            continue;
        };
        let ns: u64 = stat
            .split(' ')
            .next()
            .and_then(|ns| ns.parse().ok())
            .with_context(|| format!("{} tells no time", thread.display()))?;
        cpu.insert(thread.file_name().unwrap_or_default().to_owned(), (name.trim().to_owned(), ns));
    }
    Ok(cpu)
}

/// All threads together.
pub(super) fn total(cpu: &Cpu) -> u64 {
    since(&Cpu::new(), cpu, "")
}

/// What the threads whose names begin so have taken in between. A thread that ended in between takes its time with it, and no other's.
pub(super) fn since(before: &Cpu, after: &Cpu, start: &str) -> u64 {
    let then = |thread| before.get(thread).map_or(0, |(_, ns)| *ns);
    let threads = after.iter().filter(|(_, (name, _))| name.starts_with(start));
    threads.map(|(thread, (_, ns))| ns.saturating_sub(then(thread))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_some() {
        let own = std::process::id();
        let taken = memory(own).unwrap();
        assert!(taken.resident >= taken.anonymous && taken.anonymous > 0.0);
        assert!(total(&cpu(own).unwrap()) > 0);
        let of = |threads: &[(&str, &str, u64)]| -> Cpu {
            threads.iter().map(|(id, name, ns)| ((*id).into(), ((*name).to_owned(), *ns))).collect()
        };
        let before = of(&[("1", "main", 5), ("2", "worker", 900)]);
        let after = of(&[("1", "main", 7), ("3", "worker", 1)]);
        assert_eq!((since(&before, &after, ""), since(&before, &after, "main")), (3, 2));
        assert!(memory(u32::MAX).is_err() && cpu(u32::MAX).is_err());
    }
}
