//! Messages of CRI v1 (`runtime.v1` of k8s.io/cri-api): those fields that the tests send or look at, under the numbers of its `api.proto`.

use std::collections::HashMap;

/// Who a pod is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PodSandboxMetadata {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its uid.
    #[prost(string, tag = "2")]
    pub uid: String,
    /// Its namespace.
    #[prost(string, tag = "3")]
    pub namespace: String,
    /// How often its sandbox was made anew.
    #[prost(uint32, tag = "4")]
    pub attempt: u32,
}

/// Which namespaces a pod has: 0 of the pod, 1 of each container, 2 of the node.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NamespaceOption {
    /// Network.
    #[prost(int32, tag = "1")]
    pub network: i32,
    /// Processes.
    #[prost(int32, tag = "2")]
    pub pid: i32,
}

/// What a sandbox may.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LinuxSandboxSecurityContext {
    /// Its namespaces.
    #[prost(message, optional, tag = "1")]
    pub namespace_options: Option<NamespaceOption>,
}

/// Linux's part of a pod.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LinuxPodSandboxConfig {
    /// The cgroup that its containers' are made in.
    #[prost(string, tag = "1")]
    pub cgroup_parent: String,
    /// What it may.
    #[prost(message, optional, tag = "2")]
    pub security_context: Option<LinuxSandboxSecurityContext>,
}

/// A pod that is to be.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PodSandboxConfig {
    /// Who it is.
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<PodSandboxMetadata>,
    /// Where the logs of its containers go.
    #[prost(string, tag = "3")]
    pub log_directory: String,
    /// Labels.
    #[prost(map = "string, string", tag = "6")]
    pub labels: HashMap<String, String>,
    /// Annotations.
    #[prost(map = "string, string", tag = "7")]
    pub annotations: HashMap<String, String>,
    /// Linux's part.
    #[prost(message, optional, tag = "8")]
    pub linux: Option<LinuxPodSandboxConfig>,
}

/// Asks for a pod.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RunPodSandboxRequest {
    /// Which.
    #[prost(message, optional, tag = "1")]
    pub config: Option<PodSandboxConfig>,
}

/// A sandbox by its id: an answer to [`RunPodSandboxRequest`], and what it takes to stop or remove one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SandboxId {
    /// The id.
    #[prost(string, tag = "1")]
    pub id: String,
}

/// A container by its id: an answer to [`CreateContainerRequest`], and what it takes to start or remove one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ContainerId {
    /// The id.
    #[prost(string, tag = "1")]
    pub id: String,
}

/// Nothing.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Empty {}

/// Which of its pod's containers one is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ContainerMetadata {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// How often it was started anew.
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
}

/// An image.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ImageSpec {
    /// Name or id.
    #[prost(string, tag = "1")]
    pub image: String,
}

/// What a container may use.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LinuxContainerResources {
    /// Memory, in bytes.
    #[prost(int64, tag = "4")]
    pub memory_limit_in_bytes: i64,
}

/// Capabilities that a container has more or less than the runtime's own set, without `CAP_`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Capability {
    /// More.
    #[prost(string, repeated, tag = "1")]
    pub add_capabilities: Vec<String>,
    /// Less; `ALL` is all.
    #[prost(string, repeated, tag = "2")]
    pub drop_capabilities: Vec<String>,
}

/// A number that may be absent.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Int64Value {
    /// The number.
    #[prost(int64, tag = "1")]
    pub value: i64,
}

/// [`SecurityProfile::profile_type`] of none.
pub const UNCONFINED: i32 = 1;

/// A profile of seccomp or AppArmor.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SecurityProfile {
    /// 0 the runtime's own, 1 none, 2 a file.
    #[prost(int32, tag = "1")]
    pub profile_type: i32,
}

/// What a container may.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LinuxContainerSecurityContext {
    /// Its capabilities.
    #[prost(message, optional, tag = "1")]
    pub capabilities: Option<Capability>,
    /// Whether it may everything.
    #[prost(bool, tag = "2")]
    pub privileged: bool,
    /// Its namespaces.
    #[prost(message, optional, tag = "3")]
    pub namespace_options: Option<NamespaceOption>,
    /// Its user.
    #[prost(message, optional, tag = "5")]
    pub run_as_user: Option<Int64Value>,
    /// Whether its root can only be read.
    #[prost(bool, tag = "7")]
    pub readonly_rootfs: bool,
    /// Whether no program gives it more rights.
    #[prost(bool, tag = "11")]
    pub no_new_privs: bool,
    /// Its system calls.
    #[prost(message, optional, tag = "15")]
    pub seccomp: Option<SecurityProfile>,
    /// Its profile of AppArmor.
    #[prost(message, optional, tag = "16")]
    pub apparmor: Option<SecurityProfile>,
}

/// A variable of a container's environment.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct KeyValue {
    /// Its name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A path of the host in a container.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Mount {
    /// Where in the container.
    #[prost(string, tag = "1")]
    pub container_path: String,
    /// Where on the host.
    #[prost(string, tag = "2")]
    pub host_path: String,
    /// Whether it can only be read.
    #[prost(bool, tag = "3")]
    pub readonly: bool,
}

/// Linux's part of a container.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LinuxContainerConfig {
    /// What it may use.
    #[prost(message, optional, tag = "1")]
    pub resources: Option<LinuxContainerResources>,
    /// What it may.
    #[prost(message, optional, tag = "2")]
    pub security_context: Option<LinuxContainerSecurityContext>,
}

/// A container that is to be.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ContainerConfig {
    /// Which it is.
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<ContainerMetadata>,
    /// Its image.
    #[prost(message, optional, tag = "2")]
    pub image: Option<ImageSpec>,
    /// Its command, in place of the image's.
    #[prost(string, repeated, tag = "3")]
    pub command: Vec<String>,
    /// What follows the command, in place of the image's.
    #[prost(string, repeated, tag = "4")]
    pub args: Vec<String>,
    /// Its environment, beside the image's.
    #[prost(message, repeated, tag = "6")]
    pub envs: Vec<KeyValue>,
    /// Paths of the host in it.
    #[prost(message, repeated, tag = "7")]
    pub mounts: Vec<Mount>,
    /// Labels.
    #[prost(map = "string, string", tag = "9")]
    pub labels: HashMap<String, String>,
    /// Annotations.
    #[prost(map = "string, string", tag = "10")]
    pub annotations: HashMap<String, String>,
    /// Linux's part.
    #[prost(message, optional, tag = "15")]
    pub linux: Option<LinuxContainerConfig>,
}

/// Asks for a container.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CreateContainerRequest {
    /// In which sandbox.
    #[prost(string, tag = "1")]
    pub pod_sandbox_id: String,
    /// Which.
    #[prost(message, optional, tag = "2")]
    pub config: Option<ContainerConfig>,
    /// The pod again.
    #[prost(message, optional, tag = "3")]
    pub sandbox_config: Option<PodSandboxConfig>,
}

/// Asks for a container's end.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StopContainerRequest {
    /// Whose.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// Seconds between SIGTERM and SIGKILL; 0 means SIGKILL at once.
    #[prost(int64, tag = "2")]
    pub timeout: i64,
}

/// Asks how a container fares.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ContainerStatusRequest {
    /// Which.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// Whether all is to be told.
    #[prost(bool, tag = "2")]
    pub verbose: bool,
}

/// [`ContainerStatus::state`] of a container that has ended.
pub const EXITED: i32 = 2;

/// How a container fares.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ContainerStatus {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Which it is.
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<ContainerMetadata>,
    /// 0 made, 1 runs, 2 has ended, 3 unknown.
    #[prost(int32, tag = "3")]
    pub state: i32,
    /// When it was made, in ns since 1970.
    #[prost(int64, tag = "4")]
    pub created_at: i64,
    /// Status of its first process.
    #[prost(int32, tag = "7")]
    pub exit_code: i32,
    /// Its image, as asked for.
    #[prost(message, optional, tag = "8")]
    pub image: Option<ImageSpec>,
    /// Its image's id.
    #[prost(string, tag = "9")]
    pub image_ref: String,
    /// Why it ended, such as `OOMKilled`.
    #[prost(string, tag = "10")]
    pub reason: String,
    /// Labels.
    #[prost(map = "string, string", tag = "12")]
    pub labels: HashMap<String, String>,
    /// Annotations.
    #[prost(map = "string, string", tag = "13")]
    pub annotations: HashMap<String, String>,
}

/// Answer to [`ContainerStatusRequest`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ContainerStatusResponse {
    /// How it fares.
    #[prost(message, optional, tag = "1")]
    pub status: Option<ContainerStatus>,
    /// What else the runtime says, as JSON.
    #[prost(map = "string, string", tag = "2")]
    pub info: HashMap<String, String>,
}

/// Of a list of containers or sandboxes, those of this id; all if it is empty.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Filter {
    /// The id.
    #[prost(string, tag = "1")]
    pub id: String,
}

/// Asks for containers or sandboxes.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ListRequest {
    /// Which.
    #[prost(message, optional, tag = "1")]
    pub filter: Option<Filter>,
}

/// A container in a list.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Container {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its sandbox.
    #[prost(string, tag = "2")]
    pub pod_sandbox_id: String,
    /// Which it is.
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<ContainerMetadata>,
    /// Its image, as asked for.
    #[prost(message, optional, tag = "4")]
    pub image: Option<ImageSpec>,
    /// Its image's id.
    #[prost(string, tag = "5")]
    pub image_ref: String,
    /// As [`ContainerStatus::state`].
    #[prost(int32, tag = "6")]
    pub state: i32,
    /// When it was made, in ns since 1970.
    #[prost(int64, tag = "7")]
    pub created_at: i64,
    /// Labels.
    #[prost(map = "string, string", tag = "8")]
    pub labels: HashMap<String, String>,
    /// Annotations.
    #[prost(map = "string, string", tag = "9")]
    pub annotations: HashMap<String, String>,
}

/// Containers.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ListContainersResponse {
    /// These.
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<Container>,
}

/// A sandbox in a list.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PodSandbox {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Whose it is.
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<PodSandboxMetadata>,
    /// 0 ready, 1 not.
    #[prost(int32, tag = "3")]
    pub state: i32,
    /// When it was made, in ns since 1970.
    #[prost(int64, tag = "4")]
    pub created_at: i64,
    /// Labels.
    #[prost(map = "string, string", tag = "5")]
    pub labels: HashMap<String, String>,
    /// Annotations.
    #[prost(map = "string, string", tag = "6")]
    pub annotations: HashMap<String, String>,
}

/// Sandboxes.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ListPodSandboxResponse {
    /// These.
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<PodSandbox>,
}

/// Who a runtime is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct VersionResponse {
    /// Version of the kubelet's API.
    #[prost(string, tag = "1")]
    pub version: String,
    /// Name of the runtime.
    #[prost(string, tag = "2")]
    pub runtime_name: String,
    /// Its version.
    #[prost(string, tag = "3")]
    pub runtime_version: String,
    /// Version of CRI that it speaks.
    #[prost(string, tag = "4")]
    pub runtime_api_version: String,
}
