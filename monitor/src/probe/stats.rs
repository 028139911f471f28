//! What the kernel side could not put on the ring.

use aya::maps::{MapData, PerCpuArray};
use killwatch_ebpf::wire::PROGRAMS;

/// Reads the per-CPU loss counters.
pub struct Lost(PerCpuArray<MapData, u64>);

impl Lost {
    /// Wraps the map `LOST`.
    #[must_use]
    pub const fn new(map: PerCpuArray<MapData, u64>) -> Self {
        Self(map)
    }

    /// Records lost since load, per program.
    #[must_use]
    pub fn read(&self) -> Vec<(&'static str, u64)> {
        (0_u32..)
            .zip(PROGRAMS)
            .filter_map(|(slot, program)| {
                let per_cpu = self.0.get(&slot, 0).ok()?;
                Some((*program, per_cpu.iter().sum()))
            })
            .collect()
    }
}
