//! Loads the kernel side and attaches it, probe by probe. Each ends attached, unsupported or failed, and says why.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::PathBuf,
};

use aya::{
    Btf as AyaBtf, Ebpf, EbpfLoader,
    maps::{MapData, PerCpuArray, RingBuf},
    programs::{BtfTracePoint, FEntry, ProgramError},
};
use aya_log::EbpfLogger;
use killwatch_ebpf::layout::Config;
use thiserror::Error;
use zerocopy::IntoBytes as _;

use super::{
    ProbeReport, ProbeState,
    btf::{Btf, BtfError},
    layout::{self, Choices, LayoutError},
    plan::{EMPTY, Hook, PROBES, Probe, SECOND_LOOK},
    reader::Sources,
    stats::Lost,
};
use crate::host;

/// The kernel side, as `cargo xtask build` made it; empty if it was not built.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/killwatch.bpf.o"));
/// Where the kernel describes its types.
pub const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";
/// Bytes of the ring for the kernel side's own log, with and without it.
const LOG_RING: [u32; 2] = [4096, 128 << 10];

/// Why the kernel side could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// Built without it.
    #[error("this killwatch was built without its kernel side; build it with `cargo xtask build`")]
    NoObject,
    /// No BTF.
    #[error(
        "cannot read {BTF_PATH}: {0}; the kernel must be built with CONFIG_DEBUG_INFO_BTF=y (5.10 or later)"
    )]
    NoBtf(#[source] io::Error),
    /// BTF that cannot be read.
    #[error("cannot understand {BTF_PATH}: {0}")]
    Btf(#[from] BtfError),
    /// A kernel that lacks something.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Refused by the kernel.
    #[error(
        "the kernel refused the maps of the kernel side: {0}; root, or CAP_BPF with CAP_PERFMON, is needed"
    )]
    Refused(String),
}

/// What a user may choose about the kernel side.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Bytes of the ring, a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// Number of the hierarchy with the memory controller; 0 is v2.
    pub memory_hierarchy: u32,
    /// Level of the kernel side's own log; `None` compiles it away at load.
    pub log: Option<aya_log::Level>,
    /// Attach the empty programs too.
    pub empty_programs: bool,
}

/// The kernel side, loaded. Dropping it detaches everything.
pub struct Kernel {
    ebpf: Ebpf,
    /// Until everything is attached; it is large.
    btf: Option<AyaBtf>,
    /// Why this kernel cannot have a program.
    unsupported: BTreeMap<&'static str, String>,
    empty_programs: bool,
    /// What the programs are told.
    pub config: Config,
}

/// Reads the kernel's types and works out what the programs are told.
///
/// # Errors
/// If the kernel lacks BTF or something that the main job needs.
pub fn configure(options: &Options) -> Result<(Config, BTreeMap<&'static str, String>), LoadError> {
    let bytes = std::fs::read(BTF_PATH).map_err(LoadError::NoBtf)?;
    let btf = Btf::parse(&bytes)?;
    let choices = Choices {
        memory_hierarchy: options.memory_hierarchy,
        // Half: room for about 2,000 deaths without their texts at the default size.
        texts_high_water: options.ring_bytes / 2,
        quiet: runs_beside_others(),
    };
    let config = layout::resolve(&btf, choices)?;
    let unsupported =
        PROBES.iter().filter_map(|probe| Some((probe.program, probe.unsupported(&btf)?))).collect();
    Ok((config, unsupported))
}

/// Loads the kernel side. Nothing is attached yet, so that whoever reads can be there first.
///
/// # Errors
/// If it cannot be loaded at all.
pub fn load(options: &Options) -> Result<(Kernel, Sources, Option<Lost>), LoadError> {
    if OBJECT.is_empty() {
        return Err(LoadError::NoObject);
    }
    // The file's bytes are dropped before aya reads them again: both at once would double the peak.
    let (config, unsupported) = configure(options)?;
    let btf = AyaBtf::from_sys_fs().map_err(|error| LoadError::Refused(chain(&error)))?;
    allow_locked_memory();
    // An LRU map keeps free places per CPU (LOCAL_FREE_TARGET, 128): without room for these it evicts although nearly empty.
    let cpus = aya::util::nr_cpus().map_or(1, |cpus| u32::try_from(cpus).unwrap_or(u32::MAX));
    let recent = cpus.saturating_mul(1024).clamp(8192, 1 << 18);
    let log_level: u8 = options.log.map_or(0, |level| level as u8);
    let mut ebpf = EbpfLoader::new()
        .btf(Some(&btf))
        .override_global("CONFIG", config.as_bytes(), true)
        .override_global("AYA_LOG_LEVEL", &log_level, true)
        .map_max_entries("RECORDS", options.ring_bytes)
        .map_max_entries("FATAL", recent)
        .map_max_entries("TERM", recent)
        .map_max_entries("REPORTED", recent)
        .map_max_entries("KERNEL_KILLS", recent / 8)
        .map_max_entries("DECISIONS", recent / 8)
        .map_max_entries("MARKED", recent / 8)
        .map_max_entries("AYA_LOGS", LOG_RING[usize::from(options.log.is_some())])
        .load(OBJECT)
        .map_err(|error| LoadError::Refused(chain(&error)))?;
    let ring = take_ring(&mut ebpf)?;
    let lost = ebpf.take_map("LOST").and_then(|map| PerCpuArray::try_from(map).ok()).map(Lost::new);
    let log = options.log.and_then(|_| EbpfLogger::init(&mut ebpf).ok());
    let kernel = Kernel {
        ebpf,
        btf: Some(btf),
        unsupported,
        empty_programs: options.empty_programs,
        config,
    };
    let quiet = kernel.config.quiet == 1;
    Ok((kernel, Sources { ring, log, quiet }, lost))
}

impl Kernel {
    /// Where the kernel tells of each program how often it was skipped; for those that are loaded, and for which no other stands in.
    #[must_use]
    pub fn skips(&self) -> Vec<(&'static str, PathBuf)> {
        let info = |program: &'static str| {
            let fd = self.ebpf.program(program)?.fd().ok()?.as_fd().as_raw_fd();
            Some((program, PathBuf::from(format!("/proc/self/fdinfo/{fd}"))))
        };
        let second = info(SECOND_LOOK.program);
        let covered = |probe: &&Probe| second.is_some() && probe.program == "sched_process_exit";
        let first = PROBES.iter().filter(|probe| !covered(probe));
        first.filter_map(|probe| info(probe.program)).chain(second.clone()).collect()
    }

    /// Attaches what this kernel can have. A probe that cannot be attached is no error; its report says why. A second call
    /// attaches nothing.
    pub fn attach(&mut self) -> Vec<ProbeReport> {
        let Some(btf) = self.btf.take() else { return Vec::new() };
        let empty = if self.empty_programs { EMPTY } else { &[] };
        let second: &[Probe] = if self.config.quiet == 1 { &[SECOND_LOOK] } else { &[] };
        let probes = PROBES.iter().chain(second).chain(empty);
        probes.map(|probe| self.attach_one(probe, &btf)).collect()
    }

    fn attach_one(&mut self, probe: &Probe, btf: &AyaBtf) -> ProbeReport {
        let mut report = probe.pending();
        (report.state, report.why) = match self.unsupported.get(probe.program) {
            Some(why) => (ProbeState::Unsupported, Some(why.clone())),
            None => match attach(&mut self.ebpf, probe, btf) {
                Ok(()) => (ProbeState::Attached, None),
                // Function entries need what a kernel may be built without; a tracepoint that is there should attach.
                Err(why) if matches!(probe.hook, Hook::FunctionEntry(_)) => {
                    (ProbeState::Unsupported, Some(why))
                }
                Err(why) => (ProbeState::Failed, Some(why)),
            },
        };
        report
    }
}

/// Whether tracepoints of this kernel can be interrupted by other tasks. Nothing in BTF tells; seen on 7.3, not on 6.18.
fn runs_beside_others() -> bool {
    host::version(&rustix::system::uname().release().to_string_lossy())
        .is_none_or(|(major, _)| major >= 7)
}

/// Before 5.11 the memory of maps counts as locked memory, of which 64 KiB are allowed by default. Where raising that is not allowed, loading says so.
fn allow_locked_memory() {
    let _ = rustix::process::setrlimit(
        rustix::process::Resource::Memlock,
        rustix::process::Rlimit { current: None, maximum: None },
    );
}

fn take_ring(ebpf: &mut Ebpf) -> Result<RingBuf<MapData>, LoadError> {
    let map = ebpf.take_map("RECORDS").ok_or(LoadError::NoObject)?;
    RingBuf::try_from(map).map_err(|error| LoadError::Refused(chain(&error)))
}

fn attach(ebpf: &mut Ebpf, probe: &Probe, btf: &AyaBtf) -> Result<(), String> {
    let program = ebpf.program_mut(probe.program).ok_or("the object has no such program")?;
    let result = match probe.hook {
        Hook::Tracepoint { name, .. } => {
            <&mut BtfTracePoint>::try_from(program).and_then(|program| {
                program.load(name, btf)?;
                program.attach().map(drop)
            })
        }
        Hook::FunctionEntry(function) => <&mut FEntry>::try_from(program).and_then(|program| {
            program.load(function, btf)?;
            program.attach().map(drop)
        }),
    };
    result.map_err(|error| match &error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            tracing::debug!(
                program = probe.program,
                verifier = log,
                "the kernel refused a program"
            );
            match log
                .lines()
                .rev()
                .find(|line| !line.trim().is_empty() && !line.starts_with("processed"))
            {
                Some(last) => format!("the kernel refused it: {io_error}: {}", last.trim()),
                None => format!("the kernel refused it: {io_error}"),
            }
        }
        other => chain(other),
    })
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
