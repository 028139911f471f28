//! What is allowed, what is not, and how a refusal reads.

use std::path::Path;

use clap::Parser;
use proptest::prelude::*;

use crate::containers::Switch;

use super::{Config, ConfigError, EnvironConfig, Flags, ProbeSource, VariableName, file};

fn refused(yaml: &str) -> String {
    file::parse(yaml.as_bytes()).expect_err(yaml)
}

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    flags: Flags,
}

fn flags(args: &[&str]) -> Flags {
    Line::try_parse_from([&["killwatch"], args].concat()).unwrap().flags
}

#[test]
fn nothing_is_the_default() {
    for yaml in ["", "# a comment\n", "{}", "ledger: {}\n"] {
        assert_eq!(file::parse(yaml.as_bytes()), Ok(Config::default()), "{yaml:?}");
    }
}

#[test]
fn every_key_is_read() {
    let yaml = r"
web: {listen_address: ['127.0.0.1:1', ':9435', '[::1]:9435'], telemetry_path: /m}
api: {socket: /run/k.sock, socket_mode: 0660, socket_group: workers}
log: {level: debug, format: json}
log_sink: /var/log/killwatch.jsonl
ledger: {path: /l.redb, max_deaths: 7, max_bytes: 2MiB, max_age: 48h, max_memory: 8MiB}
metrics: {max_series: 5, keep_gone: 1h}
containers: {keep_gone: 10s}
poison: {deaths: 5, window: 10m}
probe: {source: kmsg, ring_bytes: 64KiB, log_level: trace}
state: {path: /var/tmp/k}
queue: {records: 64}
cgroup: {root: /tmp/cgroup, max: 1024}
environ: {allow: [MY_JOB]}
kubernetes: {enabled: off, kubeconfig: /etc/k}
shutdown: {deadline: 1500ms}
node: worker-7
";
    let config = file::parse(yaml.as_bytes()).unwrap();
    assert_eq!(
        config.web.listen_address.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["127.0.0.1:1", "[::]:9435", "[::1]:9435"]
    );
    assert_eq!(config.web.telemetry_path.as_str(), "/m");
    assert_eq!(config.api.socket.to_string(), "/run/k.sock");
    assert_eq!(config.api.socket_mode.get(), 0o660);
    assert_eq!(
        config.api.socket_group.as_ref().map(ToString::to_string).as_deref(),
        Some("workers")
    );
    assert_eq!(config.log_sink.to_string(), "/var/log/killwatch.jsonl");
    assert_eq!(config.ledger.path.to_string(), "/l.redb");
    assert_eq!((config.ledger.max_deaths.get(), config.ledger.max_bytes.get()), (7, 2 << 20));
    assert_eq!(config.ledger.max_age.get().as_secs(), 48 * 3600);
    assert_eq!(config.ledger.max_memory.get(), 8 << 20);
    assert_eq!(
        (config.metrics.max_series.get(), config.metrics.keep_gone.get().as_secs()),
        (5, 3600)
    );
    assert_eq!((config.probe.source, config.probe.ring_bytes.get()), (ProbeSource::Kmsg, 65536));
    assert_eq!(config.state.path.to_string(), "/var/tmp/k");
    assert_eq!((config.queue.records.get(), config.cgroup.max.get()), (64, 1024));
    assert_eq!(config.cgroup.root().to_str(), Some("/tmp/cgroup"));
    assert_eq!(
        config.environ.allow.iter().map(VariableName::as_str).collect::<Vec<_>>(),
        ["MY_JOB"]
    );
    assert_eq!(config.kubernetes.enabled, Switch::Off);
    assert_eq!(config.kubernetes.kubeconfig.as_deref(), Some(Path::new("/etc/k")));
    assert_eq!(config.shutdown.deadline.get().as_millis(), 1500);
    assert_eq!(config.node.as_str(), "worker-7");
    // What is shown is what can be read again.
    let shown = serde_json::to_string(&config).unwrap();
    assert_eq!(file::parse(shown.as_bytes()), Ok(config));
}

#[test]
fn how_a_refusal_reads() {
    let bad = [
        "ledger: {max_deaths: 0}",
        "ledger:\n  max_deaths: -1\n",
        "ledger: {max_deaths: unlimited}",
        "ledger: {max_bytes: 1KiB}",
        "ledger: {max: 1}",
        "ledger: {path: deaths}",
        "ledger: {max_age: 59s}",
        "leger: {max_deaths: 1}",
        "queue: {records: 63}",
        "queue: {records: 18446744073709551616}",
        "probe: {source: ebpf}",
        "probe: {ring_bytes: 0}",
        "probe: {ring_bytes: 5MiB}",
        "probe: {ring_bytes: 128MiB}",
        "probe: {ring_bytes: 4MB}",
        "shutdown: {deadline: 0s}",
        "shutdown: {deadline: 5}",
        "shutdown: {deadline: -5s}",
        "metrics: {max_series: 0}",
        "web: {listen_address: ['localhost']}",
        "web: {listen_address: []}",
        "web: {telemetry_path: /api/v1/deaths}",
        "web: {telemetry_path: '/{x}'}",
        "api: {socket: run.sock}",
        "api: {socket_mode: 8}",
        "api: {socket_mode: 1777}",
        "api: {socket_group: 'a b'}",
        "log: {level: loud}",
        "log_sink: deaths.jsonl",
        "cgroup: {root: cgroup}",
        "environ: {allow: ['*']}",
        "environ: {allow: [A=B]}",
        "kubernetes: {enabled: 'yes'}",
        "kubernetes: {kubeconfig: k}",
        "kubernetes: off",
        "state: {path: state}",
        "node: ''",
        "node: \"a\\nb\"",
        "ledger: {max_deaths: 1}\nledger: {max_deaths: 2}",
        "ledger:",
        "- 1",
    ];
    let text: String = bad
        .iter()
        .map(|yaml| format!("{}\n    {}\n", yaml.escape_debug(), refused(yaml)))
        .collect();
    crate::golden::check_named("config_refusals.txt", &text);
}

#[test]
fn flags_go_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k.yaml");
    std::fs::write(&path, "ledger: {max_deaths: 7}\nqueue: {records: 100}\nnode: of-the-file\n")
        .unwrap();
    let path = path.to_str().unwrap();
    let config = Config::load(&flags(&[
        "--config.file",
        path,
        "--ledger.max-deaths",
        "8",
        "--node=of-the-flag",
        "--kubernetes=off",
        "--kubernetes.kubeconfig=/k",
    ]))
    .unwrap();
    assert_eq!((config.ledger.max_deaths.get(), config.queue.records.get()), (8, 100));
    assert_eq!(config.node.as_str(), "of-the-flag");
    assert_eq!(config.kubernetes.enabled, Switch::Off);
    assert_eq!(config.kubernetes.kubeconfig.as_deref(), Some(Path::new("/k")));
}

#[test]
fn lists_are_bounded_whatever_their_source() {
    let many = vec!["--environ.allow=A"; EnvironConfig::MAX_ALLOW + 1];
    let error = Config::load(&flags(&many)).unwrap_err();
    assert!(matches!(error, ConfigError::Combination(_)));
    assert_eq!(
        error.to_string(),
        "environ.allow: a list of 201 is not allowed: must have 0 to 200 items"
    );
    let two = flags(&["--web.listen-address", "127.0.0.1:1", "--web.listen-address=127.0.0.1:2"]);
    assert_eq!(Config::load(&two).unwrap().web.listen_address.len(), 2);
}

#[test]
fn a_file_that_is_no_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k.yaml");
    assert!(matches!(file::read(&path), Err(ConfigError::Unreadable { .. })));
    std::fs::write(&path, b"node: \xff").unwrap();
    assert!(
        file::read(&path).unwrap_err().to_string().ends_with("k.yaml: not UTF-8 from byte 6 on")
    );
    std::fs::write(&path, "#".repeat(usize::try_from(file::MAX_BYTES).unwrap() + 1)).unwrap();
    assert!(matches!(file::read(&path), Err(ConfigError::TooLong { .. })));
    std::fs::write(&path, "#".repeat(usize::try_from(file::MAX_BYTES).unwrap())).unwrap();
    assert_eq!(file::read(&path).unwrap(), Config::default());
}

/// Scalars of every kind, at keys that exist.
fn yaml() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "ledger: {max_deaths: ",
        "ledger: {max_bytes: ",
        "queue: {records: ",
        "probe: {ring_bytes: ",
        "metrics: {max_series: ",
        "metrics: {keep_gone: ",
        "cgroup: {max: ",
        "shutdown: {deadline: ",
    ]);
    let unit = prop::sample::select(vec!["", "KiB", "MiB", "s", "ms", "h", "MB", " "]);
    (key, any::<i64>(), unit).prop_map(|(key, n, unit)| format!("{key}{n}{unit}}}"))
}

proptest! {
    #[test]
    fn any_bytes_are_a_configuration_or_a_refusal_of_one_line(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(refusal) = file::parse(&bytes) {
            prop_assert!(!refusal.is_empty() && !refusal.contains('\n'));
        }
    }

    #[test]
    fn any_text_is_a_configuration_or_a_refusal(text in "([a-z_]{1,8}: ?|[\\[\\]{},&*!|>'\"#-]|\n| |[0-9]){0,40}") {
        let _ = file::parse(text.as_bytes());
    }

    #[test]
    fn what_is_read_is_within_bounds(text in yaml()) {
        if let Ok(config) = file::parse(text.as_bytes()) {
            prop_assert!(!text.contains('-'), "a negative value was taken: {}", text);
            prop_assert!((1..=1_000_000).contains(&config.ledger.max_deaths.get()));
            prop_assert!((1 << 20..=16 << 30).contains(&config.ledger.max_bytes.get()));
            prop_assert!((64..=1_000_000).contains(&config.queue.records.get()));
            prop_assert!(config.probe.ring_bytes.get().is_power_of_two());
            prop_assert!((100..=300_000).contains(&config.shutdown.deadline.get().as_millis()));
        }
    }
}
