//! Asks the API for what messages need: one Event, or a change of one, at a time and in order.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use lru::LruCache;
use prometheus_client::metrics::counter::Counter;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::KubernetesEventsConfig;
use super::answer::{Asked, Came, judge};
use super::event::{self, Event, Pod, Subject};
use crate::alert::{Alert, AlertKind};
use crate::containers::kubernetes::KubernetesConfig;
use crate::containers::kubernetes::access::Access;
use crate::containers::kubernetes::api::Api;
use crate::death::Death;
use crate::ledger::Item;
use crate::notify::deliver::{Deliver, Failure, Message, Outcome};
use crate::notify::sentence;
use crate::notify::summary::Summary;

/// Messages of one call: each takes one request, or two.
const BATCH: usize = 16;
/// Deaths whose pods are remembered; the one that was told or asked for longest ago goes first.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// The tag of a death that never was, by which `killwatch test-alert` marks it.
const DRILL: &str = crate::death::drill::TAG;

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// Longest wait for one answer.
    pub(super) request: Duration,
    /// Longest time for one call.
    pub(super) call: Duration,
    /// How long credentials are used before they are read anew.
    pub(super) credentials: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(5),
            call: Duration::from_secs(20),
            credentials: Duration::from_secs(60),
        }
    }
}

/// The sink.
pub struct KubernetesEvents {
    kubernetes: KubernetesConfig,
    node: String,
    not_applicable: Counter,
    times: Times,
    session: Option<(Api, Instant)>,
    /// The pods of deaths that have an Event.
    told: LruCache<Uuid, Arc<Pod>>,
}

impl std::fmt::Debug for KubernetesEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The session has credentials.
        f.debug_struct("KubernetesEvents").field("node", &self.node).finish_non_exhaustive()
    }
}

impl KubernetesEvents {
    /// Events of `node` by the credentials of `kubernetes`, which are looked for when they are needed. Messages that are about no pod are counted in
    /// `not_applicable`.
    #[must_use]
    pub fn new(
        config: &KubernetesEventsConfig,
        kubernetes: &KubernetesConfig,
        node: &str,
        not_applicable: Counter,
    ) -> Self {
        let KubernetesEventsConfig {} = config;
        Self::with(kubernetes, node, not_applicable, Times::default())
    }

    pub(super) fn with(
        kubernetes: &KubernetesConfig,
        node: &str,
        not_applicable: Counter,
        times: Times,
    ) -> Self {
        Self {
            kubernetes: kubernetes.clone(),
            node: node.to_owned(),
            not_applicable,
            times,
            session: None,
            told: LruCache::new(REMEMBERED),
        }
    }

    async fn tell(&mut self, message: &Message) -> Result<(), Failure> {
        match message {
            Message::Entry(entry) => match &entry.item {
                Item::Death(death) => self.death(death).await,
                Item::Alert(alert) => self.alert(alert).await,
            },
            Message::Summary(summary) => self.summary(summary).await,
        }
    }

    async fn death(&mut self, death: &Death) -> Result<(), Failure> {
        let pod = match Subject::of(&death.workload) {
            Subject::Pod(pod) => Arc::new(pod),
            Subject::None if death.tags.contains_key(DRILL) => return self.drill(death).await,
            Subject::None => return self.nothing_to_say(),
            Subject::Impossible => return Err(impossible()),
        };
        let event = Event {
            id: death.id,
            pod: &pod,
            node: &self.node,
            time: death.time,
            reason: event::reason(death.cause),
            action: "Killed",
            note: format!("{} {}", sentence::of_death(death), death.advice),
            series: None,
        };
        let event = event.json();
        self.create(&pod, &event).await?;
        self.told.put(death.id, pod);
        Ok(())
    }

    /// A test has no pod, and its answer is to say whether Events could be made: the API is asked to check one and not to keep it.
    async fn drill(&mut self, death: &Death) -> Result<(), Failure> {
        let (namespace, name) = ("default".to_owned(), "killwatch-test".to_owned());
        let pod = Pod { namespace, name, uid: death.id.to_string(), container: None };
        let event = Event {
            id: death.id,
            pod: &pod,
            node: &self.node,
            time: death.time,
            reason: event::reason(death.cause),
            action: "Killed",
            note: death.advice.clone(),
            series: None,
        };
        let (event, path) = (event.json(), event::path(&pod.namespace) + "?dryRun=All");
        match self.ask(Asked::Create, &pod.namespace, &path, &event).await {
            Came::Done | Came::EventGone => Ok(()),
            Came::Failed(failure) => Err(failure),
        }
    }

    /// An alert of a job has no pod of its own: it is told of the pod of the last of its deaths that had one.
    async fn alert(&mut self, alert: &Alert) -> Result<(), Failure> {
        let (pod, reason) = match &alert.kind {
            AlertKind::PoisonJob(poison) => {
                let mut newest_first = poison.deaths.iter().rev();
                let pod = newest_first.find_map(|death| self.told.get(&death.id).cloned());
                (pod, "PoisonJob")
            }
            AlertKind::NearLimit(near) => match Subject::of(&near.workload) {
                Subject::Pod(pod) => (Some(Arc::new(pod)), "NearMemoryLimit"),
                Subject::None => (None, "NearMemoryLimit"),
                Subject::Impossible => return Err(impossible()),
            },
        };
        let Some(pod) = pod else { return self.nothing_to_say() };
        let event = Event {
            id: alert.id,
            pod: &pod,
            node: &self.node,
            time: alert.time,
            reason,
            action: "Reported",
            note: sentence::of_alert(alert),
            series: None,
        };
        let event = event.json();
        self.create(&pod, &event).await
    }

    /// Counts in the Event of the death that was told at once; if that one is gone, makes another.
    async fn summary(&mut self, summary: &Summary) -> Result<(), Failure> {
        let told = self.told.get(&summary.follows).cloned();
        let pod = match (Subject::of(&summary.workload), &told) {
            (Subject::Pod(pod), _) => Arc::new(pod),
            (_, Some(told)) => Arc::clone(told),
            (Subject::None, None) => return self.nothing_to_say(),
            (Subject::Impossible, None) => return Err(impossible()),
        };
        // Victims of one decision of the OOM killer may be in several namespaces: the Event is in the first one's.
        let namespace = told.as_ref().map_or(&pod.namespace, |told| &told.namespace);
        let path = format!("{}/{}", event::path(namespace), event::name(summary.follows));
        // The whole number and not the increase: it may be sent again.
        let patch = event::patch(summary.count.saturating_add(1), summary.time);
        match self.ask(Asked::Patch, namespace, &path, &patch).await {
            Came::Done => return Ok(()),
            Came::EventGone => {}
            Came::Failed(failure) => return Err(failure),
        }
        let event = Event {
            id: summary.id,
            pod: &pod,
            node: &self.node,
            time: summary.first,
            reason: event::reason(summary.summary),
            action: "Killed",
            note: sentence::of_summary(summary),
            series: Some((summary.count, summary.time)),
        };
        let event = event.json();
        self.create(&pod, &event).await
    }

    fn nothing_to_say(&self) -> Result<(), Failure> {
        self.not_applicable.inc();
        Ok(())
    }

    async fn create(&mut self, pod: &Pod, event: &Value) -> Result<(), Failure> {
        let path = event::path(&pod.namespace);
        match self.ask(Asked::Create, &pod.namespace, &path, event).await {
            Came::Done | Came::EventGone => Ok(()),
            Came::Failed(failure) => Err(failure),
        }
    }

    async fn ask(&mut self, asked: Asked, namespace: &str, path: &str, body: &Value) -> Came {
        let later = |why| Came::Failed(Failure::Later { why, after: None });
        let api = match self.api().await {
            Ok(api) => api,
            Err(why) => return later(why),
        };
        let (method, content_type) = match asked {
            Asked::Create => (Method::POST, "application/json"),
            Asked::Patch => (Method::PATCH, "application/merge-patch+json"),
        };
        let body = body.to_string().into_bytes();
        match api.write(method, path, content_type, body).await {
            Ok(written) => {
                // A token that ran out may have been replaced by now.
                if written.status == 401 {
                    self.session = None;
                }
                judge(asked, namespace, &written)
            }
            Err(error) => {
                self.session = None;
                later(format!("the Kubernetes API: {error}"))
            }
        }
    }

    async fn api(&mut self) -> Result<Api, String> {
        let fresh = |since: &Instant| since.elapsed() < self.times.credentials;
        if let Some((api, _)) = self.session.as_ref().filter(|(_, since)| fresh(since)) {
            return Ok(api.clone());
        }
        self.session = None;
        let access = Access::find(&self.kubernetes).ok_or_else(|| {
            "there is neither a service account's token nor a kubeconfig: run in a pod with a \
             service account, or set kubernetes.kubeconfig"
                .to_owned()
        })?;
        let config = access.load().await?;
        let api = Api::new(&config, self.times.request).map_err(|error| error.to_string())?;
        self.session = Some((api.clone(), Instant::now()));
        Ok(api)
    }
}

fn impossible() -> Failure {
    let why = "its namespace, pod or uid is such as no pod in Kubernetes can have";
    Failure::Refused(why.to_owned())
}

impl Deliver for KubernetesEvents {
    fn batch(&self) -> usize {
        BATCH
    }

    async fn deliver(&mut self, messages: &[Message]) -> Outcome {
        let deadline = Instant::now() + self.times.call;
        for (accepted, message) in messages.iter().enumerate() {
            let told = timeout_at(deadline, self.tell(message)).await.unwrap_or_else(|_| {
                let why = format!(
                    "the Kubernetes API took more than {:?} for {} of {} Events",
                    self.times.call,
                    accepted + 1,
                    messages.len()
                );
                Err(Failure::Later { why, after: None })
            });
            if let Err(failure) = told {
                return Outcome { accepted, failure: Some(failure) };
            }
        }
        Outcome::all(messages)
    }
}
