//! The rules of `deploy/prometheus/`, read.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::tool;

/// Where people read the runbook, in what is shipped. Whoever ships it on replaces this one text.
pub(crate) const RUNBOOK: &str = "https://killwatch.example/runbook";

const FILES: &[&str] =
    &["deploy/prometheus/workloads.rules.yaml", "deploy/prometheus/monitor.rules.yaml"];

/// The files of rules.
pub(crate) fn files() -> Vec<std::path::PathBuf> {
    FILES.iter().map(|name| tool::file(name)).collect()
}

/// A file of the repository, as text.
pub(crate) fn text(path: &str) -> String {
    std::fs::read_to_string(tool::file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A YAML file of the repository.
pub(crate) fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A list in a YAML or JSON value; empty if there is none.
pub(crate) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A text in a value; empty if there is none.
pub(crate) fn str<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// All rules, in order.
pub(crate) fn all() -> Vec<Value> {
    let groups = FILES.iter().flat_map(|file| list(&yaml(file), "groups").to_vec());
    groups.flat_map(|group| list(&group, "rules").to_vec()).collect()
}

/// Those that alert.
pub(crate) fn alerts() -> Vec<Value> {
    all().into_iter().filter(|rule| rule["alert"].is_string()).collect()
}

/// Their names.
pub(crate) fn alert_names() -> BTreeSet<String> {
    alerts().iter().map(|rule| str(rule, "alert").to_owned()).collect()
}

/// Names that recording rules give.
pub(crate) fn recorded() -> BTreeSet<String> {
    let all = all();
    let names = all.iter().filter_map(|rule| rule["record"].as_str());
    names.map(str::to_owned).collect()
}

/// Names of alerts that killwatch's own sink raises.
pub(crate) fn sink_alert_names() -> BTreeSet<String> {
    let source = text("monitor/src/notify/alertmanager/alert.rs");
    let quoted = source.split('"').skip(1).step_by(2);
    let names = quoted.filter(|text| text.starts_with("Killwatch"));
    names.map(str::to_owned).collect()
}

/// Causes that a death may have.
pub(crate) fn causes() -> BTreeSet<String> {
    let schema: Value = serde_json::from_str(&text("docs/death.schema.json")).unwrap();
    let variants = list(&schema["$defs"]["Cause"], "oneOf");
    let causes: BTreeSet<_> =
        variants.iter().map(|variant| str(variant, "const").to_owned()).collect();
    assert!(causes.contains("oom_memcg") && !causes.contains(""), "{causes:?}");
    causes
}

/// Metrics that docs/metrics.md has in its tables.
pub(crate) fn documented() -> BTreeSet<String> {
    let page = text("docs/metrics.md");
    let names = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let metrics: BTreeSet<_> = names.filter(|name| is_metric(name)).map(str::to_owned).collect();
    assert!(metrics.contains("container_oom_killed_total"), "{metrics:?}");
    metrics
}

/// Metrics of killwatch that a query asks for. What rules record has a colon in its name and is none of them.
pub(crate) fn metrics_in(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    words.filter(|word| is_metric(word)).map(str::to_owned).collect()
}

/// Names with a colon in a query: what rules record.
pub(crate) fn recorded_in(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    let named =
        |word: &&str| word.contains(':') && word.starts_with(|c: char| c.is_ascii_lowercase());
    words.filter(named).map(str::to_owned).collect()
}

fn is_metric(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    // A label, not a metric.
    word != "container_id"
        && (word.starts_with("killwatch_") || word.starts_with("container_"))
        && word.chars().all(plain)
}

/// Holds a query to the metrics that there are.
pub(crate) fn asks_for_what_there_is(query: &str, whose: &str) {
    let documented = documented();
    for metric in metrics_in(query) {
        // A histogram is asked for by its parts.
        let parts = ["_bucket", "_sum", "_count"];
        let whole = parts.iter().find_map(|part| metric.strip_suffix(part));
        assert!(
            documented.contains(&metric) || whole.is_some_and(|whole| documented.contains(whole)),
            "{whose} asks for {metric}, which docs/metrics.md does not have"
        );
    }
    let recorded = recorded();
    for name in recorded_in(query) {
        assert!(recorded.contains(&name), "{whose} asks for {name}, which no rule records");
    }
}
