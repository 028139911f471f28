//! What the Kubernetes API says of each pod, by its uid. Filled by [`super::kubernetes`], looked into by the pipeline, in the same way as
//! [`super::Registry`] is.
//!
//! The lock is a plain mutex, held for moves of memory only and never across an await.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc};

use super::ContainersConfig;
use super::book::{Book, Bounds, Lookup, SourceBit, Weigh};
use super::registry::{SourceReport, SourceState};
use crate::death::Owner;

/// The source's name, in the status and in the `sources` of a record.
pub const NAME: &str = "kubernetes";

/// Pods that are known or asked for, those that are gone included.
const MAX_PODS: usize = 4_096;
/// Bytes of what is known of them.
pub const MAX_BYTES: usize = 8 << 20;
/// After how long a pod that the API did not know is asked for again.
const ASK_AGAIN_NS: u64 = 1_000_000_000;
/// Pods that may wait to be asked for.
const QUEUE: usize = 1_024;
/// Longest name of a namespace or an object, and longest uid, in bytes: the API's own bound.
const MAX_NAME: usize = 253;
/// There is one source.
const SOURCE: SourceBit = 1;

/// What the API says of a pod. Every text is at most [`super::MAX_TEXT`] bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodInfo {
    /// Its uid, as it was asked for.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it belongs to, from the nearest to the last that is known.
    pub owners: Vec<Owner>,
    /// Those of its labels that were asked for.
    pub labels: BTreeMap<String, String>,
    /// Those of its annotations that were asked for.
    pub annotations: BTreeMap<String, String>,
}

impl Weigh for PodInfo {
    fn bytes(&self) -> usize {
        let owner = |owner: &Owner| {
            let uid = owner.uid.as_ref().map_or(0, String::len);
            size_of::<Owner>() + owner.kind.len() + owner.name.len() + uid
        };
        let maps = self.labels.iter().chain(&self.annotations);
        size_of::<Self>()
            + self.uid.len()
            + self.namespace.len()
            + self.name.len()
            + self.owners.iter().map(owner).sum::<usize>()
            + maps.map(|(key, value)| 64 + key.len() + value.len()).sum::<usize>()
    }
}

/// A pod that the API is asked for. Its names are fit for a path: see [`is_name`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    namespace: String,
    name: String,
    uid: String,
}

impl Ask {
    /// A pod by its names and its uid; `None` if no pod can be called that.
    #[must_use]
    pub fn new(namespace: &str, name: &str, uid: &str) -> Option<Self> {
        let names = [namespace, name, uid];
        names.iter().all(|name| is_name(name)).then(|| {
            let [namespace, name, uid] = names.map(str::to_owned);
            Self { namespace, name, uid }
        })
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its uid.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.uid
    }
}

/// Whether a text can be the name of an object, and is one segment of a URL's path as it stands: 1 to 253 of letters, digits, `.`, `-`, `_` and
/// `:`, and not dots only.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b".-_:".contains(&b);
    text.len() <= MAX_NAME && text.bytes().all(fits) && text.bytes().any(|b| b != b'.')
}

#[derive(Debug)]
struct State {
    book: Book<PodInfo>,
    report: SourceReport,
    queue: mpsc::Sender<Ask>,
}

/// What is known of the pods of this host.
#[derive(Debug)]
pub struct Pods {
    state: Mutex<State>,
    changed: Notify,
}

/// The source's own end.
#[derive(Debug)]
pub struct Handle(Arc<Pods>);

impl Pods {
    /// An empty book, and the end of the source that fills it: for [`super::kubernetes::run`].
    #[must_use]
    pub fn new(config: &ContainersConfig) -> (Arc<Self>, Handle, mpsc::Receiver<Ask>) {
        let (queue, asks) = mpsc::channel(QUEUE);
        let bounds = Bounds {
            entries: MAX_PODS,
            bytes: MAX_BYTES,
            keep_gone_ns: config.keep_gone_ns(),
            ask_again_ns: ASK_AGAIN_NS,
        };
        let report = SourceReport {
            name: NAME,
            at: String::new(),
            state: SourceState::Absent,
            why: None,
            version: None,
            events: false,
            answered: 0,
            failed: 0,
            refused: 0,
        };
        let state = Mutex::new(State { book: Book::new(bounds), report, queue });
        let pods = Arc::new(Self { state, changed: Notify::new() });
        let handle = Handle(Arc::clone(&pods));
        (pods, handle, asks)
    }

    /// What is known of a pod, by its uid.
    #[must_use]
    pub fn lookup(&self, uid: &str) -> Lookup<PodInfo> {
        self.state().book.lookup(uid)
    }

    /// Has the API asked for a pod, unless it is known or being asked for, or the API does not answer at the moment.
    pub fn ask(&self, namespace: &str, name: &str, uid: &str, now_ns: u64) {
        let Some(ask) = Ask::new(namespace, name, uid) else { return };
        let state = &mut *self.state();
        if !state.book.wants(uid, now_ns) {
            return;
        }
        let waited_for = match state.report.state {
            SourceState::Up => SOURCE,
            // It is asked too, and not waited for.
            SourceState::Slow => 0,
            SourceState::Absent | SourceState::Down => return state.book.asked(uid, 0, now_ns),
        };
        let sent = state.queue.try_send(ask).is_ok();
        state.report.refused += u64::from(!sent);
        state.book.asked(uid, if sent { waited_for } else { 0 }, now_ns);
    }

    /// A pod's cgroup is gone.
    pub fn gone(&self, uid: &str, now_ns: u64) {
        self.state().book.gone(uid, now_ns);
    }

    /// A death could not wait any longer for a pod: if the API owes it, it is slow, and is not waited for until it has answered.
    pub fn too_late(&self, uid: &str) {
        let state = &mut *self.state();
        if state.report.state == SourceState::Up && state.book.owing(uid) != 0 {
            state.report.state = SourceState::Slow;
            state.report.why = Some("it did not answer in time".to_owned());
            state.book.give_up(SOURCE);
        }
    }

    /// Lets what has been gone for long enough go.
    pub fn forget_gone(&self, now_ns: u64) {
        self.state().book.forget_gone(now_ns);
    }

    /// Waits until the API has told something since this was last awaited. For one task.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// How the API fares.
    #[must_use]
    pub fn report(&self) -> SourceReport {
        self.state().report.clone()
    }

    /// Pods that are known or asked for; how often there was no room for one.
    #[must_use]
    pub fn size(&self) -> (usize, u64) {
        let state = self.state();
        (state.book.len(), state.book.refused())
    }

    /// A panic elsewhere leaves no half-made state here: nothing between lock and unlock can panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handle {
    /// The API answered: a pod.
    pub fn put(&self, info: PodInfo) {
        let uid = info.uid.clone();
        self.0.state().book.put(&uid, SOURCE, info);
        self.0.changed.notify_one();
    }

    /// The API answered: there is no such pod, or it may not be read.
    pub fn nothing(&self, uid: &str) {
        self.0.state().book.nothing(uid, SOURCE);
        self.0.changed.notify_one();
    }

    /// Whether a pod is known already.
    pub fn knows(&self, uid: &str) -> bool {
        matches!(self.0.lookup(uid), Lookup::Known(_))
    }

    /// The API has just answered; `lacks` is what it would not tell, such as for want of rights.
    pub fn up(&self, lacks: Option<&str>) {
        let report = &mut self.0.state().report;
        report.state = SourceState::Up;
        report.why = lacks.map(crate::text::one_line);
        report.answered += 1;
    }

    /// A request failed, or there is nobody to ask. What it was asked is not waited for.
    pub fn down(&self, state: SourceState, why: &str) {
        {
            let inner = &mut *self.0.state();
            inner.report.failed += u64::from(state == SourceState::Down);
            inner.report.state = state;
            inner.report.why = Some(super::cut(&crate::text::one_line(why)));
            inner.book.give_up(SOURCE);
        }
        self.0.changed.notify_one();
    }

    /// Where it is asked.
    pub fn at(&self, at: String) {
        self.0.state().report.at = at;
    }

    /// The version that it says it has.
    pub fn version(&self, version: String) {
        self.0.state().report.version = Some(version);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn info(uid: &str, text: usize) -> PodInfo {
        let labels = BTreeMap::from([("k".to_owned(), "x".repeat(text))]);
        PodInfo { uid: uid.to_owned(), labels, ..PodInfo::default() }
    }

    #[test]
    fn nobody_is_waited_for_who_does_not_answer() {
        let (pods, handle, mut asks) = Pods::new(&ContainersConfig::default());
        let pending = |uid| matches!(pods.lookup(uid), Lookup::Pending);
        pods.ask("ns", "a", "a", 0);
        assert!(!pending("a") && asks.try_recv().is_err());
        handle.up(None);
        // It was asked for a moment ago.
        pods.ask("ns", "a", "a", ASK_AGAIN_NS - 1);
        assert!(!pending("a") && asks.try_recv().is_err());
        pods.ask("ns", "a", "a", ASK_AGAIN_NS);
        assert!(pending("a") && asks.try_recv().is_ok());
        handle.down(SourceState::Down, "gone");
        assert!(!pending("a"));
        assert_eq!((pods.report().failed, pods.report().why.as_deref()), (1, Some("gone")));
    }

    #[test]
    fn a_full_queue_is_not_waited_for() {
        let (pods, handle, _asks) = Pods::new(&ContainersConfig::default());
        handle.up(None);
        for n in 0..=QUEUE {
            pods.ask("ns", "a", &format!("u{n}"), 0);
        }
        assert!(matches!(pods.lookup("u0"), Lookup::Pending));
        assert!(matches!(pods.lookup(&format!("u{QUEUE}")), Lookup::Unknown));
    }

    #[test]
    fn what_is_gone_stays_for_a_while_and_no_longer() {
        let (pods, handle, _asks) = Pods::new(&ContainersConfig::default());
        handle.put(info("a", 1));
        pods.gone("a", 10);
        let keep = ContainersConfig::default().keep_gone_ns();
        pods.forget_gone(10 + keep - 1);
        assert!(handle.knows("a"));
        pods.forget_gone(10 + keep);
        assert!(!handle.knows("a"));
        assert_eq!(pods.size(), (0, 0));
    }

    #[test]
    fn a_flood_is_refused_and_counted() {
        let (pods, handle, _asks) = Pods::new(&ContainersConfig::default());
        for n in 0..2 * MAX_PODS {
            handle.put(info(&format!("u{n}"), 100));
        }
        let (held, refused) = pods.size();
        assert!(held <= MAX_PODS, "{held}");
        assert_eq!(u64::try_from(2 * MAX_PODS - held).unwrap(), refused);
        assert!(handle.knows("u0"));
        // Large ones sooner.
        let (pods, handle, _asks) = Pods::new(&ContainersConfig::default());
        for n in 0..MAX_PODS {
            handle.put(info(&format!("u{n}"), 16 << 10));
        }
        assert!(pods.size().0 <= MAX_BYTES >> 14);
    }

    proptest! {
        #[test]
        fn a_name_is_one_segment_of_a_path(text in ".{0,300}") {
            if is_name(&text) {
                prop_assert!(!text.is_empty() && text.len() <= MAX_NAME && text != "." && text != "..");
                let path = format!("/api/{text}");
                let uri = hyper::Uri::try_from(&path).unwrap();
                prop_assert_eq!(uri.path(), path);
                prop_assert_eq!(uri.query(), None);
            }
        }
    }
}
