//! Tests of [`Index`]: what each event does, that the limits hold, and random events against a simple model.

use std::collections::HashMap;
use std::num::NonZeroUsize;

use proptest::prelude::*;

use super::CgroupId;
use super::index::{Full, Index, Limits};

fn limits(live: usize, gone: usize, bytes: usize) -> Limits {
    let size = |n| NonZeroUsize::new(n).unwrap();
    Limits { live: size(live), gone: size(gone), bytes: size(bytes), grace_ns: 10 }
}

fn v2(id: u64) -> CgroupId {
    CgroupId { hierarchy: 0, id }
}

fn path(index: &Index, id: u64) -> Option<String> {
    index.path(v2(id)).map(|path| path.to_string())
}

#[test]
fn a_path_outlives_its_cgroup_for_the_grace_period() {
    let mut index = Index::new(limits(10, 10, 1000));
    index.made(v2(7), b"/a\0junk", false);
    index.gone(v2(7), 100);
    assert_eq!(index.live().count(), 0);
    index.forget_gone(109);
    assert_eq!(path(&index, 7).as_deref(), Some("/a"));
    index.forget_gone(110);
    assert_eq!(path(&index, 7), None);
    assert!(index.is_empty() && index.bytes() == 0);
}

#[test]
fn a_reused_id_is_the_new_cgroup_and_does_not_expire() {
    let mut index = Index::new(limits(10, 10, 1000));
    index.made(v2(7), b"/a", false);
    index.gone(v2(7), 100);
    index.made(v2(7), b"/b", false);
    index.forget_gone(u64::MAX);
    assert_eq!(path(&index, 7).as_deref(), Some("/b"));
}

#[test]
fn the_same_id_in_another_hierarchy_is_another_cgroup() {
    let mut index = Index::new(limits(10, 10, 1000));
    let v1 = CgroupId { hierarchy: 4, id: 7 };
    index.made(v2(7), b"/a", false);
    index.made(v1, b"/a", false);
    index.made(CgroupId { hierarchy: 4, id: 8 }, b"/a/b", false);
    index.renamed(v1, b"/z", false);
    assert_eq!(path(&index, 7).as_deref(), Some("/a"));
    assert_eq!(index.path(CgroupId { hierarchy: 4, id: 8 }).as_deref(), Some("/z/b"));
}

#[test]
fn a_rename_moves_what_is_below_and_not_what_looks_alike() {
    let mut index = Index::new(limits(10, 10, 1000));
    for (id, path) in
        [(1, "/a"), (2, "/a/b"), (3, "/a/b/c"), (4, "/ab"), (5, "/x/a/b"), (6, "/a/gone")]
    {
        index.made(v2(id), path.as_bytes(), false);
    }
    index.gone(v2(6), 1);
    index.renamed(v2(1), b"/new", false);
    let paths: Vec<_> = (1..=6).filter_map(|id| path(&index, id)).collect();
    assert_eq!(paths, ["/new", "/new/b", "/new/b/c", "/ab", "/x/a/b", "/a/gone"]);
}

#[test]
fn a_scan_completes_a_cut_path() {
    let mut index = Index::new(limits(10, 10, 10_000));
    let long = format!("/{}", "x".repeat(2000));
    index.made(v2(1), &long.as_bytes()[..1023], true);
    assert!(index.is_cut(v2(1)));
    index.scanned(v2(1), long.as_bytes());
    assert_eq!(path(&index, 1), Some(long.clone()));
    assert!(!index.is_cut(v2(1)));
    assert_eq!(index.bytes(), long.len());
}

#[test]
fn events_during_a_scan_stand_and_lost_ones_are_made_good() {
    let mut index = Index::new(limits(10, 10, 1000));
    index.made(v2(1), b"/lost-rename", false);
    index.made(v2(2), b"/lost-removal", false);
    index.begin_scan();
    index.made(v2(3), b"/made-meanwhile", false);
    index.renamed(v2(4), b"/renamed-meanwhile", false);
    index.gone(v2(5), 1);
    for (id, path) in [(1, "/renamed"), (4, "/old"), (5, "/removed-meanwhile"), (6, "/lost-mkdir")]
    {
        index.scanned(v2(id), path.as_bytes());
    }
    index.sweep(0, 2);
    let mut live: Vec<_> =
        index.live().map(|(cgroup, path)| (cgroup.id, path.to_string())).collect();
    live.sort();
    let expected =
        [(1, "/renamed"), (3, "/made-meanwhile"), (4, "/renamed-meanwhile"), (6, "/lost-mkdir")];
    assert_eq!(live, expected.map(|(id, path)| (id, path.to_owned())));
    assert_eq!(path(&index, 5).as_deref(), Some("/removed-meanwhile"), "its death may still come");
}

#[test]
fn a_full_table_refuses_the_new_and_counts_it() {
    let mut index = Index::new(limits(2, 1, 1000));
    for id in 1..=3 {
        index.made(v2(id), b"/p", false);
    }
    assert_eq!((path(&index, 3), index.dropped(Full::RefuseNew)), (None, 1));
    index.gone(v2(1), 1);
    index.gone(v2(2), 1);
    assert_eq!((path(&index, 1), index.dropped(Full::ForgetOldestGone)), (None, 1));
    assert!(path(&index, 2).is_some());
}

#[test]
fn text_is_bounded_also_when_a_rename_makes_it_grow() {
    let mut index = Index::new(limits(100, 100, 40));
    index.made(v2(1), b"/a", false);
    index.made(v2(2), b"/a/b", false);
    index.made(v2(3), b"/a/c", false);
    index.made(v2(4), b"/gone", false);
    index.gone(v2(4), 1);
    index.renamed(v2(1), b"/aaaaaaaaaaaaaaaa", false);
    assert_eq!(path(&index, 4), None, "the gone one makes room first");
    assert!(index.bytes() <= 40);
    assert!(path(&index, 1).is_some());
    assert_eq!(index.dropped(Full::RefuseNew), 1, "of the two below, one does not fit");
    index.made(v2(9), &[b'x'; 41], false);
    assert_eq!(path(&index, 9), None);
}

#[derive(Debug, Clone)]
enum Op {
    Made(CgroupId, String),
    Renamed(CgroupId, String),
    Gone(CgroupId),
    Forget,
    Tick(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let id = || (0..2u32, 1..6u64).prop_map(|(hierarchy, id)| CgroupId { hierarchy, id });
    let path = || {
        proptest::collection::vec("[ab]{1,2}", 1..4)
            .prop_map(|parts| format!("/{}", parts.join("/")))
    };
    prop_oneof![
        4 => (id(), path()).prop_map(|(id, path)| Op::Made(id, path)),
        2 => (id(), path()).prop_map(|(id, path)| Op::Renamed(id, path)),
        3 => id().prop_map(Op::Gone),
        1 => Just(Op::Forget),
        2 => (0..8u64).prop_map(Op::Tick),
    ]
}

/// What is known of a cgroup: its path, and when it went.
type Known = (Option<String>, Option<u64>);

fn model(known: &mut HashMap<CgroupId, Known>, op: &Op, now: u64) {
    match op {
        Op::Made(id, path) => {
            known.insert(*id, (Some(path.clone()), None));
        }
        Op::Renamed(id, new) => {
            let old = known.insert(*id, (Some(new.clone()), None));
            if let Some((Some(old), None)) = old {
                for (other, (path, gone)) in known.iter_mut() {
                    let Some(text) = path else { continue };
                    let below = text.strip_prefix(&format!("{old}/")).map(str::to_owned);
                    if let (Some(rest), true, true) =
                        (below, gone.is_none(), other.hierarchy == id.hierarchy && other != id)
                    {
                        *text = format!("{new}/{rest}");
                    }
                }
            }
        }
        Op::Gone(id) => {
            known.entry(*id).or_insert((None, None)).1.get_or_insert(now);
        }
        Op::Forget => known.retain(|_, (_, gone)| gone.is_none_or(|since| now - since < 10)),
        Op::Tick(_) => {}
    }
}

proptest! {
    #[test]
    fn agrees_with_a_simple_model(ops in proptest::collection::vec(op(), 0..120)) {
        let mut index = Index::new(limits(1000, 1000, 1 << 20));
        let mut known = HashMap::new();
        let mut now = 0;
        for op in &ops {
            model(&mut known, op, now);
            match op {
                Op::Made(id, path) => index.made(*id, path.as_bytes(), false),
                Op::Renamed(id, path) => index.renamed(*id, path.as_bytes(), false),
                Op::Gone(id) => index.gone(*id, now),
                Op::Forget => index.forget_gone(now),
                Op::Tick(ns) => now += ns,
            }
            prop_assert_eq!(index.len(), known.len());
            for (id, (path, _)) in &known {
                let held = index.path(*id);
                prop_assert_eq!(held.as_deref(), path.as_deref());
            }
            let live = known.values().filter(|(_, gone)| gone.is_none()).count();
            prop_assert_eq!(index.live().count(), live);
            let bytes: usize = known.values().filter_map(|(path, _)| Some(path.as_ref()?.len())).sum();
            prop_assert_eq!(index.bytes(), bytes);
        }
    }

    #[test]
    fn never_exceeds_its_limits(ops in proptest::collection::vec(op(), 0..120), live in 1..5usize, gone in 1..4usize, bytes in 1..30usize) {
        let mut index = Index::new(limits(live, gone, bytes));
        for op in &ops {
            match op {
                Op::Made(id, path) => index.made(*id, path.as_bytes(), path.len() % 3 == 0),
                Op::Renamed(id, path) => index.renamed(*id, path.as_bytes(), path.len() % 4 == 0),
                Op::Gone(id) => index.gone(*id, 1),
                Op::Forget => index.forget_gone(5),
                Op::Tick(_) => {
                    index.begin_scan();
                    index.scanned(v2(1), b"/scanned");
                    index.sweep(0, 3);
                }
            }
            prop_assert!(index.live().count() <= live);
            prop_assert!(index.len() <= live + gone);
            let held: usize = (0..2).flat_map(|hierarchy| (1..6).map(move |id| CgroupId { hierarchy, id }))
                .filter_map(|id| Some(index.path(id)?.len())).sum();
            prop_assert_eq!(index.bytes(), held);
            prop_assert!(held <= bytes);
        }
    }
}
