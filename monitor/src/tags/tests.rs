//! Who inherits a tag, who does not, and what happens when there is no more room.

use super::*;
use crate::procfs::tests::Fake;

fn tags(job: &str) -> TagSet {
    TagSet::new(vec![("job_id".into(), job.into())]).unwrap()
}

fn owner(uid: u32) -> Owner {
    Owner { uid, container: None }
}

fn id(process: Process) -> ProcessId {
    ProcessId {
        tgid: process.pid,
        start_ns: process.start_ticks * crate::procfs::tick_ns() + 1_234_567,
    }
}

const NOBODY: Process = Process { pid: 0, start_ticks: 0 };

fn job_of(tags: &Tags, victim: Process, parent: Process) -> Option<String> {
    tags.of(id(victim), id(parent), |_| None).remove("job_id")
}

#[test]
fn own_tags_go_before_those_of_ancestors() {
    let fake = Fake::new();
    let all = Tags::new(fake.proc());
    let (shell, pool) = (fake.runs(10, 1, 100), fake.runs(11, 10, 110));
    let worker = fake.runs(12, 11, 120);
    assert_eq!(job_of(&all, worker, pool), None);
    all.set(shell, tags("shell"), owner(0)).unwrap();
    assert_eq!(job_of(&all, worker, pool).as_deref(), Some("shell"), "by /proc from the parent on");
    all.set(pool, tags("pool"), owner(0)).unwrap();
    assert_eq!(job_of(&all, worker, pool).as_deref(), Some("pool"));
    all.set(worker, tags("own"), owner(0)).unwrap();
    assert_eq!(job_of(&all, worker, pool).as_deref(), Some("own"));
    assert!(all.clear(worker) && !all.clear(worker));
    assert_eq!(job_of(&all, worker, pool).as_deref(), Some("pool"));
}

#[test]
fn a_number_given_anew_inherits_nothing() {
    let fake = Fake::new();
    let all = Tags::new(fake.proc());
    let (before, after) = (fake.runs(10, 1, 100), Process { pid: 10, start_ticks: 101 });
    all.set(before, tags("old"), owner(0)).unwrap();
    assert_eq!(job_of(&all, after, NOBODY), None);
    assert_eq!(job_of(&all, fake.runs(20, 10, 200), after), None, "nor do its children");
    assert_eq!(job_of(&all, before, NOBODY).as_deref(), Some("old"));
    all.set(after, tags("new"), owner(0)).unwrap();
    assert_eq!(job_of(&all, before, NOBODY).as_deref(), Some("old"), "nor does it take away");
}

#[test]
fn a_child_that_dies_after_its_parent_has_its_tags() {
    let fake = Fake::new();
    let all = Tags::new(fake.proc());
    let (pool, shell) =
        (Process { pid: 10, start_ticks: 100 }, Process { pid: 11, start_ticks: 110 });
    all.set(pool, tags("pool"), owner(0)).unwrap();
    let now = Instant::now();
    all.sweep(now);
    let victim = Process { pid: 12, start_ticks: 120 };
    // The shell between them is gone from /proc; its death was heard of.
    let dead = |of: ProcessId| (of == id(shell)).then(|| id(pool));
    let found = |all: &Tags| all.of(id(victim), id(shell), dead).remove("job_id");
    assert_eq!(found(&all).as_deref(), Some("pool"));
    all.sweep(now + KEEP_GONE - Duration::from_millis(1));
    assert_eq!(found(&all).as_deref(), Some("pool"));
    all.sweep(now + KEEP_GONE);
    assert_eq!((found(&all), all.len()), (None, 0));
}

#[test]
fn a_sweep_leaves_the_living_and_takes_the_zombies() {
    let fake = Fake::new();
    let all = Tags::new(fake.proc());
    let (lives, zombie) = (fake.runs(10, 1, 100), fake.is(11, 'Z', 1, 100));
    let another = Process { start_ticks: 99, ..lives };
    for process in [lives, zombie, another] {
        all.set(process, tags("x"), owner(0)).unwrap();
    }
    let now = Instant::now();
    all.sweep(now);
    assert_eq!(all.len(), 3);
    all.sweep(now + KEEP_GONE);
    assert_eq!(all.find(|_| true), [lives]);
}

#[test]
fn a_chain_is_followed_only_so_far() {
    let fake = Fake::new();
    let all = Tags::new(fake.proc());
    let chain: Vec<_> = (1..=12).map(|pid| fake.runs(pid, pid - 1, u64::from(pid))).collect();
    all.set(chain[2], tags("third"), owner(0)).unwrap();
    assert_eq!(job_of(&all, chain[10], chain[9]).as_deref(), Some("third"), "eight up");
    assert_eq!(job_of(&all, chain[11], chain[10]), None, "nine up");
}

#[test]
fn whoever_is_full_is_refused_and_keeps_what_it_has() {
    let fake = Fake::new();
    let all = Tags::new(fake.proc());
    let process = |n: usize| Process { pid: u32::try_from(n).unwrap(), start_ticks: 7 };
    for n in 0..MAX_PER_OWNER {
        all.set(process(n), tags("x"), owner(1)).unwrap();
    }
    assert_eq!(all.set(process(5000), tags("y"), owner(1)), Err(Full::Owner));
    all.set(process(3), tags("z"), owner(1)).expect("one that it has may change");
    all.set(process(3), tags("of another"), owner(2)).unwrap();
    assert_eq!(
        all.set(process(4), tags("q"), Owner { uid: 1, container: Some("c".into()) }),
        Ok(())
    );
    assert_eq!(all.len(), MAX_PER_OWNER);
    let mut n = 10_000;
    for uid in 10.. {
        let full = (0..MAX_PER_OWNER).find_map(|_| {
            n += 1;
            all.set(process(n), tags("x"), owner(uid)).err()
        });
        if let Some(full) = full {
            assert_eq!(full, Full::All);
            break;
        }
    }
    assert_eq!(all.len(), MAX_PROCESSES);
    assert_eq!(all.set(process(5), tags("kept"), owner(99)), Ok(()), "in place of its own");
    assert_eq!(all.get(process(5)).unwrap().get("job_id"), Some("kept"));
    // All are gone: the oldest give way.
    all.sweep(Instant::now());
    all.set(process(90_000), tags("new"), owner(100)).unwrap();
    assert_eq!(all.len(), MAX_PROCESSES);
}
