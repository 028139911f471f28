//! How a refusal of a rule reads.

use proptest::prelude::*;

use super::Rules;
use crate::config::file;

fn refused(rules: &str) -> String {
    file::parse(format!("jobs: {{rules: {rules}}}").as_bytes()).expect_err(rules)
}

#[test]
fn how_a_refusal_reads() {
    let many = format!("[{}]", vec!["{rule: r, id: [{tag: a}]}"; Rules::MAX + 1].join(", "));
    let sources = format!("[{{rule: r, id: [{}]}}]", vec!["{tag: a}"; 17].join(", "));
    let cases = [
        ("a list", "{}"),
        ("no name of the rule", "[{id: [{tag: a}]}]"),
        ("an unknown key", "[{rule: r, id: [{tag: a}], ids: [{tag: a}]}]"),
        ("an unknown source", "[{rule: r, id: [{lable: a}]}]"),
        ("two sources in one", "[{rule: r, id: [{label: a, tag: b}]}]"),
        ("a source that is no mapping", "[{rule: r, id: [label]}]"),
        ("a name with a newline", "[{rule: \"a\\nb\", id: [{tag: a}]}]"),
        ("an empty name", "[{rule: '', id: [{tag: a}]}]"),
        ("a scheduler with a blank", "[{rule: r, scheduler: 'my farm', id: [{tag: a}]}]"),
        ("an empty list", "[{rule: r, id: []}]"),
        ("too many sources", sources.as_str()),
        ("too many rules", many.as_str()),
        (
            "twice",
            "[{rule: r, id: [{tag: a}]}, {rule: q, id: [{tag: a}]}, {rule: r, id: [{tag: b}]}]",
        ),
        ("neither id nor name", "[{rule: ok, id: [{tag: a}]}, {rule: r, index: [{tag: a}]}]"),
        ("an empty key", "[{rule: r, id: [{label: ''}]}]"),
        ("a key with a blank", "[{rule: r, name: [{annotation: 'a b'}]}]"),
        ("no variable", "[{rule: r, id: [{environ: A=B}]}]"),
        ("no path", "[{rule: r, id: [{path: id}]}]"),
        ("no such group", "[{rule: r, path: '/(?<id>x)', id: [{path: id}], name: [{path: name}]}]"),
        ("an unknown group", "[{rule: r, path: '/(?<job>x)', id: [{path: job}]}]"),
        ("outermost of nothing", "[{rule: r, outermost: true, id: [{tag: a}]}]"),
        ("needs nothing", "[{rule: r, needs: [], id: [{tag: a}]}]"),
        (
            "needs no such group",
            "[{rule: r, path: '/(?<id>x)', needs: [{path: name}], id: [{path: id}]}]",
        ),
        (
            "a group that nothing takes",
            "[{rule: r, path: '/(?<id>x)(?<name>y)', id: [{path: id}]}]",
        ),
        ("no regular expression", "[{rule: r, path: '/(?<id>x', id: [{path: id}]}]"),
        ("look-ahead", "[{rule: r, path: '/(?=a)(?<id>x)', id: [{path: id}]}]"),
        (
            "a pattern that explodes",
            "[{rule: r, path: '/(?<id>(?:\\w{100}){100})', id: [{path: id}]}]",
        ),
        ("an empty pattern", "[{rule: r, path: '', id: [{tag: a}]}]"),
    ];
    let text: String =
        cases.iter().map(|(what, rules)| format!("{what}\n    {}\n", refused(rules))).collect();
    crate::golden::check_named("rule_refusals.txt", &text);
    let long = format!("[{{rule: r, id: [{{label: {}}}]}}]", "k".repeat(318));
    assert!(refused(&long).contains("must be a key of 1 to 317 bytes"), "{}", refused(&long));
    let long = format!("[{{rule: r, path: '{}', id: [{{tag: a}}]}}]", "x".repeat(1025));
    assert!(
        refused(&long).contains("a pattern of 1025 bytes is not allowed"),
        "{}",
        refused(&long)
    );
}

#[test]
fn as_many_as_allowed_are_allowed() {
    let rules: Vec<String> =
        (0..Rules::MAX).map(|n| format!("{{rule: r{n}, id: [{{tag: a}}]}}")).collect();
    let config =
        file::parse(format!("jobs: {{rules: [{}]}}", rules.join(", ")).as_bytes()).unwrap();
    assert_eq!(config.jobs.rules().unwrap().count(), Rules::built_in().count() + Rules::MAX);
    // What is shown can be read again.
    let shown = serde_json::to_string(&config).unwrap();
    assert_eq!(file::parse(shown.as_bytes()), Ok(config));
}

#[test]
fn the_variables_of_rules_are_kept_and_bounded_with_the_users_own() {
    let config = file::parse(
        b"{environ: {allow: [MINE]}, jobs: {rules: [{rule: r, id: [{environ: ORDER}]}]}}",
    )
    .unwrap();
    let kept = config.allowlist().unwrap();
    assert!(
        kept.contains(b"ORDER")
            && kept.contains(b"MINE")
            && kept.contains(b"JOB_ID")
            && !kept.contains(b"SECRET")
    );
    let rules: Vec<String> = (0..Rules::MAX)
        .map(|n| format!("{{rule: r{n}, id: [{{environ: A{n}}}, {{environ: B{n}}}, {{environ: C{n}}}, {{environ: D{n}}}]}}"))
        .collect();
    let refusal = refused(&format!("[{}]", rules.join(", ")));
    assert!(refusal.starts_with("environ.allow, with the variables of jobs.rules: "), "{refusal}");
    assert!(refusal.ends_with("at most 256 are allowed"), "{refusal}");
}

#[test]
fn keys_of_the_record_are_bounded() {
    let config = file::parse(b"workload: {labels: [team, a.b/c], annotations: [note]}").unwrap();
    let asked = super::Asked::from(&config.workload);
    assert_eq!((asked.labels.len(), asked.annotations.len()), (2, 1));
    let wanted = asked.wanted(Rules::built_in());
    assert!(
        wanted.labels.contains("team")
            && wanted.labels.contains("job-name")
            && wanted.annotations.contains("note")
    );
    for section in ["labels", "annotations"] {
        let keys: Vec<String> = (0..65).map(|n| format!("k{n}")).collect();
        let refusal =
            file::parse(format!("workload: {{{section}: [{}]}}", keys.join(", ")).as_bytes())
                .unwrap_err();
        assert_eq!(
            refusal,
            format!("workload.{section}: a list of 65 is not allowed: must have 0 to 64 items")
        );
    }
}

/// The dearest patterns that are allowed, on a path as long as the kernel's side passes on.
#[test]
fn the_dearest_rules_end_in_time() {
    let patterns = [
        "(?:a|aa|aaa)+(?<id>[^a])",
        "(?<id>(?:[^/]{0,60}a){2})[^a]",
        "(?:a?){150}a{150}(?<id>[^a])",
    ];
    let rules: Vec<String> = (0..Rules::MAX)
        .map(|n| {
            format!("{{rule: r{n}, path: '{}', id: [{{path: id}}]}}", patterns[n % patterns.len()])
        })
        .collect();
    let config =
        file::parse(format!("jobs: {{rules: [{}]}}", rules.join(", ")).as_bytes()).unwrap();
    let rules = config.jobs.rules().unwrap();
    let path = format!("/{}", "a".repeat(4095));
    let none = std::collections::BTreeMap::new();
    let clues = super::Clues {
        tags: &none,
        labels: &none,
        annotations: &none,
        path: Some(&path),
        environ: &none,
    };
    let searching = std::time::Instant::now();
    assert_eq!(rules.job(&clues), None);
    let searched = searching.elapsed();
    // Linear work takes a second or two in a debug build; what backtracks would not end.
    assert!(searched < std::time::Duration::from_secs(60), "{searched:?}");
}

proptest! {
    #[test]
    fn any_pattern_is_taken_or_refused_in_one_line(pattern in "(\\(\\?<id>|[a-z]|\\)|\\[|\\]|\\{|\\}|[0-9,]|\\\\|\\||\\*|\n){0,30}", group in "id|name|x") {
        let pattern = serde_json::to_string(&pattern).unwrap();
        let yaml = format!("jobs: {{rules: [{{rule: r, path: {pattern}, id: [{{path: {group}}}]}}]}}");
        if let Err(refusal) = file::parse(yaml.as_bytes()) {
            prop_assert!(refusal.starts_with("jobs.rules[0]") && !refusal.contains(char::is_control), "{}", refusal);
        }
    }
}
