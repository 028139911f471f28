//! The count, held to a simple model of the kernel's.

use proptest::prelude::*;

use super::super::kernel::Counted;
use super::*;

fn counted(id: u64, path: &str, own: u64, below: Option<u64>) -> Counted {
    Counted { id, path: path.into(), own, below }
}

fn reading(host: u64, cgroups: Vec<Counted>) -> Reading {
    Reading { host, cgroups, vanished: Vec::new() }
}

fn cgroup(id: u64, path: &str) -> Place {
    Place::Cgroup { path: path.into(), id }
}

fn below(path: &str) -> Place {
    Place::GoneBelow { path: path.into() }
}

#[test]
fn what_is_on_its_way_does_not_last() {
    let of = |host, n| Differences { host, places: [(cgroup(1, "/a"), n)].into() };
    assert_eq!(of(3, 2).lasting(&of(1, 5)), of(1, 2));
    assert_eq!(of(1, 1).lasting(&Differences::default()), Differences::default());
    assert_eq!(of(1, -1).lasting(&of(-1, 1)), Differences::default());
    assert_eq!(of(-2, -1).lasting(&of(-1, -3)), of(-1, -1));
    assert!(of(-1, 2).lasting(&of(4, -1)).is_empty());
}

#[test]
fn a_first_start_misses_everything_and_once() {
    let mut book = Book::default();
    let reading = reading(5, vec![counted(1, "/a", 1, Some(4)), counted(2, "/a/b", 2, Some(2))]);
    let differences = book.differences(&reading, true);
    let missed = book.settle(&differences);
    let of = |place, kills| Missed { place, kills };
    // One in /a, two in /a/b, one in what was below /a, one that nothing but the host tells of.
    assert_eq!(
        missed,
        [
            of(Some(cgroup(2, "/a/b")), 2),
            of(Some(cgroup(1, "/a")), 1),
            of(Some(below("/a")), 1),
            of(None, 1),
        ]
    );
    assert!(book.differences(&reading, true).is_empty());
    assert_eq!(book.settle(&Differences::default()), []);
}

#[test]
fn v1_tells_of_the_living_only() {
    let mut book = Book::default();
    for (id, path) in [(1, "/a"), (1, "/a"), (2, "/b")] {
        book.killed(Some((id, path.into())));
    }
    book.gone(2, "/b", false);
    let now = reading(4, vec![counted(1, "/a", 3, None)]);
    let differences = book.differences(&now, true);
    assert_eq!(differences, Differences { host: 1, places: [(cgroup(1, "/a"), 1)].into() });
    assert_eq!(book.gone, BTreeMap::new());
}

#[test]
fn kills_go_up_with_the_cgroups_that_went() {
    let mut book = Book::default();
    book.killed(Some((3, "/a/b/c".into())));
    book.killed(Some((2, "/a/b".into())));
    book.gone(3, "/a/b/c", true);
    assert_eq!(book.gone, [("/a/b".to_owned(), 1)].into());
    book.gone(2, "/a/b", true);
    assert_eq!(book.gone, [("/a".to_owned(), 2)].into());
    assert!(book.differences(&reading(2, vec![counted(1, "/a", 0, Some(2))]), true).is_empty());
    // Above the topmost nothing counts.
    book.gone(1, "/a", true);
    assert_eq!(book.gone, BTreeMap::new());
    assert_eq!(book.host, 2);
}

#[test]
fn a_cgroup_that_a_look_does_not_find_is_told_of_by_the_one_above() {
    let mut book = Book::default();
    book.killed(Some((2, "/a/b/c".into())));
    let now = Reading { vanished: vec![2], ..reading(3, vec![counted(1, "/a", 1, Some(3))]) };
    // The kernel has two below /a that are gone, one of which was told.
    let expected = [(cgroup(1, "/a"), 1), (below("/a"), 1)];
    assert_eq!(book.differences(&now, true), Differences { host: 2, places: expected.into() });
    // A look at some cgroups says nothing of what is gone.
    let expected = [(cgroup(1, "/a"), 1)];
    assert_eq!(book.differences(&now, false), Differences { host: 2, places: expected.into() });
}

#[test]
fn a_cgroup_that_was_not_looked_at_differs_in_nothing() {
    let mut book = Book::default();
    book.killed(Some((2, "/b".into())));
    book.killed(None);
    assert!(book.differences(&reading(2, vec![]), false).is_empty());
}

#[test]
fn no_more_is_missed_than_the_host_tells() {
    let mut book = Book { host: 10, ..Book::default() };
    let now = reading(11, vec![counted(1, "/a", 3, None), counted(2, "/b", 2, None)]);
    let missed = book.settle(&book.differences(&now, true));
    assert_eq!(missed.iter().map(|missed| missed.kills).sum::<u64>(), 1);
    assert!(book.differences(&now, true).is_empty(), "the kernel's word for where they were");
}

#[test]
fn a_book_that_is_ahead_of_the_kernel_begins_anew() {
    let mut book = Book { host: 10, ..Book::default() };
    book.killed(Some((1, "/a".into())));
    let now = reading(4, vec![counted(1, "/a", 0, None)]);
    assert_eq!(book.settle(&book.differences(&now, true)), []);
    assert_eq!(book.host, 4);
    assert!(book.differences(&now, true).is_empty());
}

#[test]
fn what_is_gone_is_bounded() {
    let mut book = Book::default();
    for id in 0..2 * MAX_GONE as u64 {
        let path = format!("/a{id}/b");
        book.killed(Some((id, path.as_str().into())));
        book.gone(id, &path, true);
    }
    assert_eq!((book.gone.len(), book.own.len()), (MAX_GONE, 0));
    assert_eq!(book.host, 2 * MAX_GONE as u64);
}

/// A kernel of v2, as small as can be.
#[derive(Debug, Default)]
struct Model {
    host: u64,
    /// Path → id, own, below.
    cgroups: BTreeMap<String, (u64, u64, u64)>,
    ids: u64,
}

impl Model {
    fn make(&mut self, path: &str) {
        let parent_is_there = above(path).is_none_or(|above| self.cgroups.contains_key(above));
        if parent_is_there && !self.cgroups.contains_key(path) {
            self.ids += 1;
            self.cgroups.insert(path.to_owned(), (self.ids, 0, 0));
        }
    }

    fn kill(&mut self, path: &str) -> Option<(u64, Arc<str>)> {
        self.host += 1;
        let id = self.cgroups.get_mut(path).map(|(id, own, _)| {
            *own += 1;
            *id
        })?;
        let mut level = Some(path);
        while let Some(path) = level {
            if let Some((_, _, below)) = self.cgroups.get_mut(path) {
                *below += 1;
            }
            level = above(path);
        }
        Some((id, path.into()))
    }

    fn remove(&mut self, path: &str) -> Option<u64> {
        let inner = format!("{path}/");
        if self.cgroups.keys().any(|other| other.starts_with(&inner)) {
            return None;
        }
        self.cgroups.remove(path).map(|(id, ..)| id)
    }

    fn reading(&self, book: &Book) -> Reading {
        let all = self.cgroups.iter();
        let all = all.map(|(path, (id, own, below))| counted(*id, path, *own, Some(*below)));
        let there = |id: &&u64| self.cgroups.values().any(|(other, ..)| other == *id);
        Reading {
            host: self.host,
            cgroups: all.collect(),
            vanished: book.own.keys().filter(|id| !there(id)).copied().collect(),
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Make(String),
    /// Whether it is seen.
    Kill(String, bool),
    /// Whether it is seen.
    Remove(String, bool),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let path = proptest::sample::select(vec!["/a", "/a/b", "/a/b/c", "/a/d", "/e", "/e/b"]);
    let path = path.prop_map(str::to_owned);
    let step = prop_oneof![
        3 => path.clone().prop_map(Step::Make),
        4 => (path.clone(), any::<bool>()).prop_map(|(path, seen)| Step::Kill(path, seen)),
        2 => (path, any::<bool>()).prop_map(|(path, seen)| Step::Remove(path, seen)),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    /// Whatever is not seen is missed at the next start: as many as there were, and never again.
    #[test]
    fn each_kill_is_accounted_for_once(steps in steps()) {
        let (mut kernel, mut book) = (Model::default(), Book::default());
        let (mut unseen, mut missed) = (0, 0);
        for step in steps.into_iter().chain([Step::Restart]) {
            match step {
                Step::Make(path) => kernel.make(&path),
                Step::Kill(path, seen) => {
                    let place = kernel.kill(&path);
                    if seen { book.killed(place) } else { unseen += 1 }
                }
                Step::Remove(path, seen) => {
                    if let Some(id) = kernel.remove(&path).filter(|_| seen) {
                        book.gone(id, &path, true);
                    }
                }
                Step::Restart => {
                    let reading = kernel.reading(&book);
                    let differences = book.differences(&reading, true);
                    book.fold(&reading, true);
                    prop_assert_eq!(&book.differences(&reading, true), &differences);
                    missed += book.settle(&differences).iter().map(|missed| missed.kills).sum::<u64>();
                    prop_assert_eq!(missed, unseen);
                    prop_assert_eq!(book.host, kernel.host);
                    prop_assert!(book.differences(&kernel.reading(&book), true).is_empty());
                }
            }
        }
    }

    /// Where all is seen, the kernel is never ahead, anywhere.
    #[test]
    fn what_is_seen_adds_up(steps in steps()) {
        let (mut kernel, mut book) = (Model::default(), Book::default());
        for step in steps {
            match step {
                Step::Make(path) => kernel.make(&path),
                Step::Kill(path, _) => book.killed(kernel.kill(&path)),
                Step::Remove(path, _) => {
                    if let Some(id) = kernel.remove(&path) {
                        book.gone(id, &path, true);
                    }
                }
                Step::Restart => {}
            }
            prop_assert_eq!(book.differences(&kernel.reading(&book), true), Differences::default());
        }
    }
}
