//! What a machine printed, understood: each scenario's end, the confusion matrix, and whether it came to its end at all.

use std::collections::BTreeMap;

use super::qemu::OURS;

/// What init prints last, without the beginning that all its lines have.
const MARKER: &str = "scenarios ended with ";

/// How a scenario ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It passed.
    Pass,
    /// It failed.
    Fail,
    /// It cannot be played there; why.
    NotApplicable(String),
}

/// Cause that a test brought about and cause that was reported → how often.
pub(crate) type Confusion = BTreeMap<(String, String), u64>;

/// A log, understood.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Log {
    /// What the machine said of itself: kernel, cgroups, `mark_victim`.
    pub(crate) machine: Option<String>,
    /// By name.
    pub(crate) scenarios: BTreeMap<String, Ending>,
    /// Empty if none was printed.
    pub(crate) confusion: Confusion,
    /// Exit status of the scenarios, if they ended.
    pub(crate) status: Option<i32>,
    /// Lines with a `test result:`.
    pub(crate) results: usize,
    /// What libtest says of the failures: from `failures:` on.
    pub(crate) failures: String,
}

/// The most that is kept of it, in bytes: enough for the records of several scenarios.
const MAX_FAILURES: usize = 64 << 10;

impl Log {
    /// Reads a log. Lines may end in `\r\n`; what is between the beginning and the end of a test's line is its own output.
    pub(crate) fn parse(text: &str) -> Self {
        let mut log = Self::default();
        // A test that has begun its line, and not ended it; what was said not to apply.
        let mut open: Option<String> = None;
        let mut reasons: BTreeMap<String, String> = BTreeMap::new();
        let mut in_matrix = false;
        let mut in_failures = false;
        for line in text.lines().map(plain) {
            let line = line.trim_end();
            in_failures =
                (in_failures || line == "failures:") && !line.starts_with("test result: ");
            if in_failures {
                let fits = log.failures.len() + line.len() < MAX_FAILURES;
                log.failures.push_str(if fits { line } else { "… and more, in the log" });
                log.failures.push('\n');
                in_failures = fits;
            }
            if in_matrix {
                in_matrix = log.count(line);
                continue;
            }
            if let Some(said) = line.strip_prefix(OURS) {
                match said.strip_prefix(MARKER) {
                    Some(status) => log.status = status.parse().ok(),
                    None => log.machine = Some(said.to_owned()),
                }
                continue;
            }
            if line == "confusion matrix:" {
                in_matrix = true;
                continue;
            }
            if line.contains("test result: ") {
                log.results += 1;
                open = None;
                continue;
            }
            let mut rest = line;
            if let Some((name, after)) = test_line(line) {
                open = Some(name.to_owned());
                rest = after;
            }
            if let Some((name, why)) = reason(rest) {
                reasons.insert(name.to_owned(), why.to_owned());
            }
            if let (Some(name), Some(ending)) = (&open, ending(rest)) {
                log.scenarios.insert(name.clone(), ending);
                open = None;
            }
        }
        // Cut short in the middle of a scenario.
        if let Some(name) = open {
            log.scenarios.insert(name, Ending::Fail);
        }
        for (name, why) in reasons {
            log.scenarios
                .entry(name)
                .and_modify(|ending| {
                    if *ending != Ending::Fail {
                        *ending = Ending::NotApplicable(why.clone());
                    }
                })
                .or_insert_with(|| Ending::NotApplicable(why.clone()));
        }
        log
    }

    /// A line of the matrix; false if the matrix is over.
    fn count(&mut self, line: &str) -> bool {
        let Some((pair, count)) = line.rsplit_once(": ") else { return false };
        let (Some((caused, reported)), Ok(count)) = (pair.split_once(" -> "), count.trim().parse())
        else {
            return false;
        };
        let counted: &mut u64 = self
            .confusion
            .entry((caused.trim().to_owned(), reported.trim().to_owned()))
            .or_default();
        *counted = counted.saturating_add(count);
        true
    }

    /// The scenarios that failed.
    pub(crate) fn failed(&self) -> Vec<&str> {
        self.scenarios
            .iter()
            .filter(|(_, ending)| **ending == Ending::Fail)
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// How many scenarios ended so.
    pub(crate) fn tally(&self) -> Counts {
        let mut counts = Counts::default();
        for ending in self.scenarios.values() {
            match ending {
                Ending::Pass => counts.passed += 1,
                Ending::Fail => counts.failed += 1,
                Ending::NotApplicable(_) => counts.not_applicable += 1,
            }
        }
        counts
    }
}

/// Numbers of scenarios.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// That passed.
    pub(crate) passed: usize,
    /// That failed.
    pub(crate) failed: usize,
    /// That cannot be played there.
    pub(crate) not_applicable: usize,
}

/// Without what colours a terminal: `ESC [ … m`.
fn plain(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, rest)| rest))
}

/// `test NAME ... REST`, as libtest prints it.
fn test_line(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ").or_else(|| {
        // The end of the line may be cut off with the blank.
        Some((line.strip_prefix("test ")?.strip_suffix(" ...")?, ""))
    })?;
    let name = name.trim();
    (!name.contains(' ')).then_some((name, rest))
}

fn ending(text: &str) -> Option<Ending> {
    // libtest may say why after it.
    if text.trim_start().starts_with("ignored") {
        return Some(Ending::NotApplicable("ignored".to_owned()));
    }
    // The end stands alone, or behind what the test printed without a line end.
    match text.split_whitespace().last()? {
        "ok" => Some(Ending::Pass),
        "FAILED" => Some(Ending::Fail),
        _ => None,
    }
}

/// `SKIPPED: NAME: why` or `NOT APPLICABLE: NAME: why`.
fn reason(text: &str) -> Option<(&str, &str)> {
    let after = |key: &str| text.split_once(key).map(|(_, after)| after);
    // A name has `::`, but no `: `.
    after("NOT APPLICABLE: ").or_else(|| after("SKIPPED: "))?.split_once(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "SeaBIOS\r\nkillwatch-vm: Linux 6.1.0, cgroup v2\r\n\r\nrunning 6 tests\r\n\
        test oom::single_thread ... ok\r\n\
        test signals::abort ... SKIPPED: signals::abort: no: reason\r\nok\r\n\
        test exits::a ... FAILED\r\n\
        NOT APPLICABLE: lockdown: this kernel is not locked down\r\n\
        test lockdown      ... ok\r\n\
        test old::b ... ignored\r\n\
        test swap ... \r\nNOT APPLICABLE: swap: no swap\r\nignored, no swap\r\n\
        failures:\r\n    exits::a\r\n\
        confusion matrix:\r\noom_memcg -> oom_memcg: 3\r\nkilled -> unknown: 1\r\n\r\n\
        test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.00s\r\n\
        killwatch-vm: scenarios ended with 101\r\n";

    fn not_applicable(why: &str) -> Ending {
        Ending::NotApplicable(why.to_owned())
    }

    #[test]
    fn a_whole_log() {
        let log = Log::parse(TEXT);
        assert_eq!(log.machine.as_deref(), Some("Linux 6.1.0, cgroup v2"));
        assert_eq!((log.status, log.results), (Some(101), 1));
        let expected = [
            ("oom::single_thread", Ending::Pass),
            ("signals::abort", not_applicable("no: reason")),
            ("exits::a", Ending::Fail),
            ("lockdown", not_applicable("this kernel is not locked down")),
            ("old::b", not_applicable("ignored")),
            ("swap", not_applicable("no swap")),
        ];
        let expected = expected.map(|(name, ending)| (name.to_owned(), ending));
        assert_eq!(log.scenarios, BTreeMap::from(expected));
        assert_eq!(log.failed(), ["exits::a"]);
        assert_eq!(
            log.failures,
            "failures:\n    exits::a\nconfusion matrix:\noom_memcg -> oom_memcg: 3\nkilled -> unknown: 1\n\n"
        );
        let counts = Counts { passed: 1, failed: 1, not_applicable: 4 };
        assert_eq!(log.tally(), counts);
        let pair = |caused: &str, reported: &str| (caused.to_owned(), reported.to_owned());
        let expected = [(pair("oom_memcg", "oom_memcg"), 3), (pair("killed", "unknown"), 1)];
        assert_eq!(log.confusion, BTreeMap::from(expected));
    }

    #[test]
    fn what_was_cut_short_failed() {
        let log = Log::parse("test a ... ok\ntest b ...");
        assert_eq!(log.scenarios.get("b"), Some(&Ending::Fail));
        assert_eq!((log.status, log.results), (None, 0));
        let log = Log::parse("test a ... ok\ntest b ... noise\nmore noise\ntest c ... a word ok\n");
        assert_eq!(log.scenarios.get("c"), Some(&Ending::Pass));
    }

    #[test]
    fn colours_do_not_matter() {
        let log = Log::parse("test a ... \u{1b}[33mnoise\n\u{1b}[0m\u{1b}[31mFAILED\u{1b}[0m\r\n");
        assert_eq!(log.scenarios.get("a"), Some(&Ending::Fail));
    }

    #[test]
    fn a_failure_is_not_explained_away() {
        let log = Log::parse("test a ... SKIPPED: a: why\nFAILED\n");
        assert_eq!(log.scenarios.get("a"), Some(&Ending::Fail));
    }
}
