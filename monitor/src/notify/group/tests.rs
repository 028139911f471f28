//! What is one group, when its window ends, and that its summary is the same whoever makes it.

use super::*;
use crate::death::{Owner as WorkloadOwner, sample};

const WINDOW: Duration = Duration::from_secs(300);

fn time(seconds: i64) -> Timestamp {
    // A multiple of the window.
    Timestamp::from_second(1_769_860_800 + seconds).unwrap()
}

/// A death in a pod, `seconds` after the beginning of a window.
fn death(n: u128, seconds: i64) -> Death {
    let mut death = sample::in_a_pod();
    death.id = Uuid::from_u128(death.id.as_u128() + n);
    death.time = time(seconds);
    death.oom.as_mut().unwrap().incident_ktime_ns = u64::try_from(n).unwrap();
    death.job.as_mut().unwrap().id = Some(format!("job-{}", n % 3));
    death
}

fn take(groups: &mut Groups, deaths: &[Death]) -> Vec<bool> {
    let now = Instant::now();
    (1..).zip(deaths).map(|(seq, death)| groups.take(seq, death, now)).collect()
}

#[tokio::test(start_paused = true)]
async fn the_first_is_told_and_the_rest_are_counted() {
    let mut groups = Groups::new(WINDOW);
    let deaths: Vec<_> = (1..=5).map(|n| death(n, i64::try_from(n).unwrap())).collect();
    assert_eq!(take(&mut groups, &deaths), [false, true, true, true, true]);
    assert_eq!((groups.first_held(), groups.held()), (Some(2), 4));
    assert!(groups.close(time(309), Instant::now()).is_empty(), "the grace");
    assert_eq!(groups.next(time(309)), Some(Duration::from_secs(1)));
    let closed = groups.close(time(310), Instant::now());
    let [Closed { summary, from: 2 }] = closed.as_slice() else { panic!("{closed:?}") };
    assert_eq!((summary.count, summary.follows, summary.time), (4, deaths[0].id, time(5)));
    assert_eq!((summary.first, summary.summary), (time(2), Cause::OomMemcg));
    assert_eq!(summary.deaths, deaths[1..].iter().map(|death| death.id).collect::<Vec<_>>());
    assert_eq!(summary.jobs, ["job-2", "job-0", "job-1"]);
    assert_eq!(summary.id.get_version_num(), 7);
    assert_eq!((groups.first_held(), groups.next(time(0))), (None, None));
}

#[tokio::test(start_paused = true)]
async fn what_is_one_group() {
    let one = death(1, 1);
    let with = |change: &dyn Fn(&mut Death)| {
        let mut other = death(2, 2);
        change(&mut other);
        take(&mut Groups::new(WINDOW), &[one.clone(), other])[1]
    };
    assert!(with(&|_| {}));
    assert!(with(&|d| d.workload.pod = Some("render-other".into())), "its owner is the same");
    assert!(!with(&|d| d.workload.owners[1].name = "another".into()));
    assert!(!with(&|d| d.workload.namespace = Some("other".into())));
    assert!(!with(&|d| d.workload.container = Some("sidecar".into())));
    assert!(!with(&|d| d.cause = Cause::Killed));
    assert!(!with(&|d| d.time = time(300)), "the next window");
    // One decision of the OOM killer is one group, whatever it hit and when the last of it went.
    assert!(with(&|d| {
        d.workload.namespace = Some("other".into());
        d.workload.owners = vec![WorkloadOwner { kind: "Pod".into(), name: "x".into(), uid: None }];
        d.time = time(300);
        d.oom = one.oom.clone();
    }));
}

#[tokio::test(start_paused = true)]
async fn what_is_full_is_told_singly() {
    let mut groups = Groups::new(WINDOW);
    let now = Instant::now();
    let of = |n: usize| {
        let mut death = death(n as u128, 1);
        death.workload.container = Some(format!("c{n}"));
        death
    };
    for n in 0..MAX_GROUPS {
        assert!(!groups.take(n as u64 + 1, &of(n), now));
    }
    let (seq, last) = (MAX_GROUPS as u64, MAX_GROUPS);
    assert!(!groups.take(seq + 1, &of(last), now));
    assert!(!groups.take(seq + 2, &of(last), now), "there is no room for its group");
    assert!(groups.take(seq + 3, &of(0), now), "there is one of this");
    assert!(groups.incidents.len() <= MAX_GROUPS);
    groups.close(time(310), now);
    assert!(groups.groups.is_empty() && groups.incidents.is_empty());
}

#[tokio::test(start_paused = true)]
async fn lists_are_bounded_and_the_count_is_not() {
    let mut groups = Groups::new(WINDOW);
    let deaths: Vec<_> = (0..1000)
        .map(|n| {
            let mut death = death(n, 1);
            death.job.as_mut().unwrap().id = Some(format!("{n:0>100}"));
            death
        })
        .collect();
    take(&mut groups, &deaths);
    let summary = groups.close(time(310), Instant::now()).remove(0).summary;
    assert_eq!((summary.count, summary.deaths.len()), (999, MAX_DEATHS));
    assert_eq!(summary.deaths.last(), Some(&deaths[999].id), "the newest");
    assert_eq!(summary.jobs.len(), MAX_JOB_BYTES / 100);
}

#[tokio::test(start_paused = true)]
async fn the_id_says_what_is_counted() {
    let id = |deaths: &[Death]| {
        let mut groups = Groups::new(WINDOW);
        take(&mut groups, deaths);
        groups.close(time(1000), Instant::now()).remove(0).summary.id
    };
    let deaths: Vec<_> = (1..=4).map(|n| death(n, 1)).collect();
    assert_eq!(id(&deaths), id(&deaths));
    assert_ne!(id(&deaths), id(&deaths[..3]));
    assert_ne!(id(&deaths), id(&deaths[1..]));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_holds_no_window_open() {
    let mut groups = Groups::new(WINDOW);
    take(&mut groups, &[death(1, 36_000), death(2, 36_000)]);
    assert!(groups.close(time(0), Instant::now()).is_empty());
    tokio::time::advance(WINDOW + 3 * GRACE).await;
    assert_eq!(groups.close(time(0), Instant::now()).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_the_last_run_told_is_not_told_again_in_a_summary() {
    let deaths: Vec<_> = (1..=4).map(|n| death(n, 1)).collect();
    let now = Instant::now();
    // The first was told alone, and the window goes on.
    let mut groups = Groups::new(WINDOW);
    groups.recall(&deaths[0], now);
    assert!(groups.take(2, &deaths[1], now));
    assert_eq!(groups.close(time(310), now)[0].summary.follows, deaths[0].id);
    // The summary was told: what comes late is told alone.
    let mut groups = Groups::new(WINDOW);
    deaths[..3].iter().for_each(|death| groups.recall(death, now));
    assert!(!groups.take(4, &deaths[3], now));
    assert!(groups.close(time(310), now).is_empty());
}
