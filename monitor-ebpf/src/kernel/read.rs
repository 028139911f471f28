//! Reading kernel memory.

use core::ptr::NonNull;

use aya_ebpf::{EbpfContext, helpers::bpf_probe_read_kernel};

use super::config::present;

/// An address in the kernel that may be stale or garbage: reads of it fail, they do not fault.
///
/// Never null, so that an `Option` of it is one word: of two words, "none" would leave the second unwritten, and a verifier before 6.3
/// refuses a program that moves such a word, though nothing looks at it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address(NonNull<u8>);

impl Address {
    /// Null becomes an address where there is nothing.
    #[inline(always)]
    pub(crate) const fn new(pointer: *const u8) -> Self {
        match NonNull::new(pointer.cast_mut()) {
            Some(pointer) => Self(pointer),
            None => Self(NonNull::dangling()),
        }
    }

    pub(crate) fn bits(self) -> u64 {
        self.0.as_ptr() as u64
    }

    /// The address `bytes` further.
    #[inline(always)]
    pub(crate) fn add(self, bytes: usize) -> Self {
        Self::new(self.0.as_ptr().wrapping_add(bytes))
    }

    /// The address `bytes` before.
    #[inline(always)]
    pub(crate) fn sub(self, bytes: usize) -> Self {
        Self::new(self.0.as_ptr().wrapping_sub(bytes))
    }

    /// The value at `offset`; `None` if the kernel lacks the field or the memory cannot be read.
    #[inline(always)]
    pub(crate) fn get<T>(self, offset: u32) -> Option<T> {
        let offset = present(offset)?;
        // SAFETY: the helper checks the address; every T here is plain data.
        unsafe { bpf_probe_read_kernel(self.0.as_ptr().wrapping_add(offset).cast::<T>()) }.ok()
    }

    /// The pointer at `offset`, unless it is null.
    #[inline(always)]
    pub(crate) fn follow(self, offset: u32) -> Option<Self> {
        NonNull::new(self.get::<*mut u8>(offset)?).map(Self)
    }
}

/// A pointer that came from a BTF tracepoint: the verifier knows its type, so a plain load is safe, needs no helper call
/// and works under lockdown.
#[derive(Clone, Copy)]
pub(crate) struct Trusted(*const u8);

impl Trusted {
    pub(crate) const fn new(pointer: *const u8) -> Self {
        Self(pointer)
    }

    /// The value at `offset`, which must be that of a required field of just this size.
    #[inline(always)]
    pub(crate) fn load<T: Copy>(self, offset: u32) -> T {
        // SAFETY: the verifier checks the load against the kernel's types and makes a fault read as zero.
        unsafe { core::ptr::read_volatile(self.0.add(offset as usize).cast::<T>()) }
    }

    /// The pointer at `offset`, which must be that of a required field.
    #[inline(always)]
    pub(crate) fn follow(self, offset: u32) -> Self {
        Self(self.load::<*const u8>(offset))
    }

    #[inline(always)]
    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }

    pub(crate) const fn address(self) -> Address {
        Address::new(self.0)
    }
}

/// The first argument of a BTF tracepoint as a plain number, whatever the verifier knows of its type.
#[inline(always)]
pub(crate) fn first_argument(ctx: &impl EbpfContext) -> u64 {
    Address::new(ctx.as_ptr().cast()).get(0).unwrap_or(0)
}
