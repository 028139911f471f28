//! Go: its soft limit. Nothing outside of a Go program tells that it is one but its variables.

use crate::flags::number_and_unit;
use crate::text::bytes;

use super::super::case::{Case, Found};
use super::super::words::word;
use super::MIB;

pub(super) fn look(case: &Case<'_>) -> Option<Found> {
    let (limit, environ) = (case.limit()?, &case.death.victim.environ);
    // It ends by itself: a limit that was met by others is none of its business.
    case.held().filter(|held| *held >= limit / 2)?;
    let fits = limit / 10 * 9;
    let set = format!("GOMEMLIMIT={}MiB (90 % of the limit)", fits / MIB);
    match (environ.get("GOMEMLIMIT"), environ.get("GOGC")) {
        (Some(text), _) => {
            let soft = memory_limit(text)?;
            (soft.is_none_or(|soft| soft > limit / 20 * 19)).then(|| {
                let soft = soft.map_or_else(|| "no limit".to_owned(), bytes);
                Found {
                    evidence: format!("GOMEMLIMIT={} was seen, {soft}, against the cgroup's limit of {}", word(text), bytes(limit)),
                    advice: format!(
                        "If it is written in Go, its collector does not feel the cgroup's limit: set {set}, so that it collects harder before the kernel kills. It does not help if what is in use is \
                         more than that."
                    ),
                }
            })
        }
        (None, Some(percent)) => Some(Found {
            evidence: format!(
                "GOGC={} was seen and no GOMEMLIMIT, under a limit of {}",
                word(percent),
                bytes(limit)
            ),
            advice: format!(
                "If it is written in Go, its heap may grow to a multiple of what is in use before it collects: set {set}, so that it collects harder before the kernel kills."
            ),
        }),
        (None, None) => None,
    }
}

/// A size as Go's runtime reads it; `Some(None)` is no limit.
#[expect(clippy::option_option, reason = "not readable, off, and a size are three")]
fn memory_limit(text: &str) -> Option<Option<u64>> {
    if text == "off" {
        return Some(None);
    }
    let (number, unit) = number_and_unit(text)?;
    let unit = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => MIB,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(unit).map(Some)
}

#[cfg(test)]
mod tests {
    use super::memory_limit;
    use crate::advice::sample::{MIB, fires, oom, started};
    use crate::death::Rule;

    fn go(held: u64, environ: &[(&str, &str)]) -> Option<super::Found> {
        let mut death = started(oom(1000), &["/app/server"], environ);
        death.memory.anon_bytes = Some(held * MIB);
        fires(&death, Rule::Runtime)
    }

    #[test]
    fn a_soft_limit_that_is_none() {
        let found = go(900, &[("GOMEMLIMIT", "2GiB")]).unwrap();
        assert_eq!(
            found.evidence,
            "GOMEMLIMIT=2GiB was seen, 2.0 GiB, against the cgroup's limit of 1000.0 MiB"
        );
        assert!(found.advice.contains("GOMEMLIMIT=900MiB"), "{found:?}");
        assert!(go(900, &[("GOMEMLIMIT", "off")]).unwrap().evidence.contains("no limit"));
        let found = go(900, &[("GOGC", "400")]).unwrap();
        assert!(found.evidence.starts_with("GOGC=400 was seen and no GOMEMLIMIT"), "{found:?}");
    }

    #[test]
    fn nothing_is_taken_for_go_without_its_variables() {
        assert_eq!(go(900, &[]), None);
        assert_eq!(go(900, &[("GOMEMLIMIT", "900MiB"), ("GOGC", "400")]), None, "it fits");
        assert_eq!(go(900, &[("GOMEMLIMIT", "much")]), None);
        assert_eq!(go(100, &[("GOGC", "400")]), None, "others took the memory");
    }

    #[test]
    fn sizes_as_go_reads_them() {
        assert_eq!(memory_limit("1024"), Some(Some(1024)));
        assert_eq!(memory_limit("3KiB"), Some(Some(3072)));
        for bad in ["", "1GB", "GiB", "-1", "99999999999TiB"] {
            assert_eq!(memory_limit(bad), None, "{bad}");
        }
    }
}
