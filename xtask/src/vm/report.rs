//! The report: scenario × machine with pass, fail, or not applicable and why, as Markdown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use super::log::{Confusion, Ending, Log};
use crate::process::seconds;

/// How one row of the matrix went.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The row's name.
    pub(crate) row: String,
    /// Where its kernel comes from, if it could be had.
    pub(crate) origin: Option<String>,
    /// From power-on to power-off.
    pub(crate) took: Duration,
    /// What it printed.
    pub(crate) log: Log,
    /// What went wrong beyond the scenarios: no kernel, no boot, no end.
    pub(crate) broken: Option<String>,
    /// What is not as the table of kernels says.
    pub(crate) remarks: Vec<String>,
    /// A kernel that could not be had, which is allowed.
    pub(crate) missing: bool,
}

impl Outcome {
    /// Whether it counts as a success. If only `some` scenarios were asked for, these need not apply to each machine.
    pub(crate) fn good(&self, some: bool) -> bool {
        let counts = self.log.tally();
        let any = counts.passed > 0 || (some && counts.not_applicable > 0);
        self.missing || (self.broken.is_none() && counts.failed == 0 && any)
    }

    /// One line for a terminal.
    pub(crate) fn summary(&self) -> String {
        let counts = self.log.tally();
        let mut text = format!(
            "{:<18} {:>3} passed, {} failed, {} not applicable, {}",
            self.row,
            counts.passed,
            counts.failed,
            counts.not_applicable,
            seconds(self.took)
        );
        for name in self.log.failed() {
            let _ = write!(text, "; failed: {name}");
        }
        if let Some(broken) = &self.broken {
            let first = broken.lines().next().unwrap_or_default();
            let word = if self.missing { "missing" } else { "broken" };
            let _ = write!(text, "; {word}: {first}");
        }
        for remark in &self.remarks {
            let _ = write!(text, "; {remark}");
        }
        text
    }
}

/// All matrices added up.
pub(crate) fn confusion(outcomes: &[Outcome]) -> Confusion {
    let mut sum = Confusion::new();
    for (pair, count) in outcomes.iter().flat_map(|outcome| &outcome.log.confusion) {
        let total = sum.entry(pair.clone()).or_default();
        *total = total.saturating_add(*count);
    }
    sum
}

/// The report as Markdown.
pub(crate) fn markdown(outcomes: &[Outcome]) -> String {
    let mut text = String::from("# The scenarios under each kernel\n\n");
    machines(&mut text, outcomes);
    scenarios(&mut text, outcomes);
    matrix(&mut text, &confusion(outcomes));
    text
}

fn machines(text: &mut String, outcomes: &[Outcome]) {
    text.push_str(
        "| machine | kernel package | it says | passed | failed | not applicable | time |\n",
    );
    text.push_str("|---|---|---|---:|---:|---:|---:|\n");
    for outcome in outcomes {
        let counts = outcome.log.tally();
        let mut says: Vec<String> = outcome.log.machine.iter().cloned().collect();
        says.extend(outcome.remarks.iter().cloned());
        if let Some(broken) = &outcome.broken {
            let word = if outcome.missing { "missing" } else { "**broken**" };
            says.push(format!("{word}: {}", broken.lines().next().unwrap_or_default()));
        }
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            outcome.row,
            cell(outcome.origin.as_deref().unwrap_or("none")),
            cell(&says.join("; ")),
            counts.passed,
            counts.failed,
            counts.not_applicable,
            seconds(outcome.took),
        );
    }
}

fn scenarios(text: &mut String, outcomes: &[Outcome]) {
    let names: BTreeSet<&String> =
        outcomes.iter().flat_map(|outcome| outcome.log.scenarios.keys()).collect();
    // A reason is told once, and numbered.
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    text.push_str("\n| scenario |");
    for outcome in outcomes {
        let _ = write!(text, " {} |", outcome.row);
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(outcomes.len()));
    text.push('\n');
    for name in names {
        let _ = write!(text, "| {} |", cell(name));
        for outcome in outcomes {
            let shown = match outcome.log.scenarios.get(name) {
                Some(Ending::Pass) => "pass".to_owned(),
                Some(Ending::Fail) => "**FAIL**".to_owned(),
                Some(Ending::NotApplicable(why)) => {
                    let number = *reasons.entry(why.clone()).or_insert_with(|| {
                        order.push(why.clone());
                        order.len()
                    });
                    format!("n/a ({number})")
                }
                None => "not run".to_owned(),
            };
            let _ = write!(text, " {shown} |");
        }
        text.push('\n');
    }
    if !order.is_empty() {
        text.push_str("\nNot applicable:\n\n");
        for (index, why) in order.iter().enumerate() {
            let _ = writeln!(text, "{}. {}", index + 1, cell(why));
        }
    }
}

fn matrix(text: &mut String, confusion: &Confusion) {
    if confusion.is_empty() {
        return;
    }
    text.push_str(
        "\n## Confusion matrix\n\nOver all machines; a row off the diagonal is bold.\n\n",
    );
    text.push_str("| caused | reported | count |\n|---|---|---:|\n");
    for ((caused, reported), count) in confusion {
        let mark = if caused == reported { "" } else { "**" };
        let _ = writeln!(text, "| {mark}{caused}{mark} | {mark}{reported}{mark} | {count} |");
    }
}

/// Text of a table's cell: no line end, no column's end.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(row: &str, text: &str) -> Outcome {
        Outcome {
            row: row.to_owned(),
            origin: Some("linux-image-6.1.0-1-cloud-amd64 of bookworm".to_owned()),
            took: Duration::from_secs(61),
            log: Log::parse(text),
            broken: None,
            remarks: Vec::new(),
            missing: false,
        }
    }

    const GOOD: &str = "killwatch-vm: Linux 6.1.0\ntest a ... ok\ntest b ... SKIPPED: b: no | swap\nok\n\
        confusion matrix:\nkilled -> killed: 2\n\n";

    #[test]
    fn a_table_of_scenarios_and_machines() {
        let other = outcome(
            "7-v2",
            "test a ... FAILED\ntest c ... ok\nconfusion matrix:\nkilled -> unknown: 1\nkilled -> killed: 1\n\n",
        );
        let text = markdown(&[outcome("6.1-v2", GOOD), other]);
        for line in [
            "| 6.1-v2 | linux-image-6.1.0-1-cloud-amd64 of bookworm | Linux 6.1.0 | 1 | 0 | 1 | 61 s |",
            "| scenario | 6.1-v2 | 7-v2 |",
            "| a | pass | **FAIL** |",
            "| b | n/a (1) | not run |",
            "| c | not run | pass |",
            "1. no \\| swap",
            "| killed | killed | 3 |",
            "| **killed** | **unknown** | 1 |",
        ] {
            assert!(text.lines().any(|other| other == line), "no {line:?} in\n{text}");
        }
    }

    #[test]
    fn what_counts_as_good() {
        assert!(outcome("a", GOOD).good(false));
        let failed = outcome("a", "test a ... FAILED\ntest b ... ok\n");
        assert!(!failed.good(false) && failed.summary().ends_with("; failed: a"));
        assert!(!outcome("a", "").good(false) && !outcome("a", "").good(true));
        let elsewhere = outcome("a", "test a ... ignored, not applicable: no swap\n");
        assert!(elsewhere.good(true) && !elsewhere.good(false));
        let mut broken = outcome("a", GOOD);
        broken.broken = Some("no end\nlast lines".to_owned());
        assert!(!broken.good(false));
        assert!(broken.summary().ends_with("; broken: no end"), "{}", broken.summary());
        broken.missing = true;
        assert!(broken.good(false));
    }
}
