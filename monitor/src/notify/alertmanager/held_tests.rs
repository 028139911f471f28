//! How long alerts hold, against a simple model.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::alert::{Alert, Labels, Maker};
use super::held::{Held, MAX_HELD};
use crate::death::sample;
use crate::notify::http::links::Linked;
use crate::notify::http::testing::entry;

fn bare(n: u16) -> Alert {
    let maker = Maker { labels: Labels::new(), linked: Linked::default() };
    let mut alert = maker.make(&entry(sample::in_a_pod()), None);
    alert.labels.insert("n".to_owned(), n.to_string());
    alert
}

#[tokio::test]
async fn the_one_whose_death_is_longest_ago_is_let_go() {
    let mut held = Held::new(Duration::from_secs(60));
    let start = Instant::now();
    for n in 0..u16::try_from(MAX_HELD).unwrap() {
        held.prolong(bare(n), start + Duration::from_millis(n.into()));
    }
    held.prolong(bare(0), start + Duration::from_secs(5));
    assert_eq!((held.len(), held.forgotten()), (MAX_HELD, 0));
    held.prolong(bare(60_000), start + Duration::from_secs(6));
    assert_eq!((held.len(), held.forgotten()), (MAX_HELD, 1));
    let is_held = |n: u16| held.alerts().any(|alert| alert.labels["n"] == n.to_string());
    assert!(is_held(0) && !is_held(1) && is_held(60_000));
}

#[derive(Debug, Clone)]
enum Step {
    Death(u16),
    Wait(u64),
    Upkeep { arrives: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u16..6).prop_map(Step::Death),
        (0u64..40).prop_map(Step::Wait),
        any::<bool>().prop_map(|arrives| Step::Upkeep { arrives }),
    ]
}

proptest! {
    /// What is held is what a death came for within the hold, or what still waits to be ended; and no alert waits longer than a third of the hold.
    #[test]
    fn an_alert_holds_as_long_as_it_should(steps in prop::collection::vec(step(), 1..80)) {
        let hold = Duration::from_secs(60);
        let mut held = Held::new(hold);
        let mut now = Instant::now();
        let mut last = BTreeMap::new();
        for step in steps {
            match step {
                Step::Death(n) => {
                    held.prolong(bare(n), now);
                    last.insert(n.to_string(), now);
                }
                Step::Wait(seconds) => now += Duration::from_secs(seconds),
                Step::Upkeep { arrives } => {
                    let due = held.take_due(now, 3);
                    prop_assert!(due.len() <= 3);
                    for one in &due {
                        let died = last[&one.alert.labels["n"]];
                        prop_assert_eq!(one.over, now >= died + hold);
                        if arrives {
                            held.sent(one, now);
                        }
                    }
                    if due.len() < 3 {
                        prop_assert!(held.due().is_none_or(|due| due > now && due <= now + hold / 3));
                    }
                }
            }
            for (n, died) in &last {
                if now < *died + hold {
                    prop_assert!(held.alerts().any(|alert| alert.labels["n"] == *n), "{} holds", n);
                }
            }
        }
    }
}
