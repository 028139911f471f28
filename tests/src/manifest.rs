//! The manifests of deploy/kubernetes: what kustomize makes of them, and a container of theirs as a kubelet asks a runtime for it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::cri::messages as cri;

/// The host's own, of pids and of the network.
const NODE: i32 = 2;
/// A container's own.
const CONTAINER: i32 = 1;

/// What kustomize made: objects of Kubernetes.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// As YAML.
    pub text: String,
    /// The same, read.
    pub objects: Vec<Value>,
}

impl Rendered {
    /// Renders a directory. `kubectl`: that program.
    ///
    /// # Errors
    /// When it refuses: with what it said.
    pub fn of(kubectl: &Path, directory: &Path) -> Result<Self> {
        let output = Command::new(kubectl).arg("kustomize").arg(directory).output();
        let output = output.context("run kubectl")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("kubectl kustomize {}: {said}", directory.display());
        }
        let text = String::from_utf8(output.stdout).context("what kubectl said")?;
        let objects = serde_saphyr::from_multiple(&text).context("what kubectl said")?;
        Ok(Self { text, objects })
    }

    /// All objects of a kind.
    pub fn of_kind<'a>(&'a self, kind: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
        let kind = kind.to_owned();
        self.objects.iter().filter(move |object| object["kind"] == kind.as_str())
    }

    /// The one object of a kind.
    ///
    /// # Errors
    /// When there is none, or another one.
    pub fn one(&self, kind: &str) -> Result<&Value> {
        let mut objects = self.of_kind(kind);
        match (objects.next(), objects.next()) {
            (Some(object), None) => Ok(object),
            _ => bail!("not one {kind}"),
        }
    }

    /// The pod that the DaemonSet makes: `spec` of its template.
    ///
    /// # Errors
    /// When there is none.
    pub fn pod(&self) -> Result<&Value> {
        let pod = self.one("DaemonSet")?.pointer("/spec/template/spec");
        pod.context("a DaemonSet without a pod")
    }

    /// Files of the ConfigMap of this name: names and texts.
    ///
    /// # Errors
    /// When there is no such ConfigMap.
    pub fn files(&self, name: &str) -> Result<Vec<(&str, &str)>> {
        let mut maps = self.of_kind("ConfigMap");
        let map = maps.find(|map| map["metadata"]["name"] == name);
        let data = map.and_then(|map| map["data"].as_object());
        let data = data.with_context(|| format!("no ConfigMap {name}"))?;
        data.iter().map(|(name, text)| Ok((name.as_str(), string(text)?))).collect()
    }
}

/// What a kubelet knows and a manifest does not say.
#[derive(Debug)]
pub struct Node<'a> {
    /// Its name.
    pub name: &'a str,
    /// The image, as the runtime has it.
    pub image: &'a str,
    /// Directory to write files of ConfigMaps to.
    pub files: &'a Path,
    /// Where on this machine the node has a path: tests have directories of their own.
    pub paths: &'a [(&'a str, PathBuf)],
}

/// The first container of the DaemonSet's pod, as a kubelet on that node would ask for it, but in the network of the host.
///
/// # Errors
/// When the manifest asks for something that is not known here: it would be tested no more.
pub fn container(rendered: &Rendered, node: &Node<'_>) -> Result<cri::ContainerConfig> {
    let pod = rendered.pod()?;
    let spec = pod.pointer("/containers/0").context("a pod without a container")?;
    let security = &spec["securityContext"];
    let limit = bytes(string(&spec["resources"]["limits"]["memory"])?)?;
    let (mut envs, mut mounts) = (Vec::new(), Vec::new());
    for variable in list(&spec["env"]) {
        envs.push(env(variable, node)?);
    }
    for mount in list(&spec["volumeMounts"]) {
        let mut volumes = list(&pod["volumes"]).iter();
        let volume = volumes.find(|volume| volume["name"] == mount["name"]);
        let volume = volume.with_context(|| format!("no volume {}", mount["name"]))?;
        mounts.push(cri::Mount {
            container_path: string(&mount["mountPath"])?.to_owned(),
            host_path: source(rendered, volume, node)?,
            readonly: mount["readOnly"] == true,
        });
    }
    let words = |value: &Value| -> Result<Vec<String>> {
        list(value).iter().map(|word| string(word).map(str::to_owned)).collect()
    };
    let capabilities = &security["capabilities"];
    let pid = if pod["hostPID"] == true { NODE } else { CONTAINER };
    let user = security["runAsUser"].as_i64();
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: string(&spec["name"])?.into(), attempt: 0 }),
        image: Some(cri::ImageSpec { image: node.image.to_owned() }),
        command: words(&spec["command"])?,
        args: words(&spec["args"])?,
        envs,
        mounts,
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(cri::LinuxContainerResources { memory_limit_in_bytes: limit }),
            security_context: Some(cri::LinuxContainerSecurityContext {
                capabilities: Some(cri::Capability {
                    add_capabilities: words(&capabilities["add"])?,
                    drop_capabilities: words(&capabilities["drop"])?,
                }),
                privileged: security["privileged"] == true,
                namespace_options: Some(cri::NamespaceOption { network: NODE, pid }),
                run_as_user: user.map(|value| cri::Int64Value { value }),
                readonly_rootfs: security["readOnlyRootFilesystem"] == true,
                no_new_privs: security["allowPrivilegeEscalation"] == false,
                seccomp: Some(profile(&security["seccompProfile"])?),
                apparmor: Some(profile(&security["appArmorProfile"])?),
            }),
        }),
        ..Default::default()
    })
}

fn env(variable: &Value, node: &Node<'_>) -> Result<cri::KeyValue> {
    let value = match variable.pointer("/valueFrom/fieldRef/fieldPath") {
        None => string(&variable["value"])?,
        Some(path) if path == "spec.nodeName" => node.name,
        Some(path) => bail!("the field {path} is not known here"),
    };
    Ok(cri::KeyValue { key: string(&variable["name"])?.to_owned(), value: value.to_owned() })
}

/// Where a volume is on this machine.
fn source(rendered: &Rendered, volume: &Value, node: &Node<'_>) -> Result<String> {
    if let Some(path) = volume.pointer("/hostPath/path") {
        let path = string(path)?;
        let mut known = node.paths.iter();
        let own = known.find(|(host, _)| *host == path).map(|(_, own)| own.display().to_string());
        return own.with_context(|| format!("{path} has no place here"));
    }
    let map = volume.pointer("/configMap/name").context("a volume of another kind")?;
    for (name, text) in rendered.files(string(map)?)? {
        std::fs::write(node.files.join(name), text).context("write a ConfigMap's file")?;
    }
    Ok(node.files.display().to_string())
}

fn profile(profile: &Value) -> Result<cri::SecurityProfile> {
    match profile["type"].as_str() {
        None | Some("RuntimeDefault") => Ok(cri::SecurityProfile { profile_type: 0 }),
        Some("Unconfined") => Ok(cri::SecurityProfile { profile_type: cri::UNCONFINED }),
        Some(other) => bail!("a profile {other} is not known here"),
    }
}

/// A quantity of memory such as `160Mi`.
///
/// # Errors
/// When it is written in another way.
pub fn bytes(quantity: &str) -> Result<i64> {
    let mib = quantity.strip_suffix("Mi").context("a quantity in Mi")?;
    Ok(mib.parse::<i64>().context("a quantity")? << 20)
}

/// The items of a list; none if there is no list.
#[must_use]
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A text.
///
/// # Errors
/// When it is none.
pub fn string(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("{value} is no text"))
}
