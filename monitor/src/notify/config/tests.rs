//! What `sinks` may hold, what it is called, and how a refusal reads.

use super::*;
use crate::config::{Config, file};

fn parse(yaml: &str) -> Result<Config, String> {
    file::parse(yaml.as_bytes())
}

fn names(yaml: &str) -> Result<Vec<String>, String> {
    let sinks = parse(yaml)?.named_sinks()?;
    Ok(sinks.into_iter().map(|(name, _)| name).collect())
}

#[test]
fn every_key_is_read_and_written() {
    let yaml = "
log_sink: none
sinks:
- stdout: {}
  name: out
  filter: {causes: [oom_memcg], namespaces: [shop], jobs: ^render-}
  group: 1m
  rate: 7
- file: {path: /var/log/d, max_bytes: 1MiB, keep: 0}
- group: 0s
  journald: {}
";
    let config = parse(yaml).unwrap();
    let [out, file, journal] = config.sinks.as_slice() else { panic!("{config:?}") };
    assert_eq!(out.name.as_ref().unwrap().as_str(), "out");
    assert_eq!((out.group(), out.rate()), (Some(Duration::from_secs(60)), 7));
    assert_ne!(out.filter, FilterConfig::default());
    let Kind::File(settings) = &file.kind else { panic!("{file:?}") };
    assert_eq!((settings.max_bytes.get(), settings.keep.get()), (1 << 20, 0));
    assert_eq!((file.group(), file.rate()), (None, 10_000));
    assert_eq!(journal.group(), None);
    let shown = serde_json::to_string(&config).unwrap();
    assert_eq!(parse(&shown), Ok(config));
}

#[test]
fn a_name_is_the_users_or_the_kinds() {
    let yaml = "
sinks:
- file: {path: /a}
- journald: {}
- file: {path: /b}
- {file: {path: /c}, name: mine}
- file: {path: /d}
";
    assert_eq!(names(yaml).unwrap(), ["log", "file", "journald", "file-2", "mine", "file-4"]);
    assert_eq!(names("").unwrap(), ["log"]);
    assert_eq!(names("log_sink: none").unwrap(), [""; 0]);
}

#[test]
fn how_a_refusal_reads() {
    let many = format!("sinks: [{}]", vec!["{journald: {}}"; MAX_SINKS + 1].join(", "));
    let bad = [
        "sinks: stdout",
        "sinks: [stdout]",
        "sinks:\n- {}",
        "sinks:\n- name: a",
        "sinks:\n- mail: {}",
        "sinks:\n- stdout: {}\n  colour: red",
        "sinks:\n- stdout: {path: /a}",
        "sinks:\n- stdout: {}\n  file: {path: /a}",
        "sinks:\n- stdout: {}\n  stdout: {}",
        "sinks:\n- file: {}",
        "sinks:\n- file: {path: a}",
        "sinks:\n- file:\n    path: /a\n    max_bytes: 1KiB",
        "sinks:\n- file: {path: /a, keep: 101}",
        "sinks:\n- {stdout: {}, name: Out}",
        "sinks:\n- {stdout: {}, name: ''}",
        "sinks:\n- {stdout: {}, rate: 0}",
        "sinks:\n- {stdout: {}, group: 25h}",
        "sinks:\n- {stdout: {}, filter: {cause: [killed]}}",
        "sinks:\n- {stdout: {}, filter: {causes: [oom]}}",
        "sinks:\n- {stdout: {}, filter: {causes: []}}",
        "sinks:\n- {stdout: {}, filter: {jobs: '('}}",
        "sinks:\n- {journald: {}, name: a}\n- {journald: {}, name: a}",
        "sinks:\n- {journald: {}, name: log}",
        "sinks:\n- {journald: {}, name: journald-2}\n- journald: {}",
        "sinks:\n- stdout: {}",
        "log_sink: /d\nsinks:\n- file: {path: /d}",
        "sinks:\n- file: {path: /d}\n- file: {path: /d}",
        "links: {runbook_url: runbooks}",
        "links: {dashboard_url: 'https://h/{what}'}",
        &many,
    ];
    let text: String = bad
        .iter()
        .map(|yaml| {
            let shown: String = yaml.escape_debug().to_string().chars().take(100).collect();
            format!("{shown}\n    {}\n", names(yaml).expect_err(yaml))
        })
        .collect();
    crate::golden::check_named("sink_refusals.txt", &text);
}
