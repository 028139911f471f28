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
    let (Some(css), Some(memory)) =
        (present(config!(layout.mem_cgroup_css)), present(config!(layout.mem_cgroup_memory)))
    else {
        return 0;
    };
    let mut memcg = state.sub(css);
    let mut count = 0;
    for level in levels.iter_mut() {
        let counter = memcg.add(memory);
        level.cgroup = memcg_id(memcg);
        level.usage = counter.get(config!(layout.page_counter_usage)).unwrap_or(0);
        // What cannot be read is no limit; a limit of 0 would read as one that was hit.
        level.max = counter.get(config!(layout.page_counter_max)).unwrap_or(u64::MAX);
        let swap = present(config!(layout.mem_cgroup_swap)).map(|swap| memcg.add(swap));
        level.swap_usage =
            swap.and_then(|swap| swap.get(config!(layout.page_counter_usage))).unwrap_or(0);
        level.swap_max =
            swap.and_then(|swap| swap.get(config!(layout.page_counter_max))).unwrap_or(u64::MAX);
        level.oom_group =
            u64::from(memcg.get::<u8>(config!(layout.mem_cgroup_oom_group)).unwrap_or(0));
        count += 1;
        match counter.follow(config!(layout.page_counter_parent)) {
            Some(parent) => memcg = parent.sub(memory),
            None => break,
        }
    }
    count
}
