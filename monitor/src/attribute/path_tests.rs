//! Paths as runtimes, batch systems and strangers write them, and what they say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::path::*;
use super::{Clues, Rules};
use crate::death::Job;

const GOLDEN: &str = include_str!("golden.txt");
/// What stands for ids in the golden file.
const SHORT: &[(&str, &str)] = &[
    ("{A}", "3f2a9c0d1e4b5a69788796a5b4c3d2e1f00112233445566778899aabbccddeef"),
    ("{B}", "00aa11bb22cc33dd44ee55ff66778899aabbccddeeff00112233445566778899"),
    ("{U}", "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"),
    ("{V}", "0a1b2c3d_4e5f_6071_8293_a4b5c6d7e8f9"),
    ("{W}", "ffffffff-0000-1111-2222-333333333333"),
    ("{S}", "5ed7c3d2a1b0f9e8d7c6b5a493827160"),
    ("{NL}", "\n"),
    ("{ESC}", "\u{1b}"),
];

fn long(text: &str) -> String {
    let text = text.replace("{4K}", &"x".repeat(4096));
    SHORT.iter().fold(text, |text, (short, long)| text.replace(short, long))
}

/// The job by the path alone.
fn job(path: &str) -> Option<Job> {
    let none = BTreeMap::new();
    let path = Some(path);
    Rules::built_in().job(&Clues {
        tags: &none,
        labels: &none,
        annotations: &none,
        path,
        environ: &none,
    })
}

fn told(path: &str) -> String {
    let identity = identify(path);
    let job = job(path).map(|job| {
        assert!(job.sources.values().all(|source| source == "cgroup_path"), "{:?}", job.sources);
        let index = job.index.map_or_else(String::new, |index| format!("[{index}]"));
        let name = job.name.map_or_else(String::new, |name| format!("({name})"));
        format!("{}:{}{index}{name}", job.scheduler.unwrap(), job.id.unwrap())
    });
    let parts = [
        ("container", identity.container.map(|container| container.id())),
        ("pod", identity.pod_uid),
        ("qos", identity.qos.map(|qos| format!("{qos:?}"))),
        ("unit", identity.unit),
        ("job", job),
    ];
    let known: Vec<String> =
        parts.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", value?))).collect();
    if known.is_empty() { "nothing".to_owned() } else { known.join(" ") }
}

#[test]
fn golden_paths() {
    let lines: Vec<&str> =
        GOLDEN.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let (mut seen, mut wrong) = (BTreeSet::new(), Vec::new());
    for pair in lines.chunks(2) {
        let [path, expected] = pair else { panic!("a path without its answer: {pair:?}") };
        assert!(path.starts_with('/') && expected.starts_with("  "), "{pair:?}");
        assert!(seen.insert(path), "twice: {path}");
        let (told, expected) = (told(&long(path)), long(expected.trim_start()));
        if told != expected {
            wrong.push(format!("{path}\n  says     {told:?}\n  expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen.len() >= 110, "{}", seen.len());
}

#[test]
fn names_may_hold_anything() {
    let id = "a".repeat(64);
    let container = |path: &str| identify(path).container.map(|container| container.id());
    assert_eq!(container(&format!("/docker/{id}\n")), None, "a newline does not end a path");
    assert_eq!(container(&format!("/x\n/docker-{id}.scope")), Some(format!("docker://{id}")));
    assert_eq!(container("/lxc/a\nb").as_deref(), Some("lxc://a\nb"));
    assert_eq!(container(&format!("/docker/{}", id.to_uppercase())), None);
    assert_eq!(container(&format!("/docker/{}", &id[1..])), None);
    assert_eq!(identify("").unit, None);
    assert_eq!(job("/slurm/uid_0/job_٣"), None, "digits of other scripts are not a number");
}

#[test]
fn unescapes_what_a_person_can_read() {
    assert_eq!(unescape(r"a\x2db\x40c"), "a-b@c");
    assert_eq!(unescape(r"\xc3\xa9\xff"), r"é\xff");
    assert_eq!(unescape(r"a\x0ab\x00\x1b[31m\x7f"), r"a\x0ab\x00\x1b[31m\x7f");
    assert_eq!(unescape(r"\x2\xzz\"), r"\x2\xzz\");
}

#[test]
fn long_hostile_paths_are_read_in_time() {
    let component = format!("/{}", "a".repeat(63));
    let words = [
        "/a",
        "/",
        "/lxc",
        "/slurm_a_slurmstepd.scope",
        "/pod",
        "/kubepods-burstable",
        component.as_str(),
    ];
    for word in words {
        let path = word.repeat((256 << 10) / word.len());
        let start = Instant::now();
        let _ = (identify(&path), job(&path));
        // Linear work takes well under a second even in a debug build; quadratic work takes minutes.
        assert!(start.elapsed() < Duration::from_secs(20), "{word}: {:?}", start.elapsed());
    }
}

proptest! {
    #[test]
    fn any_path_is_survived(path in any::<String>()) {
        let _ = (identify(&path), job(&path));
    }

    #[test]
    fn what_is_named_is_in_the_path(
        parts in proptest::collection::vec(prop_oneof![
            Just(long("docker-{A}.scope")), Just(long("{B}")), Just(long("kubepods-burstable-pod{V}.slice")),
            Just(long("crio-conmon-{A}.scope")), Just("lxc".to_owned()), Just("nginx.service".to_owned()),
            Just("job_7".to_owned()), Just("slurmstepd.scope".to_owned()), ".{0,20}",
        ], 0..8),
    ) {
        let path = format!("/{}", parts.join("/"));
        let all = containers(&path);
        let innermost = identify(&path).container;
        prop_assert_eq!(all.first(), innermost.as_ref());
        prop_assert_eq!(believed(&path, |_| false), path.as_str());
        // Where every container is known, the outermost is told.
        let outer = all.iter().rev().find(|outer| Some(&outer.bare_id) != all.first().map(|inner| &inner.bare_id));
        let cut = believed(&path, |_| true);
        prop_assert!(path.starts_with(cut));
        prop_assert_eq!(identify(cut).container, outer.or(innermost.as_ref()).cloned());
        prop_assert!(outer.is_some() || cut == path);
        let identity = identify(&path);
        if let Some(container) = identity.container {
            prop_assert!(path.contains(&container.bare_id));
        }
        if let Some(uid) = identity.pod_uid {
            prop_assert!(path.replace('_', "-").contains(&uid));
        }
        prop_assert!(identity.qos.is_none() || path.contains("kubepods"));
        if let Some(job) = job(&path) {
            prop_assert!(path.contains(&job.id.unwrap()));
        }
    }
}
