//! Runtimes that speak CRI, Kubernetes' interface to them: containerd, CRI-O, cri-dockerd.
//!
//! [`Cri`] asks over a [`channel`]; [`decode`] makes what is kept of the answers. A container's pod is told by its sandbox, and by the kubelet's labels
//! where there is no sandbox.

use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prost::Message;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tonic::{Code, Status};

use super::worker::{Client, Error};
use super::{Info, Wanted};
use channel::{Channel, refusal};
use decode::{Item, Listed};

mod channel;
pub mod decode;

#[cfg(test)]
mod decode_tests;
#[cfg(test)]
mod made;
#[cfg(test)]
mod tests;

/// The source's name.
pub const NAME: &str = "cri";

/// Where runtimes listen, by themselves and in the distributions of Kubernetes that bring their own.
pub const SOCKETS: [&str; 7] = [
    "/run/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
    "/run/host-containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/cri-dockerd.sock",
];

const VERSION: &str = "/runtime.v1.RuntimeService/Version";
const LIST_CONTAINERS: &str = "/runtime.v1.RuntimeService/ListContainers";
const LIST_SANDBOXES: &str = "/runtime.v1.RuntimeService/ListPodSandbox";
const EVENTS: &str = "/runtime.v1.RuntimeService/GetContainerEvents";

/// A stream of events that was not refused for so long is listening: servers need not say so before the first event.
const LISTENING: Duration = Duration::from_secs(1);

/// Whether CRI may know the containers of a runtime, as a cgroup's path tells it.
#[must_use]
pub fn serves(runtime: Option<&str>) -> bool {
    matches!(runtime, None | Some("containerd" | "cri-o" | "docker"))
}

/// `ListContainersRequest` and `ListPodSandboxRequest`, which are the same as far as they are used.
#[derive(Clone, PartialEq, Message)]
struct ListRequest {
    #[prost(message, optional, tag = "1")]
    filter: Option<Filter>,
}

/// `ContainerFilter` and `PodSandboxFilter`.
#[derive(Clone, PartialEq, Message)]
struct Filter {
    #[prost(string, tag = "1")]
    id: String,
}

/// A runtime that is asked over CRI.
#[derive(Debug)]
pub struct Cri {
    channel: Channel,
    wanted: Arc<Wanted>,
    /// What it says of itself, once it was asked.
    version: OnceLock<decode::Version>,
    refused: AtomicU64,
}

impl Cri {
    async fn containers(&self, id: Option<&str>) -> Result<Listed, Error> {
        match self.ask(LIST_CONTAINERS, id).await? {
            Some(answer) => decode::containers(answer, &self.wanted),
            None => Ok(Listed::default()),
        }
    }

    async fn sandboxes(&self, id: Option<&str>) -> Result<Listed, Error> {
        match self.ask(LIST_SANDBOXES, id).await? {
            Some(answer) => decode::sandboxes(answer, &self.wanted),
            None => Ok(Listed::default()),
        }
    }

    /// A list of all or of one; `None` if there is no such one.
    async fn ask(
        &self,
        method: &'static str,
        id: Option<&str>,
    ) -> Result<Option<bytes::Bytes>, Error> {
        let filter = id.map(|id| Filter { id: id.to_owned() });
        match self.channel.unary(method, ListRequest { filter }.encode_to_vec()).await {
            Ok(answer) => Ok(Some(answer)),
            Err(status) if status.code() == Code::NotFound && id.is_some() => Ok(None),
            Err(status) => Err(refusal(&status)),
        }
    }

    /// The one of an answer that was asked for: an id's beginning may be enough for a runtime.
    fn only(&self, listed: Listed, id: &str) -> Option<Info> {
        self.refuse(listed.refused);
        listed.items.into_iter().map(|item| item.info).find(|info| info.id == id)
    }

    fn signed(&self, mut info: Info) -> Info {
        info.runtime = self.version.get().and_then(|version| version.name.clone());
        info
    }

    fn refuse(&self, items: u64) {
        self.refused.fetch_add(items, Ordering::Relaxed);
    }

    /// Before 2.0, containerd hands each event to one listener only: the kubelet would miss those that come here.
    fn shares_events(&self) -> bool {
        let Some(decode::Version { name: Some(name), version: Some(version) }) = self.version.get()
        else {
            return false;
        };
        let major = version
            .trim_start_matches('v')
            .split('.')
            .next()
            .and_then(|major| major.parse::<u32>().ok());
        name != "containerd" || major.is_some_and(|major| major >= 2)
    }

    async fn listen(
        &self,
        ids: &mpsc::Sender<String>,
        listening: impl FnOnce() + Send,
    ) -> Result<(), Status> {
        let mut answer = pin!(self.channel.stream(EVENTS, Vec::new()));
        let early = tokio::select! {
            stream = &mut answer => Some(stream?),
            () = sleep(LISTENING) => None,
        };
        listening();
        let mut stream = match early {
            Some(stream) => stream,
            None => answer.await?,
        };
        while let Some(message) = stream.message().await? {
            match decode::event(message) {
                // A runtime that is not read from would have to keep its events; the next list makes up for one that is lost.
                Ok(Some(id)) => self.refuse(u64::from(ids.try_send(id).is_err())),
                Ok(None) => {}
                Err(_) => self.refuse(1),
            }
        }
        Ok(())
    }
}

impl Client for Cri {
    async fn connect(socket: &Path, wanted: &Arc<Wanted>) -> Result<Self, Error> {
        let channel = Channel::connect(socket).await?;
        Ok(Self {
            channel,
            wanted: Arc::clone(wanted),
            version: OnceLock::new(),
            refused: AtomicU64::new(0),
        })
    }

    async fn version(&self) -> Result<String, Error> {
        let answer =
            self.channel.unary(VERSION, Vec::new()).await.map_err(|status| refusal(&status))?;
        let version = self.version.get_or_init({
            let version = decode::version(answer)?;
            || version
        });
        let words = [version.name.as_deref(), version.version.as_deref()];
        let words: Vec<&str> = words.into_iter().flatten().collect();
        if words.is_empty() {
            return Err(Error::Malformed("it tells neither its name nor its version".to_owned()));
        }
        Ok(words.join(" "))
    }

    async fn list(&self) -> Result<Vec<Info>, Error> {
        // Containers first: the sandbox of each was there before it.
        let containers = self.containers(None).await?;
        let sandboxes = self.sandboxes(None).await?;
        let joined = decode::join(containers, sandboxes);
        self.refuse(joined.refused);
        let live = joined.items.into_iter().filter(|item: &Item| item.live);
        Ok(live.map(|item| self.signed(item.info)).collect())
    }

    async fn find(&self, id: &str) -> Result<Option<Info>, Error> {
        // Another's answer to an id that cannot be one would be about something else.
        if decode::id_of(id.as_bytes()).is_none() {
            return Ok(None);
        }
        let Some(mut container) = self.only(self.containers(Some(id)).await?, id) else {
            let sandbox = self.only(self.sandboxes(Some(id)).await?, id);
            return Ok(sandbox.map(|sandbox| self.signed(sandbox)));
        };
        if let Some(of) = container.sandbox_id.clone()
            && let Some(sandbox) = self.only(self.sandboxes(Some(&of)).await?, &of)
        {
            decode::lend(&mut container, &sandbox);
        }
        Ok(Some(self.signed(container)))
    }

    fn refused(&self) -> u64 {
        self.refused.swap(0, Ordering::Relaxed)
    }

    async fn watch(&self, ids: mpsc::Sender<String>, listening: impl FnOnce() + Send) -> Error {
        let error = if self.shares_events() {
            match self.listen(&ids, listening).await {
                Ok(()) => Error::Failed("it ended its stream of events".to_owned()),
                Err(status) => refusal(&status),
            }
        } else {
            Error::Unsupported
        };
        if matches!(error, Error::Unsupported) {
            // One that tells of no container tells at least of its own end.
            self.channel.ended().await;
            return Error::Failed("it closed the connection".to_owned());
        }
        error
    }
}
