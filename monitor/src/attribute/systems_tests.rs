//! Each system that the built-in rules know, by what it writes.

use std::collections::BTreeSet;

use super::Rules;
use super::environ::DEFAULT_NAMES;
use super::jobs_tests::{Known, told};

/// What a system writes, and the job that it makes; whatever else is on the pod.
const SYSTEMS: &[(&[(&str, &str)], &str)] = &[
    (
        &[
            ("label:run_id", "manual__2024-01-01T0000000000-abc"),
            ("annotation:run_id", "manual__2024-01-01T00:00:00+00:00"),
            ("label:dag_id", "etl"),
            ("label:task_id", "load"),
            ("label:try_number", "2"),
            ("label:map_index", "5"),
        ],
        "id=manual__2024-01-01T00:00:00+00:00<annotation:run_id name=load<label:task_id scheduler=airflow<annotation:run_id \
         attempt=2<label:try_number index=5<label:map_index",
    ),
    (
        &[
            ("label:workflows.argoproj.io/workflow", "etl-x7k2p"),
            ("label:workflows.argoproj.io/workflow-template", "etl"),
            ("annotation:workflows.argoproj.io/node-name", "etl-x7k2p[0].load(0:eu)"),
        ],
        "id=etl-x7k2p<label:workflows.argoproj.io/workflow name=etl<label:workflows.argoproj.io/workflow-template \
         scheduler=argo<label:workflows.argoproj.io/workflow index=etl-x7k2p[0].load(0:eu)<annotation:workflows.argoproj.io/node-name",
    ),
    (
        &[
            ("label:spark-app-selector", "spark-12f8"),
            ("label:spark-exec-id", "3"),
            ("label:spark-role", "executor"),
        ],
        "id=spark-12f8<label:spark-app-selector scheduler=spark<label:spark-app-selector index=3<label:spark-exec-id",
    ),
    (
        &[
            ("label:ray.io/cluster", "c-raycluster-1"),
            ("label:ray.io/originated-from-cr-name", "c"),
            ("label:ray.io/group", "gpu"),
        ],
        "name=c<label:ray.io/originated-from-cr-name scheduler=ray<label:ray.io/originated-from-cr-name index=gpu<label:ray.io/group",
    ),
    (&[("label:ray.io/cluster", "c"), ("JOB_ID", "4711")], "id=4711<environ:JOB_ID"),
    (
        &[
            ("label:training.kubeflow.org/job-name", "bert"),
            ("label:training.kubeflow.org/replica-type", "worker"),
            ("label:training.kubeflow.org/replica-index", "1"),
        ],
        "id=bert<label:training.kubeflow.org/job-name name=bert<label:training.kubeflow.org/job-name \
         scheduler=kubeflow<label:training.kubeflow.org/job-name index=1<label:training.kubeflow.org/replica-index",
    ),
    (
        &[
            ("label:tekton.dev/pipelineRun", "build-9"),
            ("label:tekton.dev/taskRun", "build-9-test"),
            ("label:tekton.dev/pipeline", "build"),
            ("label:tekton.dev/pipelineTask", "test"),
        ],
        "id=build-9<label:tekton.dev/pipelineRun name=build<label:tekton.dev/pipeline \
         scheduler=tekton<label:tekton.dev/pipelineRun index=test<label:tekton.dev/pipelineTask",
    ),
    (
        &[("label:volcano.sh/job-name", "mpi"), ("annotation:volcano.sh/task-index", "0")],
        "id=mpi<label:volcano.sh/job-name name=mpi<label:volcano.sh/job-name scheduler=volcano<label:volcano.sh/job-name \
         index=0<annotation:volcano.sh/task-index",
    ),
    (
        &[
            ("label:jobset.sigs.k8s.io/jobset-name", "train"),
            ("label:jobset.sigs.k8s.io/job-global-index", "7"),
            ("label:jobset.sigs.k8s.io/job-index", "1"),
            ("label:jobset.sigs.k8s.io/restart-attempt", "2"),
            ("label:batch.kubernetes.io/controller-uid", "8a6d"),
        ],
        "id=train<label:jobset.sigs.k8s.io/jobset-name name=train<label:jobset.sigs.k8s.io/jobset-name \
         scheduler=jobset<label:jobset.sigs.k8s.io/jobset-name attempt=2<label:jobset.sigs.k8s.io/restart-attempt \
         index=7<label:jobset.sigs.k8s.io/job-global-index",
    ),
    (
        &[("label:kueue.x-k8s.io/pod-group-name", "g"), ("label:kueue.x-k8s.io/queue-name", "q")],
        "id=g<label:kueue.x-k8s.io/pod-group-name name=g<label:kueue.x-k8s.io/pod-group-name \
         scheduler=kueue<label:kueue.x-k8s.io/pod-group-name",
    ),
    (
        &[
            ("annotation:job.runner.gitlab.com/id", "3"),
            ("annotation:job.runner.gitlab.com/name", "build"),
        ],
        "id=3<annotation:job.runner.gitlab.com/id name=build<annotation:job.runner.gitlab.com/name \
         scheduler=gitlab_ci<annotation:job.runner.gitlab.com/id",
    ),
    (
        &[("label:com.gitlab.gitlab-runner.job.id", "12345")],
        "id=12345<label:com.gitlab.gitlab-runner.job.id scheduler=gitlab_ci<label:com.gitlab.gitlab-runner.job.id",
    ),
    (
        &[
            ("label:buildkite.com/job-uuid", "0190"),
            ("label:batch.kubernetes.io/controller-uid", "8a6d"),
        ],
        "id=0190<label:buildkite.com/job-uuid scheduler=buildkite<label:buildkite.com/job-uuid",
    ),
    (
        &[
            ("label:com.docker.swarm.task.id", "ymx9"),
            ("label:com.docker.swarm.service.name", "shop_web"),
        ],
        "id=ymx9<label:com.docker.swarm.task.id name=shop_web<label:com.docker.swarm.service.name \
         scheduler=swarm<label:com.docker.swarm.task.id",
    ),
    (
        &[
            ("label:com.docker.compose.project", "shop"),
            ("label:com.docker.compose.service", "web"),
        ],
        "name=web<label:com.docker.compose.service scheduler=compose<label:com.docker.compose.service",
    ),
    (&[("label:com.docker.compose.service", "web"), ("JOB_ID", "4711")], "id=4711<environ:JOB_ID"),
    (
        &[("label:com.hashicorp.nomad.alloc_id", "a"), ("NOMAD_ALLOC_INDEX", "2")],
        "id=a<label:com.hashicorp.nomad.alloc_id scheduler=nomad<label:com.hashicorp.nomad.alloc_id index=2<environ:NOMAD_ALLOC_INDEX",
    ),
    (
        &[("PBS_JOBID", "7.s"), ("PBS_JOBNAME", "cfd")],
        "id=7.s<environ:PBS_JOBID name=cfd<environ:PBS_JOBNAME scheduler=pbs<environ:PBS_JOBID",
    ),
    (
        &[("LSB_JOBID", "7"), ("LSB_JOBINDEX", "3")],
        "id=7<environ:LSB_JOBID scheduler=lsf<environ:LSB_JOBID index=3<environ:LSB_JOBINDEX",
    ),
    (
        &[("GITHUB_RUN_ID", "7"), ("GITHUB_JOB", "test"), ("GITHUB_RUN_ATTEMPT", "2")],
        "id=7<environ:GITHUB_RUN_ID name=test<environ:GITHUB_JOB scheduler=github_actions<environ:GITHUB_RUN_ID \
         attempt=2<environ:GITHUB_RUN_ATTEMPT",
    ),
    (
        &[
            ("AIRFLOW_CTX_DAG_RUN_ID", "r"),
            ("AIRFLOW_CTX_TASK_ID", "load"),
            ("AIRFLOW_CTX_TRY_NUMBER", "2"),
        ],
        "id=r<environ:AIRFLOW_CTX_DAG_RUN_ID name=load<environ:AIRFLOW_CTX_TASK_ID scheduler=airflow<environ:AIRFLOW_CTX_DAG_RUN_ID \
         attempt=2<environ:AIRFLOW_CTX_TRY_NUMBER",
    ),
];

#[test]
fn each_system_is_known_by_what_it_writes() {
    for (said, expected) in SYSTEMS {
        assert_eq!(told("/kubepods/pod1", said), *expected, "{said:?}");
    }
}

#[test]
fn each_rule_of_its_own_makes_a_job() {
    let rules = Rules::built_in();
    assert!(rules.count() > 30, "{}", rules.count());
    let every = [&rules.wanted().labels, &rules.wanted().annotations]
        .map(|keys| keys.iter().cloned().collect::<Vec<_>>());
    let mut seen = BTreeSet::new();
    let mut note = |kind: &str, key: &str| {
        let clue = format!("{kind}:{key}");
        // airflow_pod needs two keys.
        let airflow = ["run_id", "task_id", "dag_id", "try_number", "map_index"].contains(&key);
        let known = Known::new("", &[(clue.as_str(), "x")]);
        let tried = rules.tried(&known.clues());
        if airflow && matches!(kind, "label" | "annotation") {
            assert!(tried.is_empty(), "{clue} alone");
            return;
        }
        assert!(!tried.is_empty(), "{clue} is wanted and says nothing");
        seen.extend(tried.iter().map(|tried| tried.rule.to_owned()));
        for tried in tried {
            let sources =
                tried.parts.iter().map(|(_, value, source)| (value.as_str(), source.as_str()));
            assert!(sources.clone().all(|pair| pair == ("x", clue.as_str())), "{clue}");
        }
    };
    for key in &every[0] {
        note("label", key);
    }
    for key in &every[1] {
        note("annotation", key);
    }
    for key in rules.environ_names() {
        note("environ", &key);
    }
    for key in ["job_id", "job_name", "attempt", "index"] {
        note("tag", key);
    }
    // Of the others 8 need a path: golden.txt has them.
    assert_eq!(rules.count() - seen.len(), 9, "{seen:?}");
}

#[test]
fn every_variable_of_a_built_in_rule_is_kept() {
    for name in Rules::built_in().environ_names() {
        assert!(DEFAULT_NAMES.contains(&name.as_str()), "{name} is never kept");
    }
}
