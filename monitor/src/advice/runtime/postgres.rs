//! PostgreSQL: shared buffers, and what each backend takes beside them.

use crate::death::Victim;
use crate::flags::is_program;
use crate::text::bytes;

use super::super::case::{Case, Found, percent};
use super::super::words::word;
use super::title;

pub(super) fn is(victim: &Victim) -> bool {
    is_program(victim, &["postgres", "postmaster"]) || title(victim).starts_with("postgres:")
}

pub(super) fn look(case: &Case<'_>) -> Option<Found> {
    let (limit, victim) = (case.limit()?, &case.death.victim);
    let title = word(Some(title(victim)).filter(|title| !title.is_empty())?);
    // What of the buffers was touched is shared memory of the cgroup, and of each backend that touched it.
    let kinds = case.kinds().and_then(|kinds| kinds.shmem);
    let shared = kinds.max(case.memory().shmem_bytes).filter(|shared| *shared > 0);
    let own = case.memory().anon_bytes;
    let count = case.memory().processes.iter().filter(|process| process.comm == "postgres").count();
    let backends =
        if count >= 2 { format!("; {count} processes of it were seen") } else { String::new() };
    if let Some(own) = own.filter(|own| *own >= limit / 4) {
        return Some(Found {
            evidence: format!(
                "the process “{title}” held {} of memory of its own, {} % of the limit of {}{backends}",
                bytes(own),
                percent(own, limit),
                bytes(limit)
            ),
            advice: "One session took it: work_mem counts for each sort and hash of a query (times hash_mem_multiplier, and parallel workers). Lower work_mem for what runs often, look at that \
                     query's plan, and bound the sessions (max_connections, a pooler)."
                .to_owned(),
        });
    }
    let shared = shared.filter(|shared| *shared >= limit / 5 * 2)?;
    Some(Found {
        evidence: format!(
            "the process is “{title}”, and {} of shared memory, {} % of the limit of {}, are in use{backends}",
            bytes(shared),
            percent(shared, limit),
            bytes(limit)
        ),
        advice: "shared_buffers and what all sessions take (work_mem × sorts × sessions, maintenance_work_mem) must fit below the limit together: shared_buffers at a quarter of it is a usual \
                 start; bound the sessions with a pooler."
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use crate::advice::sample::{MIB, charged, fires, process, started};
    use crate::death::Rule;

    fn postgres(own: u64, shared: u64, title: &str) -> Option<super::Found> {
        let mut death =
            started(charged(1000, |c| c.shmem_bytes = Some(shared * MIB)), &[title], &[]);
        death.memory.anon_bytes = Some(own * MIB);
        death.memory.processes = (0..3).map(|n| process(n + 1, "postgres", 10)).collect();
        fires(&death, Rule::Runtime)
    }

    #[test]
    fn one_session_or_the_buffers() {
        let title = "postgres: app shop 10.0.0.7(4711) SELECT";
        let found = postgres(400, 200, title).unwrap();
        assert_eq!(
            found.evidence,
            "the process “postgres: app shop 10.0.0.7(4711) SELECT” held 400.0 MiB of memory of its own, 40 % of the limit of 1000.0 MiB; 3 processes of it were seen"
        );
        assert!(found.advice.contains("work_mem counts for each sort"), "{found:?}");
        let found = postgres(20, 450, title).unwrap();
        assert!(found.advice.starts_with("shared_buffers"), "{found:?}");
    }

    #[test]
    fn neither() {
        assert_eq!(postgres(20, 200, "postgres: checkpointer"), None);
        assert_eq!(postgres(400, 200, "mysqld"), None);
    }
}
