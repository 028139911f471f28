//! Redis and Valkey: what they keep, and the fork that writes it to a disk.

use crate::death::Victim;
use crate::flags::{is_program, number_and_unit};
use crate::text::bytes;

use super::super::case::{Case, Found};
use super::super::words::word;
use super::{MIB, three_quarters, title};

const SERVERS: [&str; 2] = ["redis-server", "valkey-server"];
/// What the children that write call themselves (src/rdb.c, src/aof.c).
const WRITERS: [&str; 6] = [
    "redis-rdb-bgsave",
    "redis-aof-rewrite",
    "redis-rdb-to-slaves",
    "valkey-rdb-bgsave",
    "valkey-aof-rewrite",
    "valkey-rdb-to-replicas",
];

pub(super) fn is(victim: &Victim) -> bool {
    is_program(victim, &SERVERS)
        || SERVERS.iter().chain(&WRITERS).any(|name| title(victim).starts_with(name))
}

pub(super) fn look(case: &Case<'_>) -> Option<Found> {
    let (limit, victim) = (case.limit()?, &case.death.victim);
    let writes = |text: &str| WRITERS.iter().any(|writer| text.starts_with(writer));
    if writes(title(victim)) {
        return Some(Found {
            evidence: format!(
                "the victim called itself “{}”, under a limit of {}",
                word(title(victim)),
                bytes(limit)
            ),
            advice: format!(
                "It is the fork that writes the data to a disk, and what is changed meanwhile is there twice, at worst all of it: leave room for that (maxmemory at most {}, half of the limit), or \
                 write on a replica (save \"\", appendonly no).",
                bytes(limit / 2)
            ),
        });
    }
    let (text, most) = max_memory(victim)?;
    (most > three_quarters(limit)).then(|| Found {
        evidence: format!(
            "--maxmemory {} on the command line is {}, under a limit of {}",
            word(text),
            bytes(most),
            bytes(limit)
        ),
        advice: format!(
            "maxmemory counts the data, not its fragments, the buffers of clients, and the fork that writes to a disk: set it to at most {} (75 % of the limit; half, if it writes to a disk).",
            bytes(three_quarters(limit))
        ),
    })
}

/// `--maxmemory`, as redis.conf has sizes: k, m and g are powers of 1000, kb, mb and gb of 1024. 0 is none.
fn max_memory(victim: &Victim) -> Option<(&str, u64)> {
    let mut arguments = victim.cmdline.iter().flatten();
    arguments.find(|argument| *argument == "--maxmemory")?;
    let text = arguments.next()?;
    let (number, unit) = number_and_unit(text)?;
    let unit = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => MIB,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    Some((text, number.checked_mul(unit).filter(|most| *most > 0)?))
}

#[cfg(test)]
mod tests {
    use crate::advice::sample::{fires, oom, started};
    use crate::death::Rule;

    fn redis(arguments: &[&str]) -> Option<super::Found> {
        fires(&started(oom(1000), arguments, &[]), Rule::Runtime)
    }

    #[test]
    fn the_fork_that_writes() {
        let found = redis(&["redis-rdb-bgsave *:6379"]).unwrap();
        assert!(found.evidence.contains("“redis-rdb-bgsave *:6379”"), "{found:?}");
        assert!(found.advice.contains("maxmemory at most 500.0 MiB"), "{found:?}");
    }

    #[test]
    fn maxmemory_against_the_limit() {
        let found = redis(&["/usr/bin/redis-server", "--maxmemory", "900mb"]).unwrap();
        assert!(
            found.evidence.starts_with("--maxmemory 900mb on the command line is 900.0 MiB"),
            "{found:?}"
        );
        for fits in [
            &["redis-server", "--maxmemory", "500mb"][..],
            &["redis-server", "--maxmemory", "0"],
            &["redis-server", "--maxmemory", "lots"],
            &["redis-server", "--maxmemory"],
            &["redis-server *:6379"],
            &["memcached", "--maxmemory", "900mb"],
        ] {
            assert_eq!(redis(fits), None, "{fits:?}");
        }
    }
}
