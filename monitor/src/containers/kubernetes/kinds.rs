//! Where the API is asked for an object of a kind. A kind that is not here is named by the reference to it, and the chain of owners ends there:
//! the path needs the plural, which no reference says, and asking for it (discovery) is not worth an answer of that size.

use super::super::pods::is_name;
use super::decode::Reference;

/// Namespaced kinds that pods belong to: API group, kind, plural.
#[rustfmt::skip]
pub const KINDS: &[(&str, &str, &str)] = &[
    ("", "Pod", "pods"),
    ("", "ReplicationController", "replicationcontrollers"),
    ("actions.github.com", "AutoscalingRunnerSet", "autoscalingrunnersets"),
    ("actions.github.com", "EphemeralRunner", "ephemeralrunners"),
    ("actions.github.com", "EphemeralRunnerSet", "ephemeralrunnersets"),
    ("apps", "DaemonSet", "daemonsets"),
    ("apps", "Deployment", "deployments"),
    ("apps", "ReplicaSet", "replicasets"),
    ("apps", "StatefulSet", "statefulsets"),
    ("apps.kruise.io", "CloneSet", "clonesets"),
    ("apps.kruise.io", "DaemonSet", "daemonsets"),
    ("apps.kruise.io", "StatefulSet", "statefulsets"),
    ("argoproj.io", "CronWorkflow", "cronworkflows"),
    ("argoproj.io", "Rollout", "rollouts"),
    ("argoproj.io", "Workflow", "workflows"),
    ("batch", "CronJob", "cronjobs"),
    ("batch", "Job", "jobs"),
    ("batch.volcano.sh", "Job", "jobs"),
    ("flink.apache.org", "FlinkDeployment", "flinkdeployments"),
    ("jobset.x-k8s.io", "JobSet", "jobsets"),
    ("kubeflow.org", "JAXJob", "jaxjobs"),
    ("kubeflow.org", "MPIJob", "mpijobs"),
    ("kubeflow.org", "PaddleJob", "paddlejobs"),
    ("kubeflow.org", "PyTorchJob", "pytorchjobs"),
    ("kubeflow.org", "TFJob", "tfjobs"),
    ("kubeflow.org", "XGBoostJob", "xgboostjobs"),
    ("leaderworkerset.x-k8s.io", "LeaderWorkerSet", "leaderworkersets"),
    ("ray.io", "RayCluster", "rayclusters"),
    ("ray.io", "RayJob", "rayjobs"),
    ("ray.io", "RayService", "rayservices"),
    ("serving.knative.dev", "Configuration", "configurations"),
    ("serving.knative.dev", "Revision", "revisions"),
    ("serving.knative.dev", "Service", "services"),
    ("sparkoperator.k8s.io", "ScheduledSparkApplication", "scheduledsparkapplications"),
    ("sparkoperator.k8s.io", "SparkApplication", "sparkapplications"),
    ("tekton.dev", "PipelineRun", "pipelineruns"),
    ("tekton.dev", "TaskRun", "taskruns"),
    ("trainer.kubeflow.org", "TrainJob", "trainjobs"),
];

/// The path of a pod. Both names must satisfy [`is_name`].
#[must_use]
pub fn pod(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods/{name}")
}

/// The path of an owner in `namespace`, which must satisfy [`is_name`]; `None` if its kind is not known here, or its names are fit for no path.
#[must_use]
pub fn owner(namespace: &str, owner: &Reference) -> Option<String> {
    let (group, version) = match owner.api_version.split_once('/') {
        Some((group, version)) => (group, version),
        None => ("", owner.api_version.as_str()),
    };
    let (_, _, plural) = KINDS.iter().find(|(g, kind, _)| *g == group && *kind == owner.kind)?;
    if !is_name(version) || !is_name(&owner.name) {
        return None;
    }
    let root = if group.is_empty() { "/api".to_owned() } else { format!("/apis/{group}") };
    Some(format!("{root}/{version}/namespaces/{namespace}/{plural}/{}", owner.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(api_version: &str, kind: &str, name: &str) -> Reference {
        let [api_version, kind, name] = [api_version, kind, name].map(str::to_owned);
        Reference { api_version, kind, name, uid: Some("u".to_owned()) }
    }

    #[test]
    fn where_a_kind_is_asked_for() {
        let path = |api, kind, name| owner("ns", &reference(api, kind, name));
        assert_eq!(
            path("apps/v1", "ReplicaSet", "web-5d9").as_deref(),
            Some("/apis/apps/v1/namespaces/ns/replicasets/web-5d9")
        );
        assert_eq!(
            path("v1", "Pod", "spark-driver").as_deref(),
            Some("/api/v1/namespaces/ns/pods/spark-driver")
        );
        assert_eq!(
            path("argoproj.io/v1alpha1", "Workflow", "w").as_deref(),
            Some("/apis/argoproj.io/v1alpha1/namespaces/ns/workflows/w")
        );
        // A kind of the same name in another group is another kind.
        assert_eq!(path("example.com/v1", "Job", "j"), None);
        assert_eq!(path("v1", "Job", "j"), None);
        // A static pod's node is in no namespace.
        assert_eq!(path("v1", "Node", "n"), None);
    }

    #[test]
    fn what_is_fit_for_no_path_is_not_asked_for() {
        for (api, name) in [
            ("apps/v1", ".."),
            ("apps/v1", "a/b"),
            ("apps/v1", "a?watch=1"),
            ("apps/v1", "a%2f"),
            ("apps/v1", ""),
            ("apps/v1", "a\r\nb"),
            ("apps/", "a"),
            ("apps/..", "a"),
            ("apps/v1/x", "a"),
            ("apps", "a"),
        ] {
            assert_eq!(owner("ns", &reference(api, "ReplicaSet", name)), None, "{api} {name:?}");
        }
    }

    #[test]
    fn no_kind_is_listed_twice_and_all_are_in_order() {
        assert!(KINDS.is_sorted_by(|a, b| (a.0, a.1) < (b.0, b.1)));
    }
}
