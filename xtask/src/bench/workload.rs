//! What a workload feels: how much of it gets done in a second with nothing attached, with empty programs, with killwatch, and with each peer.
//!
//! Every round has them all, in an order that turns, and begins and ends with nothing attached; a ratio is of one round. The difference between those two is what the
//! machine does by itself, and is shown beside the rest.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use super::bed::Bed;
use super::bpf::Empty;
use super::figure::{Figure, Part, Spread, Target};
use super::load::{self, Pinned};
use super::peers::{self, Peer, Running};
use super::plot::{Plot, Shape};
use super::tree::Tree;
use crate::daemon::Daemon;

const HOW: &str = "How often a second, pinned to one core, nobody dying abnormally. Every round measures each contender once, in an order that turns from round to \
    round; it begins and ends with nothing attached, and ratios are to the mean of these two. \"Nothing, again\" is the second of them over the first: what lies within its \
    spread is noise of this machine. Peers run as their documentation says; those that cannot attach here are named below.";

/// Throughput that must be left.
const LEFT: f64 = 0.99;

/// What is done, and how often in a full run.
const LOADS: &[(&str, &str, u32)] = &[
    ("fork+exec+exit", "execs", 1_500),
    ("fork+exit", "exits", 6_000),
    ("thread create+exit", "spawns", 20_000),
    ("signal ping-pong", "ping-pong", 20_000),
    ("cgroup mkdir+rmdir", "cgroups", 3_000),
];

/// What is attached meanwhile.
enum Contender {
    Empty,
    Killwatch,
    Peer(&'static Peer),
}

impl Contender {
    fn name(&self) -> &'static str {
        match self {
            Self::Empty => "empty programs",
            Self::Killwatch => "killwatch",
            Self::Peer(peer) => peer.name,
        }
    }

    fn start(&self, bed: &Bed<'_>, log: &Path) -> Result<Attached> {
        Ok(match self {
            Self::Empty => Attached::Empty(Empty::attach(&bed.object)?),
            Self::Killwatch => Attached::Killwatch(bed.start::<&str>(&[])?),
            Self::Peer(peer) => Attached::Peer(peer.start(bed, log)?),
        })
    }
}

/// It ends with this.
#[expect(dead_code, reason = "held until it is measured")]
enum Attached {
    Empty(Empty),
    Killwatch(Daemon),
    Peer(Running),
}

/// By load: how often a second.
type Rates = BTreeMap<&'static str, f64>;

/// The part.
pub(super) fn measure(bed: &Bed<'_>) -> Result<Part> {
    let mut part = Part::new("workload", "What a workload feels", HOW);
    peers::ensure();
    let logs = tempfile::Builder::new().prefix("killwatch-bench-").tempdir()?;
    let tree = Tree::create("workload")?;
    let mut contenders = vec![Contender::Empty, Contender::Killwatch];
    for peer in bed.peers() {
        match peer.start(bed, &logs.path().join("peer.log")) {
            Ok(running) => {
                drop(running);
                contenders.push(Contender::Peer(peer));
            }
            Err(error) if error.is::<crate::stop::Interrupted>() => return Err(error),
            Err(error) => {
                part.note(format!("Skipped, does not run here: {}: {error:#}", peer.name))
            }
        }
    }
    let mut ratios: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    let mut bare: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for round in 0..bed.pick(7, 3) {
        eprintln!("    round {}", round + 1);
        let first = rates(bed, tree.top())?;
        let turned = (0..contenders.len()).map(|at| &contenders[(at + round) % contenders.len()]);
        let mut with = Vec::new();
        for contender in turned {
            let attached = contender.start(bed, &logs.path().join("peer.log"))?;
            with.push((contender.name(), rates(bed, tree.top())?));
            drop(attached);
        }
        let last = rates(bed, tree.top())?;
        for (load, _, _) in LOADS {
            let (one, other) = (first[load], last[load]);
            let mean = f64::midpoint(one, other);
            bare.entry(load).or_default().push(mean);
            ratios.entry((load, "nothing, again")).or_default().push(other / one);
            for (name, rates) in &with {
                ratios.entry((load, name)).or_default().push(rates[load] / mean);
            }
        }
    }
    for (load, _, _) in LOADS {
        part.push(Figure::runs(
            format!("{load}: nothing attached"),
            "a second",
            bare.remove(load).unwrap_or_default(),
        ));
        let names = ["nothing, again"].into_iter().chain(contenders.iter().map(Contender::name));
        for name in names {
            let of = ratios.remove(&(*load, name)).unwrap_or_default();
            let figure = Figure::runs(format!("{load}: {name}"), "of nothing attached", of);
            let promised = name == "killwatch" && *load == LOADS[0].0;
            let target = promised.then_some(Target::AtLeast(LEFT));
            part.push(figure.map(|figure| figure.promised(target)));
        }
    }
    against_peers(&mut part, &contenders);
    part.plots.push(plot(&part));
    Ok(part)
}

/// One turn of all loads.
fn rates(bed: &Bed<'_>, within: &Path) -> Result<Rates> {
    let _pinned = Pinned::to_last()?;
    let within = within.to_string_lossy();
    LOADS
        .iter()
        .map(|(name, act, times)| {
            let times = bed.pick(*times, times / 5).to_string();
            let mut arguments = vec![*act, times.as_str()];
            if *act == "cgroups" {
                arguments.push(&within);
            }
            Ok((*name, load::run(bed, name, &arguments)?.rate()))
        })
        .collect()
}

/// Whether killwatch leaves at least as much as each peer does.
fn against_peers(part: &mut Part, contenders: &[Contender]) {
    let load = LOADS[0].0;
    let ours = part.get(&format!("{load}: killwatch"));
    let peers = contenders.iter().filter(|one| matches!(one, Contender::Peer(_)));
    let best = peers
        .filter_map(|peer| Some((part.get(&format!("{load}: {}", peer.name()))?, peer.name())))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    if let (Some(ours), Some((best, name))) = (ours, best) {
        part.push(
            Figure::exact(
                format!("{load}: killwatch over the best peer ({name})"),
                "",
                ours / best,
            )
            .promised(Target::AtLeast(1.0)),
        );
    }
}

fn plot(part: &Part) -> Plot {
    let load = LOADS[0].0;
    let bars = part.figures.iter().filter(|figure| figure.unit == "of nothing attached");
    let bars = bars.filter_map(|figure| {
        let name = figure.name.strip_prefix(&format!("{load}: "))?;
        match figure.spread {
            Spread::Runs { median, min, max, .. } => Some((name.to_owned(), min, median, max)),
            _ => None,
        }
    });
    Plot {
        slug: "workload",
        title: format!("{load} a second, of what it is with nothing attached"),
        x: "",
        y: "share",
        shape: Shape::Bars(bars.collect()),
    }
}
