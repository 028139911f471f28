//! From a pod to what it belongs to, and on to what that belongs to.
//!
//! Each object is held to the uid by which it was meant: one that was made anew under the same name is another.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

use super::super::pods::{Ask, PodInfo};
use super::super::worker::Error;
use super::super::{Wanted, cut};
use super::api::{Answer, Api};
use super::decode::{self, Metadata, Reference};
use super::kinds;
use crate::death::Owner;

/// Owners that are told of one pod.
const MAX_OWNERS: usize = 4;
/// Owners whose own owner is remembered; the one that was used longest ago goes first.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// How long it is.
const REMEMBER: Duration = Duration::from_secs(600);

/// What is known of owners, by their uid: what each belongs to, and since when that is known.
type Parents = LruCache<Box<str>, (Instant, Option<Reference>)>;

/// Asks for pods. What it knows of owners outlives a connection.
#[derive(Clone)]
pub(super) struct Chain {
    wanted: Arc<Wanted>,
    parents: Arc<Mutex<Parents>>,
}

/// What came of a pod.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The pod, if it is there and may be read.
    pub(super) pod: Option<PodInfo>,
    /// What may not be read.
    pub(super) lacks: Option<String>,
}

impl Chain {
    pub(super) fn new(wanted: Wanted) -> Self {
        let parents = Arc::new(Mutex::new(LruCache::new(REMEMBERED)));
        Self { wanted: Arc::new(wanted), parents }
    }

    /// A pod and its owners.
    ///
    /// # Errors
    /// If the API fails at any of them: half a chain would be kept for a whole one.
    pub(super) async fn pod(&self, api: &Api, ask: &Ask) -> Result<Told, Error> {
        let path = kinds::pod(ask.namespace(), ask.name());
        let metadata = match api.metadata(&path).await? {
            Answer::Missing => return Ok(Told::default()),
            Answer::Forbidden => {
                return Ok(Told { pod: None, lacks: Some(forbidden(ask.namespace(), "Pod")) });
            }
            Answer::Object(bytes) => self.read(&bytes)?,
        };
        // A static pod has the uid that its node made up; the one of its image in the API is another.
        if metadata.uid != ask.uid() && metadata.config_hash.as_deref() != Some(ask.uid()) {
            return Ok(Told::default());
        }
        let mut lacks = None;
        let mut owners: Vec<Owner> = Vec::new();
        let mut next = metadata.owner;
        while let Some(reference) = next.take() {
            let known = |uid: &str| owners.iter().any(|owner| owner.uid.as_deref() == Some(uid));
            if reference.uid.as_deref().is_some_and(|uid| uid == metadata.uid || known(uid)) {
                break;
            }
            owners.push(Owner {
                kind: reference.kind.clone(),
                name: reference.name.clone(),
                uid: reference.uid.clone(),
            });
            if owners.len() < MAX_OWNERS {
                next = self.parent(api, ask.namespace(), &reference, &mut lacks).await?;
            }
        }
        let pod = PodInfo {
            uid: ask.uid().to_owned(),
            namespace: cut(ask.namespace()),
            name: cut(ask.name()),
            owners,
            labels: metadata.labels,
            annotations: metadata.annotations,
        };
        Ok(Told { pod: Some(pod), lacks })
    }

    /// What an owner belongs to; `None` too if that may not be known.
    async fn parent(
        &self,
        api: &Api,
        namespace: &str,
        of: &Reference,
        lacks: &mut Option<String>,
    ) -> Result<Option<Reference>, Error> {
        // Without a uid nobody can tell whether what is there now is what was meant.
        let (Some(uid), Some(path)) = (of.uid.as_deref(), kinds::owner(namespace, of)) else {
            return Ok(None);
        };
        if let Some(parent) = self.remembered(uid) {
            return Ok(parent);
        }
        let parent = match api.metadata(&path).await? {
            Answer::Missing => None,
            Answer::Forbidden => {
                *lacks = Some(forbidden(namespace, &of.kind));
                None
            }
            Answer::Object(bytes) => Some(self.read(&bytes)?)
                .filter(|owner| owner.uid == uid)
                .and_then(|owner| owner.owner),
        };
        self.lock().put(uid.into(), (Instant::now(), parent.clone()));
        Ok(parent)
    }

    fn remembered(&self, uid: &str) -> Option<Option<Reference>> {
        let mut parents = self.lock();
        let (since, parent) = parents.get(uid)?;
        (since.elapsed() < REMEMBER).then(|| parent.clone())
    }

    fn read(&self, bytes: &[u8]) -> Result<Metadata, Error> {
        decode::metadata(bytes, &self.wanted).map_err(|why| Error::Malformed(why.to_string()))
    }

    /// A panic elsewhere leaves no half-made state here: nothing between lock and unlock can panic.
    fn lock(&self) -> std::sync::MutexGuard<'_, Parents> {
        self.parents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forbidden(namespace: &str, kind: &str) -> String {
    format!("403: may not get {kind} in namespace {namespace}; its role lacks it")
}
