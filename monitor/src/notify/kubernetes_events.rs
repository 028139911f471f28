//! The sink that writes Events of `events.k8s.io/v1`: what killwatch knows of a pod's death stands where `kubectl describe pod` shows it.
//!
//! * A death makes one Event. Its name comes from the death's id, so that what is sent twice is there once.
//! * Deaths that follow it are counted in the same Event, as a series.
//! * What no pod is named for has no Event, and counts as told.
//!
//! `event` puts Events together and `answer` reads answers; neither does I/O. What talks to the API is the cargo feature `kubernetes`.

use serde::{Deserialize, Serialize};

#[cfg(feature = "kubernetes")]
mod answer;
#[cfg(feature = "kubernetes")]
mod event;
#[cfg(feature = "kubernetes")]
mod sink;
#[cfg(feature = "kubernetes")]
#[cfg(test)]
mod tests;

#[cfg(feature = "kubernetes")]
pub use sink::KubernetesEvents;

/// Events on pods. The API and the credentials are those of the top-level `kubernetes`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesEventsConfig {}
