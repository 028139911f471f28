//! What single documents must have: a row for each thing that doctor and the daemon may say, queries that Prometheus reads.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::markdown;
use crate::{rules, tool};

const PAGE: &str = "docs/troubleshooting.md";

/// What the daemon says of itself, with the source that says it.
const SAID: &[(&str, &str)] = &[
    ("monitor/src/api/status.rs", "the daemon is starting"),
    ("monitor/src/api/status.rs", "the daemon is shutting down"),
    ("monitor/src/api/status.rs", "deaths are seen no more"),
    ("monitor/src/api/health.rs", "killwatch is not ready"),
    ("monitor/src/source.rs", "BPF cannot be used"),
    ("monitor/src/source.rs", "OOM kills are told from the kernel log, and no other deaths"),
    ("monitor/src/source.rs", "probe.source is kmsg"),
    ("monitor/src/source.rs", "is not attached"),
    ("monitor/src/source.rs", "cannot be read"),
    ("monitor/src/source.rs", "`killwatch doctor` says what this host lacks"),
    ("monitor/src/ops.rs", "records did not fit on the ring: raise probe.ring_bytes"),
    (
        "monitor/src/app.rs",
        "the daemon's own memory limit is below what its configuration may need",
    ),
    (
        "monitor/src/audit/report.rs",
        "the kernel counts other OOM kills in this cgroup than were told",
    ),
    ("monitor/src/app.rs", "protect.oom_score_adj cannot be set"),
    ("monitor/src/audit/report.rs", "state.path cannot be used"),
    ("monitor/src/ledger/mod.rs", "the ledger is in memory only"),
    ("monitor/src/ledger/writer.rs", "the ledger cannot be written"),
    ("monitor/src/ops.rs", "the kernel side is not pinned"),
    ("monitor/src/ops.rs", "deaths cannot be delivered, trying on"),
    ("monitor/src/api/serve.rs", "cannot listen on"),
    ("monitor/src/probe/load.rs", "this killwatch was built without its kernel side"),
];

/// A finding of doctor that is not `ok`: its mark, and texts that it and its remedy begin with.
struct Finding {
    mark: &'static str,
    texts: Vec<String>,
}

/// Every place where doctor makes a finding that is not `ok`.
fn findings() -> Vec<Finding> {
    let source = rules::text("monitor/src/cli/doctor.rs");
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let of = |mark, call| {
        code.split(call).skip(1).map(move |rest| Finding {
            mark,
            texts: literals(rest.split("\n        )").next().unwrap_or(rest)),
        })
    };
    of("FAILS", "Finding::fails(").chain(of("lacks", "Finding::lacks(")).collect()
}

/// The texts in a piece of source, without what is put into them, and up to their first colon.
fn literals(code: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let mut rest = code;
    while let Some((_, from)) = rest.split_once('"') {
        let (text, after) = from.split_once('"').unwrap_or((from, ""));
        let pieces = text.split(['{', '}']).step_by(2).map(|piece| {
            // Up to the colon, if that says enough.
            let short = piece.split(": ").next().unwrap_or(piece);
            let piece = if short.len() > 8 { short } else { piece };
            piece.trim_matches([' ', ';', ',', ':'])
        });
        let longest = pieces.max_by_key(|piece| piece.len());
        texts.extend(longest.filter(|piece| piece.len() > 8).map(str::to_owned));
        rest = after;
    }
    texts
}

#[test]
fn each_finding_of_doctor_has_a_row_and_each_row_a_finding() {
    let page = rules::text(PAGE);
    let section = page.split("\n## ").find(|part| part.starts_with("What doctor says\n")).unwrap();
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
    let findings = findings();
    assert!(findings.len() > 10, "{}", findings.len());
    let fits = |row: &str, finding: &Finding| {
        row.starts_with(&format!("| `{}` |", finding.mark))
            && finding.texts.first().is_some_and(|text| row.contains(text.as_str()))
    };
    for finding in &findings {
        let found = rows.iter().filter(|row| fits(row, finding)).count();
        assert_eq!(found, 1, "{PAGE} has {found} rows for {}: {:?}", finding.mark, finding.texts);
    }
    for row in rows {
        assert!(findings.iter().any(|finding| fits(row, finding)), "doctor does not say: {row}");
    }
}

#[test]
fn what_the_daemon_says_of_itself_is_explained() {
    let page = rules::text(PAGE);
    for (file, text) in SAID {
        assert!(rules::text(file).contains(text), "{file} no longer says: {text}");
        assert!(page.contains(text.trim_start_matches('`')), "{PAGE} lacks: {text}");
    }
}

/// Metrics of others that begin like ours.
const THEIRS: &[&str] = &["container_oom_events_total"];

#[test]
fn queries_are_read_by_prometheus_and_ask_for_what_there_is() {
    let mut queries = Vec::new();
    for page in markdown::pages() {
        for block in page.blocks.iter().filter(|block| block.language == "promql") {
            let at = format!("{}:{}", page.path, block.line);
            let lines = block.text.split_inclusive('\n').filter(|line| !line.starts_with('#'));
            let query: String = lines.collect();
            let ours = THEIRS.iter().fold(query, |text, name| text.replace(name, "theirs"));
            rules::asks_for_what_there_is(&ours, &at);
            queries.push(block.text.clone());
        }
    }
    assert!(queries.len() > 20, "{}", queries.len());
    let Some(promtool) = tool::find("promtool") else { return };
    // Each as a rule, which is how promtool reads a query without a server.
    let as_rule = |(number, query): (usize, &String)| json!({ "record": format!("document:query:number{number}"), "expr": query });
    let rules: Vec<Value> = queries.iter().enumerate().map(as_rule).collect();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("documents.rules.yaml");
    std::fs::write(
        &file,
        json!({ "groups": [{ "name": "documents", "rules": rules }] }).to_string(),
    )
    .unwrap();
    tool::run(&promtool, ["check".into(), "rules".into(), file.into_os_string()]);
}

#[test]
fn alerts_that_migration_names_are_there() {
    let page = markdown::page("docs/migration.md");
    let names: BTreeSet<String> = page
        .spans()
        .into_iter()
        .map(|(_, code)| code)
        .filter(|code| code.starts_with("Killwatch"))
        .collect();
    assert!(names.len() > 5, "{names:?}");
    let alerts = rules::alert_names();
    assert_eq!(names.difference(&alerts).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn the_faq_has_every_cause_that_137_may_be() {
    let page = rules::text("docs/faq.md");
    let section = page.split("\n## ").find(|part| part.starts_with("137, but not OOM?")).unwrap();
    // What never ends in 137: an abort is 134.
    for cause in rules::causes().into_iter().filter(|cause| cause != "abort") {
        assert!(section.contains(&format!("`{cause}`")), "{cause}");
    }
}
