//! Since when it grew: steadily, or at once.

use crate::death::UsageAt;
use crate::text::bytes;

use super::case::{Case, Found, float, unreclaimable, whole};
use super::words::span;

const MIB: u64 = 1 << 20;
/// How well a straight line must fit.
const STRAIGHT: f64 = 0.9;
/// A straight line that is shorter than this says nothing, seconds, unless it is most of a life; and that must be longer than [`LEAST`].
const LONG: f64 = 60.0;
/// Whatever grows within this is being started.
const LEAST: f64 = 5.0;
/// Looks without which a line is none.
const LOOKS: usize = 5;
/// What is taken within this, or between two looks, is taken at once, seconds: nobody who looks once a second, or less often where there is much room, sees it come.
const ATONCE: f64 = 2.0;
/// A look that is older than this says nothing about a leap, seconds.
const STALE: f64 = 10.0;

/// It grew in a straight line for most of what was seen of it.
pub(super) fn leak(case: &Case<'_>) -> Option<Found> {
    let history = case.history()?;
    let fit = history.fit.filter(|fit| (STRAIGHT..=1.0).contains(fit))?;
    let growth = history.growth_bytes_per_minute.filter(|g| g.is_finite() && *g >= 1.0)?;
    let seen = history.usage.first()?.ago_seconds;
    let age = history.age_seconds.filter(|age| *age > 0.0);
    let is_life = age.is_some_and(|age| seen >= 0.8 * age) && seen >= LEAST;
    if !(seen.is_finite() && (seen >= LONG || is_life)) || history.usage.len() < LOOKS {
        return None;
    }
    // A line may fit well and hardly rise.
    let last = case.used().or(history.usage.last().map(|last| last.bytes))?;
    let grown = whole(growth / 60.0 * seen);
    if grown < last / 4 {
        return None;
    }
    // What grew may be the page cache, which is given back.
    let (first, now) = (history.kinds.first(), history.kinds.last());
    let made_of = match first.zip(now) {
        Some((first, now)) => {
            let kept = unreclaimable(now).saturating_sub(unreclaimable(first));
            if now.file_bytes.saturating_sub(first.file_bytes) > kept {
                return None;
            }
            let anon = now.anon_bytes.saturating_sub(first.anon_bytes);
            format!(", {} of it anonymous memory", bytes(anon))
        }
        None => String::new(),
    };
    let since = if is_life { "since its start" } else { "for all that was seen of it" };
    let lasts = 100.0 * float(MIB) / (growth / 60.0);
    Some(Found {
        evidence: format!(
            "it grew in a straight line {since}, {}, by {} a minute (fit {fit:.2}){made_of}",
            span(seen),
            bytes(whole(growth))
        ),
        advice: format!(
            "It looks like a leak, and a higher limit would only put it off: at this pace each 100 MiB more last {}. Look for what is kept and never let go (a heap profile), or have it \
             end and start anew in time.",
            span(lasts)
        ),
    })
}

/// Most of the room that there was went at once.
pub(super) fn spike(case: &Case<'_>) -> Option<Found> {
    let (history, limit) = (case.history()?, case.limit()?);
    let end = case.used()?.min(limit);
    let looks: Vec<&UsageAt> = history
        .usage
        .iter()
        .filter(|look| look.ago_seconds.is_finite() && look.ago_seconds >= 0.0)
        .collect();
    // The last look before it may have begun: later ones are in the midst of it.
    let before = looks.iter().rev().find(|look| look.ago_seconds >= ATONCE).or(looks.first())?;
    if before.ago_seconds > STALE {
        return None;
    }
    let mut levels: Vec<u64> = looks.iter().map(|look| look.bytes).collect();
    levels.sort_unstable();
    let usual = levels.get(levels.len() / 2).copied()?;
    let (taken, room) = (end.saturating_sub(before.bytes), limit.saturating_sub(usual));
    // Half of the room that it mostly had, and a fifth of the limit: a leak ends in small steps, and so does a cgroup that is always full.
    if taken < room / 2 || taken < limit / 5 || taken == 0 {
        return None;
    }
    let within = before.ago_seconds;
    let unseen =
        if case.memory().warned_seconds == Some(0.0) { "; no warning came before" } else { "" };
    Some(Found {
        evidence: format!(
            "{} before the kill it used {} of {}: it took {} in that time{unseen}",
            span(within),
            bytes(before.bytes),
            bytes(limit),
            bytes(taken)
        ),
        advice: format!(
            "It took {} at once, faster than any warning can be: bound the step that does so (the size of a batch, an upload or a query, how many run side by side), or give the limit room \
             for it.",
            bytes(taken)
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::super::sample::{MIB, fires, history, oom};
    use crate::death::{Death, KindsAt, Rule};

    fn steps(from: u64, to: u64, seconds: u64) -> Vec<(f64, u64)> {
        let n = 20;
        (0..=n)
            .map(|i| {
                let ago = f64::from(u32::try_from(seconds * (n - i)).unwrap()) / 20.0;
                (ago, from + (to - from) * i / n)
            })
            .collect()
    }

    fn grows(seconds: u64, growth: f64, fit: f64, age: Option<f64>) -> Death {
        let mut death = oom(256);
        let mut story = history(&death, &steps(10, 256, seconds));
        (story.growth_bytes_per_minute, story.fit, story.age_seconds) =
            (Some(growth), Some(fit), age);
        death.memory.history = Some(story);
        death
    }

    /// 5 MiB a second.
    const FAST: f64 = 300.0 * 1024.0 * 1024.0;

    #[test]
    fn a_leak_is_a_straight_line() {
        let found = fires(&grows(120, FAST, 0.99, None), Rule::Leak).unwrap();
        assert_eq!(
            found.evidence,
            "it grew in a straight line for all that was seen of it, 2 min, by 300.0 MiB a minute (fit 0.99)"
        );
        assert!(found.advice.contains("each 100 MiB more last 20 s"), "{found:?}");
        let young = fires(&grows(49, FAST, 0.99, Some(50.0)), Rule::Leak).unwrap();
        assert!(young.evidence.contains("since its start, 49 s"), "{young:?}");
    }

    #[test]
    fn what_is_no_leak() {
        for (why, death) in [
            ("not straight", grows(120, FAST, 0.8, None)),
            ("too short", grows(49, FAST, 0.99, None)),
            ("short, of a long life", grows(49, FAST, 0.99, Some(600.0))),
            ("a start", grows(4, FAST, 0.99, Some(4.0))),
            ("it hardly rises", grows(120, 1024.0 * 1024.0, 0.99, None)),
            ("it shrinks", grows(120, -FAST, 0.99, None)),
            ("no number", grows(120, f64::NAN, 0.99, None)),
            ("no number", grows(120, f64::INFINITY, 0.99, None)),
            ("no number", grows(120, FAST, f64::NAN, None)),
        ] {
            assert_eq!(fires(&death, Rule::Leak), None, "{why}");
        }
        let mut death = grows(120, FAST, 0.99, None);
        let at = |ago_seconds, anon: u64, file: u64| KindsAt {
            ago_seconds,
            anon_bytes: anon * MIB,
            file_bytes: file * MIB,
            ..KindsAt::default()
        };
        let kinds = |death: &mut Death, last| {
            death.memory.history.as_mut().unwrap().kinds = vec![at(120.0, 10, 0), last];
        };
        kinds(&mut death, at(0.0, 20, 230));
        assert_eq!(fires(&death, Rule::Leak), None, "the page cache grew");
        kinds(&mut death, at(0.0, 230, 20));
        assert!(fires(&death, Rule::Leak).unwrap().evidence.contains("220.0 MiB of it anonymous"));
    }

    fn leaps(looks: &[(f64, u64)]) -> Option<super::Found> {
        let mut death = oom(256);
        death.memory.history = Some(history(&death, looks));
        fires(&death, Rule::Spike)
    }

    #[test]
    fn a_spike_is_most_of_the_room_at_once() {
        let found = leaps(&[(30.0, 40), (20.0, 41), (3.0, 40), (0.4, 200)]).unwrap();
        assert_eq!(
            found.evidence,
            "3.0 s before the kill it used 40.0 MiB of 256.0 MiB: it took 216.0 MiB in that time"
        );
        // From a steady level.
        assert!(leaps(&[(30.0, 160), (20.0, 161), (2.0, 160), (1.0, 161)]).is_some());
        // Quiet for so long that it was seldom looked at.
        assert!(leaps(&[(300.0, 40), (8.0, 40)]).is_some());
        // It lived for less than two seconds.
        assert!(leaps(&[(1.0, 4), (0.5, 100)]).is_some());
    }

    #[test]
    fn what_is_no_spike() {
        assert_eq!(leaps(&[(300.0, 40), (11.0, 40)]), None, "not looked at for too long");
        assert_eq!(leaps(&[(30.0, 240), (20.0, 240), (2.0, 240)]), None, "always full");
        assert_eq!(leaps(&[]), None);
        assert_eq!(leaps(&[(f64::NAN, 4), (f64::INFINITY, 4)]), None);
        let leak: Vec<_> = steps(10, 256, 120);
        assert_eq!(leaps(&leak), None, "a leak");
    }
}
