//! Deaths with the whole memory story: one for each way in which memory comes to an end.

use super::*;

/// Seconds before the death at which usage was looked at: closer together the later.
fn looks() -> impl Iterator<Item = f64> {
    let far = (0..48).map(|n| 300.0 - f64::from(n) * 5.0);
    far.chain((0..=60).map(|n| 60.0 - f64::from(n)))
}

/// What the usage was as a function of the seconds before the death.
fn history(cgroup: &str, limit: Option<u64>, usage: impl Fn(f64) -> u64) -> History {
    let usage = looks().map(|ago_seconds| UsageAt { ago_seconds, bytes: usage(ago_seconds) });
    History {
        cgroup: cgroup.into(),
        limit_bytes: limit,
        usage: usage.collect(),
        ..History::default()
    }
}

/// `share` of an amount, 0 to 1.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "amounts of samples are small"
)]
fn part(amount: u64, share: f64) -> u64 {
    (amount as f64 * share) as u64
}

fn process(pid: u32, comm: &str, rss: u64) -> ProcessMemory {
    ProcessMemory {
        pid,
        comm: comm.into(),
        rss_bytes: rss,
        anon_bytes: Some(rss / 10 * 9),
        shmem_bytes: Some(0),
        swap_bytes: Some(0),
        oom_score_adj: Some(982),
        ..ProcessMemory::default()
    }
}

fn victim(rss: u64) -> ProcessMemory {
    let tags = BTreeMap::from([("job_id".into(), "render-42".into())]);
    ProcessMemory { victim: true, tags, ..process(4242, "worker", rss) }
}

fn host(available: u64) -> HostMemory {
    HostMemory {
        total_bytes: 64 << 30,
        available_bytes: available,
        swap_total_bytes: 0,
        swap_free_bytes: 0,
        oom_kills: Some(17),
        direct_reclaim_pages: Some(123_456),
        pressure: Some(Pressure {
            some_avg10: 4.21,
            some_avg60: 1.5,
            full_avg10: Some(0.5),
            full_avg60: Some(0.12),
        }),
    }
}

fn found(rule: Rule, evidence: &str, advice: &str) -> Finding {
    Finding { rule, evidence: evidence.into(), advice: advice.into() }
}

/// Puts findings first, as the daemon does.
fn with(mut death: Death, findings: Vec<Finding>) -> Death {
    let advice: Vec<_> = findings.iter().map(|finding| finding.advice.clone()).collect();
    death.advice = advice.join(" ");
    death.findings = findings;
    death
}

/// A death at the 256 MiB of its container, of which all but the story's own is filled in.
fn at_limit() -> Death {
    let mut death = in_a_pod();
    let limit = 256 * MIB;
    let memory = &mut death.memory;
    let cgroup = memory.limit_cgroup.clone().unwrap_or_default();
    (memory.usage_bytes, memory.limit_bytes) = (Some(limit), Some(limit));
    (memory.anon_bytes, memory.peak_rss_bytes) = (Some(240 * MIB), Some(244 * MIB));
    memory.levels[0].usage_bytes = limit;
    memory.levels[0].limit_bytes = Some(limit);
    memory.cgroup = Some(CgroupMemory {
        cgroup: cgroup.clone(),
        delay_ms: Some(1.31),
        usage_bytes: Some(limit),
        peak_bytes: Some(limit),
        working_set_bytes: Some(254 * MIB),
        unreclaimable_bytes: Some(252 * MIB),
        anon_bytes: Some(243 * MIB),
        file_bytes: Some(4 * MIB),
        inactive_file_bytes: Some(2 * MIB),
        dirty_bytes: Some(0),
        shmem_bytes: Some(0),
        kernel_bytes: Some(9 * MIB),
        slab_bytes: Some(3 * MIB),
        sock_bytes: Some(MIB / 4),
        unevictable_bytes: Some(0),
        swap_bytes: Some(0),
        events: BTreeMap::from([
            ("high".into(), 0),
            ("max".into(), 312),
            ("oom".into(), 1),
            ("oom_kill".into(), 1),
        ]),
        pressure: Some(Pressure {
            some_avg10: 61.4,
            some_avg60: 12.0,
            full_avg10: Some(58.2),
            full_avg60: Some(11.3),
        }),
    });
    memory.processes = vec![victim(244 * MIB), process(4200, "supervisor", 5 * MIB)];
    memory.process_count = Some(2);
    memory.history = Some(history(&cgroup, Some(limit), |_| limit / 2));
    memory.warned_seconds = Some(0.0);
    memory.host = Some(host(40 << 30));
    death
}

fn change(death: &mut Death, change: impl FnOnce(&mut MemoryStory, &mut CgroupMemory)) {
    let mut cgroup = death.memory.cgroup.take().unwrap_or_default();
    change(&mut death.memory, &mut cgroup);
    death.memory.cgroup = Some(cgroup);
}

fn usage(memory: &mut MemoryStory, usage: impl Fn(f64) -> u64) {
    let old = memory.history.take().unwrap_or_default();
    memory.history = Some(history(&old.cgroup, old.limit_bytes, usage));
}

/// A straight line up to the limit.
pub(crate) fn leak() -> Death {
    let mut death = at_limit();
    change(&mut death, |memory, _| {
        usage(memory, |ago| 256 * MIB - part(220 * MIB, ago / 300.0));
        if let Some(history) = &mut memory.history {
            history.growth_bytes_per_minute = Some(44.0 * 1_048_576.0);
            history.fit = Some(0.999);
            history.age_seconds = Some(312.0);
            history.kinds = vec![
                KindsAt {
                    ago_seconds: 300.0,
                    anon_bytes: 24 * MIB,
                    file_bytes: 4 * MIB,
                    shmem_bytes: 0,
                    kernel_bytes: 8 * MIB,
                    swap_bytes: 0,
                },
                KindsAt {
                    ago_seconds: 0.0,
                    anon_bytes: 243 * MIB,
                    file_bytes: 4 * MIB,
                    shmem_bytes: 0,
                    kernel_bytes: 9 * MIB,
                    swap_bytes: 0,
                },
            ];
        }
        memory.warned_seconds = Some(52.3);
    });
    with(
        death,
        vec![
            found(
                Rule::Leak,
                "It grew by 44.0 MiB a minute in a straight line (fit 0.999) for the 5 min 12 s that the container was there, from 36.0 MiB to its limit of 256.0 MiB.",
                "Look for what worker never lets go of, with a heap profile taken after some minutes. A higher limit only puts off the next kill.",
            ),
            found(
                Rule::NoSwap,
                "The host has no swap.",
                "Swap would slow it down before it is killed, and give time to react.",
            ),
        ],
    )
}

/// Quiet, and then all at once.
pub(crate) fn spike() -> Death {
    let mut death = at_limit();
    change(&mut death, |memory, _| {
        usage(memory, |ago| if ago < 1.0 { 256 * MIB } else { 61 * MIB });
    });
    with(
        death,
        vec![found(
            Rule::Spike,
            "It grew by 195.0 MiB within the last second, after 4 min 59 s at 61.0 MiB.",
            "Look at what worker does at that moment: one input that is much larger than the others, or many at once.",
        )],
    )
}

/// Pages that wait to be written.
pub(crate) fn page_cache() -> Death {
    let mut death = at_limit();
    change(&mut death, |memory, cgroup| {
        usage(memory, |ago| 256 * MIB - part(200 * MIB, (ago / 90.0).min(1.0)));
        memory.anon_bytes = Some(12 * MIB);
        memory.processes = vec![victim(14 * MIB), process(4300, "backup", 9 * MIB)];
        (cgroup.anon_bytes, cgroup.file_bytes) = (Some(20 * MIB), Some(227 * MIB));
        (cgroup.inactive_file_bytes, cgroup.dirty_bytes) = (Some(40 * MIB), Some(180 * MIB));
        (cgroup.working_set_bytes, cgroup.unreclaimable_bytes) = (Some(216 * MIB), Some(29 * MIB));
    });
    with(
        death,
        vec![found(
            Rule::PageCache,
            "227.0 MiB of 256.0 MiB are page cache, and 180.0 MiB of it wait to be written.",
            "Write more slowly or in smaller files, or call fsync while writing.",
        )],
    )
}

/// Files in memory.
pub(crate) fn tmpfs() -> Death {
    let mut death = at_limit();
    change(&mut death, |memory, cgroup| {
        usage(memory, |ago| 256 * MIB - part(30 * MIB, (ago / 60.0).floor()));
        (memory.anon_bytes, memory.shmem_bytes) = (Some(9 * MIB), Some(MIB));
        memory.processes = vec![victim(14 * MIB)];
        memory.process_count = Some(1);
        (cgroup.anon_bytes, cgroup.shmem_bytes) = (Some(10 * MIB), Some(233 * MIB));
    });
    with(
        death,
        vec![found(
            Rule::Tmpfs,
            "233.0 MiB of 256.0 MiB are tmpfs or shared memory; its processes have 1.0 MiB of it mapped.",
            "Files in /dev/shm, /tmp on tmpfs or an emptyDir of medium Memory count as memory: delete them, or put them on a disk.",
        )],
    )
}

/// Another cgroup below the same limit took it.
pub(crate) fn sibling() -> Death {
    let mut death = at_limit();
    let pod = "/kubepods/burstable/pod3f9f0a52-6b8e-4c8e-9d53-0d9d5b1c2f10";
    change(&mut death, |memory, cgroup| {
        usage(memory, |ago| 256 * MIB - part(150 * MIB, (ago / 120.0).min(1.0)));
        memory.anon_bytes = Some(31 * MIB);
        memory.limit_cgroup = Some(pod.into());
        memory.levels[0] = LevelUse {
            cgroup: memory.levels[0].cgroup.clone(),
            usage_bytes: 34 * MIB,
            ..LevelUse::default()
        };
        memory.levels.insert(
            1,
            LevelUse {
                cgroup: Some(pod.into()),
                usage_bytes: 256 * MIB,
                limit_bytes: Some(256 * MIB),
                ..LevelUse::default()
            },
        );
        cgroup.cgroup = pod.into();
        if let Some(history) = &mut memory.history {
            history.cgroup = pod.into();
        }
        memory.processes = vec![process(5100, "hog", 205 * MIB), victim(34 * MIB)];
    });
    with(
        death,
        vec![found(
            Rule::Sibling,
            "Of the 256.0 MiB below /kubepods/burstable/pod3f9f0a52-6b8e-4c8e-9d53-0d9d5b1c2f10 the victim's own cgroup had 34.0 MiB; hog (pid 5100) in another one had 205.0 MiB.",
            "Look at hog: the victim was chosen by its oom_score_adj, not for its size. Give the hog's container a limit of its own.",
        )],
    )
}

/// Many that are alike.
pub(crate) fn many_workers() -> Death {
    let mut death = at_limit();
    change(&mut death, |memory, _| {
        usage(memory, |ago| 256 * MIB - part(14 * MIB, (ago / 20.0).floor()));
        memory.processes = vec![victim(14 * MIB)];
        memory.processes.extend((1..10).map(|n| process(4242 + n, "worker", 14 * MIB)));
        memory.process_count = Some(18);
        memory.anon_bytes = Some(13 * MIB);
    });
    with(
        death,
        vec![found(
            Rule::TooManyWorkers,
            "17 of its 18 processes are named worker and hold 13.9 MiB each.",
            "Start fewer of them: 256.0 MiB have room for 15.",
        )],
    )
}

/// Node at the limit of its cgroup, which its own heap does not know.
pub(crate) fn node_limit() -> Death {
    let mut death = at_limit();
    death.victim.comm = "node".into();
    death.victim.cmdline =
        Some(["node", "--max-old-space-size=4096", "server.js"].map(str::to_owned).into());
    change(&mut death, |memory, _| {
        usage(memory, |ago| {
            // The teeth of a garbage collector, on a slope.
            256 * MIB - part(120 * MIB, ago / 300.0) - part(24 * MIB, (ago % 20.0) / 20.0)
        });
        if let Some(history) = &mut memory.history {
            (history.growth_bytes_per_minute, history.fit) = (Some(25_165_824.0), Some(0.81));
        }
        memory.processes[0].comm = "node".into();
        memory.warned_seconds = Some(31.0);
    });
    with(
        death,
        vec![found(
            Rule::Runtime,
            "Its command line lets V8's heap grow to 4.0 GiB (--max-old-space-size=4096), and the limit is 256.0 MiB.",
            "Set --max-old-space-size=192, which is 75 % of the limit: then V8 collects in time, or ends with its own message (exit code 134) instead of a kill.",
        )],
    )
}

/// Every kind, with its name.
pub(crate) fn all() -> [(&'static str, Death); 7] {
    [
        ("leak", leak()),
        ("spike", spike()),
        ("page_cache", page_cache()),
        ("tmpfs", tmpfs()),
        ("sibling", sibling()),
        ("many_workers", many_workers()),
        ("node_limit", node_limit()),
    ]
}
