//! Who took the memory, if not the victim alone.

use std::collections::BTreeMap;

use crate::death::ProcessMemory;
use crate::text::bytes;
use crate::verdict::advice::limit_names;

use super::case::{Case, Found, hold, holds, percent};
use super::words::{list, place, process, word};

/// Others that are named.
const NAMED: usize = 3;
/// Workers of one kind that are many.
const MANY: usize = 4;

/// Others below the same limit took the memory: in another cgroup than the victim's, or beside it.
pub(super) fn sibling(case: &Case<'_>) -> Option<Found> {
    let mut others: Vec<&ProcessMemory> = case.others().collect();
    others.sort_by_key(|process| std::cmp::Reverse(holds(process)));
    elsewhere(case, &others).or_else(|| beside(case, &others))
}

/// The limit stands above, and the victim's own cgroup took less than half of what is below it.
fn elsewhere(case: &Case<'_>, others: &[&ProcessMemory]) -> Option<Found> {
    let used = case.used()?;
    let (own, hit) = case.hit_above().filter(|(own, _)| own.usage_bytes < used / 2)?;
    // Of others it is not said in which cgroup they are. What is not the victim's in its own cgroup is the most that they may have there.
    let beside = own.usage_bytes.saturating_sub(case.held().unwrap_or(0));
    let away = hold(others.iter().copied()).saturating_sub(beside);
    if away < (used - own.usage_bytes) / 2 {
        return None;
    }
    let named: Vec<String> = others
        .iter()
        .filter(|other| holds(other) > beside && holds(other) >= used / 10)
        .take(NAMED)
        .map(|other| process(other))
        .collect();
    let first = named.first()?.clone();
    let place = hit.cgroup.as_deref().map_or_else(|| "the limit".to_owned(), place);
    Some(Found {
        evidence: format!(
            "the victim's own cgroup used {} of the {} in use below the limit of {place}; other processes there: {}",
            bytes(own.usage_bytes),
            bytes(used),
            list(&named)
        ),
        advice: format!(
            "Look at {first} first: it is below the same limit, and took the memory that the victim was killed for. Give it a limit of its own, or one of the two another parent."
        ),
    })
}

/// One cgroup, and another process of it holds much more than the one that was chosen.
fn beside(case: &Case<'_>, others: &[&ProcessMemory]) -> Option<Found> {
    let (used, first) = (case.used()?, others.first()?);
    // The list is read after the decision, when the victim may have given back some: its own numbers are the kernel's, or the larger of both.
    let seen = case.memory().processes.iter().find(|process| process.victim).map(holds);
    let held = case.held().max(seen)?;
    if holds(first) / 2 < held || holds(first) < used / 4 {
        return None;
    }
    let scores = case.death.victim.oom_score_adj.zip(first.oom_score_adj);
    let chosen =
        scores.filter(|(own, other)| own > other).map_or_else(String::new, |(own, other)| {
            format!("; it was chosen all the same, by its oom_score_adj of {own} against {other}")
        });
    Some(Found {
        evidence: format!(
            "the victim held {} of the {} in use, and {} more than twice that{chosen}",
            bytes(held),
            bytes(used),
            process(first)
        ),
        advice: format!(
            "Look at {} first: it held most of what was in use, the victim only {} %.",
            process(first),
            percent(held, used)
        ),
    })
}

/// The limit is not the victim's own cgroup's.
pub(super) fn parent_limit(case: &Case<'_>) -> Option<Found> {
    let (own, hit) = case.hit_above()?;
    let (path, limit) = (hit.cgroup.as_deref()?, case.limit()?);
    let name = path.rsplit('/').next().unwrap_or(path);
    // A container or a unit with cgroups inside: the limit above is the one that people call its own.
    let workload = &case.death.workload;
    let container = workload.container_id.as_deref();
    let container = container.map(|id| id.split_once("://").map_or(id, |(_, bare)| bare));
    let is_own = container.is_some_and(|id| !id.is_empty() && name.contains(id))
        || workload.unit.as_deref() == Some(name);
    if is_own {
        return None;
    }
    let own_limit = match own.limit_bytes {
        Some(limit) => format!(
            "the victim's own cgroup has a limit of {}, of which it used {}",
            bytes(limit),
            bytes(own.usage_bytes)
        ),
        None => {
            format!("the victim's own cgroup has no limit, and used {}", bytes(own.usage_bytes))
        }
    };
    let memsw = case.memory().limit_counter.is_some();
    // The pod's cgroup is `pod<uid>`, or `…-pod<uid>.slice` where systemd makes it.
    let is_pod = workload.pod_uid.is_some()
        && (name.starts_with("pod") || (name.contains("-pod") && name.ends_with(".slice")));
    let advice = if is_pod {
        "The limit is the pod's, the sum of its containers' (or the pod's own resources.limits.memory): raise that of the container that needs more. What a container that has \
         ended left in a tmpfs counts there too."
            .to_owned()
    } else {
        format!(
            "Raise the limit of {} itself ({}), or have less run below it: a higher one on the victim's own cgroup changes nothing.",
            word(name),
            limit_names(memsw)
        )
    };
    let place = place(path);
    Some(Found {
        evidence: format!("the limit of {} stands on {place}; {own_limit}", bytes(limit)),
        advice,
    })
}

/// Many of one kind hold most of it together, and none of them most of that.
pub(super) fn too_many_workers(case: &Case<'_>) -> Option<Found> {
    let used = case.used()?;
    let mut kinds: BTreeMap<&str, Vec<&ProcessMemory>> = BTreeMap::new();
    for process in &case.memory().processes {
        kinds.entry(&process.comm).or_default().push(process);
    }
    let many = kinds.into_iter().filter(|(_, workers)| workers.len() >= MANY);
    let (comm, workers) = many.max_by_key(|(_, workers)| hold(workers.iter().copied()))?;
    let held = hold(workers.iter().copied());
    let largest = workers.iter().map(|worker| holds(worker)).max()?;
    if held <= used / 2 || largest > held / 2 {
        return None;
    }
    let count = workers.len();
    let each = held / u64::try_from(count).unwrap_or(u64::MAX).max(1);
    let among = case
        .memory()
        .process_count
        .filter(|all| usize::try_from(*all).is_ok_and(|all| all > case.memory().processes.len()));
    let among = among.map_or_else(String::new, |all| {
        format!(" (the largest of {all} processes were looked at)")
    });
    let set = set_by(case).map_or_else(String::new, |set| format!("; {set} was seen"));
    let comm = word(comm);
    Some(Found {
        evidence: format!(
            "{count} processes called {comm} held {} of the {} in use together, {} each on average{among}{set}",
            bytes(held),
            bytes(used),
            bytes(each)
        ),
        advice: format!(
            "Start fewer {comm} at a time, or give the limit room for all: each takes about {}, and none of them alone is the cause.",
            bytes(each)
        ),
    })
}

/// What sets the number of workers.
fn set_by(case: &Case<'_>) -> Option<String> {
    let count = case.death.victim.environ.get("WEB_CONCURRENCY")?;
    Some(format!("WEB_CONCURRENCY={}", word(count)))
}

#[cfg(test)]
mod tests {
    use super::super::sample::{MIB, fires, oom, process, under};
    use crate::death::{Death, Rule};

    /// A victim of 20 MiB in a cgroup of 30, under a parent's limit of 128 MiB.
    fn below_a_parent() -> Death {
        let mut death = under(128, 30);
        death.memory.anon_bytes = Some(20 * MIB);
        death.memory.processes =
            vec![process(77, "hog", 90), process(78, "tiny", 1), process(4242, "worker", 20)];
        death.memory.processes[2].victim = true;
        death
    }

    #[test]
    fn a_sibling_that_took_the_memory_is_named() {
        let mut death = below_a_parent();
        death.memory.processes[0].tags.insert("job_id".into(), "j-7".into());
        let found = fires(&death, Rule::Sibling).unwrap();
        assert!(found.evidence.contains("hog (pid 77, 90.0 MiB, job_id=j-7)"), "{found:?}");
        assert!(found.evidence.contains("30.0 MiB of the 128.0 MiB"), "{found:?}");
        assert!(!found.evidence.contains("tiny"), "{found:?}");
        assert!(found.advice.starts_with("Look at hog (pid 77"), "{found:?}");
    }

    #[test]
    fn nobody_is_blamed_without_being_seen() {
        // The rest may be in tmpfs: no process is seen to hold it.
        let mut death = below_a_parent();
        death.memory.processes[0].anon_bytes = Some(10 * MIB);
        assert_eq!(fires(&death, Rule::Sibling), None);
        let mut death = below_a_parent();
        death.memory.processes.truncate(0);
        assert_eq!(fires(&death, Rule::Sibling), None);
        // The victim's own cgroup took more than half.
        let mut death = below_a_parent();
        death.memory.levels[0].usage_bytes = 70 * MIB;
        (death.memory.anon_bytes, death.memory.processes[0].anon_bytes) =
            (Some(60 * MIB), Some(50 * MIB));
        assert_eq!(fires(&death, Rule::Sibling), None);
    }

    #[test]
    fn one_cgroup_and_the_smaller_one_was_chosen() {
        let mut death = oom(128);
        death.memory.anon_bytes = Some(10 * MIB);
        death.memory.processes = vec![process(77, "hog", 100), process(4242, "worker", 10)];
        death.memory.processes[1].victim = true;
        death.memory.processes[0].oom_score_adj = Some(-900);
        let found = fires(&death, Rule::Sibling).unwrap();
        assert!(found.evidence.contains("oom_score_adj of 982 against -900"), "{found:?}");
        death.memory.anon_bytes = Some(60 * MIB);
        assert_eq!(
            fires(&death, Rule::Sibling),
            None,
            "it gave its memory back before the list was read"
        );
    }

    #[test]
    fn a_limit_above_is_told_with_what_the_own_one_is() {
        let mut death = below_a_parent();
        let found = fires(&death, Rule::ParentLimit).unwrap();
        assert!(found.evidence.contains("own cgroup has no limit, and used 30.0 MiB"), "{found:?}");
        assert!(found.advice.contains("limit of parent.slice itself"), "{found:?}");
        death.memory.levels[0].limit_bytes = Some(256 * MIB);
        let found = fires(&death, Rule::ParentLimit).unwrap();
        assert!(found.evidence.contains("has a limit of 256.0 MiB"), "{found:?}");
        assert_eq!(fires(&oom(128), Rule::ParentLimit), None);
    }

    #[test]
    fn a_pods_limit_is_called_so_and_a_containers_own_is_not_above_it() {
        let mut death = below_a_parent();
        death.workload.pod_uid = Some("u-1".into());
        for pod in ["/kubepods/burstable/podu-1", "/kubepods.slice/kubepods-podu_1.slice"] {
            death.memory.limit_cgroup = Some(pod.into());
            death.memory.levels[1].cgroup = Some(pod.into());
            let found = fires(&death, Rule::ParentLimit).unwrap();
            assert!(found.advice.starts_with("The limit is the pod's"), "{found:?}");
        }
        // What systemd makes inside of a container.
        for container in ["/docker/abc", "/system.slice/docker-abc.scope"] {
            death.workload.container_id = Some("docker://abc".into());
            death.memory.limit_cgroup = Some(container.into());
            death.memory.levels[1].cgroup = Some(container.into());
            assert_eq!(fires(&death, Rule::ParentLimit), None, "{container}");
        }
    }

    #[test]
    fn many_of_one_kind() {
        let mut death = oom(128);
        death.memory.processes = (0..6).map(|n| process(100 + n, "celery", 15)).collect();
        death.memory.process_count = Some(40);
        death.victim.environ.insert("WEB_CONCURRENCY".into(), "39".into());
        let found = fires(&death, Rule::TooManyWorkers).unwrap();
        assert!(
            found.evidence.starts_with("6 processes called celery held 90.0 MiB of the 128.0 MiB in use together, 15.0 MiB each"),
            "{found:?}"
        );
        assert!(found.evidence.contains("largest of 40 processes"), "{found:?}");
        assert!(found.evidence.ends_with("WEB_CONCURRENCY=39 was seen"), "{found:?}");
        let with = |change: &dyn Fn(&mut Death)| {
            let mut death = death.clone();
            change(&mut death);
            fires(&death, Rule::TooManyWorkers)
        };
        assert_eq!(with(&|death| death.memory.processes.truncate(3)), None, "three are not many");
        assert_eq!(
            with(&|death| death.memory.processes[0].anon_bytes = Some(90 * MIB)),
            None,
            "one alone is"
        );
        assert_eq!(
            with(&|death| death.memory.usage_bytes = Some(400 * MIB)),
            None,
            "most is not theirs"
        );
    }
}
