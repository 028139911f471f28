//! Deaths for tests: one of each cause, with what a real one carries, and one with everything hostile.

use std::collections::BTreeMap;

use super::*;

pub(crate) mod memory;

const MIB: u64 = 1 << 20;

fn id(n: u128) -> Uuid {
    Uuid::from_u128(0x0197_5f3e_8c00_7000_8000_0000_0000_0000 + n)
}

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// A worker in a pod, killed under its container's limit.
pub(crate) fn oom_memcg() -> Death {
    let cgroup = "/kubepods/burstable/pod3f9f0a52-6b8e-4c8e-9d53-0d9d5b1c2f10/\
                  4d6c1b2a3f4e5d6c7b8a9f0e1d2c3b4a5f6e7d8c9b0a1f2e3d4c5b6a7f8e9d0c";
    Death {
        id: id(1),
        schema: SCHEMA,
        boot_id: Some("6f1c1a4e-0d0b-4f0e-8f57-4f1f5f0b7a11".into()),
        node: "node-1".into(),
        state: State::Dead,
        time: time("2026-01-31T12:00:00.123456789Z"),
        ktime_ns: 5_000_000_000,
        victim: Victim {
            pid: 4242,
            tgid: 4242,
            tid: 4245,
            ns_pid: Some(7),
            pid_ns: Some(4_026_532_201),
            start_time: Some(time("2026-01-31T11:58:00Z")),
            start_ktime_ns: Some(4_000_000_000),
            lifetime_seconds: Some(120.5),
            ppid: Some(4200),
            parent_comm: Some("supervisor".into()),
            comm: "worker".into(),
            cmdline: Some(vec!["/usr/bin/worker".into(), "--shard".into(), "3".into()]),
            cmdline_truncated: false,
            uid: Some(1000),
            oom_score_adj: Some(982),
            exit_code: None,
            signal: Some(9),
            signal_name: Some("SIGKILL".into()),
            status: Some(137),
            status_meaning: Some("137 = 128 + 9: SIGKILL, ended from outside, at once and without a chance to react".into()),
            core_dumped: Some(false),
            threads: Some(8),
            environ: BTreeMap::from([("JOB_ID".into(), "render-42".into())]),
        },
        killer: Killer {
            kind: KillerKind::Kernel,
            via: Some(Via::Kernel),
            trigger: Some(Trigger { pid: 4242, tid: 4246, comm: "worker".into(), cgroup: Some(cgroup.into()) }),
            ..Killer::default()
        },
        cause: Cause::OomMemcg,
        confidence: Confidence::Certain,
        inferred: Vec::new(),
        evidence: vec![
            "the kernel's OOM killer marked it (oom:mark_victim) 1.2 ms before it ended".into(),
            "the limit of its cgroup was reached: 32.0 MiB of 32.0 MiB".into(),
        ],
        oom: Some(Oom { incident_ktime_ns: 4_998_800_000, group: false, constraint: Some(Constraint::Memcg), sysrq: false }),
        related: None,
        stop: None,
        rlimit: None,
        stuck_seconds: None,
        memory: MemoryStory {
            anon_bytes: Some(30 * MIB),
            file_bytes: Some(MIB / 2),
            shmem_bytes: Some(0),
            swap_bytes: None,
            page_tables_bytes: Some(120 << 10),
            peak_rss_bytes: Some(31 * MIB),
            usage_bytes: Some(32 * MIB),
            limit_bytes: Some(32 * MIB),
            limit_cgroup: Some(cgroup.into()),
            limit_counter: None,
            levels: vec![
                LevelUse { cgroup: Some(cgroup.into()), usage_bytes: 32 * MIB, limit_bytes: Some(32 * MIB), swap_bytes: Some(0), swap_limit_bytes: Some(0), ..LevelUse::default() },
                LevelUse { cgroup: Some("/kubepods/burstable".into()), usage_bytes: 900 * MIB, ..LevelUse::default() },
            ],
            ..MemoryStory::default()
        },
        workload: Workload {
            cgroup: Some(cgroup.into()),
            cgroup_id: Some(7311),
            container_id: Some("4d6c1b2a3f4e5d6c7b8a9f0e1d2c3b4a5f6e7d8c9b0a1f2e3d4c5b6a7f8e9d0c".into()),
            runtime: None,
            pod_uid: Some("3f9f0a52-6b8e-4c8e-9d53-0d9d5b1c2f10".into()),
            qos: Some(Qos::Burstable),
            sources: BTreeMap::from([("container_id".into(), "cgroup_path".into())]),
            ..Workload::default()
        },
        job: Some(Job {
            id: Some("render-42".into()),
            sources: BTreeMap::from([("id".into(), "environ:JOB_ID".into())]),
            ..Job::default()
        }),
        tags: BTreeMap::new(),
        advice: "Raise the container's memory limit above 32.0 MiB, or find out why worker needs more than it.".into(),
        findings: Vec::new(),
        missing: vec![Missing { field: "workload.runtime".into(), why: "the cgroup path does not tell it".into() }],
    }
}

/// The OOM of a pod's container of which everything is known.
pub(crate) fn in_a_pod() -> Death {
    let mut death = oom_memcg();
    let bare = "4d6c1b2a3f4e5d6c7b8a9f0e1d2c3b4a5f6e7d8c9b0a1f2e3d4c5b6a7f8e9d0c";
    let workload = &mut death.workload;
    workload.container_id = Some(format!("containerd://{bare}"));
    workload.runtime = Some("containerd".into());
    workload.container = Some("worker".into());
    workload.pod = Some("render-x7k2p".into());
    workload.namespace = Some("shop".into());
    workload.sandbox_id = Some("0a".repeat(32));
    workload.image = Some("registry.example/shop/render:1.4".into());
    workload.attempt = Some(2);
    workload.owners = vec![
        Owner { kind: "Job".into(), name: "render".into(), uid: None },
        Owner { kind: "CronJob".into(), name: "render-nightly".into(), uid: None },
    ];
    workload.labels = BTreeMap::from([("app".into(), "render".into())]);
    workload.annotations = BTreeMap::from([("example.com/team".into(), "pictures".into())]);
    death.tags = BTreeMap::from([
        ("job_id".into(), "render-42".into()),
        ("snapshot_id".into(), "s-19".into()),
    ]);
    death.job = Some(Job {
        id: Some("render-42".into()),
        name: Some("render".into()),
        index: Some("3".into()),
        sources: BTreeMap::from([
            ("id".into(), "tag:job_id".into()),
            ("name".into(), "label:batch.kubernetes.io/job-name".into()),
            ("index".into(), "label:batch.kubernetes.io/job-completion-index".into()),
        ]),
        ..Job::default()
    });
    death.missing.clear();
    death
}

/// A system service that fell to an OOM of the whole host.
pub(crate) fn oom_global() -> Death {
    let mut death = host_process(Cause::OomGlobal, Some(9));
    death.killer.kind = KillerKind::Kernel;
    death.killer.trigger = Some(Trigger {
        pid: 900,
        tid: 900,
        comm: "backup".into(),
        cgroup: Some("/system.slice/backup.service".into()),
    });
    death.oom = Some(Oom {
        incident_ktime_ns: 7,
        group: true,
        constraint: Some(Constraint::None),
        sysrq: false,
    });
    death.evidence = vec!["the kernel found no memory in the whole host".into()];
    death.advice = "The host is too small for what runs on it.".into();
    death
}

/// A process that another one killed.
pub(crate) fn killed() -> Death {
    let mut death = host_process(Cause::Killed, Some(9));
    death.killer = Killer {
        kind: KillerKind::Process,
        via: Some(Via::Kill),
        pid: Some(777),
        comm: Some("bash".into()),
        uid: Some(0),
        ppid: Some(776),
        cgroup: Some("/user.slice/user-0.slice/session-1.scope".into()),
        unit: Some("session-1.scope".into()),
        ancestors: vec![
            Ancestor { pid: 776, comm: "sshd".into() },
            Ancestor { pid: 1, comm: "systemd".into() },
        ],
        ..Killer::default()
    };
    death.evidence = vec!["kill(2) by bash (pid 777)".into()];
    death.advice = "Ask who ran bash (pid 777).".into();
    death
}

/// A process that ended itself: by `abort()` (6) or a fault.
pub(crate) fn by_itself(cause: Cause, signal: u8) -> Death {
    let mut death = host_process(cause, Some(signal));
    death.killer.kind = KillerKind::Itself;
    death.victim.core_dumped = Some(true);
    death.evidence = vec![format!("signal {signal} came from itself")];
    death.advice = "Look into the core dump.".into();
    death
}

/// A shell that passed on its child's end as 137.
pub(crate) fn relayed() -> Death {
    let mut death = host_process(Cause::Relayed, None);
    death.victim.exit_code = Some(137);
    death.victim.status = Some(137);
    death.related = Some(Related {
        role: Role::Child,
        pid: 4242,
        comm: "worker".into(),
        status: Some(137),
        id: Some(id(1)),
        cause: Some(Cause::OomMemcg),
    });
    death.confidence = Confidence::Inferred;
    death.inferred = vec!["that its exit code stands for its child's end".into()];
    death.evidence = vec!["its child worker (pid 4242) died of signal 9 just before".into()];
    death.advice = "See the record of the child.".into();
    death
}

/// A victim that the OOM killer killed and that is still there.
pub(crate) fn stuck() -> Death {
    let mut death = oom_memcg();
    death.state = State::Stuck;
    death.stuck_seconds = Some(10.2);
    let victim = &mut death.victim;
    (victim.status, victim.status_meaning, victim.core_dumped) = (None, None, None);
    (victim.signal, victim.signal_name) = (None, None);
    death
}

/// A worker that a userspace OOM killer chose.
pub(crate) fn oom_userspace() -> Death {
    let mut death = killed();
    death.cause = Cause::OomUserspace;
    death.killer.comm = Some("systemd-oomd".into());
    death.killer.unit = Some("systemd-oomd.service".into());
    death.killer.marks = BTreeMap::from([("user.oomd_kill".into(), "3".into())]);
    death
}

/// A stop that ran out.
pub(crate) fn stop_timeout() -> Death {
    let mut death = killed();
    death.cause = Cause::StopTimeout;
    death.killer.comm = Some("runc".into());
    death.stop = Some(Stop {
        pid: 770,
        comm: "runc".into(),
        uid: 0,
        grace_seconds: 30.001,
        ignored: false,
        init_without_handler: false,
    });
    death
}

/// A process that died because another did.
pub(crate) fn following(cause: Cause, role: Role) -> Death {
    let mut death = host_process(cause, Some(9));
    death.killer.kind = KillerKind::Kernel;
    death.related = Some(Related {
        role,
        pid: 4242,
        comm: "worker".into(),
        status: Some(137),
        id: Some(id(1)),
        cause: Some(Cause::OomMemcg),
    });
    death
}

/// A process whose CPU time ran out.
pub(crate) fn rlimit() -> Death {
    let mut death = host_process(Cause::Rlimit, Some(9));
    death.killer.kind = KillerKind::Kernel;
    death.rlimit = Some(Rlimit {
        resource: "RLIMIT_CPU".into(),
        unit: "seconds".into(),
        soft: Some(60),
        hard: Some(60),
        used: Some(60.004),
    });
    death
}

/// A process of which little is known.
pub(crate) fn unknown() -> Death {
    let mut death = host_process(Cause::Unknown, None);
    death.victim.exit_code = Some(143);
    death.victim.status = Some(143);
    death.victim.status_meaning = crate::verdict::signals::meaning(143, true);
    death.killer.kind = KillerKind::Unknown;
    death.evidence =
        vec!["exit code 143 may stand for signal 15, but no such signal was seen".into()];
    death.missing = vec![Missing { field: "killer".into(), why: "no signal was seen".into() }];
    death
}

/// Names that try to break out of whatever they are put into.
pub(crate) fn hostile() -> Death {
    let mut death = killed();
    let nasty = ") Z\n\"} 1\u{1b}[2J</script>\\".to_owned();
    death.victim.comm.clone_from(&nasty);
    death.victim.cmdline = Some(vec![nasty.clone(), String::new(), "a b".into()]);
    death.killer.comm = Some(nasty.clone());
    death.workload.cgroup = Some(format!("/{nasty}"));
    death.workload.container_id = Some(nasty.clone());
    death.workload.container = Some(nasty.clone());
    death.workload.pod = Some(nasty.clone());
    death.workload.namespace = Some(nasty.clone());
    death.workload.image = Some(nasty.clone());
    death.workload.labels = BTreeMap::from([(nasty.clone(), nasty.clone())]);
    death.tags = BTreeMap::from([(nasty.clone(), nasty.clone())]);
    death.job = Some(Job { id: Some(nasty.clone()), ..Job::default() });
    death.evidence = vec![nasty.clone()];
    let story = memory::leak().memory;
    (death.memory.cgroup, death.memory.history) = (story.cgroup, story.history);
    (death.memory.processes, death.memory.host) = (story.processes, story.host);
    if let Some(cgroup) = &mut death.memory.cgroup {
        cgroup.cgroup.clone_from(&nasty);
        cgroup.events.insert(nasty.clone(), 1);
    }
    if let Some(history) = &mut death.memory.history {
        history.cgroup.clone_from(&nasty);
    }
    for process in &mut death.memory.processes {
        process.comm.clone_from(&nasty);
        process.tags.insert(nasty.clone(), nasty.clone());
    }
    death.advice = nasty;
    death
}

fn host_process(cause: Cause, signal: Option<u8>) -> Death {
    let mut death = oom_memcg();
    death.id = id(2);
    death.cause = cause;
    death.victim.comm = "indexer".into();
    death.victim.cmdline = Some(vec!["indexer".into()]);
    death.victim.signal = signal;
    let name = match signal {
        Some(6) => Some("SIGABRT"),
        Some(9) => Some("SIGKILL"),
        Some(11) => Some("SIGSEGV"),
        _ => None,
    };
    death.victim.signal_name = name.map(str::to_owned);
    death.victim.status = Some(signal.map_or(0, |s| 128 + s));
    death.victim.status_meaning =
        death.victim.status.and_then(|status| crate::verdict::signals::meaning(status, false));
    death.victim.environ.clear();
    death.killer = Killer::default();
    death.oom = None;
    death.memory = MemoryStory { anon_bytes: Some(512 * MIB), ..MemoryStory::default() };
    death.workload = Workload {
        cgroup: Some("/system.slice/indexer.service".into()),
        cgroup_id: Some(99),
        unit: Some("indexer.service".into()),
        ..Workload::default()
    };
    death.job = None;
    death.missing = Vec::new();
    death
}
