//! A disk in memory, for the ledger: it can be full, fail, hang, or lose what was not synced.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use redb::{Database, StorageBackend};

use crate::ledger::medium::{self, Medium};
use crate::ledger::store::{StoreError, guarded};

/// What is wrong with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Fault {
    #[default]
    None,
    /// It takes no further bytes.
    Full,
    /// Nothing can be written.
    ReadOnly,
    /// Nothing can be written or read.
    Dead,
    /// A sync does not return.
    Hangs,
    /// Another has it.
    Busy,
}

#[derive(Debug, Clone)]
enum Step {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

impl Step {
    fn apply(self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => {
                let at = usize::try_from(at).unwrap();
                bytes.resize(bytes.len().max(at + data.len()), 0);
                bytes[at..at + data.len()].copy_from_slice(&data);
            }
            Self::SetLen(len) => bytes.resize(usize::try_from(len).unwrap(), 0),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Step>,
    fault: Fault,
    /// Whoever opened it before that is dead.
    boot: u64,
    syncs: u64,
    aside: Vec<Vec<u8>>,
}

/// The disk. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk(Arc<(Mutex<State>, Condvar)>);

impl Disk {
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        let disk = Self::default();
        disk.state().bytes.clone_from(&bytes);
        disk.state().synced = bytes;
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    pub(super) fn set(&self, fault: Fault) {
        self.state().fault = fault;
        self.0.1.notify_all();
    }

    /// Power goes, and comes back: of what was not synced, an arbitrary part is there.
    pub(super) fn crash(&self, mut seed: u64) {
        let mut state = self.state();
        let mut bytes = std::mem::take(&mut state.synced);
        for step in std::mem::take(&mut state.unsynced) {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if seed >> 62 != 0 {
                step.apply(&mut bytes);
            }
        }
        state.synced.clone_from(&bytes);
        state.bytes = bytes;
        state.boot += 1;
        self.0.1.notify_all();
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.state().bytes.clone()
    }

    /// What was set aside.
    pub(super) fn aside(&self) -> Vec<Vec<u8>> {
        self.state().aside.clone()
    }

    pub(super) fn syncs(&self) -> u64 {
        self.state().syncs
    }
}

#[derive(Debug)]
struct Handle {
    disk: Disk,
    boot: u64,
}

impl Handle {
    fn state(&self, fails: &[Fault]) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.boot != self.boot || fails.contains(&state.fault) {
            return Err(io::Error::other("the disk is gone"));
        }
        Ok(state)
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state(&[Fault::Dead])?.bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state(&[Fault::Dead])?;
        let at = usize::try_from(offset).unwrap();
        let found = at.checked_add(out.len()).and_then(|end| state.bytes.get(at..end));
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state(&[Fault::Dead, Fault::ReadOnly])?;
        if state.fault == Fault::Full && len > state.bytes.len() as u64 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.unsynced.push(Step::SetLen(len));
        Step::SetLen(len).apply(&mut state.bytes);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state(&[Fault::Dead, Fault::ReadOnly])?;
        while state.fault == Fault::Hangs {
            state = self.disk.0.1.wait(state).unwrap();
        }
        drop(state);
        let mut state = self.state(&[Fault::Dead, Fault::ReadOnly])?;
        let State { synced, unsynced, syncs, .. } = &mut *state;
        unsynced.drain(..).for_each(|step| step.apply(synced));
        *syncs += 1;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state(&[Fault::Dead, Fault::ReadOnly])?;
        if state.fault == Fault::Full && offset + data.len() as u64 > state.bytes.len() as u64 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let step = Step::Write(offset, data.to_vec());
        state.unsynced.push(step.clone());
        step.apply(&mut state.bytes);
        Ok(())
    }
}

impl Medium for Disk {
    fn open(&mut self) -> Result<Database, StoreError> {
        let (boot, len) = {
            let state = self.state();
            match state.fault {
                Fault::Dead => return Err(StoreError::Disk("the disk is gone".to_owned())),
                Fault::Busy => return Err(StoreError::Busy),
                _ => (state.boot, state.bytes.len()),
            }
        };
        guarded(|| medium::open(Handle { disk: self.clone(), boot }, len > 0))
    }

    fn set_aside(&mut self) -> Result<String, StoreError> {
        let mut state = self.state();
        let bytes = std::mem::take(&mut state.bytes);
        state.synced.clear();
        state.unsynced.clear();
        state.aside.push(bytes);
        state.boot += 1;
        Ok("set aside".to_owned())
    }
}
