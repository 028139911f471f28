//! Loads the kernel side and attaches it, probe by probe. Each ends attached, unsupported or failed, and says why.

use std::{
    collections::BTreeMap,
    io::{self, Read as _},
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
};

use aya::{
    Btf as AyaBtf, Ebpf, EbpfLoader, Endianness, VerifierLogLevel,
    maps::{Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::{BtfTracePoint, FEntry, ProgramError, links::FdLink},
};
use aya_log::EbpfLogger;
use flate2::read::DeflateDecoder;
use killwatch_ebpf::layout::Config;
use rustix::process::{Resource, Rlimit};
use thiserror::Error;
use zerocopy::IntoBytes as _;

use super::{
    ProbeReport, ProbeState,
    btf::{Btf, BtfError},
    layout::{self, Choices, LayoutError},
    pins::{
        Identity,
        dir::{LINK, PROGRAM},
    },
    plan::{EMPTY, Hook, PROBES, Probe, SECOND_LOOK, TELLS_DEATHS},
    stats::Lost,
    traffic::Counter,
};
use crate::host;

/// The kernel side, as `cargo xtask build` made it, packed by DEFLATE; empty if it was not built.
static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/killwatch.bpf.o.deflate"));
/// A kernel side that is longer is none: bytes.
const MAX_OBJECT: u64 = 16 << 20;
/// Where the kernel describes its types.
pub const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";
/// Maps that a daemon reads.
const RECORDS: &str = "RECORDS";
const TRAFFIC: &str = "TRAFFIC";
const LOST: &str = "LOST";
const MAPS: [&str; 3] = [RECORDS, TRAFFIC, LOST];
/// Why a program is not loaded.
const NO_PROGRAM: &str = "the object has no such program";
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
    /// The limit of open files was lowered, and could not be set back.
    #[error("the limit of open files cannot be set back after the load: {0}")]
    NoFiles(#[source] rustix::io::Errno),
    /// Loaded, and not pinned.
    #[error("the maps of the kernel side cannot be pinned: {0}")]
    NotPinned(String),
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

/// The kernel side, loaded. Dropping it detaches what is not pinned.
pub struct Kernel {
    ebpf: Ebpf,
    /// What is attached. It stays so with this or with its file, whichever is there longer.
    links: Vec<FdLink>,
    /// Until everything is attached.
    btf: Option<AyaBtf>,
    /// Why this kernel cannot have a program.
    unsupported: BTreeMap<&'static str, String>,
    empty_programs: bool,
    /// What the programs are told.
    pub config: Config,
}

/// What programs are told, and why this kernel cannot have some.
#[derive(Debug)]
pub struct Configured {
    /// What they are told.
    pub config: Config,
    /// BTF with the types that programs attach to.
    places: Vec<u8>,
    /// Why not, by program.
    pub unsupported: BTreeMap<&'static str, String>,
}

/// What is read of a kernel side.
pub struct Parts {
    /// The ring of records.
    pub ring: RingBuf<MapData>,
    /// What went over it.
    pub traffic: Counter,
    /// What found no room on it.
    pub lost: Lost,
    /// The kernel side's own log, if asked for.
    pub log: Option<EbpfLogger<&'static dyn log::Log>>,
}

/// Reads the kernel's types and works out what the programs are told.
///
/// # Errors
/// If the kernel lacks BTF or something that the main job needs.
pub fn configure(options: &Options) -> Result<Configured, LoadError> {
    if OBJECT.is_empty() {
        return Err(LoadError::NoObject);
    }
    let bytes = std::fs::read(BTF_PATH).map_err(LoadError::NoBtf)?;
    let btf = Btf::parse(&bytes)?;
    let choices = Choices {
        memory_hierarchy: options.memory_hierarchy,
        // Half: room for about 1,000 deaths without their texts at the default size.
        texts_high_water: options.ring_bytes / 2,
        quiet: runs_beside_others(),
    };
    let config = layout::resolve(&btf, choices)?;
    let unsupported =
        PROBES.iter().filter_map(|probe| Some((probe.program, probe.unsupported(&btf)?))).collect();
    let places: Vec<_> = PROBES
        .iter()
        .chain(&[SECOND_LOOK])
        .chain(EMPTY)
        .map(|probe| probe.hook.btf_type())
        .collect();
    let places: Vec<_> = places.iter().map(String::as_str).collect();
    Ok(Configured { config, places: btf.only(&places), unsupported })
}

/// What [`load`] would load.
#[must_use]
pub fn identity(options: &Options, config: &Config) -> Identity {
    let log_level = options.log.map_or(0, |level| level as u8);
    let told = [log_level, u8::from(options.empty_programs)];
    let sizes = [options.ring_bytes.to_le_bytes(), recent().to_le_bytes()].concat();
    // The log has a ring of its own, which goes with the daemon that reads it.
    let may_take_over = options.log.is_none() && !options.empty_programs;
    Identity::of(&[OBJECT, config.as_bytes(), &told, &sizes], may_take_over)
}

/// The kernel side, unpacked.
fn unpacked() -> Result<Vec<u8>, LoadError> {
    let mut object = Vec::new();
    DeflateDecoder::new(OBJECT)
        .take(MAX_OBJECT)
        .read_to_end(&mut object)
        .map_err(|error| LoadError::Refused(format!("the kernel side is damaged: {error}")))?;
    Ok(object)
}

/// Entries of maps with a place for each recent process.
fn recent() -> u32 {
    // An LRU map keeps free places per CPU (LOCAL_FREE_TARGET, 128): without room for these it evicts although nearly empty.
    let cpus = aya::util::nr_cpus().map_or(1, |cpus| u32::try_from(cpus).unwrap_or(u32::MAX));
    cpus.saturating_mul(1024).clamp(8192, 1 << 18)
}

/// Loads the kernel side. Nothing is attached yet. `pins`: where the maps that another daemon would go on with are pinned.
///
/// # Errors
/// If it cannot be loaded at all, or not pinned.
pub fn load(
    options: &Options,
    configured: &Configured,
    pins: Option<&Path>,
) -> Result<(Kernel, Parts), LoadError> {
    let btf = AyaBtf::parse(&configured.places, Endianness::default())
        .map_err(|error| LoadError::Refused(chain(&error)))?;
    allow_locked_memory();
    let recent = recent();
    let log_level: u8 = options.log.map_or(0, |level| level as u8);
    // Of a refusal the reason alone. With what led to it, aya asks again and again with a larger buffer, and a program that is too large for an old
    // verifier keeps the start for minutes.
    let said = match options.log {
        Some(_) => VerifierLogLevel::DEBUG | VerifierLogLevel::STATS,
        None => VerifierLogLevel::STATS,
    };
    let mut ebpf = loader()?
        .verifier_log_level(said)
        .override_global("CONFIG", configured.config.as_bytes(), true)
        .override_global("AYA_LOG_LEVEL", &log_level, true)
        .map_max_entries(RECORDS, options.ring_bytes)
        .map_max_entries("FATAL", recent)
        .map_max_entries("TERM", recent)
        .map_max_entries("REPORTED", recent)
        .map_max_entries("KERNEL_KILLS", recent / 8)
        .map_max_entries("DECISIONS", recent / 8)
        .map_max_entries("MARKED", recent / 8)
        .map_max_entries("AYA_LOGS", LOG_RING[usize::from(options.log.is_some())])
        .load(&unpacked()?)
        .map_err(|error| LoadError::Refused(chain(&error)))?;
    for (name, file) in MAPS.iter().filter_map(|name| Some((name, pins?.join(name)))) {
        let map = ebpf.map(name).ok_or(LoadError::NoObject)?;
        map.pin(file).map_err(|error| LoadError::NotPinned(chain(&error)))?;
    }
    let mut take = |name| ebpf.take_map(name).ok_or(LoadError::NoObject);
    let [ring, traffic, lost] = [take(RECORDS)?, take(TRAFFIC)?, take(LOST)?];
    let mut parts = Parts::from_maps(ring, traffic, lost)?;
    parts.log = options.log.and_then(|_| EbpfLogger::init(&mut ebpf).ok());
    let kernel = Kernel {
        ebpf,
        links: Vec::new(),
        btf: Some(btf),
        unsupported: configured.unsupported.clone(),
        empty_programs: options.empty_programs,
        config: configured.config,
    };
    Ok((kernel, parts))
}

/// A loader that knows none of the kernel's types: offsets are ours to find, and programs name their places by [`Configured`]. As it is made, aya reads all types
/// whatever it is told, 40 MiB of them for a moment, and goes on without if it cannot: so it gets no descriptor for the file. Nothing else of the daemon opens one now.
fn loader<'a>() -> Result<EbpfLoader<'a>, LoadError> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let none = Rlimit { current: Some(0), maximum: limit.maximum };
    let lowered = rustix::process::setrlimit(Resource::Nofile, none).is_ok();
    let loader = EbpfLoader::new();
    if lowered {
        rustix::process::setrlimit(Resource::Nofile, limit).map_err(LoadError::NoFiles)?;
    }
    Ok(loader)
}

impl Parts {
    fn from_maps(ring: Map, traffic: Map, lost: Map) -> Result<Self, LoadError> {
        Ok(Self {
            ring: RingBuf::try_from(ring).map_err(refused)?,
            traffic: Counter::new(PerCpuArray::try_from(traffic).map_err(refused)?),
            lost: Lost::new(PerCpuArray::try_from(lost).map_err(refused)?),
            log: None,
        })
    }

    /// What another daemon has pinned in `set`.
    ///
    /// # Errors
    /// If something of it is not there, or is something else.
    pub fn from_pins(set: &Path) -> Result<Self, LoadError> {
        Self::from_maps(open(set, RECORDS)?, open(set, TRAFFIC)?, open(set, LOST)?)
    }

    /// The ring alone.
    ///
    /// # Errors
    /// As [`Self::from_pins`].
    pub fn ring_from_pins(set: &Path) -> Result<RingBuf<MapData>, LoadError> {
        RingBuf::try_from(open(set, RECORDS)?).map_err(refused)
    }

    /// What went over it alone.
    ///
    /// # Errors
    /// As [`Self::from_pins`].
    pub fn traffic_from_pins(set: &Path) -> Result<Counter, LoadError> {
        PerCpuArray::try_from(open(set, TRAFFIC)?).map(Counter::new).map_err(refused)
    }
}

fn open(set: &Path, map: &str) -> Result<Map, LoadError> {
    MapData::from_pin(set.join(map)).and_then(Map::from_map_data).map_err(refused)
}

fn refused(error: MapError) -> LoadError {
    LoadError::Refused(chain(&error))
}

impl Kernel {
    /// Where the kernel tells of each program how often it was skipped; for those that are loaded, and for which no other stands in.
    #[must_use]
    pub fn skips(&self) -> Vec<(&'static str, PathBuf)> {
        skips(|probe| {
            let fd = self.ebpf.program(probe.program)?.fd().ok()?;
            Some(PathBuf::from(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd())))
        })
    }

    /// Attaches what this kernel can have, and pins it in `pins`. A probe that cannot be attached is no error; its report says why. A second call
    /// attaches nothing. The error is why not all could be pinned: all is attached then too, and ends with this value and the files.
    pub fn attach(&mut self, pins: Option<&Path>) -> (Vec<ProbeReport>, Result<(), String>) {
        let Some(btf) = self.btf.take() else { return (Vec::new(), Ok(())) };
        let empty = if self.empty_programs { EMPTY } else { &[] };
        let mut pinned = Ok(());
        let probes = wanted(&self.config).chain(empty);
        let reports = probes.map(|probe| self.attach_one(probe, &btf, pins, &mut pinned)).collect();
        (reports, pinned)
    }

    fn attach_one(
        &mut self,
        probe: &Probe,
        btf: &AyaBtf,
        pins: Option<&Path>,
        pinned: &mut Result<(), String>,
    ) -> ProbeReport {
        let mut report = probe.pending();
        (report.state, report.why) = match self.unsupported.get(probe.program) {
            Some(why) => (ProbeState::Unsupported, Some(why.clone())),
            None => match attach(&mut self.ebpf, probe, btf) {
                Ok(link) => match self.hold(probe, link, pins, pinned) {
                    Ok(()) => (ProbeState::Attached, None),
                    Err(why) => (ProbeState::Failed, Some(why)),
                },
                // Function entries need what a kernel may be built without; a tracepoint that is there should attach.
                Err(why) if matches!(probe.hook, Hook::FunctionEntry(_)) => {
                    (ProbeState::Unsupported, Some(why))
                }
                Err(why) => (ProbeState::Failed, Some(why)),
            },
        };
        report
    }

    /// Pins a program and its link, if that is wanted and went well so far, and keeps the link.
    fn hold(
        &mut self,
        probe: &Probe,
        link: FdLink,
        pins: Option<&Path>,
        pinned: &mut Result<(), String>,
    ) -> Result<(), String> {
        let Some(pins) = pins.filter(|_| pinned.is_ok()) else {
            self.links.push(link);
            return Ok(());
        };
        let name = probe.program;
        let program = self.ebpf.program_mut(name).ok_or(NO_PROGRAM)?;
        let result = program
            .pin(pins.join(format!("{PROGRAM}{name}")))
            .and_then(|()| link.pin(pins.join(format!("{LINK}{name}"))));
        let link = match result {
            Ok(link) => FdLink::from(link),
            Err(error) => {
                *pinned = Err(chain(&error));
                // The attempt took the link with it.
                link_to(&mut self.ebpf, probe).map_err(|error| chain(&error))?
            }
        };
        self.links.push(link);
        Ok(())
    }
}

/// As [`Kernel::skips`], of programs that are told of there.
pub(super) fn skips(told: impl Fn(&Probe) -> Option<PathBuf>) -> Vec<(&'static str, PathBuf)> {
    let info = |probe: &Probe| Some((probe.program, told(probe)?));
    let second = info(&SECOND_LOOK);
    let covered = |probe: &&Probe| second.is_some() && probe.program == TELLS_DEATHS;
    let first = PROBES.iter().filter(|probe| !covered(probe));
    first.filter_map(info).chain(second.clone()).collect()
}

/// The programs that a kernel with this configuration is to have.
pub fn wanted(config: &Config) -> impl Iterator<Item = &'static Probe> + use<> {
    let second: &[Probe] = if config.quiet == 1 { &[SECOND_LOOK] } else { &[] };
    PROBES.iter().chain(second)
}

/// Whether tracepoints of this kernel can be interrupted by other tasks. Nothing in BTF tells; seen on 7.3, not on 6.18.
fn runs_beside_others() -> bool {
    host::version(&rustix::system::uname().release().to_string_lossy())
        .is_none_or(|(major, _)| major >= 7)
}

/// Before 5.11 the memory of maps counts as locked memory, of which 64 KiB are allowed by default. Where raising that is not allowed, loading says so.
fn allow_locked_memory() {
    let _ = rustix::process::setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
}

/// Loads and attaches a program.
fn attach(ebpf: &mut Ebpf, probe: &Probe, btf: &AyaBtf) -> Result<FdLink, String> {
    let program = ebpf.program_mut(probe.program).ok_or(NO_PROGRAM)?;
    let loaded = match probe.hook {
        Hook::Tracepoint { name, .. } => {
            <&mut BtfTracePoint>::try_from(program).and_then(|program| program.load(name, btf))
        }
        Hook::FunctionEntry(function) => {
            <&mut FEntry>::try_from(program).and_then(|program| program.load(function, btf))
        }
    };
    let result = loaded.and_then(|()| link_to(ebpf, probe));
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

/// Attaches a program that is loaded.
fn link_to(ebpf: &mut Ebpf, probe: &Probe) -> Result<FdLink, ProgramError> {
    let program = ebpf.program_mut(probe.program).ok_or(ProgramError::NotLoaded)?;
    match probe.hook {
        Hook::Tracepoint { .. } => {
            let program = <&mut BtfTracePoint>::try_from(program)?;
            let id = program.attach()?;
            program.take_link(id).map(FdLink::from)
        }
        Hook::FunctionEntry(_) => {
            let program = <&mut FEntry>::try_from(program)?;
            let id = program.attach()?;
            program.take_link(id).map(FdLink::from)
        }
    }
}

/// An error with its causes, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
