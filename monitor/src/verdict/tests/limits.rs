//! Which limit was hit.

use super::*;

#[test]
fn finds_the_level_that_was_hit() {
    let own = level("/a/b", 20, Some(64));
    let cases = [
        (
            "own limit",
            "/a/b",
            vec![level("/a/b", 32, Some(32)), level("/a", 40, Some(64))],
            Cause::OomMemcg,
            Some(0),
        ),
        (
            "parent's limit",
            "/a/b",
            vec![own.clone(), level("/a", 32, Some(32)), level("/", 99, None)],
            Cause::OomMemcg,
            Some(1),
        ),
        (
            "both full: the lower one was hit",
            "/a/b",
            vec![level("/a/b", 32, Some(32)), level("/a", 32, Some(32))],
            Cause::OomMemcg,
            Some(0),
        ),
        (
            "a sibling allocated: the shared level",
            "/a/c",
            vec![level("/a/b", 32, Some(32)), level("/a", 64, Some(64))],
            Cause::OomMemcg,
            Some(1),
        ),
        (
            "lowered from outside",
            "/",
            vec![level("/a/b", 50, Some(32)), level("/a", 50, None)],
            Cause::OomMemcg,
            Some(0),
        ),
        (
            "a name that begins like another's is not below it",
            "/a/bc",
            vec![level("/a/b", 32, Some(32)), level("/a", 64, Some(64))],
            Cause::OomMemcg,
            Some(1),
        ),
        (
            "no level full: the host",
            "/a/b",
            vec![own, level("/a", 50, None)],
            Cause::OomGlobal,
            None,
        ),
        ("no level known: the host", "/a/b", vec![], Cause::OomGlobal, None),
    ];
    for (what, trigger, levels, cause, limit) in cases {
        let mut case = Case::new(Some(9), None);
        case.memory.levels = levels;
        case.oom = Some(oom(trigger));
        let verdict = case.judge();
        assert_eq!(
            (verdict.cause, verdict.limit.map(|hit| hit.level)),
            (cause, limit),
            "{what}: {verdict:?}"
        );
        assert_eq!(verdict.confidence(), Confidence::Inferred, "{what}");
        assert_eq!(verdict.killer.kind, KillerKind::Kernel);
        assert!(verdict.killer.trigger.is_some());
        assert!(!verdict.advice.is_empty());
    }
}

#[test]
fn the_kernels_own_word_wins() {
    let mut case = Case::new(Some(9), None);
    // A page cache keeps many a cgroup at its limit while the host runs out.
    case.memory.levels = vec![level("/a", 32, Some(32))];
    for (constraint, cause) in [
        (Constraint::None, Cause::OomGlobal),
        (Constraint::Cpuset, Cause::OomCpuset),
        (Constraint::MemoryPolicy, Cause::OomMempolicy),
        (Constraint::Memcg, Cause::OomMemcg),
    ] {
        case.oom = Some(OomFacts { constraint: Some(constraint), ..oom("/a") });
        let verdict = case.judge();
        assert_eq!((verdict.cause, verdict.confidence()), (cause, Confidence::Certain));
    }
}
