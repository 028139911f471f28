//! Rules, their unit tests, and the runbook.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use serde_json::{Value, json};

use crate::rules::{self, RUNBOOK, list, str};
use crate::tool;

/// Unit tests of the rules.
const TESTS: &[&str] =
    &["deploy/prometheus/tests/workloads.test.yaml", "deploy/prometheus/tests/monitor.test.yaml"];
/// What each section of the runbook has.
const PARTS: &[&str] = &[
    "What it means",
    "How to confirm",
    "First five minutes",
    "Containment",
    "Diagnosis",
    "Lasting fix",
];

#[test]
fn promtool_finds_nothing_to_say() {
    let Some(promtool) = tool::find("promtool") else { return };
    let mut arguments: Vec<OsString> =
        ["check", "rules", "--lint=all", "--lint-fatal"].map(OsString::from).to_vec();
    arguments.extend(rules::files().into_iter().map(OsString::from));
    println!("{}", tool::run(&promtool, arguments));
    let config = tool::file("deploy/prometheus/prometheus.yml");
    println!(
        "{}",
        tool::run(&promtool, ["check".into(), "config".into(), config.into_os_string()])
    );
}

#[test]
fn the_unit_tests_of_the_rules_pass() {
    let Some(promtool) = tool::find("promtool") else { return };
    let mut arguments: Vec<OsString> = ["test", "rules"].map(OsString::from).to_vec();
    arguments.extend(TESTS.iter().map(|name| tool::file(name).into_os_string()));
    println!("{}", tool::run(&promtool, arguments));
}

#[test]
fn each_alert_has_a_unit_test_that_fires_and_one_that_does_not() {
    let mut fires: BTreeMap<String, usize> = BTreeMap::new();
    let mut silent = fires.clone();
    for file in TESTS {
        for group in list(&rules::yaml(file), "tests") {
            let cases = list(group, "alert_rule_test");
            let fired: BTreeSet<&str> = cases
                .iter()
                .filter(|case| !list(case, "exp_alerts").is_empty())
                .map(|case| str(case, "alertname"))
                .collect();
            let all: BTreeSet<&str> = cases.iter().map(|case| str(case, "alertname")).collect();
            // One that is silent until it fires shows that it waits, not that it knows when not to fire.
            for name in all {
                let count = if fired.contains(name) { &mut fires } else { &mut silent };
                *count.entry(name.to_owned()).or_default() += 1;
            }
        }
    }
    let alerts = rules::alert_names();
    assert!(alerts.len() > 20, "{alerts:?}");
    let named = |counts: &BTreeMap<String, usize>| counts.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(named(&fires), alerts, "that fire");
    assert_eq!(named(&silent), alerts, "that do not fire");
}

#[test]
fn an_alert_says_what_a_person_needs() {
    for rule in rules::alerts() {
        let name = str(&rule, "alert");
        let (labels, annotations) = (&rule["labels"], &rule["annotations"]);
        let camel = |c: char| c.is_ascii_alphanumeric();
        assert!(name.starts_with("Killwatch") && name.chars().all(camel), "{name}");
        assert!(["critical", "warning", "info"].contains(&str(labels, "severity")), "{name}");
        assert!(
            !labels.to_string().contains("{{"),
            "{name}: a label that changes is another alert"
        );
        let summary = str(annotations, "summary");
        assert!(summary.ends_with('.') && !summary.contains("{{"), "{name}: {summary}");
        let description = str(annotations, "description");
        assert!(description.ends_with('.') && description != summary, "{name}: {description}");
        let anchor = name.to_ascii_lowercase();
        assert_eq!(str(annotations, "runbook_url"), format!("{RUNBOOK}#{anchor}"));
        // What rules record of the last minutes counts as much.
        let windows = ["increase", ":delta", ":nodes"];
        let is_event = windows.iter().any(|window| str(&rule, "expr").contains(window));
        let lasts = rule["keep_firing_for"].is_string();
        assert_eq!(is_event, lasts, "{name}: an event is kept, a state is not");
    }
}

#[test]
fn an_alert_of_the_sink_has_the_severity_and_summary_of_its_rule() {
    let (ours, theirs) = (rules::alert_names(), rules::sink_alert_names());
    let both: BTreeSet<_> = ours.intersection(&theirs).map(String::as_str).collect();
    let expected = [
        "KillwatchContainerNearLimit",
        "KillwatchContainerOOMKilled",
        "KillwatchHostOOMKilled",
        "KillwatchPoisonJob",
        "KillwatchUserspaceOOMKilled",
    ];
    assert_eq!(both, BTreeSet::from(expected));
    let source = rules::text("monitor/src/notify/alertmanager/alert.rs");
    for rule in rules::alerts() {
        let (name, severity) = (str(&rule, "alert"), str(&rule["labels"], "severity"));
        // The next quoted word that is a severity, for each place where the name stands.
        for (at, _) in source.match_indices(&format!("\"{name}\"")) {
            let words = source[at..].split('"').skip(1).step_by(2);
            let theirs = words.skip(1).find(|word| ["critical", "warning", "info"].contains(word));
            assert_eq!(theirs, Some(severity), "{name}");
        }
    }
}

#[test]
fn rules_ask_for_what_there_is() {
    let asked: BTreeSet<String> =
        rules::all().iter().flat_map(|rule| rules::metrics_in(str(rule, "expr"))).collect();
    assert!(asked.len() > 20, "{asked:?}");
    for rule in rules::all() {
        let name = rule["alert"].as_str().or(rule["record"].as_str()).unwrap_or("a rule");
        rules::asks_for_what_there_is(str(&rule, "expr"), name);
    }
}

#[test]
fn the_runbook_has_a_section_for_each_alert_and_no_other() {
    let page = rules::text("docs/runbook.md");
    let mut sections: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut section = None;
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.starts_with("Killwatch").then_some(title);
            if let Some(title) = section {
                assert!(sections.insert(title, Vec::new()).is_none(), "{title} is there twice");
            }
        } else if let (Some(part), Some(title)) = (bold(line), section) {
            sections.entry(title).or_default().push(part);
        }
    }
    let mut alerts = rules::alert_names();
    alerts.extend(rules::sink_alert_names());
    assert_eq!(sections.keys().map(|&title| title.to_owned()).collect::<BTreeSet<_>>(), alerts);
    for (title, parts) in sections {
        assert_eq!(parts, PARTS, "{title}");
    }
}

#[test]
fn the_runbook_has_an_anchor_for_each_cause() {
    let page = rules::text("docs/runbook.md");
    for cause in rules::causes() {
        let anchor = format!("<a id=\"{cause}\"></a>");
        assert_eq!(page.matches(&anchor).count(), 1, "{anchor}");
    }
}

#[test]
fn the_runbook_asks_prometheus_for_what_there_is() {
    let page = rules::text("docs/runbook.md");
    let code = page.split("```promql").skip(1).filter_map(|part| part.split("```").next());
    let queries: Vec<&str> = code.collect();
    assert!(queries.len() > 5, "{queries:?}");
    for query in &queries {
        rules::asks_for_what_there_is(query, "docs/runbook.md");
    }
    let Some(promtool) = tool::find("promtool") else { return };
    // Each as a rule, which is how promtool reads a query without a server.
    let as_rule = |(number, query): (usize, &&str)| {
        let name = format!("runbook:query:number{number}");
        json!({ "record": name, "expr": query })
    };
    let rules: Vec<Value> = queries.iter().enumerate().map(as_rule).collect();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("runbook.rules.yaml");
    let groups = json!({ "groups": [{ "name": "runbook", "rules": rules }] });
    std::fs::write(&file, groups.to_string()).unwrap();
    tool::run(&promtool, ["check".into(), "rules".into(), file.into_os_string()]);
}

/// `**What it means.** …` begins with that.
fn bold(line: &str) -> Option<&str> {
    let (part, _) = line.strip_prefix("**")?.split_once("**")?;
    part.strip_suffix('.')
}
