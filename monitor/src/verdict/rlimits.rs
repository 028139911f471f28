//! Resource limits that end a process: RLIMIT_CPU and RLIMIT_RTTIME (SIGXCPU at the soft one, SIGKILL at the hard one) and RLIMIT_FSIZE (SIGXFSZ).

use killwatch_ebpf::wire::Origin;

use super::{
    facts::{Facts, Sender},
    signals,
};
use crate::death::Rlimit;

/// The kernel's count for RLIMIT_CPU goes by ticks, and may be this far ahead of the exact time, s.
const ROUGHNESS_SECONDS: f64 = 1.0;

/// What was hit.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Hit {
    pub(super) rlimit: Rlimit,
    pub(super) evidence: Vec<String>,
    /// What is not proven.
    pub(super) inferred: Option<String>,
}

/// The resource limit that made the kernel send this signal, which it did in the victim's own context.
pub(super) fn hit(facts: &Facts<'_>, sender: &Sender) -> Option<Hit> {
    match (sender.signal, sender.origin) {
        (signals::SIGXCPU, Origin::Kernel) => {
            // The kernel raises the soft limit by a second right after it sent SIGXCPU (check_process_timers,
            // kernel/time/posix-cpu-timers.c), and it is read at the exit.
            let [soft, hard] = facts.limits.cpu;
            let soft = soft.map(|soft| soft.saturating_sub(1));
            cpu(facts, soft, [soft, hard]).or_else(|| realtime(facts))
        }
        (signals::SIGKILL, Origin::Kernel) => {
            cpu(facts, facts.limits.cpu[1], facts.limits.cpu).or_else(|| realtime(facts))
        }
        (signals::SIGXFSZ, Origin::NoInfo) => Some(file_size(facts)),
        _ => None,
    }
}

/// `limit` is the one that was hit, of both. Not if the process had used much less: then something else sent the signal.
fn cpu(facts: &Facts<'_>, limit: Option<u64>, [soft, hard]: [Option<u64>; 2]) -> Option<Hit> {
    let limit = limit?;
    let used = facts.limits.cpu_seconds;
    let rlimit = Rlimit { resource: "RLIMIT_CPU".into(), unit: "seconds".into(), soft, hard, used };
    let said = format!("RLIMIT_CPU allows it {limit} s of CPU time");
    #[expect(clippy::cast_precision_loss, reason = "a limit of 2^53 s is never reached")]
    let allowed = limit as f64;
    let (evidence, inferred) = match used {
        Some(used) if used >= allowed => (format!("{said}, and it had used {used:.1} s"), None),
        Some(used) if used >= allowed - ROUGHNESS_SECONDS => (
            format!("{said}, of which {used:.1} s were counted as it ended"),
            Some(
                "that RLIMIT_CPU was reached: the kernel counts by ticks, and this count is a little below",
            ),
        ),
        Some(_) => return None,
        None => {
            (said, Some("that RLIMIT_CPU was reached: this kernel's CPU times could not be read"))
        }
    };
    Some(Hit { rlimit, evidence: vec![evidence], inferred: inferred.map(str::to_owned) })
}

/// The time in one go that a real-time task may run. How much that was is not known.
fn realtime(facts: &Facts<'_>) -> Option<Hit> {
    let [soft, hard] = facts.limits.realtime;
    let limit = soft.or(hard)?;
    Some(Hit {
        rlimit: Rlimit {
            resource: "RLIMIT_RTTIME".into(),
            unit: "microseconds".into(),
            soft,
            hard,
            used: None,
        },
        evidence: vec![format!(
            "RLIMIT_RTTIME allows it to run {limit} µs in one go under a real-time policy"
        )],
        inferred: Some("that RLIMIT_RTTIME was reached: the kernel sends this signal for RLIMIT_CPU too, and that was not".into()),
    })
}

fn file_size(facts: &Facts<'_>) -> Hit {
    let [soft, hard] = facts.limits.file_size;
    let rlimit =
        Rlimit { resource: "RLIMIT_FSIZE".into(), unit: "bytes".into(), soft, hard, used: None };
    let said = match soft {
        Some(soft) => format!("it wrote to a file past the {soft} bytes that RLIMIT_FSIZE allows"),
        None => "it wrote to a file past what RLIMIT_FSIZE allows".to_owned(),
    };
    Hit { rlimit, evidence: vec![said], inferred: None }
}
