//! Where deaths are heard of: BPF, else the kernel log, else nowhere. Each lack is a reason that the daemon shows; only a lack that the user
//! ruled out (`probe.source`) ends the start.

use std::{fmt::Display, path::Path, sync::Arc};

use serde::Serialize;

use crate::{
    attribute::environ::Allowlist,
    cgroup::mounts::Hierarchy,
    config::ProbeSource,
    kmsg,
    probe::{
        ProbeReport, ProbeState, Record,
        hold::{self, Held},
        load::Options,
        pins::{PinPath, state::Pins},
        plan::{PROBES, TELLS_DEATHS},
        reader,
        stats::Lost,
        tally::Note,
    },
    queue::{self, OnFull, Receiver, Sender},
};

/// Bytes that may wait between the reader and the pipeline, however few records they are.
pub const QUEUE_BYTES: usize = 8 << 20;

/// Sources of deaths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Programs in the kernel.
    Bpf,
    /// The kernel log: OOM kills only.
    Kmsg,
}

/// What is wanted.
#[derive(Debug)]
pub struct Wanted {
    /// Which source.
    pub source: ProbeSource,
    /// About the kernel side.
    pub options: Options,
    /// Where what outlives the daemon is pinned.
    pub pin: PinPath,
    /// What an earlier daemon noted of the ring that it read.
    pub note: Option<Note>,
    /// Variables to keep.
    pub allowlist: Allowlist,
    /// Records that may wait.
    pub records: usize,
    /// The hierarchy of the memory controller.
    pub hierarchy: Hierarchy,
}

/// Told of what goes wrong while it runs.
pub trait Observer: reader::Observer + kmsg::reader::Observer {}

/// A source that is open.
pub struct Source {
    /// Which; `None` if deaths cannot be seen.
    pub kind: Option<Kind>,
    /// What comes from it.
    pub records: Receiver<Record>,
    /// What the kernel side could not put on the ring.
    pub lost: Option<Lost>,
    /// What of the kernel side outlives the daemon, if it is the source.
    pub pins: Option<Arc<Pins>>,
    /// How each probe fared.
    pub reports: Vec<ProbeReport>,
    /// What is lacking, a reason each. Empty if all that is required is there.
    pub lacks: Vec<String>,
    /// Keeps it open.
    pub guard: Guard,
}

/// Keeps a source open.
pub struct Guard(Open);

enum Open {
    Bpf {
        held: Box<Held>,
        reader: reader::Reader,
    },
    Kmsg(kmsg::reader::Reader),
    /// Nothing is ever sent, and the queue stays open.
    Nothing {
        _sender: Sender<Record>,
    },
}

impl Guard {
    /// Takes in what is still to be read, and ends. May take a while: detaching waits for programs that run. What is pinned stays.
    pub fn close(self) {
        match self.0 {
            // What is pinned goes on, and what it tells waits for the next daemon, which may come when this one has read its last.
            Open::Bpf { held, reader } if held.is_pinned() => {
                reader.stop();
                drop(held);
            }
            Open::Bpf { held, reader } => {
                // First, so that no record can come after the reader's last look.
                drop(held);
                reader.stop();
            }
            Open::Kmsg(reader) => reader.stop(),
            Open::Nothing { .. } => {}
        }
    }
}

/// Opens the best source that can be had.
///
/// # Errors
/// If the one that the user insists on cannot be had.
pub fn open<O: Observer + 'static>(wanted: Wanted, observer: &Arc<O>) -> anyhow::Result<Source> {
    let source = wanted.source;
    let why = match source {
        ProbeSource::Kmsg => "probe.source is kmsg".to_owned(),
        ProbeSource::Auto | ProbeSource::Bpf => match bpf(&wanted, Arc::clone(observer) as _) {
            Ok(source) => return Ok(source),
            Err(why) => why,
        },
    };
    if source == ProbeSource::Bpf {
        anyhow::bail!("{why}; `killwatch doctor` says what this host lacks");
    }
    let reports = not_tried(&why);
    let log = kmsg::reader::Log::open(
        Path::new(kmsg::PATH),
        wanted.hierarchy.root.clone(),
        wanted.hierarchy.id,
    );
    let (sender, records) = bounded(&wanted);
    let opened = log.and_then(|log| log.spawn(sender, Arc::clone(observer) as _));
    match opened {
        Ok(reader) => Ok(Source {
            kind: Some(Kind::Kmsg),
            records,
            lost: None,
            pins: None,
            reports,
            lacks: vec![format!(
                "{why}: OOM kills are told from the kernel log, and no other deaths"
            )],
            guard: Guard(Open::Kmsg(reader)),
        }),
        Err(error) if source == ProbeSource::Kmsg => {
            anyhow::bail!("{} cannot be read: {error}", kmsg::PATH)
        }
        Err(error) => {
            let (sender, records) = bounded(&wanted);
            Ok(Source {
                kind: None,
                records,
                lost: None,
                pins: None,
                reports,
                lacks: vec![why, format!("{} cannot be read: {error}", kmsg::PATH)],
                guard: Guard(Open::Nothing { _sender: sender }),
            })
        }
    }
}

fn bounded(wanted: &Wanted) -> (Sender<Record>, Receiver<Record>) {
    queue::bounded(wanted.records, QUEUE_BYTES, OnFull::DropNewest)
}

fn bpf(wanted: &Wanted, observer: Arc<dyn reader::Observer>) -> Result<Source, String> {
    let cannot = |error: &dyn Display| format!("BPF cannot be used: {error}");
    let opened = hold::open(&wanted.options, &wanted.pin, wanted.note).map_err(|e| cannot(&e))?;
    let hold::Opened { held, sources, lost, reports, pins } = opened;
    let (sender, records) = bounded(wanted);
    let reader = reader::spawn(sources, wanted.allowlist.clone(), sender, observer)
        .map_err(|error| cannot(&error))?;
    let lacks = lacks(&reports);
    let guard = Guard(Open::Bpf { held: Box::new(held), reader });
    let tells = |report: &&ProbeReport| report.name == TELLS_DEATHS;
    if reports.iter().find(tells).is_none_or(|report| report.state != ProbeState::Attached) {
        guard.close();
        return Err(format!("BPF cannot be used: {}", lacks.join("; ")));
    }
    let (lost, pins) = (Some(lost), Some(pins));
    Ok(Source { kind: Some(Kind::Bpf), records, lost, pins, reports, lacks, guard })
}

/// A reason for each probe that is required and not attached.
fn lacks(reports: &[ProbeReport]) -> Vec<String> {
    let missing = reports.iter().filter(|p| p.required && p.state != ProbeState::Attached);
    let lack = |probe: &ProbeReport| {
        let why = probe.why.as_deref().map_or_else(String::new, |why| format!(": {why}"));
        format!("the probe {} ({}) is not attached{why}", probe.name, probe.hook)
    };
    missing.map(lack).collect()
}

/// The report of each probe where none could be tried.
fn not_tried(why: &str) -> Vec<ProbeReport> {
    let report = |probe: &crate::probe::plan::Probe| ProbeReport {
        state: ProbeState::Failed,
        why: Some(why.to_owned()),
        ..probe.pending()
    };
    PROBES.iter().map(report).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_required_is_a_lack() {
        let mut reports = not_tried("refused");
        assert_eq!(lacks(&reports).len(), PROBES.iter().filter(|probe| probe.required).count());
        for report in reports.iter_mut().filter(|report| report.required) {
            report.state = ProbeState::Attached;
        }
        assert_eq!(lacks(&reports), Vec::<String>::new());
        reports[0].state = ProbeState::Unsupported;
        assert_eq!(
            lacks(&reports),
            ["the probe cgroup_mkdir (tp_btf/cgroup/cgroup_mkdir) is not attached: refused"]
        );
        assert!(PROBES.iter().any(|probe| probe.program == TELLS_DEATHS));
    }
}
