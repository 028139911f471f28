//! Which rule wins, what it gives, and where each part came from.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::rule::{RuleSpec, Source};
use super::{Clues, Rules};
use crate::death::Job;

/// What is known of a victim; each pair is `kind:key` and a value.
#[derive(Debug, Default, Clone)]
pub(super) struct Known {
    path: String,
    tags: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    environ: BTreeMap<String, String>,
}

impl Known {
    pub(super) fn new(path: &str, said: &[(&str, &str)]) -> Self {
        let mut known = Self { path: path.to_owned(), ..Self::default() };
        for (key, value) in said {
            let (kind, key) = key.split_once(':').unwrap_or(("environ", key));
            let map = match kind {
                "tag" => &mut known.tags,
                "label" => &mut known.labels,
                "annotation" => &mut known.annotations,
                "environ" => &mut known.environ,
                other => panic!("{other}"),
            };
            map.insert(key.to_owned(), (*value).to_owned());
        }
        known
    }

    pub(super) fn clues(&self) -> Clues<'_> {
        Clues {
            tags: &self.tags,
            labels: &self.labels,
            annotations: &self.annotations,
            path: Some(&self.path).filter(|path| !path.is_empty()).map(String::as_str),
            environ: &self.environ,
        }
    }
}

/// A job in one line.
fn line(job: Option<Job>) -> String {
    let Some(job) = job else { return "none".to_owned() };
    let parts = [
        ("id", &job.id),
        ("name", &job.name),
        ("scheduler", &job.scheduler),
        ("attempt", &job.attempt),
        ("index", &job.index),
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

/// The job of a path (or "") and what else is said, in one line, by the built-in rules.
pub(super) fn told(path: &str, said: &[(&str, &str)]) -> String {
    line(Rules::built_in().job(&Known::new(path, said).clues()))
}

/// The same with rules of the user's own.
fn told_with(yaml: &str, path: &str, said: &[(&str, &str)]) -> String {
    let own: Vec<RuleSpec> = serde_saphyr::from_str(yaml).unwrap();
    line(Rules::new(&own).unwrap().job(&Known::new(path, said).clues()))
}

const SLURM: &str = "/system.slice/slurmstepd.scope/job_12/step_0";
const SLUID: &str = "/system.slice/slurmstepd.scope/sEKNKTV3WPV500/step_0";
const NOMAD: &str = "/nomad/0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9.web";
const ECS: &str = "/ecs/5ed7c3d2a1b0f9e8d7c6b5a493827160/x";

#[test]
fn a_worker_with_its_own_job_id() {
    assert_eq!(told("/kubepods/pod1", &[("JOB_ID", "4711")]), "id=4711<environ:JOB_ID");
    assert_eq!(
        told("", &[("JOB_ID", "4711"), ("JOB_NAME", "resize"), ("ATTEMPT", "2"), ("RUN_ID", "r")]),
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
        "id=99<environ:SLURM_JOB_ID scheduler=slurm<cgroup_path"
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
fn what_the_worker_says_goes_first_and_stands_alone() {
    let pod = [
        ("tag:job_id", "4711"),
        ("label:batch.kubernetes.io/controller-uid", "8a6d"),
        ("JOB_ID", "pool"),
        ("JOB_NAME", "pool"),
        ("ATTEMPT", "1"),
        ("label:apps.kubernetes.io/pod-index", "3"),
    ];
    assert_eq!(
        told(SLURM, &pod),
        "id=4711<tag:job_id",
        "a worker's pod and environment are of no one job"
    );
    assert_eq!(
        told(
            "",
            &[("tag:job_id", "1"), ("tag:job_name", "n"), ("tag:attempt", "2"), ("tag:index", "3")]
        ),
        "id=1<tag:job_id name=n<tag:job_name attempt=2<tag:attempt index=3<tag:index"
    );
    assert_eq!(told("", &[("tag:job_id", ""), ("JOB_ID", "1")]), "id=1<environ:JOB_ID");
}

#[test]
fn the_label_of_a_job_goes_before_the_environment() {
    let job = [
        ("label:batch.kubernetes.io/controller-uid", "8a6d"),
        ("label:controller-uid", "8a6d"),
        ("label:batch.kubernetes.io/job-name", "resize"),
        ("label:batch.kubernetes.io/job-completion-index", "3"),
        ("JOB_ID", "4711"),
        ("JOB_NAME", "other"),
        ("ATTEMPT", "9"),
    ];
    assert_eq!(
        told("/kubepods/pod1", &job),
        "id=8a6d<label:batch.kubernetes.io/controller-uid name=resize<label:batch.kubernetes.io/job-name \
         scheduler=kubernetes<label:batch.kubernetes.io/controller-uid index=3<label:batch.kubernetes.io/job-completion-index",
        "the attempt is of job 4711"
    );
    let same = [("label:controller-uid", "8a6d"), ("JOB_ID", "8a6d"), ("ATTEMPT", "9")];
    assert_eq!(
        told("", &same),
        "id=8a6d<label:controller-uid scheduler=kubernetes<label:controller-uid attempt=9<environ:ATTEMPT"
    );
    assert_eq!(
        told(
            "",
            &[("label:controller-uid", "8a6d"), ("ATTEMPT", "9"), ("JOB_COMPLETION_INDEX", "2")]
        ),
        "id=8a6d<label:controller-uid scheduler=kubernetes<label:controller-uid attempt=9<environ:ATTEMPT \
         index=2<environ:JOB_COMPLETION_INDEX"
    );
}

#[test]
fn arrays_and_ranks_are_the_index() {
    assert_eq!(
        told(
            SLURM,
            &[("SLURM_ARRAY_JOB_ID", "10"), ("SLURM_ARRAY_TASK_ID", "2"), ("SLURM_PROCID", "5")]
        ),
        "id=12<cgroup_path scheduler=slurm<cgroup_path index=2<environ:SLURM_ARRAY_TASK_ID"
    );
    assert_eq!(
        told(SLURM, &[("SLURM_PROCID", "5")]),
        "id=12<cgroup_path scheduler=slurm<cgroup_path index=5<environ:SLURM_PROCID"
    );
    assert_eq!(
        told("/pbs_jobs.service/jobs/1234[7].pbs01", &[("PBS_ARRAY_INDEX", "8")]),
        "id=1234[7].pbs01<cgroup_path scheduler=pbs<cgroup_path index=7<cgroup_path"
    );
    assert_eq!(
        told(
            "",
            &[
                ("AWS_BATCH_JOB_ID", "b:3"),
                ("AWS_BATCH_JOB_ATTEMPT", "2"),
                ("AWS_BATCH_JOB_ARRAY_INDEX", "3")
            ]
        ),
        "id=b:3<environ:AWS_BATCH_JOB_ID scheduler=aws_batch<environ:AWS_BATCH_JOB_ID \
         attempt=2<environ:AWS_BATCH_JOB_ATTEMPT index=3<environ:AWS_BATCH_JOB_ARRAY_INDEX"
    );
    assert_eq!(
        told("", &[("JOB_ID", "train"), ("label:apps.kubernetes.io/pod-index", "4")]),
        "id=train<environ:JOB_ID index=4<label:apps.kubernetes.io/pod-index"
    );
}

#[test]
fn a_rule_counts_only_where_what_it_needs_is_there() {
    let some = [("label:run_id", "r"), ("label:dag_id", "d")];
    assert_eq!(told("", &some), "none", "another system's run_id");
    let empty = [("label:run_id", "r"), ("label:dag_id", "d"), ("label:task_id", "")];
    assert_eq!(told("", &empty), "none", "empty is not there");
    let all = [("label:run_id", "r"), ("label:dag_id", "d"), ("label:task_id", "t")];
    assert_eq!(
        told("", &all),
        "id=r<label:run_id name=t<label:task_id scheduler=airflow<label:run_id"
    );
    let yaml = r"[{rule: r, path: '/a/(?<id>[0-9]+)/(?<name>[a-z]*)', needs: [{path: name}], id: [{path: id}], name: [{path: name}]}]";
    assert_eq!(told_with(yaml, "/a/7/b", &[]), "id=7<cgroup_path name=b<cgroup_path");
    assert_eq!(told_with(yaml, "/a/7/", &[]), "none");
}

#[test]
fn the_outermost_path_counts_among_those_that_ask_for_it() {
    let rule = |outermost: bool| {
        format!(
            "[{{rule: mine, outermost: {outermost}, path: '/mine_(?<id>[0-9]+)', id: [{{path: id}}]}}]"
        )
    };
    let (inner, outer) = ("/slurm/uid_0/job_1/mine_2", "/mine_2/slurm/uid_0/job_1");
    let slurm = "id=1<cgroup_path scheduler=slurm<cgroup_path";
    assert_eq!(told_with(&rule(true), inner, &[]), slurm);
    assert_eq!(told_with(&rule(true), outer, &[]), "id=2<cgroup_path");
    assert_eq!(told_with(&rule(false), inner, &[]), "id=2<cgroup_path", "the order alone");
}

const SHOP: &str = "
- rule: shop
  scheduler: shop
  id: [{label: shop.example.com/order}, {environ: ORDER}]
  attempt: [{annotation: shop.example.com/try}]
- rule: render
  path: '/render/(?<id>[0-9]+)-(?<name>[a-z]+)\\.scope'
  id: [{path: id}]
  name: [{tag: title}, {path: name}]
- rule: more
  fills: true
  index: [{environ: SHARD}]
";

#[test]
fn the_users_rules_go_before_the_built_in_ones_and_after_the_tag() {
    let pod = [
        ("label:shop.example.com/order", "77"),
        ("label:spark-app-selector", "s"),
        ("ATTEMPT", "2"),
    ];
    assert_eq!(
        told_with(SHOP, SLURM, &pod),
        "id=77<label:shop.example.com/order scheduler=shop<label:shop.example.com/order attempt=2<environ:ATTEMPT"
    );
    assert_eq!(told_with(SHOP, SLURM, &[("tag:job_id", "1"), pod[0]]), "id=1<tag:job_id");
    assert_eq!(
        told_with(SHOP, SLURM, &[]),
        told(SLURM, &[]),
        "a rule that finds nothing changes nothing"
    );
}

#[test]
fn the_users_paths_have_groups_and_the_users_rules_fill() {
    let path = r"/render/42-bunny.scope/x";
    assert_eq!(
        told_with(SHOP, path, &[("SHARD", "9")]),
        "id=42<cgroup_path name=bunny<cgroup_path index=9<environ:SHARD"
    );
    assert_eq!(told_with(SHOP, path, &[("tag:title", "T")]), "id=42<cgroup_path name=T<tag:title");
    assert_eq!(
        told_with(SHOP, "/render/42-bunny.service", &[("tag:title", "T")]),
        "none",
        "no path, no rule"
    );
    assert_eq!(told_with(SHOP, "", &[("SHARD", "9")]), "none", "an index alone is no job");
}

#[test]
fn what_rules_look_at_is_wanted() {
    let own: Vec<RuleSpec> = serde_saphyr::from_str(SHOP).unwrap();
    let rules = Rules::new(&own).unwrap();
    let (wanted, built_in) = (rules.wanted(), Rules::built_in().wanted());
    let more = |all: &std::collections::BTreeSet<String>,
                known: &std::collections::BTreeSet<String>| {
        all.difference(known).cloned().collect::<Vec<_>>()
    };
    assert_eq!(more(&wanted.labels, &built_in.labels), ["shop.example.com/order"]);
    assert_eq!(more(&wanted.annotations, &built_in.annotations), ["shop.example.com/try"]);
    assert_eq!(
        more(&rules.environ_names(), &Rules::built_in().environ_names()),
        ["ORDER", "SHARD"]
    );
}

fn any_source() -> impl Strategy<Value = Source> {
    let key = prop::sample::select(vec!["a", "b", "JOB_ID", "job_id", "run_id"]);
    (0..4u8, key).prop_map(|(kind, key)| match kind {
        0 => Source::Tag(key.to_owned()),
        1 => Source::Label(key.to_owned()),
        2 => Source::Annotation(key.to_owned()),
        _ => Source::Environ(key.to_owned()),
    })
}

fn any_list() -> impl Strategy<Value = Option<Vec<Source>>> {
    prop::option::of(prop::collection::vec(any_source(), 1..4))
}

fn any_map() -> impl Strategy<Value = BTreeMap<String, String>> {
    let key = prop::sample::select(vec!["a", "b", "JOB_ID", "job_id", "run_id"]);
    prop::collection::btree_map(key.prop_map(str::to_owned), ".{0,6}", 0..4)
}

proptest! {
    #[test]
    fn a_job_says_only_what_is_known_and_where_from(
        lists in prop::collection::vec((any_list(), any_list(), any_list(), any_list(), any::<bool>()), 0..5),
        (tags, labels, annotations, environ) in (any_map(), any_map(), any_map(), any_map()),
        path in prop::option::of("(/[a-z0-9._-]{0,12}){0,6}"),
    ) {
        let own = lists.into_iter().enumerate().map(|(nth, (id, name, attempt, index, fills))| RuleSpec {
            rule: format!("r{nth}"), fills: fills || (id.is_none() && name.is_none()),
            id, name, attempt, index, ..RuleSpec::default()
        });
        let rules = Rules::new(&own.collect::<Vec<_>>()).unwrap();
        let clues = Clues { tags: &tags, labels: &labels, annotations: &annotations, path: path.as_deref(), environ: &environ };
        let (job, tried) = (rules.job(&clues), rules.tried(&clues));
        prop_assert_eq!(job.is_some(), tried.iter().any(|tried| tried.won));
        let Some(job) = job else { return Ok(()) };
        // The winner is the first with an id, else the first with a name.
        let has = |key: &str| tried.iter().position(|tried| tried.parts.iter().any(|(part, ..)| *part == key));
        prop_assert_eq!(has("id").or_else(|| has("name")), tried.iter().position(|tried| tried.won));
        for (key, value) in [("id", job.id), ("name", job.name), ("attempt", job.attempt), ("index", job.index)] {
            let source = job.sources.get(key);
            prop_assert_eq!(value.is_some(), source.is_some());
            let (Some(value), Some(source)) = (value, source) else { continue };
            prop_assert!(!value.is_empty());
            let known = match source.split_once(':') {
                Some(("tag", key)) => tags.get(key),
                Some(("label", key)) => labels.get(key),
                Some(("annotation", key)) => annotations.get(key),
                Some(("environ", key)) => environ.get(key),
                _ => None,
            };
            if source == "cgroup_path" {
                prop_assert!(path.as_ref().is_some_and(|path| path.contains(&value)));
            } else {
                prop_assert_eq!(known, Some(&value));
            }
        }
    }
}
