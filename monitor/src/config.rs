//! What a user may set: a YAML file, the environment over it, flags over both.
//!
//! Every value has a type of its own that cannot hold what is not allowed ([`values`]), so a [`Config`] that exists is
//! valid. Each room owns its section; the sections of rooms without settings of their own kind are here.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub mod file;
pub mod flags;
pub mod values;

pub use file::ConfigError;
pub use flags::Flags;
pub use values::{AbsolutePath, Count, Period, Refused, RingBytes};

use crate::api::{ApiConfig, WebConfig};
use crate::attribute::Rules;
use crate::attribute::environ::Allowlist;
use crate::attribute::names::{JobsConfig, WorkloadConfig};
use crate::audit::state::StateConfig;
use crate::containers::ContainersConfig;
use crate::containers::kubernetes::KubernetesConfig;
use crate::ledger::LedgerConfig;
use crate::metrics::MetricsConfig;
use crate::notify::config::named;
use crate::notify::{Links, LogSink, SinkConfig};
use crate::ops::LogConfig;
use crate::poison::PoisonConfig;
use crate::probe::pins::PinPath;
use crate::protect::ProtectConfig;
use crate::verdict::names::VerdictConfig;
use crate::watch::{NearRule, WatchConfig};

/// Everything that a user may set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// HTTP: metrics, API, pages.
    pub web: WebConfig,
    /// The socket for workers.
    pub api: ApiConfig,
    /// The daemon's own log.
    pub log: LogConfig,
    /// Where each death is written as a line of JSON.
    pub log_sink: LogSink,
    /// Who else is told of each death.
    pub sinks: Vec<SinkConfig>,
    /// Where a receiver's user finds more.
    pub links: Links,
    /// The deaths that are kept.
    pub ledger: LedgerConfig,
    /// The metrics.
    pub metrics: MetricsConfig,
    /// The way from the kernel.
    pub probe: ProbeConfig,
    /// The queue behind the reader of the ring.
    pub queue: QueueConfig,
    /// The index of cgroups.
    pub cgroup: CgroupConfig,
    /// Which container runtimes are asked.
    pub containers: ContainersConfig,
    /// Whether and how the Kubernetes API is asked.
    pub kubernetes: KubernetesConfig,
    /// How memory is followed, and when a cgroup counts as near its limit.
    pub watch: WatchConfig,
    /// What is kept of a victim's environment.
    pub environ: EnvironConfig,
    /// How a victim's job is found.
    pub jobs: JobsConfig,
    /// When a job is reported that is killed again and again.
    pub poison: PoisonConfig,
    /// What of a pod or container is told beside its names.
    pub workload: WorkloadConfig,
    /// How deaths are judged.
    pub verdict: VerdictConfig,
    /// What outlives the daemon.
    pub state: StateConfig,
    /// How the daemon protects itself.
    pub protect: ProtectConfig,
    /// The end of the daemon.
    pub shutdown: ShutdownConfig,
    /// Name of this node in every record.
    pub node: NodeName,
}

impl Config {
    /// Reads the file that the flags name, if any, and puts the flags over it.
    ///
    /// # Errors
    /// If the file cannot be read, or holds a key or a value that is not allowed.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let mut config = match &flags.config_file {
            Some(path) => file::read(path)?,
            None => Self::default(),
        };
        flags.apply(&mut config);
        config.check().map_err(ConfigError::Combination)?;
        config.named_sinks().map_err(ConfigError::Combination)?;
        Ok(config)
    }

    /// All sinks with their names, that of `log_sink` first.
    ///
    /// # Errors
    /// If there are too many, or two get in each other's way.
    pub fn named_sinks(&self) -> Result<Vec<(String, SinkConfig)>, String> {
        named(&self.sinks, &self.log_sink)
    }

    /// The variables of a victim's environment that are kept: the default ones, which are all that a built-in rule of
    /// jobs looks at, the user's own, and those of the user's rules.
    ///
    /// # Errors
    /// If a rule is not allowed, or there are too many names.
    pub fn allowlist(&self) -> Result<Allowlist, String> {
        let of_rules = Rules::check(&self.jobs.rules).map_err(|error| error.to_string())?;
        let own = self.environ.allow.iter().map(VariableName::as_str).map(str::to_owned);
        let names: Vec<String> = own.chain(of_rules).collect();
        Allowlist::new(&names)
            .map_err(|error| format!("environ.allow, with the variables of jobs.rules: {error}"))
    }

    /// What the types of the values cannot tell: the length of lists, and whether rules make sense.
    fn check(&self) -> Result<(), String> {
        bounded("web.listen_address", &self.web.listen_address, 1, WebConfig::MAX_ADDRESSES)?;
        bounded("environ.allow", &self.environ.allow, 0, EnvironConfig::MAX_ALLOW)?;
        bounded("workload.labels", &self.workload.labels, 0, WorkloadConfig::MAX_KEYS)?;
        bounded("workload.annotations", &self.workload.annotations, 0, WorkloadConfig::MAX_KEYS)?;
        bounded("protect.keep", &self.protect.keep, 0, ProtectConfig::MAX_KEEP)?;
        bounded("watch.near_limit", &self.watch.near_limit, 0, WatchConfig::MAX_RULES)?;
        let rules = self.watch.near_limit.iter().map(NearRule::check);
        rules.collect::<Result<(), _>>().map_err(|why| format!("watch.near_limit: {why}"))?;
        self.allowlist()?;
        // What `log_sink` adds is seen once flags had their say.
        for (name, sink) in named(&self.sinks, &LogSink::None)? {
            sink.kind.check().map_err(|why| format!("sinks: {name}: {why}"))?;
        }
        bounded(
            "verdict.userspace_oom_killers",
            &self.verdict.userspace_oom_killers,
            0,
            VerdictConfig::MAX_NAMES,
        )
    }
}

/// The way from the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProbeConfig {
    /// Where deaths are heard of.
    pub source: ProbeSource,
    /// Bytes of the ring that the programs write to.
    pub ring_bytes: RingBytes,
    /// Directory of a BPF file system where the kernel side is pinned, so that it outlives the daemon.
    pub pin: PinPath,
    /// What the programs themselves log, through the daemon's log.
    pub log_level: KernelLogLevel,
    /// Whether programs that do nothing are attached too, for `cargo xtask bench`.
    #[serde(skip)]
    pub empty_programs: bool,
}

/// Sources of deaths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum ProbeSource {
    /// BPF, and the kernel log where BPF cannot be had.
    #[default]
    Auto,
    /// BPF; without it the daemon does not start.
    Bpf,
    /// The kernel log: OOM kills only.
    Kmsg,
}

/// Levels of the kernel side's own diagnostics. `Off` costs nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum KernelLogLevel {
    /// None.
    #[default]
    Off,
    /// Errors.
    Error,
    /// And warnings.
    Warn,
    /// And what an operator may want to know.
    Info,
    /// And what a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

/// The queue between the reader of the ring and the rest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueConfig {
    /// Records that it holds. While it is full, what comes waits on the ring.
    pub records: Count<64, 4_096, 1_000_000>,
}

/// The index of cgroups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CgroupConfig {
    /// Where the cgroup hierarchies are mounted.
    pub root: CgroupRoot,
    /// Live cgroups that the index holds; a quarter as many that were removed a moment ago come on top.
    pub max: Count<1_024, 16_384, 4_194_304>,
}

/// Where the cgroup hierarchies are mounted; `/sys/fs/cgroup` unless set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CgroupRoot(pub AbsolutePath);

impl Default for CgroupRoot {
    fn default() -> Self {
        Self(AbsolutePath::of_known("/sys/fs/cgroup"))
    }
}

/// What is kept of a victim's environment, beyond [`crate::attribute::environ::DEFAULT_NAMES`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnvironConfig {
    /// Variables to keep beside the built-in list. At most [`EnvironConfig::MAX_ALLOW`].
    pub allow: Vec<VariableName>,
}

impl EnvironConfig {
    /// More names of the user's own are refused: each is looked for in each victim.
    pub const MAX_ALLOW: usize = 200;
}

/// Name of an environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct VariableName(String);

impl VariableName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VariableName {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let plain = text.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric());
        if plain && text.len() <= 64 && text.starts_with(|c: char| !c.is_ascii_digit()) {
            return Ok(Self(text.to_owned()));
        }
        Err(Refused::new(
            "must be the whole name of one variable: letters, digits and `_`, at most 64, no pattern",
        ))
    }
}

/// The end of the daemon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownConfig {
    /// How long what is on its way may take to arrive, from SIGTERM on.
    pub deadline: Period<100, 5_000, 300_000>,
}

/// Name of this node. By default what `uname -n` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct NodeName(String);

impl NodeName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for NodeName {
    fn default() -> Self {
        Self(crate::text::from_bytes(rustix::system::uname().nodename().to_bytes()))
    }
}

impl FromStr for NodeName {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        if (1..=253).contains(&text.len())
            && !text.chars().any(|c| c.is_control() || c.is_whitespace())
        {
            return Ok(Self(text.to_owned()));
        }
        Err(Refused::new("must be 1 to 253 bytes without blanks or control characters"))
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl CgroupConfig {
    /// Where the hierarchies are mounted.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.root.0.to_path_buf()
    }
}

fn bounded<T>(key: &str, list: &[T], min: usize, max: usize) -> Result<(), String> {
    if (min..=max).contains(&list.len()) {
        return Ok(());
    }
    Err(format!("{key}: a list of {} is not allowed: must have {min} to {max} items", list.len()))
}

values::through_from_str!(VariableName, NodeName);

#[cfg(feature = "kubernetes")]
#[cfg(feature = "otlp")]
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
