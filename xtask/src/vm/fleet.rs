//! Boots the rows of the matrix, several at a time, and judges each.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::initramfs;
use super::kernels::Mark;
use super::log::Log;
use super::matrix::{Guest, Row};
use super::package::{self, Fetched};
use super::qemu::{Machine, Setup};
use super::report::Outcome;
use crate::context::Ctx;
use crate::process::step;
use crate::stop::Stop;

/// Bytes of swap: enough to be seen in use, and soon full.
const SWAP: u64 = 64 << 20;

/// How long a boot and all scenarios may take.
const LIMIT: Duration = Duration::from_secs(1200);

/// How rows are booted.
pub(crate) struct Fleet<'a> {
    /// Where things are.
    pub(crate) ctx: &'a Ctx,
    /// Machines at a time.
    pub(crate) jobs: usize,
    /// Whether a kernel that cannot be had is no failure.
    pub(crate) allow_missing: bool,
}

struct Running<'a> {
    row: &'a Row,
    machine: Machine,
    files: [PathBuf; 2],
}

/// The archives that machines are made of.
pub(crate) struct Files {
    /// What all have.
    pub(crate) base: PathBuf,
    /// What those with systemd have besides, if there is any.
    pub(crate) systemd: Option<PathBuf>,
}

impl Fleet<'_> {
    /// Boots all. One machine alone is shown on this terminal.
    pub(crate) fn run(&self, files: &Files, rows: &[Row], stop: &Stop) -> Result<Vec<Outcome>> {
        let kernels = self.fetch(rows);
        let mut outcomes: BTreeMap<String, Outcome> = BTreeMap::new();
        let mut waiting = rows.iter();
        let mut running: Vec<Running<'_>> = Vec::new();
        let what = format!("boot {} machines (logs: {})", rows.len(), self.log("*").display());
        step(&what, || {
            loop {
                while running.len() < self.jobs
                    && let Some(row) = waiting.next()
                {
                    match kernels.get(row.kernel.series) {
                        Some(Ok(kernel)) => {
                            running.push(self.start(files, row, kernel, rows.len() == 1)?);
                        }
                        Some(Err(why)) => {
                            outcomes.insert(row.to_string(), self.missing(row, why));
                        }
                        None => bail!("the kernel of {row} was not looked for"),
                    }
                }
                if running.is_empty() {
                    return Ok(());
                }
                stop.pause(Duration::from_millis(50))?;
                let mut index = 0;
                while let Some(one) = running.get_mut(index) {
                    let Some(ended) = one.machine.ended() else {
                        index += 1;
                        continue;
                    };
                    let done = running.swap_remove(index);
                    let kernel = kernels.get(done.row.kernel.series);
                    let origin =
                        kernel.and_then(|kernel| kernel.as_ref().ok()).map(|kernel| &kernel.origin);
                    let outcome = self.judge(&done, ended, origin.cloned());
                    eprintln!("    {}", outcome.summary());
                    for file in &done.files {
                        fs::remove_file(file)
                            .with_context(|| format!("cannot remove {}", file.display()))?;
                    }
                    outcomes.insert(done.row.to_string(), outcome);
                }
            }
        })?;
        Ok(rows.iter().filter_map(|row| outcomes.remove(&row.to_string())).collect())
    }

    /// Where a row's serial line is kept.
    pub(crate) fn log(&self, row: &str) -> PathBuf {
        self.file(row, "log")
    }

    fn file(&self, row: &str, extension: &str) -> PathBuf {
        self.ctx.target.join("vm").join(format!("{row}.{extension}"))
    }

    /// Each kernel once, or why it cannot be had.
    fn fetch(&self, rows: &[Row]) -> BTreeMap<&'static str, Result<Fetched, String>> {
        let mut kernels = BTreeMap::new();
        for row in rows {
            kernels.entry(row.kernel.series).or_insert_with(|| {
                package::fetch(self.ctx, row.kernel).map_err(|error| format!("{error:#}"))
            });
        }
        kernels
    }

    fn start<'a>(
        &self,
        files: &Files,
        row: &'a Row,
        kernel: &Fetched,
        shown: bool,
    ) -> Result<Running<'a>> {
        let name = row.to_string();
        let modules = self.file(&name, "modules.cpio");
        let archive = self.file(&name, "cpio");
        let root = self.ctx.target.join("vm").join(&name);
        initramfs::write_modules(&kernel.modules, &root, &modules)?;
        let mut parts: Vec<&Path> = vec![&files.base, &modules];
        if row.guest == Guest::Systemd {
            parts.push(files.systemd.as_deref().context("there is no archive with systemd")?);
        }
        initramfs::join(&parts, &archive)?;
        fs::remove_file(&modules).context("cannot remove the archive of modules")?;
        fs::remove_dir_all(&root).context("cannot remove the modules")?;
        let swap = self.file(&name, "swap");
        File::create(&swap)
            .and_then(|file| file.set_len(SWAP))
            .with_context(|| format!("cannot make {}", swap.display()))?;
        let machine = Machine::start(&Setup {
            kernel: &kernel.image,
            initramfs: &archive,
            swap: Some(&swap),
            append: append(row),
            memory: if row.guest == Guest::Systemd { 1024 } else { 768 },
            limit: LIMIT,
            log: &self.log(&name),
            shown,
        })?;
        Ok(Running { row, machine, files: [archive, swap] })
    }

    fn judge(&self, done: &Running<'_>, ended: Result<()>, origin: Option<String>) -> Outcome {
        let name = done.row.to_string();
        let text = fs::read(self.log(&name))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default();
        let log = Log::parse(&text);
        let broken = ended
            .map_err(|error| format!("{error:#}"))
            .and_then(|()| came_to_its_end(&log))
            .err()
            .map(|why| format!("{why}; its last lines:\n{}", last_lines(&text)));
        let remarks = remarks(done.row, &log);
        Outcome {
            row: name,
            origin,
            took: done.machine.age(),
            log,
            broken,
            remarks,
            missing: false,
        }
    }

    fn missing(&self, row: &Row, why: &str) -> Outcome {
        Outcome {
            row: row.to_string(),
            origin: None,
            took: Duration::ZERO,
            log: Log::default(),
            broken: Some(why.to_owned()),
            remarks: Vec::new(),
            missing: self.allow_missing,
        }
    }
}

/// What init reads on the kernel's command line, and what the kernel itself does.
fn append(row: &Row) -> String {
    let mut append =
        format!("killwatch.cgroup={} killwatch.guest={}", row.cgroup.name(), row.guest.name());
    // Without it Debian's 5.10 does not account swap.
    append.push_str(" swapaccount=1 psi=1");
    if row.guest == Guest::Lockdown {
        append.push_str(" lockdown=confidentiality");
    }
    append
}

/// A boot counts only if the marker is there and the scenarios summed up.
fn came_to_its_end(log: &Log) -> Result<(), String> {
    match log.status {
        None => Err("the machine ended before its tests did".to_owned()),
        Some(status) if log.results == 0 || (status != 0 && log.tally().failed == 0) => {
            Err(format!("the scenarios ended with status {status} and no result"))
        }
        Some(_) => Ok(()),
    }
}

/// What is not as the tables say: a substitute may be of another make.
fn remarks(row: &Row, log: &Log) -> Vec<String> {
    let expected = match row.kernel.mark {
        Mark::PidOnly => "mark_victim pid",
        Mark::Extended => "mark_victim extended",
    };
    match &log.machine {
        // A kernel that is locked down does not say.
        Some(said) if row.guest != Guest::Lockdown && !said.contains(expected) => {
            vec![format!("wanted a kernel with `{expected}`, and this one is not")]
        }
        _ => Vec::new(),
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().rev().take(40).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::matrix::{self, Wish};
    use super::*;

    const RESULT: &str = "test a ... ok\r\ntest result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.00s\r\n";

    fn ended(text: &str) -> Result<(), String> {
        came_to_its_end(&Log::parse(text))
    }

    #[test]
    fn a_boot_counts_only_with_result_and_marker() {
        let marker = "killwatch-vm: scenarios ended with ";
        assert!(ended(&format!("{RESULT}{marker}0\r\n")).is_ok());
        assert!(ended(RESULT).unwrap_err().contains("ended before"));
        assert!(ended(&format!("{marker}0\r\n")).unwrap_err().contains("no result"));
        assert!(ended(&format!("{RESULT}{marker}139\r\n")).is_err());
        assert!(ended("Kernel panic - not syncing\r\n").is_err());
    }

    #[test]
    fn the_scripts_speak_as_the_log_is_read() {
        assert!(initramfs::RUN.contains("killwatch-vm: scenarios ended with $status"));
        for mark in ["mark=pid", "mark=extended", "mark_victim $mark"] {
            assert!(initramfs::RUN.contains(mark), "{mark}");
        }
    }

    #[test]
    fn a_kernel_of_another_make_is_remarked() {
        let wish = Wish { kernel: Some("5.10-old".into()), ..Wish::default() };
        let row = matrix::select(&wish).remove(0);
        let log = |mark: &str| Log {
            machine: Some(format!("Linux 5.10, mark_victim {mark}, swap 1")),
            ..Log::default()
        };
        assert!(remarks(&row, &log("pid")).is_empty());
        assert_eq!(remarks(&row, &log("extended")).len(), 1);
    }
}
