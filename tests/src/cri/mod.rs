//! A client of CRI, as the kubelet is one: pods and containers made, asked for, and taken away.

pub mod messages;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use prost::Message;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

use self::messages as cri;
use crate::wait::scaled;

/// Longest wait for an answer. A busy runtime takes a second or two for a pod.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection that comes back by itself when the runtime was started anew.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    channel: Channel,
}

impl Client {
    /// Speaks over this socket. It need not be there yet.
    ///
    /// # Errors
    /// When the path is none.
    pub fn new(socket: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("make a runtime for CRI")?;
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))
            .context("a path of a socket")?;
        let channel = runtime.block_on(async { endpoint.connect_lazy() });
        Ok(Self { runtime, channel })
    }

    /// Who it is.
    ///
    /// # Errors
    /// When it does not answer; so with the others.
    pub fn version(&self) -> Result<cri::VersionResponse> {
        self.call("Version", cri::Empty {})
    }

    /// Makes a pod's sandbox and hands on its id.
    ///
    /// # Errors
    /// When the runtime refuses or does not answer; so with the others.
    pub fn run_pod(&self, config: &cri::PodSandboxConfig) -> Result<String> {
        let request = cri::RunPodSandboxRequest { config: Some(config.clone()) };
        Ok(self.call::<_, cri::SandboxId>("RunPodSandbox", request)?.id)
    }

    /// Makes a container in a pod's sandbox and hands on its id.
    ///
    /// # Errors
    /// As [`Client::run_pod`].
    pub fn create(
        &self,
        sandbox: &str,
        config: cri::ContainerConfig,
        pod: &cri::PodSandboxConfig,
    ) -> Result<String> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(pod.clone()),
        };
        Ok(self.call::<_, cri::ContainerId>("CreateContainer", request)?.id)
    }

    /// Starts a container.
    ///
    /// # Errors
    /// As [`Client::run_pod`].
    pub fn start(&self, container: &str) -> Result<()> {
        let request = cri::ContainerId { id: container.to_owned() };
        self.call::<_, cri::Empty>("StartContainer", request).map(drop)
    }

    /// Stops a container: SIGKILL at once.
    ///
    /// # Errors
    /// As [`Client::run_pod`].
    pub fn stop(&self, container: &str) -> Result<()> {
        let request = cri::StopContainerRequest { container_id: container.to_owned(), timeout: 0 };
        self.call::<_, cri::Empty>("StopContainer", request).map(drop)
    }

    /// Removes a container.
    ///
    /// # Errors
    /// As [`Client::run_pod`].
    pub fn remove(&self, container: &str) -> Result<()> {
        let request = cri::ContainerId { id: container.to_owned() };
        self.call::<_, cri::Empty>("RemoveContainer", request).map(drop)
    }

    /// Stops a pod, with all of its containers.
    ///
    /// # Errors
    /// As [`Client::run_pod`].
    pub fn stop_pod(&self, sandbox: &str) -> Result<()> {
        let request = cri::SandboxId { id: sandbox.to_owned() };
        self.call::<_, cri::Empty>("StopPodSandbox", request).map(drop)
    }

    /// Removes a pod, with all of its containers.
    ///
    /// # Errors
    /// As [`Client::run_pod`].
    pub fn remove_pod(&self, sandbox: &str) -> Result<()> {
        let request = cri::SandboxId { id: sandbox.to_owned() };
        self.call::<_, cri::Empty>("RemovePodSandbox", request).map(drop)
    }

    /// Ids of all sandboxes.
    ///
    /// # Errors
    /// As [`Client::run_pod`].
    pub fn pods(&self) -> Result<Vec<String>> {
        let list: cri::ListPodSandboxResponse =
            self.call("ListPodSandbox", cri::ListRequest { filter: None })?;
        Ok(list.items.into_iter().map(|pod| pod.id).collect())
    }

    /// How a container fares, with all that the runtime says of it.
    ///
    /// # Errors
    /// As [`Client::run_pod`].
    pub fn status(&self, container: &str) -> Result<cri::ContainerStatusResponse> {
        let request =
            cri::ContainerStatusRequest { container_id: container.to_owned(), verbose: true };
        self.call("ContainerStatus", request)
    }

    fn call<Q, A>(&self, method: &str, request: Q) -> Result<A>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let path = format!("/runtime.v1.RuntimeService/{method}");
        let path = http::uri::PathAndQuery::try_from(path).context("a path")?;
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        self.runtime
            .block_on(async {
                tokio::time::timeout(scaled(PATIENCE), async {
                    grpc.ready().await.context("no connection")?;
                    let codec = tonic_prost::ProstCodec::<Q, A>::default();
                    let answer = grpc.unary(tonic::Request::new(request), path, codec).await;
                    anyhow::Ok(answer?.into_inner())
                })
                .await
                .context("no answer in time")?
            })
            .with_context(|| format!("CRI: {method}"))
    }
}
