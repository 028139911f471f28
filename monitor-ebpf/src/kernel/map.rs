//! Access to map values.

use aya_ebpf::maps::LruHashMap;

/// The value of `key`. An entry that is pushed out while it is read may show the bytes of its successor, so callers
/// compare the identity that every value carries.
#[inline(always)]
pub(crate) fn read<'map, K, V>(map: &'map LruHashMap<K, V>, key: &K) -> Option<&'map V> {
    // SAFETY: values are plain data, and their memory stays a map's for the time of a program.
    unsafe { map.get(key) }
}

/// The value of `key`, to be changed in place; the caveat of [`read`] applies.
#[inline(always)]
pub(crate) fn change<'map, K, V>(map: &'map LruHashMap<K, V>, key: &K) -> Option<&'map mut V> {
    // SAFETY: as in `read`; two CPUs that write a flag write the same value.
    map.get_ptr_mut(key).map(|value| unsafe { &mut *value })
}
