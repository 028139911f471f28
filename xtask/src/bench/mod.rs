//! `bench`: what killwatch costs, how fast it is and where it ends, beside what people use today.
//!
//! Each part is a file and hands back figures with their spread ([`figure`]). What is compared is measured in turns, in the same run, and told as a ratio.

mod bed;
mod bpf;
mod figure;
mod fleet;
mod footprint;
mod growth;
mod guest;
mod kernel;
mod latency;
mod lead;
mod load;
mod loss;
mod machine;
mod peers;
mod plot;
mod report;
mod tree;
mod usage;
mod workload;

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use self::bed::Bed;
use self::figure::Part;
use self::machine::Machine;
use self::report::Report;
use crate::context::Ctx;
use crate::process::step;
use crate::stop::Interrupted;

/// Arguments of `bench`.
#[derive(clap::Args)]
pub(crate) struct BenchArgs {
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Write a page in Markdown, with its plots as SVG beside it
    #[arg(long, value_name = "FILE.md")]
    report: Option<PathBuf>,
    /// Only these parts, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "PART")]
    only: Vec<Which>,
    /// Only these peers beside killwatch
    #[arg(long = "peer", value_name = "NAME", value_parser = peers::names())]
    peers: Vec<String>,
    /// Few and short runs: to see whether it works, not to quote. Without `guest` and `lead`
    #[arg(long)]
    quick: bool,
}

/// The parts, in the order in which they are measured and shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    /// Cost of each program in the kernel, a hit
    Kernel,
    /// What a workload feels, with killwatch and with its peers
    Workload,
    /// The same in a virtual machine, with the peers that need kprobes
    Guest,
    /// Time from the kernel's decision to who is told
    Latency,
    /// Deaths a second without loss, and beyond
    Loss,
    /// Memory and CPU of the daemon
    Footprint,
    /// How each grows with what drives it
    Growth,
    /// Ten thousand nodes, on paper
    Fleet,
    /// How long before a kill it is warned of
    Lead,
}

impl Which {
    fn measure(self, bed: &Bed<'_>, before: &[Part]) -> Result<Part> {
        match self {
            Self::Kernel => kernel::measure(bed),
            Self::Workload => workload::measure(bed),
            Self::Guest => guest::measure(bed),
            Self::Latency => latency::measure(bed),
            Self::Loss => loss::measure(bed),
            Self::Footprint => footprint::measure(bed),
            Self::Growth => growth::measure(bed),
            Self::Fleet => fleet::measure(bed, before),
            Self::Lead => lead::measure(bed),
        }
    }
}

/// Measures and prints. Missing a target is shown, not an error: the machine may be busy. A part that cannot be measured is shown as such, and is an error at
/// the end.
pub(crate) fn run(ctx: &Ctx, args: &BenchArgs) -> Result<()> {
    let parts = wanted(args);
    let bed = Bed::make(ctx, args.quick, args.peers.clone())?;
    let machine = Machine::look(ctx, &bed.daemon);
    if let Some(doubt) = machine.doubt() {
        eprintln!("warning: {doubt}");
    }
    let mut report = Report { machine, quick: args.quick, parts: Vec::new() };
    let mut failed = Vec::new();
    for which in parts {
        let name = format!("{which:?}").to_lowercase();
        match step(&name, || which.measure(&bed, &report.parts)) {
            Ok(part) => report.parts.push(part),
            Err(error) if error.is::<Interrupted>() => return Err(error),
            Err(error) => {
                eprintln!("error: {name}: {error:#}");
                failed.push(format!("{name}: {error:#}"));
            }
        }
        report.machine.leave();
        // After each part: whatever ends the command, an hour of figures is not lost with it.
        if let Some(file) = &args.report {
            report.write(file)?;
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report).context("the report does not print")?);
    } else {
        print!("{}", report.table());
    }
    anyhow::ensure!(failed.is_empty(), "not measured: {}", failed.join("; "));
    Ok(())
}

fn wanted(args: &BenchArgs) -> Vec<Which> {
    use clap::ValueEnum as _;
    let all = Which::value_variants().iter().copied();
    let asked = |which: &Which| args.only.contains(which);
    let quick = |which: &Which| !(args.quick && matches!(which, Which::Lead | Which::Guest));
    all.filter(|which| if args.only.is_empty() { quick(which) } else { asked(which) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_in_order_and_the_long_ones_are_not_quick() {
        let args = |only: &[Which], quick| BenchArgs {
            json: false,
            report: None,
            only: only.to_vec(),
            peers: Vec::new(),
            quick,
        };
        assert_eq!(wanted(&args(&[], false)).len(), 9);
        let quick = wanted(&args(&[], true));
        assert!(!quick.contains(&Which::Lead) && !quick.contains(&Which::Guest));
        assert_eq!(wanted(&args(&[Which::Lead], true)), [Which::Lead]);
        let two = args(&[Which::Loss, Which::Kernel], false);
        assert_eq!(wanted(&two), [Which::Kernel, Which::Loss]);
    }
}
