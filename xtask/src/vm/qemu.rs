//! One boot of the test machine, under software emulation: its serial line goes to this terminal and to a file.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::process::Owned;
use crate::stop::Stop;

/// How long a boot and all scenarios may take.
const LIMIT: Duration = Duration::from_secs(600);

/// Boots, and returns when the machine is off. What it printed is in `log`.
pub(crate) fn boot(kernel: &Path, initramfs: &Path, log: &Path, stop: &Stop) -> Result<()> {
    let mut command = Command::new("qemu-system-x86_64");
    // A plain processor: with `max`, the emulation of QEMU 7.2 was seen to spoil the flags register of a 6.12 guest.
    command.args([
        "-M",
        "q35",
        "-m",
        "768",
        "-smp",
        "2",
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "Nehalem",
        "-nodefaults",
        "-no-user-config",
    ]);
    command.args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
    // Only a panic may break into what the tests print: OOM reports stay in the kernel's buffer, which init shows on failure.
    command.args(["-append", "console=ttyS0 quiet loglevel=1 oops=panic panic=-1 mitigations=off"]);
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run qemu-system-x86_64")?;
    let mut machine = Owned { child, grace: Duration::from_secs(2) };
    let serial = machine.child.stdout.take().context("the machine has no serial line")?;
    let file = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
    let copy = thread::spawn(move || tee(serial, file));
    let deadline = Instant::now() + LIMIT;
    let ended = loop {
        match machine.child.try_wait().context("cannot watch the machine")? {
            Some(status) if status.success() => break Ok(()),
            Some(status) => break Err(anyhow::anyhow!("qemu failed: {status}")),
            None if Instant::now() >= deadline => {
                break Err(anyhow::anyhow!(
                    "the machine was not done within {} min",
                    LIMIT.as_secs() / 60
                ));
            }
            None => stop.pause(Duration::from_millis(50))?,
        }
    };
    // Closes the serial line if it is still open, so that the copy ends.
    drop(machine);
    match copy.join() {
        Ok(copied) => copied.context("cannot copy the serial line")?,
        Err(_) => bail!("copying the serial line failed"),
    }
    ended
}

fn tee(mut from: impl Read, mut file: File) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let count = from.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        file.write_all(bytes)?;
        std::io::stdout().write_all(bytes)?;
        std::io::stdout().flush()?;
    }
}
