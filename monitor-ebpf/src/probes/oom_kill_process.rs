//! `oom_kill_process(oc, message)`, where the kernel allows fentry: says why it kills (host, cpuset, policy, cgroup) and at whose limit.

use aya_ebpf::{macros::fentry, programs::FEntryContext};
use killwatch_ebpf::wire::Decision;

use crate::{
    kernel::{cgroup, config::config, read::Address, ring::now_ns, task},
    maps::DECISIONS,
};

#[fentry(function = "oom_kill_process")]
pub(crate) fn oom_kill_process(ctx: FEntryContext) -> i32 {
    let control = Address::new(ctx.arg(0));
    let Some(constraint) = control.get::<u32>(config!(layout.oom_control_constraint)) else {
        return 0;
    };
    let decision = Decision {
        known: 1,
        constraint,
        cgroup: control.follow(config!(layout.oom_control_memcg)).map_or(0, cgroup::memcg_id),
        total_pages: control.get(config!(layout.oom_control_totalpages)).unwrap_or(0),
        order: control.get(config!(layout.oom_control_order)).unwrap_or(0),
        _pad: 0,
        ktime_ns: now_ns(),
    };
    let _ = DECISIONS.insert(task::current_ids().1, decision, 0);
    0
}
