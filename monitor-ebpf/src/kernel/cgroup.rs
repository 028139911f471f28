//! Cgroups of a task, and the memory counters along its path to the root.

use killwatch_ebpf::wire::{Level, MAX_LEVELS};

use super::{
    config::{config, present},
    read::Address,
};

/// Id of a `struct cgroup`; 0 if it cannot be read.
#[inline(always)]
pub(crate) fn id(cgroup: Address) -> u64 {
    cgroup
        .follow(config!(layout.cgroup_kn))
        .and_then(|node| node.get(config!(layout.kernfs_node_id)))
        .unwrap_or(0)
}

/// Number of the hierarchy that a `struct cgroup` belongs to.
#[inline(always)]
pub(crate) fn hierarchy(cgroup: Address) -> Option<u32> {
    cgroup.follow(config!(layout.cgroup_root))?.get(config!(layout.cgroup_root_hierarchy_id))
}

/// Id in the default hierarchy.
#[inline(always)]
pub(crate) fn v2_id(css_set: Address) -> u64 {
    css_set.follow(config!(layout.css_set_dfl_cgrp)).map_or(0, id)
}

/// The memory controller's state for a task.
#[inline(always)]
pub(crate) fn memory_state(css_set: Address) -> Option<Address> {
    let slot = config!(memory_cgrp_id) * size_of::<u64>() as u32;
    css_set.follow(config!(layout.css_set_subsys) + slot)
}

/// Id of the cgroup that a controller's state belongs to.
#[inline(always)]
pub(crate) fn state_id(state: Address) -> u64 {
    state.follow(config!(layout.css_cgroup)).map_or(0, id)
}

/// Id of the cgroup of a `mem_cgroup`.
#[inline(always)]
pub(crate) fn memcg_id(memcg: Address) -> u64 {
    match present(config!(layout.mem_cgroup_css)) {
        Some(css) => state_id(memcg.add(css)),
        None => 0,
    }
}

/// Fills `levels` from `state` upwards and says how many were filled.
#[inline(always)]
pub(crate) fn levels(state: Address, levels: &mut [Level; MAX_LEVELS]) -> u32 {
    let mut next = Memcg::of(state);
    let mut count = 0;
    for level in levels.iter_mut() {
        let Some(memcg) = next else { break };
        memcg.describe(level);
        count += 1;
        next = memcg.parent();
    }
    count
}

/// Fills `to` with the level, from `state` upwards, that has the least room below its limit; all zero if none has a limit.
#[inline(always)]
pub(crate) fn tightest(state: Option<Address>, to: &mut Level) {
    let mut found = None;
    let mut least = NO_LIMIT;
    let mut next = state.and_then(Memcg::of);
    for _ in 0..MAX_LEVELS {
        let Some(memcg) = next else { break };
        let max = memcg.max();
        let room = max.saturating_sub(memcg.usage());
        if max < NO_LIMIT && room < least {
            (found, least) = (Some(memcg), room);
        }
        next = memcg.parent();
    }
    match found {
        Some(memcg) => memcg.describe(to),
        None => {
            *to = Level { cgroup: 0, usage: 0, max: 0, swap_usage: 0, swap_max: 0, oom_group: 0 };
        }
    }
}

/// No limit is as high as this, in pages: `PAGE_COUNTER_MAX` is `i64::MAX` divided by the page size, and v1 rounds it down a little.
const NO_LIMIT: u64 = 1 << 46;

/// A `mem_cgroup`, by the counter of its memory: one word, so that an `Option` of it is one too (see [`Address`]).
#[derive(Clone, Copy)]
struct Memcg {
    counter: Address,
}

impl Memcg {
    /// From the controller's state in it.
    #[inline(always)]
    fn of(state: Address) -> Option<Self> {
        let base = state.sub(present(config!(layout.mem_cgroup_css))?);
        Some(Self { counter: base.add(present(config!(layout.mem_cgroup_memory))?) })
    }

    #[inline(always)]
    fn base(self) -> Address {
        self.counter.sub(present(config!(layout.mem_cgroup_memory)).unwrap_or(0))
    }

    #[inline(always)]
    fn parent(self) -> Option<Self> {
        Some(Self { counter: self.counter.follow(config!(layout.page_counter_parent))? })
    }

    #[inline(always)]
    fn usage(self) -> u64 {
        self.counter.get(config!(layout.page_counter_usage)).unwrap_or(0)
    }

    /// What cannot be read is no limit; a limit of 0 would read as one that was hit.
    #[inline(always)]
    fn max(self) -> u64 {
        self.counter.get(config!(layout.page_counter_max)).unwrap_or(u64::MAX)
    }

    #[inline(always)]
    fn describe(self, level: &mut Level) {
        let base = self.base();
        level.cgroup = memcg_id(base);
        level.usage = self.usage();
        level.max = self.max();
        let swap = present(config!(layout.mem_cgroup_swap)).map(|swap| base.add(swap));
        level.swap_usage =
            swap.and_then(|swap| swap.get(config!(layout.page_counter_usage))).unwrap_or(0);
        level.swap_max =
            swap.and_then(|swap| swap.get(config!(layout.page_counter_max))).unwrap_or(u64::MAX);
        level.oom_group =
            u64::from(base.get::<u8>(config!(layout.mem_cgroup_oom_group)).unwrap_or(0));
    }
}
