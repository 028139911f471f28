//! A death that never was, for `killwatch test-alert`: it says in every way that it is a test.

use std::collections::BTreeMap;

use jiff::Timestamp;
use uuid::{NoContext, Uuid};

use super::*;

/// Name of the victim.
pub const COMM: &str = "killwatch-test";
/// Tag that marks it, with the value `true`.
pub const TAG: &str = "killwatch_test";

/// A kill at a cgroup's limit on `node`, of a process that there never was, as of `time`.
#[must_use]
pub fn drill(node: &str, time: Timestamp) -> Death {
    let seconds = u64::try_from(time.as_second()).unwrap_or(0);
    let nanos = u32::try_from(time.subsec_nanosecond()).unwrap_or(0);
    let pid = std::process::id();
    let why = "this is a test by `killwatch test-alert`: nothing was killed".to_owned();
    Death {
        id: Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, nanos)),
        schema: SCHEMA,
        boot_id: None,
        node: node.to_owned(),
        state: State::Dead,
        time,
        ktime_ns: 0,
        victim: Victim {
            pid,
            tgid: pid,
            tid: pid,
            ns_pid: None,
            pid_ns: None,
            start_time: None,
            start_ktime_ns: None,
            lifetime_seconds: None,
            ppid: None,
            parent_comm: None,
            comm: COMM.to_owned(),
            cmdline: None,
            cmdline_truncated: false,
            uid: None,
            oom_score_adj: None,
            exit_code: None,
            signal: Some(9),
            signal_name: Some("SIGKILL".to_owned()),
            status: Some(137),
            status_meaning: None,
            core_dumped: None,
            threads: None,
            environ: BTreeMap::new(),
        },
        killer: Killer { kind: KillerKind::Kernel, ..Killer::default() },
        cause: Cause::OomMemcg,
        confidence: Confidence::Inferred,
        inferred: vec![why.clone()],
        evidence: vec![why],
        oom: None,
        related: None,
        stop: None,
        rlimit: None,
        stuck_seconds: None,
        memory: MemoryStory::default(),
        workload: Workload::default(),
        job: None,
        tags: BTreeMap::from([(TAG.to_owned(), "true".to_owned())]),
        advice: "Nothing to do: this is a test.".to_owned(),
        findings: Vec::new(),
        missing: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_that_it_is_a_test() {
        let death = drill("node-1", "2026-01-31T12:00:00Z".parse().unwrap());
        assert_eq!(death.id.get_version_num(), 7);
        let json = serde_json::to_value(&death).unwrap();
        assert_eq!(json["node"], "node-1");
        assert_eq!(json["victim"]["comm"], "killwatch-test");
        assert_eq!(json["tags"]["killwatch_test"], "true");
        assert!(json["evidence"][0].as_str().unwrap().contains("test-alert"));
    }
}
