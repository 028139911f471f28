//! Images and containers that are made elsewhere: a released image, a container as a manifest asks for it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::config::output_of;
use super::{Containerd, Pod};
use crate::corpus::find_program;
use crate::cri::messages as cri;

impl Containerd {
    /// Has it take in an image's archive.
    ///
    /// # Errors
    /// When it refuses.
    pub fn import(&self, archive: &Path) -> Result<()> {
        let ctr = find_program("ctr").context("ctr is not installed")?;
        let mut import = Command::new(ctr);
        import.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io", "images"]);
        import.args(["import", "--snapshotter", "native"]).arg(archive);
        output_of(&mut import).map(drop)
    }

    /// Runs the sandbox of a pod that is to have a container with these namespaces.
    ///
    /// # Errors
    /// When containerd refuses.
    pub fn run_pod_in(
        &self,
        name: &str,
        namespace: &str,
        namespaces: cri::NamespaceOption,
    ) -> Result<Pod> {
        self.run_sandbox(name, namespace, &[], &[], namespaces)
    }

    /// Runs a container in a pod as it is asked for; its id and its first process.
    ///
    /// # Errors
    /// When containerd refuses.
    pub fn run_given(&self, pod: &Pod, config: cri::ContainerConfig) -> Result<(String, u32)> {
        let id = self
            .client()
            .create(&pod.sandbox_id, config, &pod.config)
            .and_then(|id| self.client().start(&id).map(|()| id))
            .map_err(|error| self.failed(error))?;
        let pid = self.first_process(&id)?;
        Ok((id, pid))
    }
}
