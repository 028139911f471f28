//! `counts`: how many instructions the pure rooms and the BPF programs take, held to the committed baseline. Counts are steady where times are not.
//!
//! The rooms run under valgrind twice, with n and 2n records: the difference is what the records took, without start and end. Of the BPF programs it is the instructions in the
//! object, before any kernel rewrites them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::apt::{self, Need};
use crate::build::Rooms;
use crate::context::Ctx;
use crate::process::{self, step};
use crate::{build, object, toolchain};

/// More than this over the baseline fails.
const MAX_GROWTH: f64 = 0.10;
/// Rooms that depend on no clock, thread or disk, and their records.
const ROOMS: &[(&str, u32)] = &[("decode", 500), ("death", 300), ("json", 500), ("metrics", 3_000)];
/// Where the baseline is, in the repository.
const BASELINE: &str = "docs/performance/counts.json";

/// Arguments of `counts`.
#[derive(clap::Args)]
pub(crate) struct CountsArgs {
    /// Write what is counted as the new baseline
    #[arg(long)]
    update: bool,
}

/// What was counted, and with what: another compiler is another count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Counts {
    /// Of the rooms: the compiler, and the machine that it compiles for.
    rustc: String,
    /// Instructions of a record; of `metrics`, of a scrape with 1,000 containers.
    rooms: BTreeMap<String, f64>,
    /// Of the BPF programs: what compiled them.
    bpf_toolchain: String,
    /// Instructions of a program, as it is in the object.
    bpf: BTreeMap<String, f64>,
}

/// Counts, and compares.
pub(crate) fn run(ctx: &Ctx, args: &CountsArgs) -> Result<()> {
    let object = object::build(ctx)?;
    let counts = Counts {
        rustc: process::output(Command::new("rustc").arg("-vV"))?
            .lines()
            .filter(|line| line.starts_with("rustc ") || line.starts_with("host: "))
            .collect::<Vec<_>>()
            .join(", "),
        rooms: rooms(ctx, &object)?,
        bpf_toolchain: toolchain::ensure(ctx)?.name,
        bpf: programs(&object)?,
    };
    let file = ctx.root.join(BASELINE);
    if args.update {
        let text = serde_json::to_string_pretty(&counts).context("the counts do not print")?;
        fs::write(&file, text + "\n")
            .with_context(|| format!("cannot write {}", file.display()))?;
        eprintln!("    {} is the baseline now", file.display());
        return Ok(());
    }
    let baseline = read(&file)?;
    let mut grown = Vec::new();
    let same = baseline.rustc == counts.rustc;
    compare("room", &baseline.rooms, &counts.rooms, same, &mut grown);
    let same_bpf = baseline.bpf_toolchain == counts.bpf_toolchain;
    compare("program", &baseline.bpf, &counts.bpf, same_bpf, &mut grown);
    for (same, of, now) in [
        (same, &baseline.rustc, &counts.rustc),
        (same_bpf, &baseline.bpf_toolchain, &counts.bpf_toolchain),
    ] {
        if !same {
            eprintln!(
                "warning: the baseline is of {of}, this is {now}: differences are shown and do not fail"
            );
        }
    }
    if !grown.is_empty() {
        bail!(
            "more than {:.0} % over the baseline: {}. If it must be so, say why in the commit that has the result of `cargo xtask counts --update`",
            100.0 * MAX_GROWTH,
            grown.join(", ")
        );
    }
    Ok(())
}

fn read(file: &Path) -> Result<Counts> {
    let text = fs::read_to_string(file).with_context(|| {
        format!(
            "cannot read the baseline {}; make one with `cargo xtask counts --update`",
            file.display()
        )
    })?;
    serde_json::from_str(&text).with_context(|| format!("{} is no baseline", file.display()))
}

/// Prints each, and adds to `grown` what grew by too much, if that is to count.
fn compare(
    kind: &str,
    baseline: &BTreeMap<String, f64>,
    now: &BTreeMap<String, f64>,
    counts: bool,
    grown: &mut Vec<String>,
) {
    for (name, now) in now {
        let Some(then) = baseline.get(name).filter(|then| **then > 0.0) else {
            println!("{kind:<8} {name:<18} {now:>12.0}  new");
            continue;
        };
        let growth = now / then - 1.0;
        println!("{kind:<8} {name:<18} {now:>12.0}  {:+.1} %", 100.0 * growth);
        if growth > MAX_GROWTH && counts {
            grown.push(format!("{name} ({:+.1} %)", 100.0 * growth));
        }
    }
    for gone in baseline.keys().filter(|name| !now.contains_key(*name)) {
        println!("{kind:<8} {gone:<18} {:>12}  in the baseline only", "gone");
    }
}

fn rooms(ctx: &Ctx, object: &Path) -> Result<BTreeMap<String, f64>> {
    apt::ensure(&[Need::new("valgrind", "counts the instructions of the daemon's rooms")])?;
    let bench = step("build the bench of the rooms", || build::rooms(ctx, object, Rooms::Counted))?;
    step("count the instructions of the rooms", || {
        ROOMS
            .iter()
            .map(|(room, records)| {
                let (once, twice) =
                    (counted(&bench, room, *records)?, counted(&bench, room, 2 * records)?);
                // A scrape stands for a thousand records.
                let done = if *room == "metrics" { records / 1_000 } else { *records };
                Ok(((*room).to_owned(), twice.saturating_sub(once) as f64 / f64::from(done)))
            })
            .collect()
    })
}

/// Instructions of one run.
fn counted(bench: &PathBuf, room: &str, records: u32) -> Result<u64> {
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=cachegrind", "--cache-sim=no", "--branch-sim=no"])
        .arg("--cachegrind-out-file=/dev/null")
        .arg(bench)
        .args(["--room", room, "--records", &records.to_string()]);
    let output = valgrind.output().context("cannot run valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("valgrind of the room {room} ended with {}:\n{}", output.status, said.trim_end());
    }
    references(&said).with_context(|| format!("valgrind did not count: {said}"))
}

/// From valgrind's line `==1234== I   refs:      4,433,985`.
fn references(said: &str) -> Option<u64> {
    let (_, count) = said.lines().find(|line| line.contains("refs:"))?.split_once("refs:")?;
    count.trim().replace(',', "").parse().ok()
}

/// Of each program of the object; what several call counts as one of its own.
fn programs(object: &Path) -> Result<BTreeMap<String, f64>> {
    let bytes = fs::read(object).with_context(|| format!("cannot read {}", object.display()))?;
    let parsed = aya_obj::Object::parse(&bytes)
        .with_context(|| format!("{} is no BPF object", object.display()))?;
    let sizes: BTreeMap<String, f64> = parsed
        .functions
        .values()
        .map(|function| (function.name.clone(), function.instructions.len() as f64))
        .collect();
    if sizes.is_empty() {
        bail!("{} has no programs", object.display());
    }
    Ok(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(all: &[(&str, f64)]) -> BTreeMap<String, f64> {
        all.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn only_what_grew_too_much_is_told() {
        let (then, now) = (
            of(&[("same", 100.0), ("little", 100.0), ("much", 100.0), ("gone", 1.0)]),
            of(&[("same", 100.0), ("little", 109.0), ("much", 111.0), ("new", 9.0)]),
        );
        let mut grown = Vec::new();
        compare("room", &then, &now, true, &mut grown);
        assert_eq!(grown, ["much (+11.0 %)"]);
        grown.clear();
        compare("room", &then, &now, false, &mut grown);
        assert!(grown.is_empty(), "another compiler");
    }

    #[test]
    fn counts_are_read_from_what_valgrind_says() {
        assert_eq!(
            references("==1== Cachegrind\n==1== I   refs:      4,433,985\n"),
            Some(4_433_985)
        );
        assert_eq!(references("==1== nothing"), None);
    }
}
