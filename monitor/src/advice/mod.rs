//! What the numbers of a death show about why memory was short, and what to change. Pure: no I/O, no clock.
//!
//! It runs on the whole record, after its names are known and before it is kept. The rules are data ([`rules::TABLE`]): for which causes one is asked, what of
//! the record it needs, how much it weighs, which others make it void, and the function that finds it. No rule fires without its evidence; a sentence of evidence
//! has the numbers that it rests on. Where none fires the verdict's own sentence stays.
//!
//! * `case` is what the functions are given: the record, and its earlier deaths; with the arithmetic that they share.
//! * `others` is about who else took the memory, `kinds` about what it is, `growth` about since when it grew, `need` about a limit that is too small,
//!   `runtime` about languages and servers with a heap of their own.
//! * `earlier` remembers deaths of the same job or workload.

mod case;
mod earlier;
mod growth;
mod key;
mod kinds;
mod need;
mod others;
mod rules;
mod runtime;
#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;
mod words;

pub use earlier::{Earlier, Past};

use crate::death::{Cause, Death, Finding};
use crate::text::bytes;

use self::case::Case;

/// Findings of one death, at most.
pub const MAX_FINDINGS: usize = 4;
/// Longest sentence of evidence or of advice of one finding, bytes.
pub const MAX_SENTENCE: usize = 700;
/// Longest advice of a death that has findings, bytes. What does not fit is in the findings.
pub const MAX_ADVICE: usize = 1400;

/// Fills `death.findings`, the weightiest first, and if there are any, has `death.advice` say what they advise. `earlier` does not know of this death yet.
pub fn advise(death: &mut Death, earlier: &Earlier) {
    let findings = rules::find(&Case::new(death, earlier));
    if let Some(advice) = together(death, &findings) {
        death.advice = advice;
    }
    death.findings = findings;
}

/// What the findings advise, after what was hit. The first always; each other as long as there is room.
fn together(death: &Death, findings: &[Finding]) -> Option<String> {
    let (first, others) = findings.split_first()?;
    let mut advice = match what_was_hit(death) {
        Some(hit) => format!("{hit} {}", first.advice),
        None => first.advice.clone(),
    };
    for finding in others {
        if advice.len() + 1 + finding.advice.len() <= MAX_ADVICE {
            advice = format!("{advice} {}", finding.advice);
        }
    }
    Some(words::cut(advice, MAX_ADVICE))
}

/// The limit that was hit, a sentence.
fn what_was_hit(death: &Death) -> Option<String> {
    let memory = &death.memory;
    match death.cause {
        Cause::OomMemcg => {
            let (cgroup, limit) = (memory.limit_cgroup.as_ref()?, memory.limit_bytes?);
            let own = memory.levels.first().and_then(|own| own.cgroup.as_ref());
            let whose = if own.or(death.workload.cgroup.as_ref()) == Some(cgroup) {
                "its own cgroup's limit".to_owned()
            } else {
                format!("the limit of {}, above its own cgroup,", words::place(cgroup))
            };
            Some(format!("It hit {whose} of {}.", bytes(limit)))
        }
        Cause::OomGlobal => Some("The host itself ran out of memory.".to_owned()),
        _ => None,
    }
}
