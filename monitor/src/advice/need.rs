//! A limit that is smaller than what is needed: met before, or by a need that is steady.

use crate::death::History;
use crate::text::bytes;
use crate::verdict::advice::limit_names;

use super::case::{Case, Found, float, unreclaimable};
use super::words::{span, word};

const MIB: u64 = 1 << 20;
/// How long a need must have been steady, seconds.
const STEADY: f64 = 60.0;
/// Looks at the kinds without which nothing is steady.
const LOOKS: usize = 4;

/// Earlier deaths met the same limit, or what it needs all the time hardly fits.
pub(super) fn limit_too_small(case: &Case<'_>) -> Option<Found> {
    let limit = case.limit()?;
    let (again, steady) = (again(case, limit), steady(case, limit));
    let evidence = match (&again, &steady) {
        (None, None) => return None,
        (Some(again), None) => again.clone(),
        (None, Some((steady, _))) => steady.clone(),
        (Some(again), Some((steady, _))) => format!("{again}; {steady}"),
    };
    let names = limit_names(case.memory().limit_counter.is_some());
    let higher = case.earlier.deaths.iter().map(|past| past.limit_bytes.max(past.peak_bytes));
    let higher = higher.max().filter(|highest| *highest > limit);
    let advice = match (steady, higher) {
        (Some((_, need)), _) => {
            // A quarter above it, in whole MiB.
            let enough =
                (need / 4).saturating_add(need).max(limit).div_ceil(MIB).saturating_mul(MIB);
            format!(
                "Raise the limit ({names}) to at least {}: a quarter more than it needs all the time.",
                bytes(enough)
            )
        }
        (None, Some(higher)) => format!(
            "Started anew under this limit it will be killed again. Raise it ({names}) above {}, which was not enough before either, or make the work smaller.",
            bytes(higher)
        ),
        (None, None) => format!(
            "Started anew under this limit it will be killed again: raise it ({names}) or make the work smaller. How much is enough is not known, for it never got more."
        ),
    };
    Some(Found { evidence, advice })
}

/// Earlier deaths at the very same limit.
fn again(case: &Case<'_>, limit: u64) -> Option<String> {
    let same: Vec<_> =
        case.earlier.deaths.iter().filter(|past| past.limit_bytes == limit).collect();
    let last = same.iter().map(|past| past.time).max()?;
    let ago = case.death.time.duration_since(last).as_secs_f64();
    let whose = case
        .earlier
        .job
        .map_or_else(|| "this workload".to_owned(), |job| format!("job {}", word(job)));
    Some(format!(
        "{} earlier death{} of {whose} met the same limit of {}, the last {} before",
        same.len(),
        if same.len() == 1 { "" } else { "s" },
        bytes(limit),
        span(ago)
    ))
}

/// A level near the limit that neither grows nor can be taken back: the page cache alone fills any cgroup. With the highest of it.
fn steady(case: &Case<'_>, limit: u64) -> Option<(String, u64)> {
    let history: &History = case.history()?;
    let looks: Vec<_> = history.kinds.iter().filter(|look| look.ago_seconds.is_finite()).collect();
    let (first, last) = (looks.first()?, looks.last()?);
    let seen = first.ago_seconds - last.ago_seconds;
    if seen < STEADY || looks.len() < LOOKS {
        return None;
    }
    let needs = || looks.iter().map(|look| unreclaimable(look));
    let (least, most) = (needs().min()?, needs().max()?);
    let is_near = float(least) >= 0.85 * float(limit);
    let is_flat = most - least <= limit / 20;
    (is_near && is_flat && most <= limit).then(|| {
        let steady = format!(
            "for {} it needed {} to {} of {} all the time, without growing",
            span(seen),
            bytes(least),
            bytes(most),
            bytes(limit)
        );
        (steady, most)
    })
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::super::Earlier;
    use super::super::sample::{MIB, fires, fires_after, history, oom};
    use crate::death::{Death, KindsAt, Rule};

    fn earlier(limits: &[u64]) -> Earlier {
        let mut earlier = Earlier::default();
        for (n, limit) in (1_u32..).zip(limits) {
            let mut death = oom(*limit);
            death.oom.as_mut().unwrap().incident_ktime_ns = u64::from(n);
            death.time -= SignedDuration::from_secs(i64::from(600 / n));
            earlier.remember(&death);
        }
        earlier
    }

    #[test]
    fn a_limit_that_was_met_before() {
        let found = fires_after(&oom(128), &earlier(&[128, 128]), Rule::LimitTooSmall).unwrap();
        assert_eq!(
            found.evidence,
            "2 earlier deaths of job render-42 met the same limit of 128.0 MiB, the last 5 min before"
        );
        assert!(found.advice.contains("How much is enough is not known"), "{found:?}");
        let found = fires_after(&oom(128), &earlier(&[128, 512]), Rule::LimitTooSmall).unwrap();
        assert!(found.evidence.starts_with("1 earlier death of job"), "{found:?}");
        assert!(found.advice.contains("above 512.0 MiB, which was not enough"), "{found:?}");
        assert_eq!(fires_after(&oom(128), &earlier(&[64, 256]), Rule::LimitTooSmall), None);
        assert_eq!(fires_after(&oom(128), &earlier(&[]), Rule::LimitTooSmall), None);
    }

    fn steady(kinds: &[(f64, u64, u64)]) -> Option<super::Found> {
        let mut death: Death = oom(128);
        let mut story = history(&death, &[(90.0, 126), (30.0, 126), (1.0, 127)]);
        story.kinds = kinds
            .iter()
            .map(|(ago_seconds, anon, file)| KindsAt {
                ago_seconds: *ago_seconds,
                anon_bytes: anon * MIB,
                file_bytes: file * MIB,
                ..KindsAt::default()
            })
            .collect();
        death.memory.history = Some(story);
        fires(&death, Rule::LimitTooSmall)
    }

    #[test]
    fn a_need_that_hardly_fits_says_how_much_would_do() {
        let found =
            steady(&[(90.0, 118, 3), (60.0, 120, 3), (30.0, 119, 3), (1.0, 120, 3)]).unwrap();
        assert_eq!(
            found.evidence,
            "for 89 s it needed 118.0 MiB to 120.0 MiB of 128.0 MiB all the time, without growing"
        );
        assert!(found.advice.contains("to at least 150.0 MiB"), "{found:?}");
    }

    #[test]
    fn what_is_not_steady() {
        let cache = [(90.0, 20, 103), (60.0, 20, 103), (30.0, 20, 103), (1.0, 20, 103)];
        assert_eq!(steady(&cache), None, "the page cache fills any limit");
        let grows = [(90.0, 110, 3), (60.0, 115, 3), (30.0, 120, 3), (1.0, 126, 1)];
        assert_eq!(steady(&grows), None, "it grows");
        let short = [(40.0, 120, 3), (30.0, 120, 3), (20.0, 120, 3), (1.0, 120, 3)];
        assert_eq!(steady(&short), None, "for a moment only");
        assert_eq!(steady(&[(90.0, 120, 3), (1.0, 120, 3)]), None, "too few looks");
        assert_eq!(steady(&[]), None);
    }
}
