//! The lean form of a record: what fits into any receiver.
//!
//! It has `truncated: true`. A death lacks its lists: command line, environment, evidence, what was inferred, ancestors and marks of the killer, levels,
//! processes and history of memory, findings, owners, labels, annotations, tags, sources, and what is missing. Of an alert's and a summary's lists the newest [`NEWEST`] items are left. If that
//! is still too long, strings are cut and end in `…`. The whole record is in the ledger, under the same id.

use serde_json::Value;

use crate::alert::AlertKind;
use crate::death::{Death, Workload};
use crate::ledger::Item;
use crate::notify::deliver::Message;

/// Items that lists of an alert and of a summary have at most.
pub(super) const NEWEST: usize = 10;

/// The lean form of a message.
///
/// # Errors
/// If it has no JSON form.
pub(super) fn of(message: &Message) -> serde_json::Result<Value> {
    let mut value = match message {
        Message::Entry(entry) => match &entry.item {
            Item::Death(death) => serde_json::to_value(lean_death(death))?,
            Item::Alert(alert) => {
                let mut alert = (**alert).clone();
                match &mut alert.kind {
                    AlertKind::PoisonJob(poison) => {
                        newest(&mut poison.deaths);
                        poison.job.sources.clear();
                    }
                    AlertKind::NearLimit(near) => {
                        near.processes.clear();
                        lean_workload(&mut near.workload);
                        near.job.iter_mut().for_each(|job| job.sources.clear());
                    }
                }
                serde_json::to_value(alert)?
            }
        },
        Message::Summary(summary) => {
            let mut summary = (**summary).clone();
            newest(&mut summary.deaths);
            newest(&mut summary.jobs);
            lean_workload(&mut summary.workload);
            serde_json::to_value(summary)?
        }
    };
    if let Value::Object(map) = &mut value {
        map.insert("truncated".to_owned(), Value::Bool(true));
    }
    Ok(value)
}

fn lean_death(death: &Death) -> Death {
    let mut lean = death.clone();
    lean.victim.cmdline_truncated |= lean.victim.cmdline.take().is_some();
    lean.victim.environ.clear();
    lean.evidence.clear();
    lean.inferred.clear();
    lean.missing.clear();
    lean.tags.clear();
    lean.killer.ancestors.clear();
    lean.killer.marks.clear();
    lean.memory.levels.clear();
    lean.memory.processes.clear();
    lean.memory.history = None;
    lean.findings.clear();
    lean_workload(&mut lean.workload);
    if let Some(job) = &mut lean.job {
        job.sources.clear();
    }
    lean
}

fn lean_workload(workload: &mut Workload) {
    workload.owners.clear();
    workload.labels.clear();
    workload.annotations.clear();
    workload.sources.clear();
}

fn newest<T>(list: &mut Vec<T>) {
    list.drain(..list.len().saturating_sub(NEWEST));
}

/// Cuts each string to `max` bytes, the mark of it not counted. Keys are the format's own and short.
pub(super) fn cut(value: &mut Value, max: usize) {
    match value {
        Value::String(text) if text.len() > max => {
            text.truncate(text.floor_char_boundary(max));
            text.push('…');
        }
        Value::Array(items) => items.iter_mut().for_each(|item| cut(item, max)),
        Value::Object(map) => map.values_mut().for_each(|item| cut(item, max)),
        _ => {}
    }
}
