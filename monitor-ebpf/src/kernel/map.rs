//! Access to map values.

use aya_ebpf::maps::{LruHashMap, PerCpuArray};

/// The value of `key`. An entry that is pushed out while it is read may show the bytes of its successor, so callers
/// compare the identity that every value carries.
#[inline(always)]
pub(crate) fn read<'map, K, V>(map: &'map LruHashMap<K, V>, key: &K) -> Option<&'map V> {
    // SAFETY: values are plain data, and their memory stays a map's for the time of a program.
    unsafe { map.get(key) }
}

/// Reads a field of a value once more, from memory, after all that stands before.
#[inline(always)]
pub(crate) fn again(field: &u64) -> u64 {
    core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
    // SAFETY: a reference is valid for reads.
    unsafe { core::ptr::read_volatile(field) }
}

/// The value of `key`, to be changed in place; the caveat of [`read`] applies.
#[inline(always)]
pub(crate) fn change<'map, K, V>(map: &'map LruHashMap<K, V>, key: &K) -> Option<&'map mut V> {
    // SAFETY: as in `read`; two CPUs that write a flag write the same value.
    map.get_ptr_mut(key).map(|value| unsafe { &mut *value })
}

/// This CPU's value of `map`. The caller must be one that nothing else on its CPU interrupts.
#[inline(always)]
pub(crate) fn own<V>(map: &PerCpuArray<V>) -> Option<&mut V> {
    // SAFETY: the slot is this CPU's own, and the caller is alone on it.
    map.get_ptr_mut(0).map(|value| unsafe { &mut *value })
}
