//! One boot of a machine, under software emulation: its serial line goes to a file, and to this terminal if wanted.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::process::Owned;

/// How long it may take from power-on to the first line of ours.
const BOOT: Duration = Duration::from_secs(120);

/// How every line of ours on the serial line begins.
pub(crate) const OURS: &str = "killwatch-vm: ";

/// What to boot.
#[derive(Debug)]
pub(crate) struct Setup<'a> {
    /// Kernel image.
    pub(crate) kernel: &'a Path,
    /// The only file system.
    pub(crate) initramfs: &'a Path,
    /// A file that becomes the disk to swap to.
    pub(crate) swap: Option<&'a Path>,
    /// More of the kernel's command line.
    pub(crate) append: String,
    /// MiB.
    pub(crate) memory: u32,
    /// How long it may run.
    pub(crate) limit: Duration,
    /// Where the serial line goes.
    pub(crate) log: &'a Path,
    /// Whether to show it too.
    pub(crate) shown: bool,
}

/// A machine that runs. Dropping it switches it off.
pub(crate) struct Machine {
    qemu: Owned,
    copy: Option<JoinHandle<std::io::Result<()>>>,
    booted: Arc<AtomicBool>,
    started: Instant,
    limit: Duration,
}

impl Machine {
    /// Switches it on.
    pub(crate) fn start(setup: &Setup<'_>) -> Result<Self> {
        let mut command = Command::new("qemu-system-x86_64");
        // A plain processor: with `max`, the emulation of QEMU 7.2 was seen to spoil the flags register of a 6.12 guest.
        // Its two processors take turns on one of ours: side by side, one was seen to run into code that the other had just patched, and
        // two machines at a time make better use of two of ours.
        command.args("-M q35 -smp 2 -accel tcg,thread=single -cpu Nehalem".split(' '));
        command.args("-nodefaults -no-user-config -no-reboot -display none".split(' '));
        command.args("-monitor none -serial stdio".split(' '));
        command.arg("-m").arg(setup.memory.to_string());
        // Two memory nodes, so that a cpuset or a memory policy can run out of memory alone.
        for node in 0..2 {
            let size = setup.memory / 2;
            command.arg("-object").arg(format!("memory-backend-ram,id=node{node},size={size}M"));
            command.arg("-numa").arg(format!("node,memdev=node{node},cpus={node}"));
        }
        if let Some(swap) = setup.swap {
            let mut drive = std::ffi::OsString::from("if=virtio,format=raw,cache=unsafe,file=");
            drive.push(swap);
            command.arg("-drive").arg(drive);
        }
        command.arg("-kernel").arg(setup.kernel).arg("-initrd").arg(setup.initramfs);
        // Only a panic may break into what the tests print: OOM reports stay in the kernel's buffer, which init shows on failure.
        let append = format!(
            "console=ttyS0 quiet loglevel=1 oops=panic panic=-1 mitigations=off {}",
            setup.append
        );
        command.arg("-append").arg(append);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run qemu-system-x86_64")?;
        let mut qemu = Owned { child, grace: Duration::from_secs(2) };
        let serial = qemu.child.stdout.take().context("the machine has no serial line")?;
        let file = File::create(setup.log)
            .with_context(|| format!("cannot make {}", setup.log.display()))?;
        let booted = Arc::new(AtomicBool::new(false));
        let (seen, shown) = (Arc::clone(&booted), setup.shown);
        let copy = Some(thread::spawn(move || tee(serial, file, shown, &seen)));
        Ok(Self { qemu, copy, booted, started: Instant::now(), limit: setup.limit })
    }

    /// How long it has run.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether it is off, and how that came. After the first answer it must not be asked again.
    pub(crate) fn ended(&mut self) -> Option<Result<()>> {
        let ended = match self.qemu.child.try_wait() {
            Err(error) => Err(anyhow!(error).context("cannot watch the machine")),
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(anyhow!("qemu failed: {status}")),
            Ok(None) if self.age() > self.limit => {
                Err(anyhow!("the machine was not done within {} min", self.limit.as_secs() / 60))
            }
            Ok(None) if self.age() > BOOT && !self.booted.load(Ordering::Relaxed) => {
                Err(anyhow!("the machine did not boot within {} s", BOOT.as_secs()))
            }
            Ok(None) => return None,
        };
        Some(ended.and_then(|()| self.copied()))
    }

    /// Waits for the last of the serial line, which ends with the machine.
    fn copied(&mut self) -> Result<()> {
        match self.copy.take().map(JoinHandle::join) {
            Some(Ok(copied)) => copied.context("cannot copy the serial line"),
            Some(Err(_)) => Err(anyhow!("copying the serial line failed")),
            None => Ok(()),
        }
    }
}

/// Copies to the file, and notes the first line of ours.
fn tee(
    mut from: impl Read,
    mut file: impl Write,
    shown: bool,
    booted: &AtomicBool,
) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    let mut last = Vec::new();
    loop {
        let count = from.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        file.write_all(bytes)?;
        if shown {
            std::io::stdout().write_all(bytes)?;
            std::io::stdout().flush()?;
        }
        if !booted.load(Ordering::Relaxed) {
            // What was read before may hold its beginning.
            last.extend_from_slice(bytes);
            let found = last.windows(OURS.len()).any(|window| window == OURS.as_bytes());
            booted.store(found, Ordering::Relaxed);
            let kept = last.len().saturating_sub(OURS.len());
            last.drain(..kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_ours_is_noticed_across_reads() {
        let seen = |text: &str| {
            let booted = AtomicBool::new(false);
            let (first, second) = text.split_at(text.len() / 2);
            let mut copy = Vec::new();
            tee(first.as_bytes().chain(second.as_bytes()), &mut copy, false, &booted).unwrap();
            assert_eq!(copy, text.as_bytes());
            booted.into_inner()
        };
        assert!(seen("killwatch-vm: Linux"));
        assert!(seen("[    0.0] noise\r\nkillwatch-vm: L"));
        assert!(!seen("[    0.0] killwatch: noise"));
    }
}
