//! One sentence for people on what a receiver is told, safe for one line of a terminal. No I/O, no clock.

use crate::alert::{Alert, AlertKind, NearLimit, PoisonJob};
#[cfg(any(feature = "kubernetes", feature = "otlp"))]
use crate::cli::story;
#[cfg(any(feature = "kubernetes", feature = "otlp"))]
use crate::death::Death;
use crate::death::{Job, Workload};
#[cfg(any(feature = "kubernetes", feature = "otlp"))]
use crate::notify::summary::Summary;
use crate::text::{bytes, one_line};

/// Who died, by what and why.
#[cfg(any(feature = "kubernetes", feature = "otlp"))]
pub(crate) fn of_death(death: &Death) -> String {
    story::headline(death)
}

/// What is raised, and for what.
pub(crate) fn of_alert(alert: &Alert) -> String {
    match &alert.kind {
        AlertKind::PoisonJob(poison) => of_poison(poison),
        AlertKind::NearLimit(near) => of_near_limit(near),
    }
}

fn of_near_limit(near: &NearLimit) -> String {
    let what = name_of_workload(&near.workload);
    let mut sentence = format!(
        "Memory of {what} is at {:.0} % of its limit: {} of {}",
        // It is a share of what is charged, and bounded by that; but what is shown comes from a file, too.
        (near.share * 100.0).clamp(0.0, 999.0),
        bytes(near.unreclaimable_bytes),
        bytes(near.limit_bytes)
    );
    if near.workload.cgroup.as_ref().is_some_and(|own| *own != near.limit_cgroup) {
        sentence += &format!(", which stands on {}", near.limit_cgroup);
    }
    if let (Some(growth), Some(left)) = (near.growth_bytes_per_minute, near.seconds_left) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float cast saturates; it grows, or there were no seconds left"
        )]
        let growth = growth as u64;
        let left = left.clamp(0.0, 1e9);
        sentence += &format!(", growing by {} a minute: {left:.0} s are left", bytes(growth));
    }
    if let Some(largest) = near.processes.first() {
        let (comm, pid) = (&largest.comm, largest.pid);
        sentence += &format!("; the largest process is {comm} (pid {pid})");
    }
    one_line(&(sentence + "."))
}

fn of_poison(poison: &PoisonJob) -> String {
    let times = poison.deaths.len();
    let job = name_of_job(&poison.job);
    let mut sentence = format!(
        "{job} was killed again and again: {times} death{} within {} s",
        plural(times as u64),
        poison.window_seconds
    );
    if let Some(last) = poison.deaths.last() {
        let (comm, pid, cause) = (&last.comm, last.pid, last.cause.as_str());
        sentence += &format!(", the last that of {comm} (pid {pid}), cause {cause}");
    }
    one_line(&(sentence + "."))
}

/// How many followed, of what.
#[cfg(any(feature = "kubernetes", feature = "otlp"))]
pub(crate) fn of_summary(summary: &Summary) -> String {
    let what = name_of_workload(&summary.workload);
    one_line(&format!(
        "{} more process{} of {what} died in the same way, cause {}, from {} to {}.",
        summary.count,
        if summary.count == 1 { "" } else { "es" },
        summary.summary.as_str(),
        summary.first,
        summary.time
    ))
}

fn name_of_job(job: &Job) -> String {
    match (&job.id, &job.name) {
        (Some(id), Some(name)) if id != name => format!("Job {id} ({name})"),
        (Some(name), _) | (None, Some(name)) => format!("Job {name}"),
        (None, None) => "A job".to_owned(),
    }
}

fn name_of_workload(workload: &Workload) -> String {
    if let (Some(namespace), Some(pod)) = (&workload.namespace, &workload.pod) {
        return match &workload.container {
            Some(container) => format!("container {container} of pod {namespace}/{pod}"),
            None => format!("pod {namespace}/{pod}"),
        };
    }
    let named = [
        ("container", &workload.container),
        ("container", &workload.container_id),
        ("unit", &workload.unit),
        ("cgroup", &workload.cgroup),
    ];
    let found = named.into_iter().find_map(|(kind, name)| Some((kind, name.as_ref()?)));
    found.map_or_else(|| "the host".to_owned(), |(kind, name)| format!("{kind} {name}"))
}

const fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::death::sample;

    #[test]
    fn what_died_is_named_by_the_best_name_there_is() {
        let mut workload = sample::in_a_pod().workload;
        assert_eq!(name_of_workload(&workload), "container worker of pod shop/render-x7k2p");
        workload.container = None;
        assert_eq!(name_of_workload(&workload), "pod shop/render-x7k2p");
        workload.namespace = None;
        assert!(name_of_workload(&workload).starts_with("container containerd://4d6c"));
        assert_eq!(name_of_workload(&sample::killed().workload), "unit indexer.service");
        assert_eq!(name_of_workload(&Workload::default()), "the host");
    }

    #[test]
    fn a_near_limit_says_how_near_and_how_long() {
        let mut alert = crate::alert::sample::near_limit();
        assert_eq!(
            of_alert(&alert),
            "Memory of container worker of pod shop/render-x7k2p is at 88 % of its limit: 224.0 MiB of 256.0 MiB, growing by 60.0 MiB a minute: 32 s are left; the largest process is worker (pid 4242)."
        );
        let AlertKind::NearLimit(near) = &mut alert.kind else { unreachable!() };
        near.limit_cgroup = "/kubepods/burstable/pod1".into();
        (near.growth_bytes_per_minute, near.seconds_left) = (None, None);
        near.processes[0].comm = "a\nb".into();
        assert_eq!(
            of_alert(&alert),
            "Memory of container worker of pod shop/render-x7k2p is at 88 % of its limit: 224.0 MiB of 256.0 MiB, which stands on /kubepods/burstable/pod1; the largest process is a\\nb (pid 4242)."
        );
    }

    #[test]
    fn numbers_that_are_none_make_no_sentence_without_end() {
        let mut alert = crate::alert::sample::near_limit();
        let AlertKind::NearLimit(near) = &mut alert.kind else { unreachable!() };
        for strange in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, -0.0] {
            near.share = strange;
            (near.growth_bytes_per_minute, near.seconds_left) = (Some(strange), Some(strange));
            let alert = Alert { kind: AlertKind::NearLimit(near.clone()), ..sample_of() };
            assert!(of_alert(&alert).len() < 400, "{strange}");
        }
    }

    fn sample_of() -> Alert {
        crate::alert::sample::near_limit()
    }

    #[test]
    fn a_job_is_named_once() {
        let of = |id: Option<&str>, name: Option<&str>| {
            let (id, name) = (id.map(str::to_owned), name.map(str::to_owned));
            name_of_job(&Job { id, name, ..Job::default() })
        };
        assert_eq!(of(Some("42"), Some("render")), "Job 42 (render)");
        assert_eq!(of(Some("render"), Some("render")), "Job render");
        assert_eq!(of(None, Some("render")), "Job render");
        assert_eq!(of(None, None), "A job");
    }
}
