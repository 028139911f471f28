//! The example configuration of Alertmanager: its form, its routes, and what it mutes, in a real one.

use std::time::Duration;

use killwatch_tests::served::Served;
use killwatch_tests::wait::wait_until;
use serde_json::{Value, json};

use crate::rules::{self, list, str};
use crate::tool;

const CONFIG: &str = "deploy/alertmanager/alertmanager.yml";

/// Labels of an alert, and who gets it, in order.
const ROUTES: &[(&str, &[&str])] = &[
    // As the rules tell it, and as the sink does.
    (
        "alertname=KillwatchContainerOOMKilled severity=warning namespace=shop pod=web-0 container=server node=n1",
        &["team"],
    ),
    (
        "alertname=KillwatchContainerOOMKilled severity=warning cause=oom_memcg namespace=shop pod=web-0 container=server node=n1 job_id=4711",
        &["team"],
    ),
    ("alertname=KillwatchJobOOMKilled severity=warning job_id=4711", &["team"]),
    ("alertname=KillwatchPoisonJob severity=critical node=n1 job_id=4711", &["scheduler", "pager"]),
    (
        "alertname=KillwatchJobKilledRepeatedly severity=critical job_id=4711",
        &["scheduler", "pager"],
    ),
    // The rule does not know which job it is.
    ("alertname=KillwatchPoisonJob severity=critical node=n1 instance=n1:9435", &["pager"]),
    ("alertname=KillwatchHostOOMKilled severity=critical node=n1", &["pager"]),
    (
        "alertname=KillwatchHostOOMKilled severity=critical cause=oom_global node=n1 pod=web-0",
        &["pager"],
    ),
    (
        "alertname=KillwatchWorkloadDyingAcrossNodes severity=warning namespace=shop workload=web",
        &["team"],
    ),
    ("alertname=KillwatchUserspaceOOMKilled severity=warning node=n1", &["team"]),
    (
        "alertname=KillwatchProcessDied severity=info cause=relayed node=n1 unit=a.service",
        &["chat"],
    ),
    (
        "alertname=KillwatchProcessCrashed severity=warning cause=abort node=n1 unit=a.service",
        &["team"],
    ),
    ("alertname=KillwatchAbsent severity=critical", &["pager"]),
    ("alertname=KillwatchDown severity=warning instance=n1:9435", &["team"]),
    ("alertname=KillwatchOOMKillsUnaccounted severity=warning instance=n1:9435", &["team"]),
    ("alertname=KillwatchGaps severity=info instance=n1:9435", &["chat"]),
    ("alertname=SomethingElse severity=critical", &["chat"]),
];

#[test]
fn amtool_finds_nothing_to_say() {
    let Some(amtool) = tool::find("amtool") else { return };
    let config = tool::file(CONFIG);
    println!("{}", tool::run(&amtool, ["check-config".into(), config.into_os_string()]));
}

#[test]
fn each_alert_goes_where_it_is_meant_to() {
    let Some(amtool) = tool::find("amtool") else { return };
    let config = tool::file(CONFIG).display().to_string();
    for (labels, receivers) in ROUTES {
        let mut arguments = vec!["config".to_owned(), "routes".to_owned(), "test".to_owned()];
        arguments.push(format!("--config.file={config}"));
        arguments.push(format!("--verify.receivers={}", receivers.join(",")));
        arguments.extend(labels.split(' ').map(str::to_owned));
        tool::run(&amtool, arguments);
    }
}

#[test]
fn no_alert_of_ours_is_left_to_the_last_route() {
    let Some(amtool) = tool::find("amtool") else { return };
    let config = format!("--config.file={}", tool::file(CONFIG).display());
    let mut names = rules::alert_names();
    names.extend(rules::sink_alert_names());
    for name in names {
        let alert = format!("alertname={name}");
        let warning = "severity=warning".to_owned();
        let route = ["config", "routes", "test"].map(str::to_owned).into_iter();
        let said = tool::run(&amtool, route.chain([config.clone(), alert, warning]));
        let always =
            ["KillwatchHostOOMKilled", "KillwatchPoisonJob", "KillwatchJobKilledRepeatedly"];
        let meant = if always.contains(&&*name) { "pager" } else { "team" };
        assert_eq!(said.trim(), meant, "{name}");
    }
}

#[test]
fn a_real_one_takes_it_and_mutes_what_is_told_already() {
    if tool::find("prometheus-alertmanager").is_none() {
        return;
    }
    let config = rules::text(CONFIG).replace("http://receiver.example:8080", "http://127.0.0.1:9");
    let manager = Served::alertmanager(&config).unwrap();
    let of_node = |labels: Value| merged(labels, json!({ "node": "n1" }));
    let pod = json!({ "namespace": "shop", "pod": "web-0", "container": "server" });
    let other_pod = json!({ "namespace": "shop", "pod": "web-1", "container": "server" });
    let node_oom = of_node(json!({ "alertname": "KillwatchHostOOMKilled", "instance": "n1:9435" }));
    let named = |name: &str, more: Value| merged(json!({ "alertname": name }), more);
    let cases = [
        // What is muted, and by whom; none if it is not.
        (node_oom.clone(), false),
        (
            of_node(named(
                "KillwatchHostOOMKilled",
                merged(json!({ "cause": "oom_global" }), pod.clone()),
            )),
            true,
        ),
        (of_node(named("KillwatchContainerOOMKilled", pod.clone())), true),
        (
            merged(
                named("KillwatchContainerOOMKilled", other_pod.clone()),
                json!({ "node": "n2" }),
            ),
            false,
        ),
        (
            named("KillwatchContainerOOMKilled", merged(json!({ "no_node": "x" }), pod.clone())),
            false,
        ),
        // One that is of no node it knows mutes nobody.
        (named("KillwatchHostOOMKilled", json!({ "instance": "n9:9435" })), false),
        // The poison job is another matter than the node that it is on.
        (of_node(named("KillwatchPoisonJob", json!({ "job_id": "7" }))), false),
        (named("KillwatchJobOOMKilled", json!({ "job_id": "7" })), true),
        (named("KillwatchJobOOMKilled", json!({ "job_id": "8" })), false),
        (named("KillwatchJobOOMKilled", json!({ "job_name": "without an id" })), false),
        (named("KillwatchContainerNearLimit", merged(json!({ "node": "n2" }), other_pod)), true),
        (named("KillwatchContainerNearLimit", json!({ "unit": "a.service" })), false),
        (named("KillwatchNotReady", json!({ "instance": "n3:9435" })), false),
        (named("KillwatchDegraded", json!({ "instance": "n3:9435" })), true),
        (named("KillwatchDegraded", json!({ "instance": "n4:9435" })), false),
        (named("KillwatchSinkFailing", json!({ "instance": "n3:9435", "sink": "hook" })), false),
        (
            named("KillwatchSinkFallingBehind", json!({ "instance": "n3:9435", "sink": "hook" })),
            true,
        ),
        (
            named("KillwatchSinkFallingBehind", json!({ "instance": "n3:9435", "sink": "log" })),
            false,
        ),
    ];
    let posts: Vec<Value> = cases
        .iter()
        .enumerate()
        .map(|(number, (labels, _))| {
            json!({ "labels": merged(labels.clone(), json!({ "case": number.to_string() })) })
        })
        .collect();
    manager.post("/api/v2/alerts", &json!(posts)).unwrap();
    for (number, (labels, muted)) in cases.iter().enumerate() {
        let mut last = Value::Null;
        let state = if *muted { "suppressed" } else { "active" };
        let seen = wait_until(Duration::from_secs(30), state, || {
            let alerts = manager.json("/api/v2/alerts")?;
            let alert = alerts.as_array().and_then(|all| {
                all.iter().find(|alert| str(&alert["labels"], "case") == number.to_string())
            });
            last = alert.cloned().unwrap_or_default();
            Ok((str(&last["status"], "state") == state).then_some(()))
        });
        assert!(seen.is_ok(), "{labels} was to be {state}: {last}");
        assert_eq!(list(&last["status"], "inhibitedBy").is_empty(), !muted, "{last}");
    }
}

fn merged(mut one: Value, more: Value) -> Value {
    if let (Some(one), Value::Object(more)) = (one.as_object_mut(), more) {
        one.extend(more);
    }
    one
}
