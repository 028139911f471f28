//! What a request asks for: the queries of `/v1/deaths` and its stream, cursors, and the process in a path. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Largest `limit`.
pub const MAX_LIMIT: usize = 100;
/// `limit` unless given.
const LIMIT: usize = 10;
/// Longest `wait`.
pub const MAX_WAIT: Duration = Duration::from_secs(30);
/// Longest value of a parameter, in bytes.
const MAX_VALUE: usize = 4096;
/// How far back a process is looked for by its number alone: numbers are given anew.
pub const BY_PID_ALONE: SignedDuration = SignedDuration::from_secs(60);

/// Why a query was refused: which parameter, its value, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadQuery(String);

/// Whose death is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A process, by its number as the caller sees it, and its start in clock ticks.
    Process {
        /// Number.
        pid: u32,
        /// Field 22 of `/proc/PID/stat`.
        start_ticks: Option<u64>,
    },
    /// A job, by its id.
    Job(String),
    /// A container, by its id.
    Container(String),
}

/// The query of `GET /v1/deaths`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeathsQuery {
    /// Whose.
    pub subject: Subject,
    /// Not before this time.
    pub since: Option<Timestamp>,
    /// At most so many.
    pub limit: usize,
    /// How long to wait for a record.
    pub wait: Duration,
}

/// The query of `GET /v1/deaths/stream`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamQuery {
    /// After which death to begin.
    pub cursor: Option<Cursor>,
    /// In this cgroup or below.
    pub cgroup: Option<String>,
    /// Of this pod.
    pub pod: Option<String>,
    /// Of this job.
    pub job: Option<String>,
}

/// A place in the order of deaths of one ledger: `<run>.<seq>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Which numbers ([`crate::ledger::Ledger::series`]); random. They go on when the daemon is started anew, if its ledger is there.
    pub run: u64,
    /// Number of the last death that was dealt with.
    pub seq: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}", self.run, self.seq)
    }
}

impl FromStr for Cursor {
    type Err = BadQuery;

    fn from_str(text: &str) -> Result<Self, BadQuery> {
        let read = || {
            let (run, seq) = text.split_once('.')?;
            let hex = run.len() == 16 && run.bytes().all(|b| b.is_ascii_hexdigit());
            let run = u64::from_str_radix(run, 16).ok().filter(|_| hex)?;
            Some(Self { run, seq: digits(seq)? })
        };
        read().ok_or_else(|| refuse("cursor", text, "must be the `id` of an event of this stream"))
    }
}

impl DeathsQuery {
    /// Reads the text after the `?`.
    ///
    /// # Errors
    /// If a parameter is not known, there twice, or out of bounds, or if it is not about exactly one process, job or container.
    pub fn parse(query: &str, now: Timestamp) -> Result<Self, BadQuery> {
        let (mut pid, mut start_ticks, mut since, mut limit, mut wait) =
            (None, None, None, None, None);
        let (mut job, mut container) = (None, None);
        for (key, value) in pairs(query)? {
            let (key, value) = (key.as_str(), value.as_str());
            match key {
                "pid" => once(key, &mut pid, number(key, value, 1, u64::from(u32::MAX))?)?,
                "start" => once(key, &mut start_ticks, number(key, value, 0, u64::MAX)?)?,
                "job" => once(key, &mut job, text(key, value)?)?,
                "container" => once(key, &mut container, text(key, value)?)?,
                "since" => once(key, &mut since, time(key, value, now)?)?,
                "limit" => once(key, &mut limit, number(key, value, 1, MAX_LIMIT as u64)?)?,
                "wait" => once(key, &mut wait, span(key, value)?)?,
                _ => {
                    return Err(unknown(key, "pid, start, job, container, since, limit, wait"));
                }
            }
        }
        if start_ticks.is_some() && pid.is_none() {
            return Err(BadQuery("start: goes with pid only".to_owned()));
        }
        let subject = match (pid, job, container) {
            (Some(pid), None, None) => Subject::Process { pid, start_ticks },
            (None, Some(job), None) => Subject::Job(job),
            (None, None, Some(container)) => Subject::Container(container),
            _ => {
                return Err(BadQuery(
                    "exactly one of pid, job and container must be given".to_owned(),
                ));
            }
        };
        let by_pid_alone = matches!(subject, Subject::Process { start_ticks: None, .. });
        let since = since.or_else(|| now.checked_sub(BY_PID_ALONE).ok().filter(|_| by_pid_alone));
        let (limit, wait) = (limit.unwrap_or(LIMIT), wait.unwrap_or_default());
        Ok(Self { subject, since, limit, wait })
    }
}

impl StreamQuery {
    /// Reads the text after the `?`.
    ///
    /// # Errors
    /// If a parameter is not known, there twice, or out of bounds.
    pub fn parse(query: &str) -> Result<Self, BadQuery> {
        let mut parsed = Self::default();
        for (key, value) in pairs(query)? {
            let (key, value) = (key.as_str(), value.as_str());
            match key {
                "cursor" => once(key, &mut parsed.cursor, value.parse()?)?,
                "cgroup" if !value.starts_with('/') => {
                    return Err(refuse(
                        key,
                        value,
                        "must be the path of a cgroup, from the root of its hierarchy on",
                    ));
                }
                "cgroup" => once(key, &mut parsed.cgroup, text(key, value)?)?,
                "pod" => once(key, &mut parsed.pod, text(key, value)?)?,
                "job" => once(key, &mut parsed.job, text(key, value)?)?,
                _ => return Err(unknown(key, "cursor, cgroup, pod, job")),
            }
        }
        Ok(parsed)
    }
}

/// The start that `PUT /v1/tags/<pid>?start=` names.
///
/// # Errors
/// If there is another parameter, or it is no number.
pub fn start(query: &str) -> Result<Option<u64>, BadQuery> {
    let mut start = None;
    for (key, value) in pairs(query)? {
        match key.as_str() {
            "start" => once("start", &mut start, number("start", &value, 0, u64::MAX)?)?,
            other => return Err(unknown(other, "start")),
        }
    }
    Ok(start)
}

/// The process in a path: `None` is `self`.
///
/// # Errors
/// If it is neither that nor a number.
pub fn process(text: &str) -> Result<Option<u32>, BadQuery> {
    if text == "self" {
        return Ok(None);
    }
    let pid = digits(text).and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
    pid.map(Some).ok_or_else(|| refuse("process", text, "must be `self` or a process id"))
}

/// The pairs of a query, decoded as forms are (application/x-www-form-urlencoded).
fn pairs(query: &str) -> Result<Vec<(String, String)>, BadQuery> {
    let decode = |part: &str| {
        decoded(part).ok_or_else(|| refuse("query", part, "must be UTF-8, percent-encoded"))
    };
    let parts = query.split('&').filter(|part| !part.is_empty());
    let pair = |part: &str| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        Ok((decode(key)?, decode(value)?))
    };
    parts.map(pair).collect()
}

fn decoded(part: &str) -> Option<String> {
    let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        bytes.push(match (first, tail) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..]) => {
                rest = after;
                hex(*high)? << 4 | hex(*low)?
            }
            (b'%', _) => return None,
            (other, _) => *other,
        });
    }
    String::from_utf8(bytes).ok()
}

fn once<T>(key: &str, slot: &mut Option<T>, value: T) -> Result<(), BadQuery> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(BadQuery(format!("{key}: given twice"))),
    }
}

fn text(key: &str, value: &str) -> Result<String, BadQuery> {
    if (1..=MAX_VALUE).contains(&value.len()) {
        return Ok(value.to_owned());
    }
    Err(refuse(key, value, &format!("must be 1 to {MAX_VALUE} bytes")))
}

fn number<N: TryFrom<u64>>(key: &str, value: &str, min: u64, max: u64) -> Result<N, BadQuery> {
    let number = digits(value).filter(|n| (min..=max).contains(n));
    number
        .and_then(|n| N::try_from(n).ok())
        .ok_or_else(|| refuse(key, value, &format!("must be a whole number from {min} to {max}")))
}

fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

fn span(key: &str, value: &str) -> Result<Duration, BadQuery> {
    let span = value.parse::<SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
    span.filter(|span| *span <= MAX_WAIT).ok_or_else(|| {
        refuse(
            key,
            value,
            &format!(
                "must be a time span with its unit, {} s at most, such as 2s or 500ms",
                MAX_WAIT.as_secs()
            ),
        )
    })
}

fn time(key: &str, value: &str, now: Timestamp) -> Result<Timestamp, BadQuery> {
    let ago = || {
        let span = value.parse::<SignedDuration>().ok().filter(|span| !span.is_negative())?;
        now.checked_sub(span).ok()
    };
    value.parse().ok().or_else(ago).ok_or_else(|| {
        refuse(key, value, "must be a time such as 2026-01-31T12:00:00Z (in a URL, write + as %2B), or a time span such as 15m")
    })
}

fn unknown(key: &str, allowed: &str) -> BadQuery {
    BadQuery(format!("{}: no such parameter; allowed are {allowed}", short(key)))
}

fn refuse(key: &str, value: &str, allowed: &str) -> BadQuery {
    BadQuery(format!("{key}: {} is not allowed: {allowed}", short(value)))
}

/// What a stranger sent, quoted and cut.
fn short(text: &str) -> String {
    format!("{:?}", text.chars().take(100).collect::<String>())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> Timestamp {
        "2026-01-31T12:00:00Z".parse().unwrap()
    }

    fn parse(query: &str) -> DeathsQuery {
        DeathsQuery::parse(query, now()).expect(query)
    }

    #[test]
    fn whose_death() {
        let query = parse("pid=7&start=123&wait=2s");
        assert_eq!(query.subject, Subject::Process { pid: 7, start_ticks: Some(123) });
        assert_eq!((query.wait, query.since, query.limit), (Duration::from_secs(2), None, LIMIT));
        let alone = parse("pid=7");
        assert_eq!(alone.since, Some("2026-01-31T11:59:00Z".parse().unwrap()), "the last minute");
        assert_eq!(parse("pid=7&since=1h").since, Some("2026-01-31T11:00:00Z".parse().unwrap()));
        assert_eq!(parse("job=a+%22b%22%0a").subject, Subject::Job("a \"b\"\n".into()));
        assert_eq!(
            parse("container=containerd%3A%2F%2Fabc").subject,
            Subject::Container("containerd://abc".into())
        );
        assert_eq!(parse("job=j").since, None);
    }

    #[test]
    fn what_is_refused_and_how_it_reads() {
        for (query, part) in [
            ("", "exactly one of pid, job and container"),
            ("pid=7&job=x", "exactly one of pid, job and container"),
            ("start=1&job=x", "start: goes with pid only"),
            ("pid=0", "pid: \"0\" is not allowed: must be a whole number from 1"),
            ("pid=+7", "pid: \" 7\""),
            ("pid=7&pid=7", "pid: given twice"),
            (
                "pid=7&wait=31s",
                "wait: \"31s\" is not allowed: must be a time span with its unit, 30 s at most",
            ),
            ("pid=7&wait=5", "wait"),
            ("pid=7&wait=-1s", "wait"),
            ("pid=7&limit=101", "from 1 to 100"),
            ("pid=7&since=soon", "since"),
            ("pids=7", "\"pids\": no such parameter"),
            ("job=%ff", "must be UTF-8"),
            ("job=%4", "percent-encoded"),
            ("job=%zz", "percent-encoded"),
            ("job=", "must be 1 to 4096 bytes"),
        ] {
            let refusal = DeathsQuery::parse(query, now()).expect_err(query).to_string();
            assert!(refusal.contains(part), "{query}: {refusal}");
        }
        for (query, part) in [
            ("cursor=7", "must be the `id` of an event"),
            ("cursor=0123456789abcdef.", "must be the `id` of an event"),
            ("cursor=+123456789abcdef.5", "must be the `id` of an event"),
            ("cgroup=a", "must be the path of a cgroup"),
            ("since=5m", "allowed are cursor, cgroup, pod, job"),
        ] {
            let refusal = StreamQuery::parse(query).expect_err(query).to_string();
            assert!(refusal.contains(part), "{query}: {refusal}");
        }
    }

    #[test]
    fn processes_in_paths() {
        assert_eq!((process("self"), process("42")), (Ok(None), Ok(Some(42))));
        for bad in ["", "0", "-1", "+1", "Self", "4294967296", "1 "] {
            assert!(process(bad).is_err(), "{bad}");
        }
        assert_eq!((start(""), start("start=5")), (Ok(None), Ok(Some(5))));
        assert!(start("start=x").is_err() && start("stop=5").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_query_or_one_line(query in "\\PC{0,80}|([a-z]{1,9}=[0-9a-z%+&.]{0,12}&?){0,6}") {
            for refusal in [
                DeathsQuery::parse(&query, now()).err(),
                StreamQuery::parse(&query).err(),
                start(&query).err(),
                process(&query).err(),
            ].into_iter().flatten() {
                prop_assert!(!refusal.to_string().contains('\n'));
            }
            if let Ok(parsed) = DeathsQuery::parse(&query, now()) {
                prop_assert!(parsed.wait <= MAX_WAIT && (1..=MAX_LIMIT).contains(&parsed.limit));
            }
        }

        #[test]
        fn cursors_come_back_as_they_went(run in any::<u64>(), seq in any::<u64>()) {
            let cursor = Cursor { run, seq };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn what_is_encoded_is_decoded(job in "\\PC{1,40}") {
            let encoded: String = job.bytes().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(parse(&format!("job={encoded}")).subject, Subject::Job(job));
        }
    }
}
