//! Python: it has no bound of its own, but servers and pools of it start so many workers.

use crate::death::Victim;
use crate::text::bytes;

use super::super::case::{Case, Found, hold};
use super::super::words::word;
use super::title;

/// Programs in Python that start workers.
const SERVERS: [&str; 4] = ["gunicorn", "celery", "uvicorn", "hypercorn"];

pub(super) fn is(victim: &Victim) -> bool {
    let file = title(victim).rsplit('/').next().unwrap_or_default();
    [file, &victim.comm].iter().any(|name| {
        name.starts_with("python") || SERVERS.iter().any(|server| name.contains(server))
    })
}

/// As many workers as this one do not fit, and their number was seen.
pub(super) fn look(case: &Case<'_>) -> Option<Found> {
    let (limit, used) = (case.limit()?, case.used()?);
    let (victim, memory) = (&case.death.victim, case.memory());
    let held = case.held().filter(|held| *held > 0)?;
    let fit = limit / 10 * 9 / held;
    let alike = || memory.processes.iter().filter(|process| process.comm == victim.comm);
    let running = u64::try_from(alike().count()).unwrap_or(u64::MAX);
    // One that alone fills the limit has another trouble than its number. Workers share what they had before the fork, so all of them must be seen to hold much.
    if fit == 0 || (!memory.processes.is_empty() && hold(alike()) < used / 2) {
        return None;
    }
    if let Some((text, count)) = workers(victim).filter(|(_, count)| *count >= 2 && *count > fit) {
        return Some(Found {
            evidence: format!(
                "{text} was seen, and this worker held {}: {count} of that size do not fit into {}",
                bytes(held),
                bytes(limit)
            ),
            advice: format!(
                "The limit has room for {fit} workers of that size: start no more, have each end after so many tasks (--max-requests, --max-memory-per-child) if they grow, or raise the limit."
            ),
        });
    }
    let spawned = spawned(victim).filter(|_| running >= 2 && running >= fit)?;
    Some(Found {
        evidence: format!(
            "it is a worker of multiprocessing ({spawned} was seen on the command line), held {}, and {running} {} were running",
            bytes(held),
            word(&victim.comm)
        ),
        advice: format!(
            "A pool starts one worker for each CPU of the host unless it is told how many, whatever CPUs the container has: give it a number (processes=, max_workers=), here at most {fit}, or raise \
             the limit."
        ),
    })
}

/// The number of workers, and how it was said.
fn workers(victim: &Victim) -> Option<(String, u64)> {
    let arguments = victim.cmdline.as_deref().unwrap_or_default();
    let celery = arguments.iter().any(|word| word.contains("celery"));
    // To gunicorn -c is its configuration.
    let (short, long) = if celery { ("-c", "--concurrency") } else { ("-w", "--workers") };
    let is_server =
        arguments.iter().take(4).any(|word| SERVERS.iter().any(|server| word.contains(server)));
    let mut words = arguments.iter().filter(|_| is_server);
    while let Some(argument) = words.next() {
        let value = match argument.split_once('=') {
            Some((name, value)) if name == long => Some(value),
            _ if argument == short || argument == long => words.next().map(String::as_str),
            _ => argument.strip_prefix(short).filter(|rest| !rest.is_empty()),
        };
        if let Some(count) = value.and_then(|value| value.parse().ok()) {
            return Some((format!("{long}={count} (on the command line)"), count));
        }
    }
    let count = victim.environ.get("WEB_CONCURRENCY")?.parse().ok()?;
    Some((format!("WEB_CONCURRENCY={count} (in the environment)"), count))
}

/// What a worker of multiprocessing is started with, if it is not by fork alone.
fn spawned(victim: &Victim) -> Option<&'static str> {
    let arguments = victim.cmdline.as_deref()?;
    ["multiprocessing.spawn", "multiprocessing.forkserver", "--multiprocessing-fork"]
        .into_iter()
        .find(|mark| arguments.iter().any(|argument| argument.contains(mark)))
}

#[cfg(test)]
mod tests {
    use crate::advice::sample::{MIB, fires, oom, process, started};
    use crate::death::Rule;

    fn python(
        held: u64,
        running: u32,
        arguments: &[&str],
        environ: &[(&str, &str)],
    ) -> Option<super::Found> {
        let mut death = started(oom(1000), arguments, environ);
        death.memory.anon_bytes = Some(held * MIB);
        death.memory.processes =
            (0..running).map(|n| process(n + 1, &death.victim.comm, held)).collect();
        fires(&death, Rule::Runtime)
    }

    #[test]
    fn more_workers_than_fit() {
        let found =
            python(200, 5, &["python3", "/usr/bin/gunicorn", "-c", "conf.py", "-w", "8"], &[])
                .unwrap();
        assert_eq!(
            found.evidence,
            "--workers=8 (on the command line) was seen, and this worker held 200.0 MiB: 8 of that size do not fit into 1000.0 MiB"
        );
        assert!(found.advice.contains("room for 4 workers"), "{found:?}");
        for line in [
            &["gunicorn", "--workers=8"][..],
            &["gunicorn", "-w8"],
            &["python", "-m", "celery", "worker", "--concurrency", "8"],
            &["celery", "-A", "app", "worker", "-c8"],
        ] {
            assert!(python(200, 5, line, &[]).is_some(), "{line:?}");
        }
        let found =
            python(200, 5, &["gunicorn: worker [app]"], &[("WEB_CONCURRENCY", "8")]).unwrap();
        assert!(found.evidence.starts_with("WEB_CONCURRENCY=8 (in the environment)"), "{found:?}");
    }

    #[test]
    fn a_pool_that_was_told_no_number() {
        let line = ["python3", "-c", "from multiprocessing.spawn import spawn_main; …"];
        let found = python(150, 6, &line, &[]).unwrap();
        assert!(found.evidence.contains("6 python3 were running"), "{found:?}");
        assert!(found.advice.contains("at most 6"), "{found:?}");
        assert_eq!(python(150, 1, &line, &[]), None);
    }

    #[test]
    fn a_number_that_fits_or_was_not_seen() {
        assert_eq!(python(200, 4, &["gunicorn", "-w", "4"], &[]), None, "they fit");
        assert_eq!(python(950, 2, &["gunicorn", "-w", "4"], &[]), None, "one alone fills it");
        assert_eq!(
            python(200, 5, &["python3", "a.py", "-w", "8"], &[]),
            None,
            "it is not a server's"
        );
        assert_eq!(python(200, 1, &["gunicorn", "-w", "8"], &[]), None, "the others are not there");
        assert_eq!(python(200, 5, &["ruby", "-w", "8"], &[("WEB_CONCURRENCY", "8")]), None);
    }
}
