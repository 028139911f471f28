//! How the kernel side is come by: taken over as an earlier daemon left it, or loaded and pinned for a later one, or loaded for this daemon alone.
//!
//! Whatever stands in the way of pinning is no error: the kernel side is then this daemon's alone, as long as it runs, and [`Pins`] says why.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use aya::{
    maps::{MapData, RingBuf},
    programs::links::{FdLink, PinnedLink},
};

use super::{
    ProbeReport, ProbeState,
    load::{self, Configured, Kernel, LoadError, Options, Parts, chain},
    pins::{
        Directory, Identity, PinPath, Plan, SetName,
        dir::{self, LINK, PROGRAM},
        state::{How, Pins},
    },
    plan::{Probe, TELLS_DEATHS},
    reader::{Set, Sources},
    retire::Old,
    stats::{self, Lost},
    tally::Note,
    traffic::Counter,
};

/// Why nothing is pinned if nobody wants it to be.
pub const NOT_WANTED: &str = "probe.pin is none";

/// What was opened, at work already.
pub struct Opened {
    /// Keeps it at work.
    pub held: Held,
    /// What is to be read.
    pub sources: Sources,
    /// What the kernel side could not put on the ring.
    pub lost: Lost,
    /// How each probe fared.
    pub reports: Vec<ProbeReport>,
    /// What of it outlives this daemon.
    pub pins: Arc<Pins>,
}

/// Keeps the kernel side at work. Dropping it detaches what is not pinned, and lets another daemon have what is.
pub struct Held {
    _kernel: Engine,
    _directory: Option<Directory>,
    pinned: bool,
}

impl Held {
    /// Whether it goes on without this daemon.
    #[must_use]
    pub const fn is_pinned(&self) -> bool {
        self.pinned
    }
}

#[expect(dead_code, reason = "held for what its drop does")]
enum Engine {
    Loaded(Box<Kernel>),
    TakenOver(Vec<Taken>),
}

/// A program that an earlier daemon has attached.
struct Taken {
    _link: FdLink,
    _program: FdLink,
    /// Where the kernel tells of the program, as long as the descriptor is held.
    info: Option<PathBuf>,
}

/// Opens it. `note`: what an earlier daemon noted of the ring that it read.
///
/// # Errors
/// If it can neither be taken over nor loaded.
pub fn open(options: &Options, pin: &PinPath, note: Option<Note>) -> Result<Opened, LoadError> {
    let configured = load::configure(options)?;
    let opened = match pin.directory() {
        None => Err(NOT_WANTED.to_owned()),
        Some(path) => Directory::open(&path).map_err(|error| error.to_string()),
    };
    match opened {
        Ok(directory) => {
            let identity = load::identity(options, &configured.config);
            Opening { options, configured, identity, note, directory }.open()
        }
        Err(why) => alone(options, &configured, why),
    }
}

/// Loads it for this daemon alone.
fn alone(options: &Options, configured: &Configured, why: String) -> Result<Opened, LoadError> {
    let (mut kernel, parts) = load::load(options, configured, None)?;
    let (reports, _) = kernel.attach(None);
    let mut lost = parts.lost;
    lost.watch(kernel.skips());
    let pins = Arc::new(Pins::unpinned(why));
    let quiet = configured.config.quiet == 1;
    let sources = Sources {
        ring: parts.ring,
        log: parts.log,
        quiet,
        set: None,
        old: Vec::new(),
        pins: Arc::clone(&pins),
    };
    let held = Held { _kernel: Engine::Loaded(Box::new(kernel)), _directory: None, pinned: false };
    Ok(Opened { held, sources, lost, reports, pins })
}

/// With a directory that is ours.
struct Opening<'a> {
    options: &'a Options,
    configured: Configured,
    identity: Identity,
    note: Option<Note>,
    directory: Directory,
}

impl Opening<'_> {
    fn open(self) -> Result<Opened, LoadError> {
        let contents = match self.directory.contents() {
            Ok(contents) => contents,
            Err(error) => {
                let why = format!("{} cannot be listed: {error}", self.directory.path().display());
                return alone(self.options, &self.configured, why);
            }
        };
        for half in &contents.unfinished {
            tracing::warn!(set = %half.display(), "removing what was pinned by half");
            self.remove(half);
        }
        let mut others = contents.sets;
        // The newest first, if there should be several.
        for place in (0..others.len()).rev() {
            let Some(set) = others.get(place).copied() else { continue };
            if self.identity.plan(&set) != Plan::TakeOver {
                continue;
            }
            match self.taken(&set) {
                Ok(taken) => {
                    others.remove(place);
                    return Ok(self.take_over(&set, taken, &others));
                }
                Err(why) => {
                    tracing::warn!(%set, why, "what is pinned cannot be taken over, and is replaced");
                }
            }
        }
        self.load(&others)
    }

    /// What there is to take over of a set.
    fn taken(&self, set: &SetName) -> Result<(Parts, BTreeMap<&'static str, Taken>), String> {
        let path = self.directory.set(set);
        let parts = Parts::from_pins(&path).map_err(|error| error.to_string())?;
        let mut programs = BTreeMap::new();
        for probe in load::wanted(&self.configured.config) {
            let link = path.join(format!("{LINK}{}", probe.program));
            if link.exists() {
                let taken = take(&path.join(format!("{PROGRAM}{}", probe.program)), &link);
                let taken = taken.map_err(|why| format!("{}: {why}", probe.program))?;
                programs.insert(probe.program, taken);
            } else if probe.required && !self.configured.unsupported.contains_key(probe.program) {
                return Err(format!("{} is not attached", probe.program));
            }
        }
        Ok((parts, programs))
    }

    fn take_over(
        self,
        set: &SetName,
        (parts, programs): (Parts, BTreeMap<&'static str, Taken>),
        others: &[SetName],
    ) -> Opened {
        let mut lost = parts.lost;
        let watched = load::skips(|probe| programs.get(probe.program)?.info.clone());
        tracing::debug!(%set, programs = programs.len(), watched = watched.len(), "what is pinned is taken over");
        lost.watch(watched);
        let reports = load::wanted(&self.configured.config)
            .map(|probe| self.report(probe, programs.contains_key(probe.program)))
            .collect();
        let pins = Pins::new(How::TakenOver, self.directory.path());
        let engine = Engine::TakenOver(programs.into_values().collect());
        let noted = self.noted(set, others);
        let current = Set { id: set.id, traffic: parts.traffic, noted, fresh: false };
        self.opened(engine, parts.ring, None, Some(current), lost, reports, pins, others)
    }

    fn report(&self, probe: &Probe, attached: bool) -> ProbeReport {
        let mut report = probe.pending();
        (report.state, report.why) = match self.configured.unsupported.get(probe.program) {
            _ if attached => (ProbeState::Attached, None),
            Some(why) => (ProbeState::Unsupported, Some(why.clone())),
            None => {
                let why = "this kernel refused it as the programs were loaded; `killwatch detach` and a new start try again";
                (ProbeState::Unsupported, Some(why.to_owned()))
            }
        };
        report
    }

    fn load(self, others: &[SetName]) -> Result<Opened, LoadError> {
        let name = self.identity.name();
        let begun = self.directory.begin(&name).map_err(|error| error.to_string());
        let (loaded, why) = match begun {
            Ok(half) => match load::load(self.options, &self.configured, Some(&half)) {
                Err(LoadError::NotPinned(why)) => {
                    self.remove(&half);
                    (load::load(self.options, &self.configured, None)?, Some(why))
                }
                Err(error) => {
                    self.remove(&half);
                    return Err(error);
                }
                Ok(loaded) => (loaded, None),
            },
            Err(why) => (load::load(self.options, &self.configured, None)?, Some(why)),
        };
        let (mut kernel, parts) = loaded;
        let half = self.directory.path().join(name.unfinished());
        let (reports, pinned) = kernel.attach(why.is_none().then_some(half.as_path()));
        let tells = |r: &ProbeReport| r.name == TELLS_DEATHS && r.state == ProbeState::Attached;
        let result = match why {
            Some(why) => Err(why),
            None if !reports.iter().any(tells) => Err(format!("{TELLS_DEATHS} is not attached")),
            None => {
                let named = || self.directory.finish(&name).map_err(|error| error.to_string());
                pinned.and_then(|()| named().map(drop))
            }
        };
        // What others told goes on unless nothing takes its place.
        let others = if reports.iter().any(tells) { others } else { &[] };
        let mut lost = parts.lost;
        lost.watch(kernel.skips());
        let (pins, set) = match result {
            Ok(()) => {
                let how = if others.is_empty() { How::Pinned } else { How::Replaced };
                let set = Set { id: name.id, traffic: parts.traffic, noted: Some(0), fresh: true };
                (Pins::new(how, self.directory.path()), Some(set))
            }
            Err(why) => {
                self.remove(&half);
                (Pins::unpinned(why), None)
            }
        };
        let engine = Engine::Loaded(Box::new(kernel));
        Ok(self.opened(engine, parts.ring, parts.log, set, lost, reports, pins, others))
    }

    #[expect(clippy::too_many_arguments, reason = "what both ways have in common, once")]
    fn opened(
        self,
        engine: Engine,
        ring: RingBuf<MapData>,
        log: Option<super::reader::KernelLog>,
        set: Option<Set>,
        mut lost: Lost,
        reports: Vec<ProbeReport>,
        pins: Pins,
        others: &[SetName],
    ) -> Opened {
        let mut old = Vec::new();
        for other in others {
            match self.old(other) {
                Ok((found, counters)) => {
                    if let Some(counters) = counters {
                        lost.follow(counters);
                    }
                    old.push(found);
                }
                Err(why) => {
                    tracing::error!(set = %other, why, "what is pinned cannot be read, and is removed");
                    self.remove(&self.directory.set(other));
                }
            }
        }
        let quiet = self.configured.config.quiet == 1;
        let pins = Arc::new(pins);
        let pinned = set.is_some();
        let sources = Sources { ring, log, quiet, set, old, pins: Arc::clone(&pins) };
        // Locked also if nothing of it is ours: rings in it may be read to their end.
        let held = Held { _kernel: engine, _directory: Some(self.directory), pinned };
        Opened { held, sources, lost, reports, pins }
    }

    /// A set whose ring is to be read to its end.
    fn old(&self, set: &SetName) -> Result<(Old, Option<Lost>), String> {
        let path = self.directory.set(set);
        let plan = match self.identity.plan(set) {
            Plan::TakeOver => Plan::Replace,
            plan => plan,
        };
        let noted = self.note.filter(|note| note.set == set.id).map(|note| note.ends);
        let text = |error: LoadError| error.to_string();
        let (ring, traffic, lost) = if plan == Plan::Replace {
            let parts = Parts::from_pins(&path).map_err(text)?;
            (parts.ring, Some(parts.traffic), Some(parts.lost))
        } else {
            let traffic: Option<Counter> = Parts::traffic_from_pins(&path).ok();
            (Parts::ring_from_pins(&path).map_err(text)?, traffic, None)
        };
        Ok((Old { set: *set, path, plan, ring, traffic, noted }, lost))
    }

    /// Ends of a set that were dealt with before.
    fn noted(&self, set: &SetName, others: &[SetName]) -> Option<i64> {
        let note = self.note?;
        if note.set == set.id {
            return Some(note.ends);
        }
        // Whoever read the ring before this one was killed before it came to this one.
        others.iter().any(|other| other.id == note.set).then_some(0)
    }

    fn remove(&self, set: &Path) {
        if let Err(error) = dir::remove(set) {
            tracing::warn!(set = %set.display(), %error, "what is pinned cannot be removed");
        }
    }
}

/// Any right to pinned things will do here. aya's own way to a pinned program asks for the kernel's types by their number, which takes CAP_SYS_ADMIN, to attach
/// it anew; what is wanted of it here is a descriptor, and the way to a link opens whatever is pinned.
fn take(program: &Path, link: &Path) -> Result<Taken, String> {
    let open = |file| PinnedLink::from_pin(file).map(FdLink::from).map_err(|error| chain(&error));
    let link = open(link)?;
    let id = link.info().map_err(|error| chain(&error))?.program_id();
    let program = open(program)?;
    Ok(Taken { _link: link, _program: program, info: stats::told_of(id) })
}
