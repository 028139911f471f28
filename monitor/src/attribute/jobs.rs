//! The job of a victim, by rules that are data.
//!
//! Which id is told, when several are there:
//! 1. of a batch system, by the cgroup path (Slurm, PBS): the system itself put the process there. A Slurm SLUID is an alias, so
//!    `SLURM_JOB_ID` goes before it;
//! 2. of a batch system or CI, by its own variables, in the order of [`RULES`];
//! 3. `JOB_ID` and its like, which carry no scheduler: a worker on a plain pod with `JOB_ID=4711` worked on 4711;
//! 4. of what only *places* processes, as a pod does (Nomad allocations, ECS tasks), by path, then by variables. This comes last, since a
//!    worker there that was given a `JOB_ID`, or is a CI job, is looked for by that.
//!
//! `JOB_ID` stands after 2, since a batch system's own number is what its commands and its accounting show; the variable
//! is in `victim.environ` all the same. Name and attempt come from the system that gave the id, else from `JOB_NAME` and `ATTEMPT`.

use std::collections::BTreeMap;

use crate::death::Job;

use super::CGROUP_PATH;
use super::path::PathJob;

/// All rules.
#[derive(Debug, Clone, Default)]
pub struct Rules;

impl Rules {
    /// The job that the clues tell of.
    #[must_use]
    pub fn job(&self, clues: &super::Clues<'_>) -> Option<Job> {
        job(clues.path.and_then(super::path::job), clues.environ)
    }
}

/// How one scheduler tells its jobs. Of several variables the first that is set and not empty counts.
#[derive(Debug)]
pub struct Rule {
    /// The scheduler; `None` for variables that anyone may set.
    pub scheduler: Option<&'static str>,
    /// Whether a path of it goes before every variable.
    pub path_first: bool,
    /// Variables for the id.
    pub id: &'static [&'static str],
    /// Variables for the name.
    pub name: &'static [&'static str],
    /// Variables for the attempt.
    pub attempt: &'static [&'static str],
}

/// A rule with nothing in it, to be filled.
const RULE: Rule = Rule { scheduler: None, path_first: false, id: &[], name: &[], attempt: &[] };

/// Variables that carry no scheduler.
const GENERIC: Rule = Rule {
    id: &["JOB_ID", "RUN_ID", "TASK_ID", "WORKFLOW_ID"],
    name: &["JOB_NAME"],
    attempt: &["ATTEMPT"],
    ..RULE
};

/// Every rule, in the order of trust.
pub const RULES: &[Rule] = &[
    Rule {
        scheduler: Some("slurm"),
        path_first: true,
        id: &["SLURM_JOB_ID"],
        name: &["SLURM_JOB_NAME"],
        ..RULE
    },
    Rule { scheduler: Some("pbs"), path_first: true, id: &["PBS_JOBID"], ..RULE },
    Rule { scheduler: Some("lsf"), id: &["LSB_JOBID"], ..RULE },
    Rule {
        scheduler: Some("aws_batch"),
        id: &["AWS_BATCH_JOB_ID"],
        attempt: &["AWS_BATCH_JOB_ATTEMPT"],
        ..RULE
    },
    Rule {
        scheduler: Some("airflow"),
        id: &["AIRFLOW_CTX_DAG_RUN_ID"],
        name: &["AIRFLOW_CTX_TASK_ID", "AIRFLOW_CTX_DAG_ID"],
        attempt: &["AIRFLOW_CTX_TRY_NUMBER"],
        ..RULE
    },
    Rule { scheduler: Some("buildkite"), id: &["BUILDKITE_JOB_ID"], ..RULE },
    Rule {
        scheduler: Some("github_actions"),
        id: &["GITHUB_RUN_ID"],
        name: &["GITHUB_JOB"],
        ..RULE
    },
    Rule { scheduler: Some("gitlab_ci"), id: &["CI_JOB_ID"], ..RULE },
    GENERIC,
    Rule {
        scheduler: Some("nomad"),
        id: &["NOMAD_ALLOC_ID", "NOMAD_JOB_ID"],
        name: &["NOMAD_JOB_NAME", "NOMAD_TASK_NAME"],
        ..RULE
    },
    Rule { scheduler: Some("ecs"), ..RULE },
];

/// A value and where it came from.
type Sourced = (String, String);

/// Makes a job of what the path and the environment say; `None` if neither says an id or a name.
#[must_use]
pub fn job(path: Option<PathJob>, environ: &BTreeMap<String, String>) -> Option<Job> {
    let of_path =
        |rule: &&Rule| path.as_ref().is_some_and(|job| rule.scheduler == Some(job.scheduler));
    let sure = RULES.iter().filter(|rule| rule.path_first).filter(of_path);
    let in_order = || sure.clone().chain(RULES);
    let path_of = |rule: &Rule| path.as_ref().filter(|_| of_path(&rule));

    let by_id = in_order().find_map(|rule| Some((rule, Some(id(rule, path_of(rule), environ)?))));
    let by_name =
        || in_order().find(|rule| variable(rule.name, environ).is_some()).map(|rule| (rule, None));
    let (rule, id) = by_id.or_else(by_name)?;

    let path_name = || Some((path_of(rule)?.name.clone()?, CGROUP_PATH.to_owned()));
    let name =
        variable(rule.name, environ).or_else(path_name).or_else(|| variable(GENERIC.name, environ));
    let attempt = variable(rule.attempt, environ).or_else(|| variable(GENERIC.attempt, environ));
    // What shows which scheduler it is, is what the id was taken from, or the name without one.
    let shown_by = id.as_ref().or(name.as_ref()).map(|(_, source)| source.clone());
    let scheduler = rule.scheduler.map(str::to_owned).zip(shown_by);

    let mut sources = BTreeMap::new();
    let mut put = |key: &str, sourced: Option<Sourced>| {
        let (value, source) = sourced?;
        sources.insert(key.to_owned(), source);
        Some(value)
    };
    Some(Job {
        id: put("id", id),
        name: put("name", name),
        scheduler: put("scheduler", scheduler),
        attempt: put("attempt", attempt),
        index: None,
        sources,
    })
}

/// The id by one rule; `path` is the path's job if it is of this rule's scheduler.
fn id(rule: &Rule, path: Option<&PathJob>, environ: &BTreeMap<String, String>) -> Option<Sourced> {
    let from_path = |alias: bool| {
        let job = path.filter(|job| job.alias == alias)?;
        Some((job.id.clone(), CGROUP_PATH.to_owned()))
    };
    from_path(false).or_else(|| variable(rule.id, environ)).or_else(|| from_path(true))
}

/// The first of `names` that is set and not empty.
fn variable(names: &[&str], environ: &BTreeMap<String, String>) -> Option<Sourced> {
    names.iter().find_map(|name| {
        let value = environ.get(*name).filter(|value| !value.is_empty())?;
        Some((value.clone(), format!("environ:{name}")))
    })
}

#[cfg(test)]
mod tests {
    use super::super::environ::DEFAULT_NAMES;
    use super::super::{path, patterns};
    use super::*;

    /// The job of a path (or "") and variables, in one line.
    fn told(path: &str, environ: &[(&str, &str)]) -> String {
        let environ =
            environ.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let Some(job) = job(path::job(path), &environ) else { return "none".to_owned() };
        let parts = [
            ("id", &job.id),
            ("name", &job.name),
            ("scheduler", &job.scheduler),
            ("attempt", &job.attempt),
        ];
        let known = parts.into_iter().filter_map(|(key, value)| {
            Some(format!(
                "{key}={}<{}",
                value.as_ref()?,
                job.sources.get(key).expect("a source for each value")
            ))
        });
        let known: Vec<String> = known.collect();
        assert_eq!(known.len(), job.sources.len(), "a value for each source");
        known.join(" ")
    }

    const SLURM: &str = "/system.slice/slurmstepd.scope/job_12/step_0";
    const SLUID: &str = "/system.slice/slurmstepd.scope/sEKNKTV3WPV500/step_0";
    const NOMAD: &str = "/nomad/0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9.web";
    const ECS: &str = "/ecs/5ed7c3d2a1b0f9e8d7c6b5a493827160/x";

    #[test]
    fn a_worker_with_its_own_job_id() {
        assert_eq!(told("/kubepods/pod1", &[("JOB_ID", "4711")]), "id=4711<environ:JOB_ID");
        assert_eq!(
            told(
                "",
                &[("JOB_ID", "4711"), ("JOB_NAME", "resize"), ("ATTEMPT", "2"), ("RUN_ID", "r")]
            ),
            "id=4711<environ:JOB_ID name=resize<environ:JOB_NAME attempt=2<environ:ATTEMPT"
        );
        assert_eq!(
            told("", &[("JOB_ID", ""), ("RUN_ID", "r-1")]),
            "id=r-1<environ:RUN_ID",
            "empty is not set"
        );
        assert_eq!(
            told(ECS, &[("JOB_ID", "4711")]),
            "id=4711<environ:JOB_ID",
            "a placement is not a job"
        );
        assert_eq!(
            told(NOMAD, &[("JOB_ID", "4711"), ("NOMAD_ALLOC_ID", "a")]),
            "id=4711<environ:JOB_ID"
        );
    }

    #[test]
    fn the_batch_system_goes_before_what_a_job_says() {
        let said = [("JOB_ID", "4711"), ("SLURM_JOB_ID", "99"), ("SLURM_JOB_NAME", "train")];
        assert_eq!(
            told(SLURM, &said),
            "id=12<cgroup_path name=train<environ:SLURM_JOB_NAME scheduler=slurm<cgroup_path"
        );
        assert_eq!(
            told("", &said[..2]),
            "id=99<environ:SLURM_JOB_ID scheduler=slurm<environ:SLURM_JOB_ID",
            "in a container under Slurm"
        );
        let pbs = "/pbs_jobs.service/jobid/7.server";
        assert_eq!(told(pbs, &said), "id=7.server<cgroup_path scheduler=pbs<cgroup_path");
    }

    #[test]
    fn a_sluid_yields_to_the_number() {
        assert_eq!(
            told(SLUID, &[("SLURM_JOB_ID", "99")]),
            "id=99<environ:SLURM_JOB_ID scheduler=slurm<environ:SLURM_JOB_ID"
        );
        assert_eq!(
            told(SLUID, &[("JOB_ID", "4711"), ("CI_JOB_ID", "1")]),
            "id=sEKNKTV3WPV500<cgroup_path scheduler=slurm<cgroup_path"
        );
    }

    #[test]
    fn placements_are_told_when_nothing_else_is() {
        assert_eq!(
            told(ECS, &[]),
            "id=5ed7c3d2a1b0f9e8d7c6b5a493827160<cgroup_path scheduler=ecs<cgroup_path"
        );
        assert_eq!(
            told(NOMAD, &[]),
            "id=0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9<cgroup_path name=web<cgroup_path scheduler=nomad<cgroup_path"
        );
        assert_eq!(
            told(
                "",
                &[("NOMAD_ALLOC_ID", "a"), ("NOMAD_JOB_NAME", "shop"), ("NOMAD_TASK_NAME", "web")]
            ),
            "id=a<environ:NOMAD_ALLOC_ID name=shop<environ:NOMAD_JOB_NAME scheduler=nomad<environ:NOMAD_ALLOC_ID"
        );
        assert_eq!(
            told(ECS, &[("AWS_BATCH_JOB_ID", "b"), ("AWS_BATCH_JOB_ATTEMPT", "3")]),
            "id=b<environ:AWS_BATCH_JOB_ID scheduler=aws_batch<environ:AWS_BATCH_JOB_ID attempt=3<environ:AWS_BATCH_JOB_ATTEMPT"
        );
        assert_eq!(
            told(NOMAD, &[("CI_JOB_ID", "1")]),
            "id=1<environ:CI_JOB_ID scheduler=gitlab_ci<environ:CI_JOB_ID"
        );
    }

    #[test]
    fn each_scheduler_is_known_by_its_variable() {
        for rule in RULES {
            let (Some(scheduler), Some(name)) = (rule.scheduler, rule.id.first()) else { continue };
            let expected = format!("id=x<environ:{name} scheduler={scheduler}<environ:{name}");
            assert_eq!(told("", &[(name, "x")]), expected);
        }
    }

    #[test]
    fn a_name_alone_is_a_job_and_an_attempt_alone_is_not() {
        assert_eq!(
            told("", &[("GITHUB_JOB", "build")]),
            "name=build<environ:GITHUB_JOB scheduler=github_actions<environ:GITHUB_JOB"
        );
        assert_eq!(told("", &[("JOB_NAME", "n")]), "name=n<environ:JOB_NAME");
        assert_eq!(told("", &[("ATTEMPT", "1")]), "none");
        assert_eq!(told("", &[]), "none");
    }

    #[test]
    fn the_tables_fit_together() {
        for name in
            RULES.iter().flat_map(|rule| rule.id.iter().chain(rule.name).chain(rule.attempt))
        {
            assert!(DEFAULT_NAMES.contains(name), "{name} is never kept");
        }
        for row in patterns::JOBS {
            assert!(
                RULES.iter().any(|rule| rule.scheduler == Some(row.scheduler)),
                "no rule for {}",
                row.scheduler
            );
        }
    }
}
