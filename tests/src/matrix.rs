//! The confusion matrix: what was caused × what was reported, over all records that the scenarios of this process compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

/// The closed set of causes, in the order of the documents.
pub const CAUSES: [&str; 14] = [
    "oom_memcg",
    "oom_global",
    "oom_cpuset",
    "oom_mempolicy",
    "oom_userspace",
    "stop_timeout",
    "killed",
    "pidns_teardown",
    "oom_collateral",
    "abort",
    "crash",
    "rlimit",
    "relayed",
    "unknown",
];

/// What is reported where no record came.
pub const NO_RECORD: &str = "(no record)";

/// (caused, reported) → how often.
#[derive(Debug, Default, Clone)]
pub struct Matrix {
    counts: BTreeMap<(String, String), u32>,
}

static NOTED: Mutex<Matrix> = Mutex::new(Matrix { counts: BTreeMap::new() });

/// Notes one death, for the matrix that is printed at the end of the run.
pub fn note(caused: &str, reported: &str) {
    NOTED.lock().unwrap_or_else(PoisonError::into_inner).note(caused, reported);
}

/// All that was noted so far.
#[must_use]
pub fn noted() -> Matrix {
    NOTED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

impl Matrix {
    fn note(&mut self, caused: &str, reported: &str) {
        *self.counts.entry((caused.to_owned(), reported.to_owned())).or_default() += 1;
    }

    /// Whether nothing was noted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Pairs that differ.
    #[must_use]
    pub fn off_the_diagonal(&self) -> Vec<String> {
        self.pairs(|caused, reported| caused != reported)
    }

    /// For programs a line each pair, between a heading and an empty line; then a table for people.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::from("confusion matrix:\n");
        for pair in self.pairs(|_, _| true) {
            text.push_str(&pair);
            text.push('\n');
        }
        text.push('\n');
        self.render_table(&mut text);
        let never: Vec<_> =
            CAUSES.into_iter().filter(|cause| self.row(cause).next().is_none()).collect();
        if !never.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "not caused here: {}", never.join(", "));
        }
        text
    }

    fn pairs(&self, fits: impl Fn(&str, &str) -> bool) -> Vec<String> {
        let chosen = self.counts.iter().filter(|((caused, reported), _)| fits(caused, reported));
        chosen
            .map(|((caused, reported), count)| format!("{caused} -> {reported}: {count}"))
            .collect()
    }

    fn row(&self, caused: &str) -> impl Iterator<Item = (&str, u32)> {
        self.counts
            .iter()
            .filter(move |((found, _), _)| found == caused)
            .map(|((_, reported), count)| (reported.as_str(), *count))
    }

    /// A row each cause that was caused, a column each that was reported.
    fn render_table(&self, text: &mut String) {
        let mut columns: Vec<&str> = CAUSES.to_vec();
        let others: BTreeSet<&str> = self
            .counts
            .keys()
            .flat_map(|(caused, reported)| [caused.as_str(), reported.as_str()])
            .filter(|name| !CAUSES.contains(name))
            .collect();
        columns.extend(others);
        let rows: Vec<&str> =
            columns.iter().copied().filter(|cause| self.row(cause).next().is_some()).collect();
        columns.retain(|name| self.counts.keys().any(|(_, reported)| reported == name));
        let width = rows.iter().map(|name| name.len()).max().unwrap_or(0).max(6);
        let _ = write!(text, "{:width$}", "caused");
        for column in &columns {
            let _ = write!(text, " | {column}");
        }
        text.push('\n');
        for row in rows {
            let _ = write!(text, "{row:width$}");
            for column in &columns {
                let count = self.row(row).find(|(reported, _)| reported == column);
                let shown = count.map_or_else(|| ".".to_owned(), |(_, count)| count.to_string());
                let _ = write!(text, " | {shown:>cell$}", cell = column.len());
            }
            text.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_counted_and_those_off_the_diagonal_told() {
        let mut matrix = Matrix::default();
        matrix.note("killed", "killed");
        matrix.note("killed", "killed");
        assert_eq!(matrix.off_the_diagonal(), [""; 0]);
        matrix.note("oom_memcg", "killed");
        matrix.note("abort", NO_RECORD);
        assert_eq!(
            matrix.off_the_diagonal(),
            ["abort -> (no record): 1", "oom_memcg -> killed: 1"]
        );
        let text = matrix.render();
        let expected = "confusion matrix:\nabort -> (no record): 1\nkilled -> killed: 2\noom_memcg -> killed: 1\n\n\
            caused    | killed | (no record)\n\
            oom_memcg |      1 |           .\n\
            killed    |      2 |           .\n\
            abort     |      . |           1\n";
        assert!(text.starts_with(expected), "{text}");
        assert!(
            text.contains("\nnot caused here: oom_global, ")
                && text.ends_with("relayed, unknown\n")
        );
    }
}
