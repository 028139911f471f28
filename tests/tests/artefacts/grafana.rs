//! The dashboards, by the rules of Grafana's dashboard-linter and some of our own. That their queries return data is shown by the scenario `chain`.

use std::collections::BTreeSet;

use killwatch_tests::dashboards::{self, NAMES, Panel};
use serde_json::{Value, json};

use crate::rules::{self, list, str};
use crate::tool;

/// Counters that a panel shows as they are. The series of a job begins with its first death, which `increase()` does not see.
const AS_THEY_ARE: &[&str] = &["killwatch_job_oom_killed_total", "killwatch_job_deaths_total"];
/// What each selector begins with.
const CHOSEN: &str = r#"{job=~"$job", instance=~"$instance""#;
const UNITS: &[&str] = &["short", "bytes", "s"];

fn read(name: &str) -> (Value, Vec<Panel>) {
    let dashboard = dashboards::read(name).unwrap();
    let panels = dashboards::panels(&dashboard).unwrap();
    assert!(panels.len() > 8, "{name} has {} panels", panels.len());
    (dashboard, panels)
}

#[test]
fn a_dashboard_is_of_the_form_that_is_shipped() {
    for name in NAMES {
        let (dashboard, _) = read(name);
        assert_eq!((str(&dashboard, "uid"), &dashboard["schemaVersion"]), (*name, &json!(42)));
        assert_eq!(dashboard["editable"], false);
        assert!(dashboard.get("id").is_none(), "an id is one Grafana's own");
        assert!(list(&dashboard, "tags").contains(&json!("killwatch")));
        assert!(!str(&dashboard, "title").is_empty() && !str(&dashboard, "description").is_empty());
        assert!(!dashboard.to_string().contains("${DS_"), "it asks for no input");
    }
}

#[test]
fn variables_are_those_that_the_linter_wants() {
    for name in NAMES {
        let (dashboard, _) = read(name);
        let all = list(&dashboard["templating"], "list");
        let source: Vec<_> = all.iter().filter(|one| one["type"] == "datasource").collect();
        let [source] = &source[..] else { panic!("{name}: one data source") };
        assert_eq!((str(source, "name"), str(source, "label")), ("datasource", "Data source"));
        assert_eq!(str(source, "query"), "prometheus");
        for (variable, label) in [("job", "Job"), ("instance", "Instance")] {
            let found = all.iter().find(|one| one["name"] == variable).unwrap();
            assert_eq!((str(found, "type"), str(found, "label")), ("query", label));
            assert_eq!((str(found, "allValue"), &found["multi"]), (".+", &json!(true)));
        }
        for query in all.iter().filter(|one| one["type"] == "query") {
            assert_eq!(
                (str(&query["datasource"], "uid"), &query["refresh"]),
                ("${datasource}", &json!(2))
            );
            rules::asks_for_what_there_is(str(query, "definition"), name);
        }
    }
}

#[test]
fn a_panel_says_what_it_shows() {
    for name in NAMES {
        let (_, panels) = read(name);
        let mut ids = BTreeSet::new();
        for panel in &panels {
            let whose = format!("{name}, {}", panel.title);
            assert!(!panel.title.is_empty(), "{name}: a panel without a title");
            assert!(ids.insert(panel.json["id"].as_u64().unwrap()), "{whose}: its id is another's");
            assert!(str(&panel.json, "description").ends_with('.'), "{whose}: no description");
            assert!(UNITS.contains(&&*panel.unit), "{whose}: the unit {}", panel.unit);
            assert_eq!(str(&panel.json["datasource"], "uid"), "${datasource}", "{whose}");
            assert!(!panel.queries.is_empty(), "{whose}: no query");
            for target in list(&panel.json, "targets") {
                assert_eq!(str(&target["datasource"], "uid"), "${datasource}", "{whose}");
            }
        }
        for (at, one) in panels.iter().enumerate() {
            let [x, y, w, h] = one.place;
            assert!(w > 0 && h > 0 && x + w <= 24, "{name}, {}", one.title);
            for other in panels.iter().skip(at + 1) {
                let [x2, y2, w2, h2] = other.place;
                let apart = x + w <= x2 || x2 + w2 <= x || y + h <= y2 || y2 + h2 <= y;
                assert!(apart, "{name}: {} is over {}", one.title, other.title);
            }
        }
    }
}

#[test]
fn a_query_is_of_what_was_chosen_and_of_what_there_is() {
    for_each_query(|panel, query| {
        let whose = format!("{}, {}", panel.dashboard, panel.title);
        rules::asks_for_what_there_is(query, &whose);
        assert!(
            rules::recorded_in(query).is_empty(),
            "{whose}: a dashboard does without the rules"
        );
        let mut from = 0;
        let mut metrics = rules::metrics_in(query);
        metrics.insert("up".to_owned());
        for word in words(query) {
            let at = from + query[from..].find(word).unwrap();
            from = at + word.len();
            if !metrics.contains(word) {
                continue;
            }
            assert!(query[from..].starts_with(CHOSEN), "{whose}: {word} is not of what was chosen");
            let counted = query[..at].ends_with("increase(") || query[..at].ends_with("rate(");
            let counter = word.ends_with("_total") && !AS_THEY_ARE.contains(&word);
            assert!(!counter || counted, "{whose}: {word} is a counter");
        }
        let windows = query.split('[').skip(1).filter_map(|rest| rest.split(']').next());
        let instant = ["stat", "table"].contains(&&*panel.kind);
        let wanted = if instant { "$__range" } else { "$__rate_interval" };
        windows.for_each(|window| assert_eq!(window, wanted, "{whose}"));
    });
}

#[test]
fn prometheus_can_read_the_queries() {
    let Some(promtool) = tool::find("promtool") else { return };
    let mut rules = Vec::new();
    for_each_query(|_, query| {
        let record = format!("dashboard:query:number{}", rules.len());
        rules.push(json!({ "record": record, "expr": dashboards::filled_in(query, "1h", "1m") }));
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("dashboards.rules.yaml");
    let groups = json!({ "groups": [{ "name": "dashboards", "rules": rules }] });
    std::fs::write(&file, groups.to_string()).unwrap();
    tool::run(&promtool, ["check".into(), "rules".into(), file.into_os_string()]);
}

/// Who was killed leads to why.
#[test]
fn panels_by_container_or_job_lead_to_the_records() {
    let mut led = 0;
    for_each_query(|panel, query| {
        let by_whom = query.contains("instance, namespace, pod, container")
            || query.contains("namespace, node, instance)")
            || query.contains("namespace, cause, node, instance)");
        if by_whom {
            let links = panel.json["fieldConfig"]["defaults"]["links"].to_string();
            assert!(links.contains("/api/v1/deaths?"), "{}: {}", panel.dashboard, panel.title);
            led += 1;
        }
    });
    assert!(led >= 6, "{led}");
}

fn for_each_query(mut look: impl FnMut(&Panel, &str)) {
    for name in NAMES {
        for panel in read(name).1 {
            for (query, _) in &panel.queries {
                look(&panel, query);
            }
        }
    }
}

fn words(query: &str) -> impl Iterator<Item = &str> {
    query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}
