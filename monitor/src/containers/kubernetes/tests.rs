//! The whole source against a mock of an API server (see [`server`]): chains, rights, uids, and every way in which it may fail or lie.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::super::Wanted;
use super::super::book::Lookup;
use super::super::pods::{PodInfo, Pods};
use super::super::registry::SourceState;
use super::KubernetesConfig;
use super::worker::{Times, Worker};
use crate::containers::{ContainersConfig, Switch};
use server::{Reply, Server, object};

mod hostile;
mod server;

/// Longest wait for anything here.
const DEADLINE: Duration = Duration::from_secs(10);

const QUICK: Times = Times {
    request: Duration::from_millis(500),
    look: Duration::from_millis(10),
    poll: Duration::from_secs(600),
    retry: (Duration::from_millis(10), Duration::from_millis(40)),
};

/// A source that runs.
struct Bed {
    pods: Arc<Pods>,
    dir: tempfile::TempDir,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.stop.cancel();
        self.task.abort();
    }
}

impl Bed {
    /// Against the server, which answers.
    async fn up(server: &Server, times: Times) -> Self {
        let bed = Self::with(|dir| server.kubeconfig(dir), times);
        bed.until(SourceState::Up).await;
        bed
    }

    fn with(kubeconfig: impl FnOnce(&Path) -> PathBuf, times: Times) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = KubernetesConfig {
            enabled: Switch::Auto,
            kubeconfig: Some(kubeconfig(dir.path()).to_str().unwrap().parse().unwrap()),
        };
        let set = |key: &str| [key.to_owned()].into();
        let wanted = Wanted { labels: set("app"), annotations: set("team") };
        let (pods, handle, asks) = Pods::new(&ContainersConfig::default());
        let stop = CancellationToken::new();
        let worker = Worker { config, wanted, handle, asks };
        let task = tokio::spawn(worker.run_with(times, stop.clone()));
        Self { pods, dir, stop, task }
    }

    async fn until(&self, state: SourceState) {
        let told = || self.pods.report().state == state;
        wait(told, || format!("{state:?}: {:?}", self.pods.report())).await;
    }

    /// Asks for a pod and waits until it is told of, or there is nothing to tell.
    async fn pod(&self, name: &str, uid: &str) -> Option<PodInfo> {
        self.pods.ask("ns", name, uid, 0);
        self.answer(uid).await
    }

    async fn answer(&self, uid: &str) -> Option<PodInfo> {
        let settled = || !matches!(self.pods.lookup(uid), Lookup::Pending);
        wait(settled, || format!("an answer: {:?}", self.pods.report())).await;
        self.known(uid)
    }

    fn known(&self, uid: &str) -> Option<PodInfo> {
        match self.pods.lookup(uid) {
            Lookup::Known(pod) => Some(PodInfo::clone(&pod)),
            _ => None,
        }
    }

    /// The owners of a pod, as `Kind/name`.
    async fn owners(&self, name: &str, uid: &str) -> Vec<String> {
        let pod = self.pod(name, uid).await.expect("the pod is known");
        pod.owners.iter().map(|owner| format!("{}/{}", owner.kind, owner.name)).collect()
    }
}

/// Waits until `done`, and says what did not come.
async fn wait(mut done: impl FnMut() -> bool, what: impl Fn() -> String) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < DEADLINE, "did not come: {}", what());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

const POD: &str = "/api/v1/namespaces/ns/pods/web-1";
const SET: &str = "/apis/apps/v1/namespaces/ns/replicasets/web-5d9";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/ns/deployments/web";

/// A pod `web-1` of the uid `pod-1`, its ReplicaSet and its Deployment.
fn web(server: &Server) {
    server
        .reply(POD, object("web-1", "pod-1", Some(["apps/v1", "ReplicaSet", "web-5d9", "set-1"])));
    server.reply(SET, object("web-5d9", "set-1", Some(["apps/v1", "Deployment", "web", "dep-1"])));
    server.reply(DEPLOYMENT, object("web", "dep-1", None));
}

#[tokio::test]
async fn a_replica_set_and_its_deployment() {
    let server = Server::start().await;
    web(&server);
    let bed = Bed::up(&server, QUICK).await;
    let pod = bed.pod("web-1", "pod-1").await.unwrap();
    let owners: Vec<_> =
        pod.owners.iter().map(|o| (&*o.kind, &*o.name, o.uid.as_deref())).collect();
    assert_eq!(
        owners,
        [("ReplicaSet", "web-5d9", Some("set-1")), ("Deployment", "web", Some("dep-1"))]
    );
    assert_eq!((&*pod.namespace, &*pod.name, &*pod.uid), ("ns", "web-1", "pod-1"));
    // Only what is wanted.
    assert_eq!(pod.labels, [("app".to_owned(), "web".to_owned())].into());
    assert_eq!(pod.annotations, [("team".to_owned(), "blue".to_owned())].into());
    assert_eq!(server.asked(), [POD, SET, DEPLOYMENT]);

    let report = bed.pods.report();
    assert_eq!((report.name, report.version.as_deref()), ("kubernetes", Some("v1.33.0-mock")));
    assert!(report.at.starts_with("https://127.0.0.1:"), "{}", report.at);
    assert_eq!((report.why, report.failed), (None, 0));

    // What is known of owners serves the next pod.
    server.reply(
        "/api/v1/namespaces/ns/pods/web-2",
        object("web-2", "pod-2", Some(["apps/v1", "ReplicaSet", "web-5d9", "set-1"])),
    );
    assert_eq!(bed.owners("web-2", "pod-2").await, ["ReplicaSet/web-5d9", "Deployment/web"]);
    assert_eq!(server.asked(), ["/api/v1/namespaces/ns/pods/web-2"]);
    // And a pod that is known is not asked for again.
    bed.pods.ask("ns", "web-1", "pod-1", u64::MAX);
    assert!(bed.pod("web-3", "pod-3").await.is_none());
    assert_eq!(server.asked(), ["/api/v1/namespaces/ns/pods/web-3"]);
}

#[tokio::test]
async fn jobs_workflows_and_others() {
    let server = Server::start().await;
    let pod = |name: &str, owner| {
        server.reply(&format!("/api/v1/namespaces/ns/pods/{name}"), object(name, name, owner));
    };
    pod("cron", Some(["batch/v1", "Job", "nightly-1", "j"]));
    server.reply(
        "/apis/batch/v1/namespaces/ns/jobs/nightly-1",
        object("nightly-1", "j", Some(["batch/v1", "CronJob", "nightly", "c"])),
    );
    server.reply("/apis/batch/v1/namespaces/ns/cronjobs/nightly", object("nightly", "c", None));
    pod("step", Some(["argoproj.io/v1alpha1", "Workflow", "etl-1", "w"]));
    server.reply(
        "/apis/argoproj.io/v1alpha1/namespaces/ns/workflows/etl-1",
        object("etl-1", "w", Some(["argoproj.io/v1alpha1", "CronWorkflow", "etl", "cw"])),
    );
    pod("db-0", Some(["apps/v1", "StatefulSet", "db", "s"]));
    server.reply(
        "/apis/apps/v1/namespaces/ns/statefulsets/db",
        // A kind that nobody here knows: named, and not asked for.
        object("db", "s", Some(["acid.example.com/v1", "Postgresql", "main", "p"])),
    );
    pod("alone", None);
    let bed = Bed::up(&server, QUICK).await;
    assert_eq!(bed.owners("cron", "cron").await, ["Job/nightly-1", "CronJob/nightly"]);
    assert_eq!(bed.owners("step", "step").await, ["Workflow/etl-1", "CronWorkflow/etl"]);
    server.asked();
    assert_eq!(bed.owners("db-0", "db-0").await, ["StatefulSet/db", "Postgresql/main"]);
    assert_eq!(server.asked().len(), 2);
    assert_eq!(bed.owners("alone", "alone").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_static_pod_is_known_by_its_hash() {
    let server = Server::start().await;
    let Reply::Json(mut mirror) =
        object("etcd-n1", "uid-in-the-api", Some(["v1", "Node", "n1", "n"]))
    else {
        unreachable!()
    };
    mirror["metadata"]["annotations"]["kubernetes.io/config.hash"] =
        "0123456789abcdef0123456789abcdef".into();
    server.reply("/api/v1/namespaces/ns/pods/etcd-n1", Reply::Json(mirror));
    let bed = Bed::up(&server, QUICK).await;
    let uid = "0123456789abcdef0123456789abcdef";
    let pod = bed.pod("etcd-n1", uid).await.unwrap();
    assert_eq!((pod.uid.as_str(), pod.owners[0].kind.as_str()), (uid, "Node"));
    assert_eq!(pod.annotations.len(), 1, "the hash was not wanted: {:?}", pod.annotations);
    // Another hash is another pod.
    assert!(bed.pod("etcd-n1", "1123456789abcdef0123456789abcdef").await.is_none());
}

#[tokio::test]
async fn what_may_not_be_read_ends_the_chain() {
    let server = Server::start().await;
    web(&server);
    server.reply(SET, Reply::Status(403));
    let bed = Bed::up(&server, QUICK).await;
    assert_eq!(bed.owners("web-1", "pod-1").await, ["ReplicaSet/web-5d9"]);
    let report = bed.pods.report();
    assert_eq!(report.state, SourceState::Up);
    assert_eq!(
        report.why.as_deref(),
        Some("403: may not get ReplicaSet in namespace ns; its role lacks it")
    );

    // An owner that is gone.
    server.reply(
        "/api/v1/namespaces/ns/pods/orphan",
        object("orphan", "o", Some(["batch/v1", "Job", "gone", "g"])),
    );
    assert_eq!(bed.owners("orphan", "o").await, ["Job/gone"]);

    // The pod itself.
    server.reply("/api/v1/namespaces/ns/pods/secret", Reply::Status(403));
    assert!(bed.pod("secret", "s").await.is_none());
    assert!(bed.pods.report().why.unwrap().contains("may not get Pod in namespace ns"));
    assert_eq!(bed.pods.report().state, SourceState::Up);
}

#[tokio::test]
async fn an_object_made_anew_under_the_same_name_is_another() {
    let server = Server::start().await;
    web(&server);
    let bed = Bed::up(&server, QUICK).await;
    assert!(bed.pod("web-1", "pod-of-yesterday").await.is_none());
    assert_eq!(server.asked(), [POD]);
    server.reply(SET, object("web-5d9", "set-2", Some(["apps/v1", "Deployment", "evil", "e"])));
    assert_eq!(bed.owners("web-1", "pod-1").await, ["ReplicaSet/web-5d9"]);
}

#[tokio::test]
async fn a_chain_is_short_and_never_a_ring() {
    let server = Server::start().await;
    // pod → a → b → a
    let job = |name: &str, of: &str| {
        let path = format!("/apis/batch/v1/namespaces/ns/jobs/{name}");
        server.reply(&path, object(name, name, Some(["batch/v1", "Job", of, of])));
    };
    let pod = |name: &str, of: &str| {
        let path = format!("/api/v1/namespaces/ns/pods/{name}");
        server.reply(&path, object(name, name, Some(["batch/v1", "Job", of, of])));
    };
    job("a", "b");
    job("b", "a");
    pod("ring", "a");
    pod("itself", "itself");
    job("itself", "itself");
    for n in 1..10 {
        job(&format!("l{n}"), &format!("l{}", n + 1));
    }
    pod("long", "l1");
    let bed = Bed::up(&server, QUICK).await;
    assert_eq!(bed.owners("ring", "ring").await, ["Job/a", "Job/b"]);
    assert_eq!(bed.owners("itself", "itself").await, Vec::<String>::new());
    server.asked();
    assert_eq!(bed.owners("long", "long").await, ["Job/l1", "Job/l2", "Job/l3", "Job/l4"]);
    // Nobody asks what the last belongs to.
    assert_eq!(server.asked().len(), 4);
}

#[tokio::test]
async fn a_token_that_ran_out_is_read_anew() {
    let server = Server::start().await;
    web(&server);
    let mut times = QUICK;
    times.poll = Duration::from_millis(20);
    let bed = Bed::up(&server, times).await;
    server.token("token-2");
    bed.until(SourceState::Down).await;
    assert!(bed.pods.report().why.unwrap().contains("401"));
    // Not asked, and not waited for.
    bed.pods.ask("ns", "web-1", "pod-1", 0);
    assert!(matches!(bed.pods.lookup("pod-1"), Lookup::Unknown));
    std::fs::write(bed.dir.path().join("token"), "token-2\n").unwrap();
    bed.until(SourceState::Up).await;
    assert_eq!(bed.pods.report().why, None);
    bed.pods.ask("ns", "web-1", "pod-1", u64::MAX);
    assert_eq!(bed.answer("pod-1").await.unwrap().owners.len(), 2);
}

#[tokio::test]
async fn a_token_that_was_replaced_in_time_is_taken_up() {
    let server = Server::start().await;
    let mut times = QUICK;
    times.poll = Duration::from_millis(20);
    let bed = Bed::up(&server, times).await;
    server.also_token("token-2");
    std::fs::write(bed.dir.path().join("token"), "token-2").unwrap();
    wait(|| server.last_token() == "Bearer token-2", || server.last_token()).await;
    assert_eq!(bed.pods.report().failed, 0);
}

#[tokio::test]
async fn a_client_certificate_serves_too() {
    let client = rcgen::generate_simple_self_signed(["killwatch".to_owned()]).unwrap();
    let server = Server::start_for(Some(&client.cert)).await;
    web(&server);
    let with = |pem: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        let (pem, key) = (pem.cert.pem(), pem.signing_key.serialize_pem());
        let kubeconfig = |dir: &Path| {
            std::fs::write(dir.join("client.pem"), pem).unwrap();
            std::fs::write(dir.join("client.key"), key).unwrap();
            server.kubeconfig_by_certificate(dir)
        };
        Bed::with(kubeconfig, QUICK)
    };
    let bed = with(&client);
    bed.until(SourceState::Up).await;
    assert_eq!(bed.owners("web-1", "pod-1").await.len(), 2);
    assert_eq!(server.last_token(), "");
    let other = rcgen::generate_simple_self_signed(["killwatch".to_owned()]).unwrap();
    with(&other).until(SourceState::Down).await;
}

#[tokio::test]
async fn credentials_that_come_later_are_found() {
    let server = Server::start().await;
    let bed = Bed::with(|dir| dir.join("kubeconfig"), QUICK);
    bed.until(SourceState::Down).await;
    assert!(bed.pods.report().why.unwrap().contains("kubeconfig: No such file"));
    server.kubeconfig(bed.dir.path());
    bed.until(SourceState::Up).await;
}

#[tokio::test]
async fn off_is_off() {
    let config = KubernetesConfig { enabled: Switch::Off, kubeconfig: Some("/k".parse().unwrap()) };
    let (pods, handle, asks) = Pods::new(&ContainersConfig::default());
    super::run(config, Wanted::default(), handle, asks, CancellationToken::new()).await;
    let report = pods.report();
    assert_eq!((report.state, report.failed), (SourceState::Absent, 0));
    assert_eq!(report.why.as_deref(), Some("kubernetes.enabled is off"));
    pods.ask("ns", "web-1", "pod-1", 0);
    assert!(matches!(pods.lookup("pod-1"), Lookup::Unknown));
}

#[tokio::test]
async fn it_ends_when_told_to() {
    let server = Server::start().await;
    web(&server);
    server.reply(POD, Reply::Wedged);
    let mut bed = Bed::up(&server, QUICK).await;
    bed.pods.ask("ns", "web-1", "pod-1", 0);
    wait(|| server.answering() == 1, || "a request".to_owned()).await;
    bed.stop.cancel();
    tokio::time::timeout(DEADLINE, &mut bed.task).await.unwrap().unwrap();
    // Nothing stays behind.
    wait(|| server.answering() == 0, || "the end of the request".to_owned()).await;
}

#[tokio::test]
async fn many_at_once_are_few_at_once_for_the_api() {
    let server = Server::start().await;
    for n in 0..300 {
        let name = format!("p{n}");
        let owner = Some(["apps/v1", "DaemonSet", "agent", "d"]);
        server.reply(&format!("/api/v1/namespaces/ns/pods/{name}"), object(&name, &name, owner));
    }
    server.reply("/apis/apps/v1/namespaces/ns/daemonsets/agent", object("agent", "d", None));
    let bed = Bed::up(&server, QUICK).await;
    for n in 0..300 {
        bed.pods.ask("ns", &format!("p{n}"), &format!("p{n}"), 0);
    }
    for n in 0..300 {
        assert_eq!(bed.answer(&format!("p{n}")).await.unwrap().owners.len(), 1);
    }
    let most = server.most.load(Ordering::SeqCst);
    assert!((1..=8).contains(&most), "{most}");
}
