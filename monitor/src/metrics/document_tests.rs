//! docs/metrics.md: each metric is described, and the table at its end is the registry's.

use std::path::Path;

use super::tests::metrics;

/// Holds the table at the page's end to the text that has a sample of each metric, or writes it.
pub(super) fn check(text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    crate::golden::check_section(&path, "metrics", &table(text));
}

/// A row for each metric, from the text that has a sample of each.
fn table(text: &str) -> String {
    let mut rows = Vec::new();
    for family in text.split("# HELP ").skip(1) {
        let (name, rest) = family.split_once(' ').unwrap();
        let (help, rest) = rest.split_once('\n').unwrap();
        let (kind, samples) =
            rest.strip_prefix(&format!("# TYPE {name} ")).unwrap().split_once('\n').unwrap();
        let suffix = suffix(kind);
        let mut samples = samples.lines().filter(|line| !line.starts_with('#'));
        let sample = samples.next_back().unwrap_or_else(|| panic!("{name} has no sample"));
        // What ends a bucket is part of the format, and no label of its own.
        let bucket = if kind == "histogram" { "_none" } else { suffix };
        let labels = sample
            .strip_prefix(&format!("{name}{bucket}{{"))
            .and_then(|rest| rest.split('}').next());
        let labels: Vec<_> = labels
            .iter()
            .flat_map(|all| all.split("\","))
            .filter_map(|one| one.split('=').next())
            .collect();
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        rows.push(format!("| `{name}{suffix}` | {kind} | {} | {help} |", labels.join(", ")));
    }
    rows.sort();
    format!("| metric | type | labels | help |\n|---|---|---|---|\n{}\n", rows.join("\n"))
}

/// What a sample's name ends in, beyond that of its metric.
fn suffix(kind: &str) -> &'static str {
    match kind {
        "counter" => "_total",
        "info" => "_info",
        _ => "",
    }
}

#[test]
fn every_metric_is_described() {
    // Not by the table at its end, which is made from the code.
    let docs = include_str!("../../../docs/metrics.md");
    let (docs, _) = docs.split_once("<!-- metrics: ").unwrap();
    let text = metrics(1).encode().unwrap();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let suffix = suffix(kind);
        assert!(docs.contains(&format!("| `{name}{suffix}` |")), "{name}{suffix}");
    }
}
