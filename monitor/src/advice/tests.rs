//! Every rule has a death that makes it fire and needs what it says that it needs; and whatever the numbers are, nothing breaks.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::Value;

use super::rules::TABLE;
use super::sample::{MIB, charged, fires_after, history, oom, process, started, under};
use super::*;
use crate::death::{
    CgroupMemory, History, HostMemory, KindsAt, LevelUse, MemoryStory, ProcessMemory, Rule,
    UsageAt, sample as deaths,
};

/// A death that makes a rule fire, and the earlier ones that it takes.
fn firing(rule: Rule) -> (Death, Earlier) {
    let mut earlier = Earlier::default();
    let death = match rule {
        Rule::Sibling => {
            let mut death = oom(128);
            death.memory.anon_bytes = Some(10 * MIB);
            death.memory.processes = vec![process(77, "hog", 100)];
            death
        }
        Rule::ParentLimit => under(128, 100),
        Rule::Tmpfs => charged(128, |c| c.shmem_bytes = Some(100 * MIB)),
        Rule::PageCache => charged(128, |c| c.dirty_bytes = Some(100 * MIB)),
        Rule::KernelMemory => charged(128, |c| c.kernel_bytes = Some(100 * MIB)),
        Rule::Runtime => started(oom(128), &["node", "--max-old-space-size=4096", "a.js"], &[]),
        Rule::TooManyWorkers => {
            let mut death = oom(128);
            death.memory.processes = (0..6).map(|n| process(n + 1, "w", 15)).collect();
            death
        }
        Rule::Leak | Rule::Spike => {
            let mut death = oom(128);
            let leak: Vec<_> =
                (0..=60_u32).map(|n| (f64::from(60 - n), u64::from(2 * n))).collect();
            let looks = if rule == Rule::Leak { &leak } else { &vec![(9.0, 10), (2.5, 10)] };
            let mut story = history(&death, looks);
            if rule == Rule::Leak {
                (story.growth_bytes_per_minute, story.fit) = (Some(120.0 * 1_048_576.0), Some(1.0));
            }
            death.memory.history = Some(story);
            death
        }
        Rule::LimitTooSmall => {
            let mut before = oom(128);
            before.oom.as_mut().unwrap().incident_ktime_ns = 1;
            earlier.remember(&before);
            oom(128)
        }
        Rule::NoSwap => {
            let mut death = oom(128);
            death.memory.anon_bytes = Some(100 * MIB);
            death.memory.host = Some(HostMemory { total_bytes: 1 << 33, ..HostMemory::default() });
            death
        }
    };
    (death, earlier)
}

/// The same without these keys of its JSON.
fn without(death: &Death, keys: &[&str]) -> Death {
    let mut json = serde_json::to_value(death).unwrap();
    for key in keys {
        let (parent, key) = key.split_once('.').unwrap();
        if let Some(Value::Object(parent)) = json.get_mut(parent) {
            parent.remove(key);
        }
    }
    serde_json::from_value(json).unwrap()
}

#[test]
fn no_rule_fires_without_what_it_needs() {
    for row in TABLE {
        let (death, earlier) = firing(row.rule);
        assert!(fires_after(&death, &earlier, row.rule).is_some(), "{:?}", row.rule);
        assert!(!row.needs.is_empty());
        for group in row.needs {
            let lacking = without(&death, group);
            assert_eq!(fires_after(&lacking, &earlier, row.rule), None, "{:?} {group:?}", row.rule);
        }
    }
}

#[test]
fn the_table_has_each_rule_once_the_heaviest_first() {
    let rules: BTreeSet<Rule> = TABLE.iter().map(|row| row.rule).collect();
    assert_eq!((rules.len(), TABLE.len()), (11, 11));
    assert!(TABLE.is_sorted_by(|one, other| one.weight > other.weight));
}

#[test]
fn what_has_no_numbers_keeps_its_verdicts_sentence() {
    for death in [
        deaths::oom_memcg(),
        deaths::oom_global(),
        deaths::killed(),
        deaths::hostile(),
        deaths::by_itself(Cause::Abort, 6),
        deaths::unknown(),
    ] {
        let mut advised = death.clone();
        advised.memory.levels.iter_mut().for_each(|level| level.swap_limit_bytes = None);
        let before = advised.clone();
        advise(&mut advised, &Earlier::default());
        assert_eq!(advised, before);
    }
}

#[test]
fn the_limit_stays_first_and_the_weightiest_advice_follows() {
    let mut death = under(128, 30);
    death.memory.anon_bytes = Some(20 * MIB);
    death.memory.processes = vec![process(77, "hog", 90)];
    advise(&mut death, &Earlier::default());
    let rules: Vec<Rule> = death.findings.iter().map(|finding| finding.rule).collect();
    assert_eq!(rules, [Rule::Sibling, Rule::ParentLimit]);
    assert!(
        death.advice.starts_with(
            "It hit the limit of /parent.slice, above its own cgroup, of 128.0 MiB. Look at hog (pid 77, 90.0 MiB) first"
        ),
        "{}",
        death.advice
    );
    assert!(death.advice.contains("Raise the limit of parent.slice itself"), "{}", death.advice);
    // The same again: it does not add up.
    let once = death.clone();
    advise(&mut death, &Earlier::default());
    assert_eq!(death, once);
}

#[test]
fn a_higher_limit_is_not_advised_against_a_leak_or_a_sibling() {
    let (_, earlier) = firing(Rule::LimitTooSmall);
    for better in [Rule::Leak, Rule::Sibling] {
        let (death, _) = firing(better);
        assert!(fires_after(&death, &earlier, better).is_some());
        assert_eq!(fires_after(&death, &earlier, Rule::LimitTooSmall), None);
    }
}

/// Small numbers as well as the largest. Boxed, here and below: the whole of it is too large for a test's stack.
fn number() -> BoxedStrategy<u64> {
    prop_oneof![
        Just(0),
        Just(u64::MAX),
        Just(u64::MAX - 1),
        0..1000_u64,
        any::<u64>(),
        (0..512_u64).prop_map(|n| n * MIB)
    ]
    .boxed()
}

fn maybe() -> BoxedStrategy<Option<u64>> {
    proptest::option::of(number()).boxed()
}

fn real() -> BoxedStrategy<f64> {
    prop_oneof![
        any::<f64>(),
        0.0..200.0,
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(f64::MAX)
    ]
    .boxed()
}

fn word() -> BoxedStrategy<String> {
    prop_oneof![
        proptest::sample::select(vec![
            "node",
            "java",
            "postgres",
            "postgres: x",
            "redis-server",
            "redis-rdb-bgsave",
            "python3",
            "gunicorn",
            "-w",
            "8",
            "--maxmemory",
            "--max-old-space-size=4096",
            "-Xmx1g",
            "-XX:MaxRAMPercentage=90",
            "multiprocessing.spawn",
            "/parent.slice",
            "/a",
            "celery",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,12}",
        Just("é".repeat(2500)),
    ]
    .boxed()
}

fn level() -> BoxedStrategy<LevelUse> {
    (proptest::option::of(word()), number(), maybe(), maybe())
        .prop_map(|(cgroup, usage_bytes, limit_bytes, swap_limit_bytes)| LevelUse {
            cgroup,
            usage_bytes,
            limit_bytes,
            swap_limit_bytes,
            ..LevelUse::default()
        })
        .boxed()
}

fn a_process() -> BoxedStrategy<ProcessMemory> {
    let tags = proptest::collection::btree_map(word(), word(), 0..4);
    (0..5_u32, word(), any::<bool>(), number(), maybe(), maybe(), tags)
        .prop_map(|(pid, comm, victim, rss_bytes, anon_bytes, shmem_bytes, tags)| ProcessMemory {
            pid,
            comm,
            victim,
            rss_bytes,
            anon_bytes,
            shmem_bytes,
            tags,
            oom_score_adj: Some(5),
            ..ProcessMemory::default()
        })
        .boxed()
}

fn a_cgroup() -> BoxedStrategy<CgroupMemory> {
    (word(), proptest::array::uniform9(maybe()))
        .prop_map(|(cgroup, [usage, peak, anon, file, dirty, shmem, kernel, slab, sock])| {
            CgroupMemory {
                cgroup,
                usage_bytes: usage,
                peak_bytes: peak,
                anon_bytes: anon,
                file_bytes: file,
                dirty_bytes: dirty,
                shmem_bytes: shmem,
                kernel_bytes: kernel,
                slab_bytes: slab,
                sock_bytes: sock,
                ..CgroupMemory::default()
            }
        })
        .boxed()
}

fn a_history() -> BoxedStrategy<History> {
    let usage = (real(), number()).prop_map(|(ago_seconds, bytes)| UsageAt { ago_seconds, bytes });
    let kinds = (real(), proptest::array::uniform4(number())).prop_map(
        |(ago_seconds, [anon_bytes, file_bytes, shmem_bytes, kernel_bytes])| KindsAt {
            ago_seconds,
            anon_bytes,
            file_bytes,
            shmem_bytes,
            kernel_bytes,
            swap_bytes: 0,
        },
    );
    let lines = proptest::array::uniform3(proptest::option::of(real()));
    let (usage, kinds) =
        (proptest::collection::vec(usage, 0..12), proptest::collection::vec(kinds, 0..6));
    (word(), maybe(), usage, kinds, lines)
        .prop_map(|(cgroup, limit_bytes, usage, kinds, [growth, fit, age])| History {
            cgroup,
            limit_bytes,
            usage,
            kinds,
            growth_bytes_per_minute: growth,
            fit,
            age_seconds: age,
        })
        .boxed()
}

fn a_story() -> BoxedStrategy<MemoryStory> {
    let lists =
        (proptest::collection::vec(level(), 0..4), proptest::collection::vec(a_process(), 0..8));
    let parts = (proptest::option::of(a_cgroup()), proptest::option::of(a_history()));
    let host = proptest::option::of((number(), number()));
    let numbers = proptest::array::uniform5(maybe());
    (numbers, proptest::option::of(word()), lists, parts, host, proptest::option::of(real()))
        .prop_map(
            |(
                [anon, shmem, tables, usage, limit],
                path,
                (levels, processes),
                (cgroup, history),
                host,
                warned,
            )| {
                MemoryStory {
                    anon_bytes: anon,
                    shmem_bytes: shmem,
                    page_tables_bytes: tables,
                    usage_bytes: usage,
                    limit_bytes: limit,
                    limit_cgroup: path,
                    levels,
                    cgroup,
                    processes,
                    process_count: Some(u32::MAX),
                    history,
                    warned_seconds: warned,
                    host: host.map(|(total_bytes, swap_total_bytes)| HostMemory {
                        total_bytes,
                        swap_total_bytes,
                        ..HostMemory::default()
                    }),
                    ..MemoryStory::default()
                }
            },
        )
        .boxed()
}

fn any_death() -> BoxedStrategy<Death> {
    let environ = proptest::collection::btree_map(
        proptest::sample::select(vec![
            "NODE_OPTIONS",
            "GOMEMLIMIT",
            "GOGC",
            "WEB_CONCURRENCY",
            "_JAVA_OPTIONS",
        ])
        .prop_map(str::to_owned),
        word(),
        0..4,
    );
    let line = proptest::option::of(proptest::collection::vec(word(), 0..5));
    let cause = proptest::sample::select(Cause::ALL);
    (a_story(), line, environ, word(), cause, any::<u64>(), proptest::option::of(word()))
        .prop_map(|(memory, cmdline, environ, comm, cause, incident, job)| {
            let mut death = deaths::in_a_pod();
            (death.memory, death.cause) = (memory, cause);
            let victim = &mut death.victim;
            (victim.cmdline, victim.environ, victim.comm) = (cmdline, environ, comm);
            death.oom.as_mut().unwrap().incident_ktime_ns = incident;
            death.job.as_mut().unwrap().id = job;
            death
        })
        .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_numbers_are_survived_and_what_is_said_is_bounded(all in proptest::collection::vec(any_death(), 1..4)) {
        let mut earlier = Earlier::default();
        for mut death in all {
            let advice = death.advice.clone();
            advise(&mut death, &earlier);
            prop_assert!(death.findings.len() <= MAX_FINDINGS);
            for finding in &death.findings {
                for sentence in [&finding.evidence, &finding.advice] {
                    prop_assert!(!sentence.is_empty() && sentence.len() <= MAX_SENTENCE, "{sentence}");
                    prop_assert!(!sentence.contains("NaN") && !sentence.contains(" inf"), "{sentence}");
                }
            }
            let weight = |rule| TABLE.iter().find(|row| row.rule == rule).unwrap().weight;
            let sorted = death.findings.is_sorted_by(|one, other| weight(one.rule) > weight(other.rule));
            prop_assert!(sorted);
            if death.findings.is_empty() {
                prop_assert_eq!(&death.advice, &advice);
            } else {
                prop_assert!(death.advice.len() <= MAX_ADVICE);
            }
            earlier.remember(&death);
        }
    }
}
