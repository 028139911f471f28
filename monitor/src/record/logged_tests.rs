//! Records of the kernel log's kills: what is there, and that what is not is said to be missing.

use super::*;
use crate::{
    attribute,
    cgroup::marks::Marks,
    clock::Clock,
    death::Missing,
    kmsg::{
        parse::line,
        story::{Cgroup, Event, Story},
    },
    verdict::names::VerdictConfig,
};

const LINES: [&str; 4] = [
    "memory: usage 32768kB, limit 32768kB, failcnt 20",
    "memory+swap: usage 32768kB, limit 9007199254740988kB, failcnt 0",
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/kubepods/pod1,task_memcg=/kubepods/pod1/web.service,task=n,pid=77,uid=1000",
    "Memory cgroup out of memory: Killed process 77 (n) total-vm:38216kB, anon-rss:32256kB, file-rss:3636kB, shmem-rss:0kB, UID:1000 pgtables:120kB oom_score_adj:500",
];

fn recorder() -> Recorder {
    Recorder {
        node: "node-1".to_owned(),
        boot_id: Some("boot".to_owned()),
        page_size: 4096,
        memory_hierarchy: 4,
        clock: Clock,
        names: VerdictConfig::default().into(),
        marks: Marks::new("/none".into()),
        tags: Default::default(),
    }
}

fn kill(lines: &[&str]) -> Kill {
    let mut story = Story::default();
    for text in lines {
        assert_eq!(story.line(line(text.as_bytes()).unwrap(), 1), None);
    }
    let Some(Event::Kill(kill)) = story.release() else { panic!("no kill") };
    *kill
}

/// The record of a kill with all its lines, at a fixed time.
pub(crate) fn sample() -> Death {
    let mut death = recorder().record_logged(&kill(&LINES));
    death.time = "2026-01-31T12:00:00Z".parse().unwrap();
    death.id = uuid::Uuid::nil();
    // As whoever gives the names does.
    let Workload { cgroup, cgroup_id, .. } = death.workload;
    death.workload = attribute::workload(cgroup.as_deref(), cgroup_id);
    death
}

fn missing(death: &Death) -> Vec<&str> {
    death.missing.iter().map(|Missing { field, .. }| field.as_str()).collect()
}

#[test]
fn all_that_the_log_has_is_there() {
    let death = sample();
    let victim = &death.victim;
    assert_eq!(
        (victim.pid, victim.tid, victim.comm.as_str(), victim.uid),
        (77, 77, "n", Some(1000))
    );
    assert_eq!((victim.status, victim.signal, victim.oom_score_adj), (None, None, Some(500)));
    assert_eq!((death.cause, death.confidence), (Cause::OomMemcg, Confidence::Certain));
    let memory = &death.memory;
    assert_eq!((memory.anon_bytes, memory.page_tables_bytes), (Some(32256 << 10), Some(120 << 10)));
    assert_eq!((memory.usage_bytes, memory.limit_bytes), (Some(32 << 20), Some(32 << 20)));
    assert_eq!(memory.limit_cgroup.as_deref(), Some("/kubepods/pod1"));
    let own = recorder().record_logged(&kill(&LINES)).workload;
    assert_eq!(own.cgroup.as_deref(), Some("/kubepods/pod1/web.service"));
    assert_eq!(death.oom.as_ref().and_then(|oom| oom.constraint), Some(Constraint::Memcg));
    let lacks = [
        "victim.status",
        "victim.start_time",
        "victim.ppid",
        "victim.cmdline",
        "victim.environ",
        "memory.levels",
        "killer.trigger",
    ];
    assert_eq!(missing(&death), lacks);
    assert!(!serde_json::to_string(&death).unwrap().contains("null"));
}

#[test]
fn what_a_bare_line_leaves_open_is_said() {
    let death = recorder().record_logged(&kill(&LINES[3..]));
    assert_eq!((death.cause, death.confidence), (Cause::OomMemcg, Confidence::Inferred));
    assert!(
        missing(&death).contains(&"workload.cgroup")
            && missing(&death).contains(&"memory.limit_bytes")
    );
    assert_eq!((death.memory.limit_cgroup, death.workload.cgroup), (None, None));

    let host = LINES[3].replace("Memory cgroup out", "Out");
    let mut bare = kill(&[&host]);
    bare.cgroup = Some(Cgroup { path: b"/a\xff".to_vec(), id: Some(5), from: Source::Proc });
    let death = recorder().record_logged(&bare);
    assert_eq!((death.cause, death.inferred.len()), (Cause::OomGlobal, 3));
    assert_eq!(
        (death.workload.cgroup.as_deref(), death.workload.cgroup_id),
        (Some("/a\\xff"), Some(5))
    );
    assert!(!missing(&death).contains(&"memory.limit_bytes"), "there is none");
}

#[test]
fn the_limit_on_memory_and_swap_is_named_as_such() {
    let lines = [
        "memory: usage 1024kB, limit 9007199254740988kB, failcnt 0",
        "memory+swap: usage 2048kB, limit 2048kB, failcnt 8",
        LINES[2],
        LINES[3],
    ];
    let death = recorder().record_logged(&kill(&lines));
    assert_eq!(
        (death.memory.limit_bytes, death.memory.limit_counter),
        (Some(2 << 20), Some(LimitCounter::Memsw))
    );
    assert!(death.advice.contains("memsw"), "{}", death.advice);
}

#[test]
fn each_constraint_is_a_cause() {
    for (constraint, cause) in [
        ("NONE", Cause::OomGlobal),
        ("CPUSET", Cause::OomCpuset),
        ("MEMORY_POLICY", Cause::OomMempolicy),
    ] {
        let decision = format!(
            "oom-kill:constraint=CONSTRAINT_{constraint},nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/a,task=n,pid=77,uid=0"
        );
        let killed = LINES[3].replace("Memory cgroup out", "Out");
        let death = recorder().record_logged(&kill(&[&decision, &killed]));
        assert_eq!((death.cause, death.confidence), (cause, Confidence::Certain));
        assert!(!death.advice.is_empty());
    }
}
