//! `cgroup:cgroup_mkdir`, `cgroup_rename`, `cgroup_rmdir (cgroup, path)`: which path an id stands for, told as it changes, so that a cgroup that is gone
//! within a millisecond still has a name.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use killwatch_ebpf::wire::{CgroupGone, CgroupPath, Kind};

use crate::kernel::{
    cgroup,
    config::config,
    memory,
    read::Address,
    ring::{Program, Writer},
};

#[btf_tracepoint(function = "cgroup_mkdir")]
pub(crate) fn cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    named(&ctx, Program::CgroupMkdir);
    0
}

#[btf_tracepoint(function = "cgroup_rename")]
pub(crate) fn cgroup_rename(ctx: BtfTracePointContext) -> i32 {
    named(&ctx, Program::CgroupRename);
    0
}

#[btf_tracepoint(function = "cgroup_rmdir")]
pub(crate) fn cgroup_rmdir(ctx: BtfTracePointContext) -> i32 {
    let cgroup = Address::new(ctx.arg(0));
    if let Some(hierarchy) = followed(cgroup)
        && let Some(ring) = Writer::open(Program::CgroupRmdir)
        && let Some(mut gone) = ring.reserve::<CgroupGone>(Kind::CgroupGone)
    {
        gone.id = cgroup::id(cgroup);
        gone.hierarchy = hierarchy;
        gone._pad = 0;
        gone.submit();
    }
    0
}

#[inline(always)]
fn named(ctx: &BtfTracePointContext, program: Program) {
    let cgroup = Address::new(ctx.arg(0));
    let path = Address::new(ctx.arg(1));
    let kind = match program {
        Program::CgroupRename => Kind::CgroupRenamed,
        _ => Kind::CgroupMade,
    };
    if let Some(hierarchy) = followed(cgroup)
        && let Some(ring) = Writer::open(program)
        && let Some(mut record) = ring.reserve::<CgroupPath>(kind)
    {
        record.id = cgroup::id(cgroup);
        record.hierarchy = hierarchy;
        record.len = memory::copy_kernel_text(path, &mut record.path);
        record.submit();
    }
}

/// The hierarchy of a cgroup, if it is the one that deaths are named by. A v1 host makes a dozen cgroups for each container.
#[inline(always)]
fn followed(cgroup: Address) -> Option<u32> {
    cgroup::hierarchy(cgroup).filter(|id| *id == config!(memory_hierarchy))
}
