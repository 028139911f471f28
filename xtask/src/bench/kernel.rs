//! What each program costs inside the kernel, a hit, and how large it is.
//!
//! The kernel's own count (`kernel.bpf_stats_enabled`) includes the counting, so each program is quoted against an empty one of the same type that ran in the
//! same round. The load runs pinned to one core, in several rounds.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::bed::Bed;
use super::bpf::{self, Cost};
use super::figure::{Figure, Part, Spread, Target};
use super::load::{self, Pinned};
use super::plot::{Plot, Shape};
use super::tree::Tree;

/// Of what the programs run on.
const HOW: &str = "`kernel.bpf_stats_enabled`: run time over runs of each program, minus that of an empty program of the same type (a BTF tracepoint) in the \
    same round; the load pinned to one core, the daemon attached with empty programs beside its own. Programs are alike in type, so where no empty one runs on \
    the same event (OOM marks, cgroups) that of the signals sent in the same round stands in. OOM kills are rare and so find their code and data out of the caches: \
    that is what one costs in life, too.";
/// Fewer hits of a round are other work of the machine.
const MIN_HITS: u64 = 40;
/// Nobody minds SIGURG: its default is to be ignored.
const SIGURG: &str = "23";
/// Of a victim of the OOM killer, in bytes.
const OOM_LIMIT: u64 = 24 << 20;

/// One kind of hit.
struct Hit {
    name: &'static str,
    /// Programs that it is about; others run too and would only repeat other rows. Names as the kernel cuts them.
    programs: &'static [&'static str],
    act: fn(&Bed<'_>, &Places) -> Result<()>,
    /// What it may cost above empty, of the first program.
    target: Option<f64>,
}

/// Where the loads that need cgroups have theirs.
struct Places {
    tree: std::path::PathBuf,
    oom: std::path::PathBuf,
}

const EXIT: &str = "sched_process_e";

const HITS: &[Hit] = &[
    Hit {
        name: "a normal exit",
        programs: &[EXIT],
        act: |bed, _| many(bed, &["exits"], 20_000, &[]),
        target: Some(100.0),
    },
    Hit {
        name: "an abnormal exit",
        programs: &[EXIT, "signal_deliver"],
        act: |bed, _| many(bed, &["aborts"], 4_000, &[]),
        target: None,
    },
    Hit {
        name: "an irrelevant signal (SIGURG)",
        programs: &["signal_generate"],
        act: |bed, _| many(bed, &["signals"], 20_000, &[SIGURG]),
        target: Some(30.0),
    },
    Hit {
        name: "an irrelevant signal (SIGCHLD)",
        programs: &["signal_generate"],
        act: |bed, _| many(bed, &["signals"], 20_000, &["17"]),
        target: Some(30.0),
    },
    Hit {
        name: "an ignored signal that may kill (SIGUSR1)",
        programs: &["signal_generate"],
        act: |bed, _| many(bed, &["signals"], 20_000, &["10"]),
        target: None,
    },
    Hit {
        name: "a fatal signal (SIGKILL)",
        programs: &["signal_generate"],
        act: |bed, _| many(bed, &["aborts"], 4_000, &["--unheard"]),
        target: None,
    },
    Hit {
        name: "an OOM kill",
        programs: &["mark_victim", "signal_deliver"],
        act: oom_kills,
        target: None,
    },
    Hit {
        name: "a cgroup made and removed",
        programs: &["cgroup_mkdir", "cgroup_rmdir"],
        act: |bed, at| {
            let within = at.tree.to_string_lossy();
            many(bed, &["cgroups"], 4_000, &[&within])
        },
        target: None,
    },
];

/// A load that does one thing so often, or fewer times with `--quick`.
fn many(bed: &Bed<'_>, act: &[&str], times: u32, more: &[&str]) -> Result<()> {
    let times = bed.pick(times, times / 10).to_string();
    let arguments: Vec<&str> =
        act.iter().copied().chain([times.as_str()]).chain(more.iter().copied()).collect();
    load::run(bed, act[0], &arguments).map(drop)
}

/// Processes that meet the limit of a cgroup of ours, one after another.
fn oom_kills(bed: &Bed<'_>, at: &Places) -> Result<()> {
    let cgroup = at.oom.to_string_lossy();
    for _ in 0..bed.pick(100, 50) {
        let mut hog = load::start(&bed.victim, &["--cgroup", &cgroup, "hog", "--limit-mib", "64"])?;
        let status = bed.stop.until("a kill at the limit", Duration::from_secs(10), || {
            hog.child.try_wait().context("cannot watch the hog")
        })?;
        ensure!(status.signal() == Some(9), "a hog at its limit ended with {status}");
    }
    Ok(())
}

/// The part.
pub(super) fn measure(bed: &Bed<'_>) -> Result<Part> {
    let mut part = Part::new("kernel", "Cost in the kernel, a hit", HOW);
    let mut tree = Tree::create("kernel")?;
    let oom = tree.add("oom", Some(OOM_LIMIT))?;
    let at = Places { tree: tree.top().to_path_buf(), oom };
    let _counting = bpf::Enabled::switch_on()?;
    let before = bpf::read()?;
    let daemon = bed.start(&["--bench.empty-programs"])?;
    sizes(&mut part, &bpf::new_since(&before)?);
    let mut bars = Vec::new();
    {
        let _pinned = Pinned::to_last()?;
        for hit in HITS {
            let rounds = (0..bed.pick(9, 2))
                .map(|_| {
                    let start = bpf::new_since(&before)?;
                    (hit.act)(bed, &at)?;
                    let middle = bpf::new_since(&before)?;
                    // So that an empty program runs in each round.
                    many(bed, &["signals"], 4_000, &[SIGURG])?;
                    let end = bpf::new_since(&before)?;
                    Ok(Round { hit: bpf::since(&start, &middle), after: bpf::since(&middle, &end) })
                })
                .collect::<Result<Vec<_>>>()
                .map_err(|error| daemon.explain(error.context(hit.name)))?;
            for (number, program) in hit.programs.iter().enumerate() {
                let above = rounds.iter().filter_map(|round| round.above_empty(program)).collect();
                let Some(figure) =
                    Figure::runs(format!("{}: {program}", hit.name), "ns above empty", above)
                else {
                    part.note(format!("{}: {program} did not run here.", hit.name));
                    continue;
                };
                if let Spread::Runs { median, min, max, .. } = figure.spread {
                    bars.push((figure.name.clone(), min, median, max));
                }
                let target = hit.target.filter(|_| number == 0).map(Target::AtMost);
                part.push(figure.promised(target));
            }
            let empty = rounds.iter().filter_map(Round::empty).collect();
            if hit.name == HITS[0].name {
                part.push(Figure::runs("an empty program, the counting included", "ns", empty));
            }
        }
    }
    // Outside of the cgroups before they go.
    drop(daemon);
    ensure!(fs::metadata(&at.oom).is_ok(), "the cgroup of the hogs went by itself");
    part.plots.push(Plot {
        slug: "kernel",
        title: "Time of each program above an empty one".into(),
        x: "",
        y: "ns a hit",
        shape: Shape::Bars(bars),
    });
    Ok(part)
}

/// What ran in one round: for the hit, and for signals that nobody minds.
struct Round {
    hit: BTreeMap<String, Cost>,
    after: BTreeMap<String, Cost>,
}

impl Round {
    fn above_empty(&self, program: &str) -> Option<f64> {
        let cost = self.hit.get(program).filter(|cost| cost.hits >= MIN_HITS)?;
        let empty = match program {
            "signal_generate" | "signal_deliver" => self.enough("empty_signal"),
            EXIT => self.enough("empty_exit"),
            _ => None,
        };
        Some(cost.per_hit()? - empty.or_else(|| self.empty())?)
    }

    fn enough(&self, program: &str) -> Option<f64> {
        self.hit.get(program).filter(|cost| cost.hits >= MIN_HITS)?.per_hit()
    }

    fn empty(&self) -> Option<f64> {
        self.after.get("empty_signal")?.per_hit()
    }
}

fn sizes(part: &mut Part, programs: &bpf::Programs) {
    for program in programs.values().filter(|program| !program.name.starts_with("empty_")) {
        let name = &program.name;
        part.push(Figure::exact(
            format!("{name}: size after the verifier"),
            "instructions",
            program.instructions as f64,
        ));
        part.push(program.verified.map(|verified| {
            Figure::exact(
                format!("{name}: walked through by the verifier"),
                "instructions",
                verified as f64,
            )
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_held_to_the_empty_one_of_its_own_event_and_round() {
        let costs = |all: &[(&str, u64, u64)]| {
            all.iter()
                .map(|(name, hits, each)| {
                    ((*name).to_owned(), Cost { hits: *hits, ns: hits * each })
                })
                .collect()
        };
        let round = Round {
            hit: costs(&[
                (EXIT, 100, 250),
                ("empty_exit", 100, 100),
                ("signal_generate", 100, 120),
                ("empty_signal", 2, 900),
                ("cgroup_mkdir", 100, 500),
                ("mark_victim", 3, 1),
            ]),
            after: costs(&[("empty_signal", 4_000, 90)]),
        };
        assert_eq!(round.above_empty(EXIT), Some(150.0));
        // Too few empty runs beside it: those after it count.
        assert_eq!(round.above_empty("signal_generate"), Some(30.0));
        assert_eq!(round.above_empty("cgroup_mkdir"), Some(410.0));
        assert_eq!(round.above_empty("mark_victim"), None);
    }
}
