//! The Kubernetes API as a source: what a pod belongs to, and its labels and annotations as they are now.
//!
//! Asked for the metadata of one object at a time, and only for pods that this node has. It is for names alone: with no API server, no rights or a
//! lying one, a death lacks its owners and nothing else. What talks to it is the cargo feature `kubernetes`; a build without it says so in the status.
//!
//! * [`decode`] reads answers, [`kinds`] knows where a kind is asked for. Neither does I/O.
//! * `access` finds the API and the credentials, `api` asks, `chain` goes from owner to owner, `worker` is the task.

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::pods::{Ask, Handle};
use super::{Switch, Wanted};
use crate::config::AbsolutePath;

#[cfg(feature = "kubernetes")]
pub(crate) mod access;
#[cfg(feature = "kubernetes")]
pub(crate) mod api;
#[cfg(feature = "kubernetes")]
mod chain;
pub mod decode;
pub mod kinds;
#[cfg(feature = "kubernetes")]
#[cfg(test)]
mod tests;
#[cfg(feature = "kubernetes")]
mod worker;

/// Whether and how the Kubernetes API is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesConfig {
    /// Whether it is asked, if there is a kubeconfig (`kubernetes.kubeconfig`), a service account's token, or `KUBECONFIG`: the first of these.
    pub enabled: Switch,
    /// The kubeconfig to use, whatever else there is. It may not name a program to run.
    pub kubeconfig: Option<AbsolutePath>,
}

/// Answers what `asks` asks for until `stop`. Never ends by itself, unless there is nothing to do.
pub async fn run(
    config: KubernetesConfig,
    wanted: Wanted,
    handle: Handle,
    asks: mpsc::Receiver<Ask>,
    stop: CancellationToken,
) {
    if config.enabled == Switch::Off {
        handle.down(super::SourceState::Absent, "kubernetes.enabled is off");
        return;
    }
    #[cfg(feature = "kubernetes")]
    worker::Worker { config, wanted, handle, asks }.run(stop).await;
    #[cfg(not(feature = "kubernetes"))]
    {
        let _ = (wanted, asks, stop);
        let why =
            "this build cannot ask the Kubernetes API: it lacks the cargo feature `kubernetes`";
        handle.down(super::SourceState::Absent, why);
    }
}

#[cfg(not(feature = "kubernetes"))]
#[cfg(test)]
mod tests_without {
    use super::super::pods::Pods;
    use super::super::registry::SourceState;
    use super::*;

    #[tokio::test]
    async fn a_build_without_it_says_so() {
        let (pods, handle, asks) = Pods::new(&super::super::ContainersConfig::default());
        let (config, wanted) = (KubernetesConfig::default(), Wanted::default());
        run(config, wanted, handle, asks, CancellationToken::new()).await;
        let report = pods.report();
        assert_eq!((report.state, report.failed), (SourceState::Absent, 0));
        assert!(report.why.unwrap().contains("this build"));
    }
}
