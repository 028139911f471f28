//! What a follower makes of answers, whatever happens to the daemon between two of them.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use uuid::Uuid;

use super::super::follow::Follower;
use super::super::page::{Page, Place};
use super::super::question::Question;
use super::super::record::Record;

/// A daemon's ledger, so far as a follower can tell: it keeps deaths, or forgets them as it is started anew.
struct Model {
    series: u64,
    /// Number, id, time.
    kept: Vec<(u64, u128, Timestamp)>,
    next: u64,
    deaths: u128,
}

impl Model {
    fn place(&self) -> Place {
        Place { series: self.series.to_string(), last: self.next - 1 }
    }

    fn die(&mut self, now: Timestamp) {
        self.deaths += 1;
        self.kept.push((self.next, self.deaths, now));
        self.next += 1;
    }

    fn restart(&mut self, keeps: bool) {
        if !keeps {
            self.series += 1;
            self.kept.clear();
            self.next = 1;
        }
    }

    fn answer(&self, question: &Question, after: u64, limit: usize) -> Page {
        let (mut records, mut last) = (Vec::new(), after);
        for (seq, id, time) in self.kept.iter().filter(|(seq, ..)| *seq > after) {
            last = *seq;
            if question.filter.since.is_none_or(|since| *time >= since) {
                records.push(Record::new(format!(r#"{{"id":"{}"}}"#, Uuid::from_u128(*id))));
            }
            if records.len() == limit {
                break;
            }
        }
        let place = Place { series: self.series.to_string(), last };
        Page { place, missed: 0, records }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Die(u8),
    Ask,
    Restart(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1u8..9).prop_map(Step::Die),
        4 => Just(Step::Ask),
        1 => any::<bool>().prop_map(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

fn begin() -> Timestamp {
    "2026-01-31T12:00:00Z".parse().unwrap()
}

proptest! {
    /// Each death that a daemon still knew when it was asked is shown, and none twice.
    #[test]
    fn each_death_once_across_restarts(steps in steps(), limit in 1usize..5) {
        let mut model = Model { series: 1, kept: Vec::new(), next: 1, deaths: 0 };
        let mut now = begin();
        let mut follower = Follower::new(Question::default(), model.place(), std::iter::empty(), now);
        let (mut shown, mut lost) = (BTreeSet::new(), BTreeSet::new());
        let mut catch_up = |follower: &mut Follower, model: &Model, now: Timestamp| {
            // Each question brings it forward, so this ends.
            for _ in 0..10_000 {
                let (question, after) = follower.next();
                let news = follower.take(model.answer(&question, after, limit), now);
                for record in &news.records {
                    assert!(shown.insert(record.id().unwrap()), "shown twice");
                }
                if !news.more {
                    return shown.clone();
                }
            }
            panic!("it asks without end");
        };
        for step in steps {
            now += SignedDuration::from_secs(7);
            match step {
                Step::Die(count) => (0..count).for_each(|_| model.die(now)),
                Step::Ask => drop(catch_up(&mut follower, &model, now)),
                Step::Restart(keeps) => {
                    if !keeps {
                        lost.extend(model.kept.iter().map(|(_, id, _)| Uuid::from_u128(*id)));
                    }
                    model.restart(keeps);
                }
            }
        }
        let shown = catch_up(&mut follower, &model, now);
        for id in (1..=model.deaths).map(Uuid::from_u128) {
            prop_assert!(shown.contains(&id) || lost.contains(&id), "{} was missed", id);
        }
    }
}

#[test]
fn what_was_shown_before_is_not_shown_again_and_gaps_are_told() {
    let place = |last| Place { series: "a".to_owned(), last };
    let record = |id: u128| Record::new(format!(r#"{{"id":"{}"}}"#, Uuid::from_u128(id)));
    let page = |last, missed, ids: &[u128]| Page {
        place: place(last),
        missed,
        records: ids.iter().map(|id| record(*id)).collect(),
    };
    let shown = [Uuid::from_u128(5)].into_iter();
    let mut follower = Follower::new(Question::default(), place(4), shown, begin());
    let news = follower.take(page(6, 0, &[5, 6]), begin());
    assert_eq!((news.records, news.more, news.missed), (vec![record(6)], true, 0));
    let news = follower.take(page(20, 9, &[20]), begin());
    assert_eq!((news.missed, follower.next().1), (9, 20));
    assert!(!follower.take(page(20, 0, &[]), begin()).more);
}
