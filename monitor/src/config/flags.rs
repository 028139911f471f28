//! Flags of the daemon, each also an environment variable. What is not given leaves the file's value, or the default.

use std::path::PathBuf;

use clap::Args;

use super::{
    AbsolutePath, CgroupRoot, Config, Count, KernelLogLevel, NodeName, Period, ProbeSource,
    RingBytes, VariableName,
};
use crate::api::{ListenAddress, SocketGroup, SocketMode, SocketPath, TelemetryPath};
use crate::audit::state::StatePath;
use crate::containers::{Sockets, Switch};
use crate::ledger::LedgerPath;
use crate::notify::LogSink;
use crate::ops::{LogFormat, LogLevel};
use crate::privileges::Kept;
use crate::probe::pins::PinPath;

/// Flags of `killwatch run`.
#[derive(Debug, Clone, Default, Args)]
pub struct Flags {
    /// YAML file to read first; environment and flags go over it
    #[arg(long = "config.file", value_name = "FILE", env = "KILLWATCH_CONFIG_FILE")]
    pub config_file: Option<PathBuf>,

    /// Address to serve HTTP on; may be given more than once [default: 127.0.0.1:9435]
    #[arg(
        long = "web.listen-address",
        value_name = "IP:PORT",
        env = "KILLWATCH_WEB_LISTEN_ADDRESS",
        value_delimiter = ','
    )]
    web_listen_address: Option<Vec<ListenAddress>>,

    /// Path of the metrics [default: /metrics]
    #[arg(long = "web.telemetry-path", value_name = "PATH", env = "KILLWATCH_WEB_TELEMETRY_PATH")]
    web_telemetry_path: Option<TelemetryPath>,

    /// File in the format of Prometheus' exporter-toolkit that says who may look: TLS, client certificates, basic auth
    #[arg(long = "web.config.file", value_name = "FILE", env = "KILLWATCH_WEB_CONFIG_FILE")]
    web_config_file: Option<AbsolutePath>,

    /// Whether deaths are shown there: pages and API; metrics and health always are [default: true]
    #[arg(long = "web.deaths", value_name = "BOOL", env = "KILLWATCH_WEB_DEATHS")]
    web_deaths: Option<bool>,

    /// Unix socket where workers tag themselves and ask for deaths, or `none` [default: /run/killwatch/killwatch.sock]
    #[arg(long = "api.socket", value_name = "PATH", env = "KILLWATCH_API_SOCKET")]
    api_socket: Option<SocketPath>,

    /// Who may connect to that socket, in octal [default: 0666]
    #[arg(long = "api.socket-mode", value_name = "MODE", env = "KILLWATCH_API_SOCKET_MODE")]
    api_socket_mode: Option<SocketMode>,

    /// Group of that socket: a name or a number [default: the daemon's own]
    #[arg(long = "api.socket-group", value_name = "GROUP", env = "KILLWATCH_API_SOCKET_GROUP")]
    api_socket_group: Option<SocketGroup>,

    /// What to log to standard error [default: info]
    #[arg(long = "log.level", value_name = "LEVEL", env = "KILLWATCH_LOG_LEVEL")]
    log_level: Option<LogLevel>,

    /// Form of the log [default: text]
    #[arg(long = "log.format", value_name = "FORMAT", env = "KILLWATCH_LOG_FORMAT")]
    log_format: Option<LogFormat>,

    /// Where to write each death as one line of JSON: `none`, `stdout`, or the path of a file, with a `/` in it [default: stdout]
    #[arg(long = "log-sink", value_name = "SINK", env = "KILLWATCH_LOG_SINK")]
    log_sink: Option<LogSink>,

    /// File that keeps deaths: `auto` (ledger.redb in state.path), `none` (in memory only: nothing outlives the daemon), or a path [default: auto]
    #[arg(long = "ledger.path", value_name = "FILE", env = "KILLWATCH_LEDGER_PATH")]
    ledger_path: Option<LedgerPath>,

    /// Deaths to keep; the oldest goes first [default: 10000]
    #[arg(long = "ledger.max-deaths", value_name = "N", env = "KILLWATCH_LEDGER_MAX_DEATHS")]
    ledger_max_deaths: Option<Count<1, 10_000, 1_000_000>>,

    /// Where deaths are heard of [default: auto]
    #[arg(long = "probe.source", value_name = "SOURCE", env = "KILLWATCH_PROBE_SOURCE")]
    probe_source: Option<ProbeSource>,

    /// Size of the ring that the kernel side writes to, a power of two [default: 2MiB]
    #[arg(long = "probe.ring-bytes", value_name = "SIZE", env = "KILLWATCH_PROBE_RING_BYTES")]
    probe_ring_bytes: Option<RingBytes>,

    /// Directory of a BPF file system in which the kernel side is pinned, so that it goes on without the daemon, or `none` [default: /sys/fs/bpf/killwatch]
    #[arg(long = "probe.pin", value_name = "PATH", env = "KILLWATCH_PROBE_PIN")]
    probe_pin: Option<PinPath>,

    /// What the kernel side logs of itself [default: off]
    #[arg(long = "kernel.log-level", value_name = "LEVEL", env = "KILLWATCH_KERNEL_LOG_LEVEL")]
    kernel_log_level: Option<KernelLogLevel>,

    /// Records that may wait between the ring and the rest [default: 4096]
    #[arg(long = "queue.records", value_name = "N", env = "KILLWATCH_QUEUE_RECORDS")]
    queue_records: Option<Count<64, 4_096, 1_000_000>>,

    /// Where the cgroup hierarchies are mounted [default: /sys/fs/cgroup]
    #[arg(long = "cgroup.root", value_name = "PATH", env = "KILLWATCH_CGROUP_ROOT")]
    cgroup_root: Option<AbsolutePath>,

    /// Where CRI runtimes (containerd, CRI-O) are asked for names: `auto`, `off`, or sockets [default: auto]
    #[arg(long = "containers.cri", value_name = "SOCKETS", env = "KILLWATCH_CONTAINERS_CRI")]
    containers_cri: Option<Sockets>,

    /// Where Docker is asked for names: `auto`, `off`, or sockets [default: auto]
    #[arg(long = "containers.docker", value_name = "SOCKETS", env = "KILLWATCH_CONTAINERS_DOCKER")]
    containers_docker: Option<Sockets>,

    /// Where Podman is asked for names: `auto`, `off`, or sockets [default: auto]
    #[arg(long = "containers.podman", value_name = "SOCKETS", env = "KILLWATCH_CONTAINERS_PODMAN")]
    containers_podman: Option<Sockets>,

    /// Whether systemd's invocation ids are read [default: auto]
    #[arg(
        long = "containers.systemd",
        value_name = "SWITCH",
        env = "KILLWATCH_CONTAINERS_SYSTEMD"
    )]
    containers_systemd: Option<Switch>,

    /// Whether the Kubernetes API is asked what a pod belongs to, where there is a token or a kubeconfig [default: auto]
    #[arg(long = "kubernetes", value_name = "SWITCH", env = "KILLWATCH_KUBERNETES")]
    kubernetes: Option<Switch>,

    /// kubeconfig to use for that [default: the service account's token, or $KUBECONFIG]
    #[arg(
        long = "kubernetes.kubeconfig",
        value_name = "FILE",
        env = "KILLWATCH_KUBERNETES_KUBECONFIG"
    )]
    kubernetes_kubeconfig: Option<AbsolutePath>,

    /// How long a death may wait for the names of its container [default: 250ms]
    #[arg(
        long = "containers.deadline",
        value_name = "TIME",
        env = "KILLWATCH_CONTAINERS_DEADLINE"
    )]
    containers_deadline: Option<Period<1, 250, 5_000>>,

    /// Capability to keep after the start, beside CAP_BPF and CAP_SYS_PTRACE; may be given more than once
    #[arg(
        long = "protect.keep",
        value_name = "CAPABILITY",
        env = "KILLWATCH_PROTECT_KEEP",
        value_delimiter = ','
    )]
    protect_keep: Option<Vec<Kept>>,

    /// Environment variable of a victim to keep, beside the built-in list; may be given more than once
    #[arg(
        long = "environ.allow",
        value_name = "NAME",
        env = "KILLWATCH_ENVIRON_ALLOW",
        value_delimiter = ','
    )]
    environ_allow: Option<Vec<VariableName>>,

    /// Directory for what outlives the daemon, or `none` [default: $STATE_DIRECTORY, else /var/lib/killwatch]
    #[arg(long = "state.path", value_name = "DIRECTORY", env = "KILLWATCH_STATE_PATH")]
    state_path: Option<StatePath>,

    /// How long a shutdown may take to deliver what is on its way [default: 5s]
    #[arg(long = "shutdown.deadline", value_name = "TIME", env = "KILLWATCH_SHUTDOWN_DEADLINE")]
    shutdown_deadline: Option<Period<100, 5_000, 300_000>>,

    /// Name of this node in every record [default: the host's name]
    #[arg(long = "node", value_name = "NAME", env = "KILLWATCH_NODE")]
    node: Option<NodeName>,

    /// Attach programs that do nothing too, for `cargo xtask bench`
    #[arg(long = "bench.empty-programs", env = "KILLWATCH_BENCH_EMPTY_PROGRAMS", hide = true)]
    bench_empty_programs: bool,
}

impl Flags {
    /// Puts what was given over `config`.
    pub fn apply(&self, config: &mut Config) {
        over(&mut config.web.listen_address, &self.web_listen_address);
        over(&mut config.web.telemetry_path, &self.web_telemetry_path);
        over(&mut config.web.config_file, &self.web_config_file.clone().map(Some));
        over(&mut config.web.deaths, &self.web_deaths);
        over(&mut config.api.socket, &self.api_socket);
        over(&mut config.api.socket_mode, &self.api_socket_mode);
        over(&mut config.api.socket_group, &self.api_socket_group.clone().map(Some));
        over(&mut config.log.level, &self.log_level);
        over(&mut config.log.format, &self.log_format);
        over(&mut config.log_sink, &self.log_sink);
        over(&mut config.ledger.path, &self.ledger_path);
        over(&mut config.ledger.max_deaths, &self.ledger_max_deaths);
        over(&mut config.probe.source, &self.probe_source);
        over(&mut config.probe.ring_bytes, &self.probe_ring_bytes);
        over(&mut config.probe.pin, &self.probe_pin);
        over(&mut config.probe.log_level, &self.kernel_log_level);
        over(&mut config.queue.records, &self.queue_records);
        over(&mut config.cgroup.root, &self.cgroup_root.clone().map(CgroupRoot));
        over(&mut config.containers.cri, &self.containers_cri);
        over(&mut config.containers.docker, &self.containers_docker);
        over(&mut config.containers.podman, &self.containers_podman);
        over(&mut config.containers.systemd, &self.containers_systemd);
        over(&mut config.kubernetes.enabled, &self.kubernetes);
        over(&mut config.kubernetes.kubeconfig, &self.kubernetes_kubeconfig.clone().map(Some));
        over(&mut config.containers.deadline, &self.containers_deadline);
        over(&mut config.environ.allow, &self.environ_allow);
        over(&mut config.protect.keep, &self.protect_keep);
        over(&mut config.state.path, &self.state_path);
        over(&mut config.shutdown.deadline, &self.shutdown_deadline);
        over(&mut config.node, &self.node);
        config.probe.empty_programs |= self.bench_empty_programs;
    }
}

fn over<T: Clone>(slot: &mut T, given: &Option<T>) {
    if let Some(value) = given {
        slot.clone_from(value);
    }
}
