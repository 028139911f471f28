//! What a request for deaths asks: the query of `/api/v1/deaths`. Pure.

use jiff::Timestamp;

use crate::death::Cause;
use crate::ledger::Filter;
use crate::moment;

/// Largest `limit`.
pub const MAX_LIMIT: usize = 1000;
/// `limit` unless given.
const LIMIT: usize = 100;
/// Longest text of a parameter, in bytes.
const MAX_TEXT: usize = 4096;
/// The parameters that there are.
const KEYS: &str = "since, until, after, limit, pid, job, pod, container, cause";

/// A query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    /// Which deaths.
    pub(super) filter: Filter,
    /// At most so many, 1 to [`MAX_LIMIT`].
    pub(super) limit: usize,
    /// Those after this number, the oldest first; else the newest, the newest first.
    pub(super) after: Option<u64>,
}

impl Query {
    /// The query's meaning.
    ///
    /// # Errors
    /// What is wrong with it, in one line: key, value, and what is allowed.
    pub(super) fn parse(pairs: &[(String, String)], now: Timestamp) -> Result<Self, String> {
        let (mut filter, mut limit, mut after) = (Filter::default(), None, None);
        for (key, value) in pairs {
            let key = key.as_str();
            let twice = match key {
                "since" => filter.since.replace(time(key, value, now)?).is_some(),
                "until" => filter.until.replace(time(key, value, now)?).is_some(),
                "after" => after.replace(number(key, value, 0, u64::MAX)?).is_some(),
                "limit" => limit.replace(number(key, value, 1, MAX_LIMIT as u64)?).is_some(),
                "pid" => filter.pid.replace(number(key, value, 1, u64::from(u32::MAX))?).is_some(),
                "job" => filter.job.replace(text(key, value, "must be the id of a job")?).is_some(),
                "pod" => filter.pod.replace(pod(key, value)?).is_some(),
                "container" => {
                    let id = text(
                        key,
                        value,
                        "must be the id of a container, the first 12 digits of it, or its name",
                    )?;
                    filter.container.replace(id).is_some()
                }
                // Several may be given, each as a parameter or with commas between them.
                "cause" => {
                    causes(value, &mut filter.causes)?;
                    false
                }
                _ => {
                    return Err(format!("{}: no such parameter; allowed are {KEYS}", short(key)));
                }
            };
            if twice {
                return Err(format!("{key}: given twice"));
            }
        }
        Ok(Self { filter, limit: limit.unwrap_or(LIMIT), after })
    }
}

fn causes(value: &str, causes: &mut Vec<Cause>) -> Result<(), String> {
    for name in value.split(',') {
        let cause = Cause::named(name).ok_or_else(|| {
            let names: Vec<_> = Cause::ALL.iter().map(|cause| cause.as_str()).collect();
            refuse("cause", name, &format!("must be one or several of {}", names.join(", ")))
        })?;
        // However often it is given, the list is no longer than the set.
        if !causes.contains(&cause) {
            causes.push(cause);
        }
    }
    Ok(())
}

fn pod(key: &str, value: &str) -> Result<String, String> {
    const ALLOWED: &str = "must be namespace/name, or the uid of a pod";
    let named = match value.split_once('/') {
        Some((namespace, name)) => !namespace.is_empty() && !name.is_empty() && !name.contains('/'),
        None => true,
    };
    if named { text(key, value, ALLOWED) } else { Err(refuse(key, value, ALLOWED)) }
}

fn text(key: &str, value: &str, allowed: &str) -> Result<String, String> {
    if (1..=MAX_TEXT).contains(&value.len()) {
        return Ok(value.to_owned());
    }
    Err(refuse(key, value, &format!("{allowed}, {MAX_TEXT} bytes at most")))
}

fn time(key: &str, value: &str, now: Timestamp) -> Result<Timestamp, String> {
    moment::parse(value, now).ok_or_else(|| {
        refuse(key, value, &format!("{} (in a URL, write + as %2B)", moment::ALLOWED))
    })
}

fn number<N: TryFrom<u64>>(key: &str, value: &str, min: u64, max: u64) -> Result<N, String> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    let number = value.parse().ok().filter(|n| digits && (min..=max).contains(n));
    number
        .and_then(|n| N::try_from(n).ok())
        .ok_or_else(|| refuse(key, value, &format!("must be a whole number from {min} to {max}")))
}

pub(super) fn refuse(key: &str, value: &str, allowed: &str) -> String {
    format!("{key}: {} is not allowed: {allowed}", short(value))
}

/// What a stranger sent, quoted and cut.
fn short(text: &str) -> String {
    format!("{:?}", text.chars().take(100).collect::<String>())
}
