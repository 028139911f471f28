//! The ring to the daemon.

use core::{
    ops::{Deref, DerefMut},
    ptr::NonNull,
};

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_boot_ns,
    macros::map,
    maps::{PerCpuArray, RingBuf, ring_buf::RingBufEntry},
};
use killwatch_ebpf::wire::{Header, Kind, PROGRAMS, Traffic, VERSION};
use zerocopy::FromBytes;

use super::config::config;

/// `BPF_RB_AVAIL_DATA` (include/uapi/linux/bpf.h): bytes not yet read.
const AVAILABLE_DATA: u64 = 0;
/// `BPF_RB_NO_WAKEUP` and `BPF_RB_FORCE_WAKEUP`.
const NO_WAKEUP: u64 = 1;
const FORCE_WAKEUP: u64 = 2;

/// Records of [`killwatch_ebpf::wire`]. The daemon sets the size at load.
#[map]
static RECORDS: RingBuf = RingBuf::with_byte_size(1 << 21, 0);

/// Records that did not fit, per program in the order of [`PROGRAMS`].
#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(PROGRAMS.len() as u32, 0);

/// What goes over the ring, per program and CPU: whoever reads the ring next finds out by it what another had read and did not keep.
#[map]
static TRAFFIC: PerCpuArray<Traffic> = PerCpuArray::with_max_entries(PROGRAMS.len() as u32, 0);

/// A program's slot in [`LOST`] and [`TRAFFIC`].
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Program {
    SignalGenerate = 0,
    MarkVictim = 1,
    SignalDeliver = 2,
    ProcessExit = 3,
    CgroupMkdir = 4,
    CgroupRename = 5,
    CgroupRmdir = 6,
    ExitRcu = 8,
}

/// ns since boot, suspend included: the clock of every record.
pub(crate) fn now_ns() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Bytes that the daemon has not read yet.
pub(crate) fn waiting() -> u64 {
    RECORDS.query(AVAILABLE_DATA)
}

/// Puts a program's records on the ring, and counts them. Opened once a run: that it cannot be opened, which does not happen, is for the verifier one
/// more way through all that follows.
#[derive(Clone, Copy)]
pub(crate) struct Writer {
    program: Program,
    /// The slot of this program and CPU.
    traffic: NonNull<Traffic>,
}

/// A place on the ring, to be filled and submitted. Its bytes are whatever was there before: write every field.
#[must_use = "the verifier requires a reserved record to be submitted"]
pub(crate) struct Record<T: 'static>(RingBufEntry<T>, Writer, Kind);

/// Types that begin with a [`Header`].
pub(crate) trait Framed: FromBytes + 'static {
    fn header(&mut self) -> &mut Header;
}

impl Writer {
    #[inline(always)]
    pub(crate) fn open(program: Program) -> Option<Self> {
        let traffic = NonNull::new(TRAFFIC.get_ptr_mut(program as u32)?)?;
        Some(Self { program, traffic })
    }

    /// Adds one to a number of this program and CPU.
    #[inline(always)]
    fn count(self, which: impl FnOnce(&mut Traffic) -> &mut u64) {
        // SAFETY: the slot is this CPU's and this program's own, and the kernel runs no program inside itself on one CPU.
        *which(unsafe { &mut *self.traffic.as_ptr() }) += 1;
    }

    /// Reserves a record and fills in its header; a full ring counts a loss.
    #[inline(always)]
    pub(crate) fn reserve<T: Framed>(self, kind: Kind) -> Option<Record<T>> {
        // Before the place on the ring is taken, so that no record is in the making while both numbers are equal.
        self.count(|traffic| &mut traffic.begun);
        let Some(entry) = RECORDS.reserve::<T>(0) else {
            if let Some(lost) = LOST.get_ptr_mut(self.program as u32) {
                // SAFETY: as in `count`.
                unsafe { *lost += 1 };
            }
            self.count(|traffic| &mut traffic.done);
            return None;
        };
        let mut record = Record(entry, self, kind);
        *record.header() = Header {
            kind: kind as u16,
            version: VERSION,
            len: size_of::<T>() as u32,
            ktime_ns: now_ns(),
        };
        Some(record)
    }

    /// Wakes the daemon, for records that will come without: from a program that nothing can interrupt.
    #[inline(always)]
    pub(crate) fn wake(self) {
        self.count(|traffic| &mut traffic.begun);
        if let Some(nothing) = RECORDS.reserve::<u64>(0) {
            nothing.discard(FORCE_WAKEUP);
        }
        self.count(|traffic| &mut traffic.done);
    }
}

impl<T> Record<T> {
    /// Hands the record to the daemon and wakes it if it sleeps.
    #[inline(always)]
    pub(crate) fn submit(self) {
        self.submit_with(0);
    }

    /// The same from a program that other tasks may run beside: on a kernel where they may, the daemon looks by itself.
    #[inline(always)]
    pub(crate) fn submit_from_a_crowd(self) {
        // Without a branch: `quiet` is 0 or 1, and NO_WAKEUP is 1.
        self.submit_with(u64::from(config!(quiet)) & NO_WAKEUP);
    }

    #[inline(always)]
    fn submit_with(self, flags: u64) {
        // The submission orders it before `done`.
        if matches!(self.2, Kind::Exit) {
            self.1.count(|traffic| &mut traffic.ends);
        }
        self.0.submit(flags);
        self.1.count(|traffic| &mut traffic.done);
    }
}

impl<T: FromBytes> Deref for Record<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: any bytes are a valid T.
        unsafe { self.0.assume_init_ref() }
    }
}

impl<T: FromBytes> DerefMut for Record<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: any bytes are a valid T.
        unsafe { self.0.assume_init_mut() }
    }
}

macro_rules! framed {
    ($($name:ident),+) => {
        $( impl Framed for killwatch_ebpf::wire::$name {
            #[inline(always)]
            fn header(&mut self) -> &mut Header {
                &mut self.header
            }
        } )+
    };
}
framed!(Mark, LastWords, SmallChunk, LargeChunk, Exit, CgroupPath, CgroupGone, CountedAgain);
