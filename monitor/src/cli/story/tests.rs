//! The page of each cause, and of names that try to break out of it.

use proptest::prelude::*;

use super::story;
use crate::death::{Cause, Role, sample};

#[test]
fn a_page_for_each_cause() {
    let mut sysrq = sample::oom_global();
    sysrq.oom.as_mut().unwrap().sysrq = true;
    let mut bare = sample::oom_memcg();
    bare.memory = Default::default();
    bare.workload = Default::default();
    let with = |cause| {
        let mut death = sample::oom_global();
        death.cause = cause;
        death
    };
    let deaths = [
        ("oom_memcg", sample::oom_memcg()),
        ("oom_memcg_bare", bare),
        ("in_a_pod", sample::in_a_pod()),
        ("oom_global", sample::oom_global()),
        ("oom_sysrq", sysrq),
        ("oom_cpuset", with(Cause::OomCpuset)),
        ("oom_mempolicy", with(Cause::OomMempolicy)),
        ("oom_stuck", sample::stuck()),
        ("oom_userspace", sample::oom_userspace()),
        ("oom_collateral", sample::following(Cause::OomCollateral, Role::OomVictim)),
        ("pidns_teardown", sample::following(Cause::PidnsTeardown, Role::NamespaceInit)),
        ("stop_timeout", sample::stop_timeout()),
        ("rlimit", sample::rlimit()),
        ("killed", sample::killed()),
        ("abort", sample::by_itself(Cause::Abort, 6)),
        ("crash", sample::by_itself(Cause::Crash, 11)),
        ("relayed", sample::relayed()),
        ("unknown", sample::unknown()),
        ("hostile", sample::hostile()),
        ("logged", crate::record::logged_sample()),
    ];
    for cause in Cause::ALL {
        assert!(deaths.iter().any(|(_, death)| death.cause == *cause), "no page for {cause:?}");
    }
    for (name, death) in deaths {
        crate::golden::check_named(&format!("story/{name}.txt"), &story(&death));
    }
}

proptest! {
    #[test]
    fn no_name_adds_a_line_or_a_control_character(name in ".*", arg in any::<String>()) {
        let mut death = sample::hostile();
        let lines = story(&death).lines().count();
        death.victim.comm.clone_from(&name);
        death.victim.cmdline = Some(vec![arg]);
        death.killer.comm = Some(name.clone());
        death.workload.cgroup = Some(name.clone());
        death.workload.container_id = Some(name.clone());
        death.workload.container = Some(name.clone());
        death.workload.image = Some(name.clone());
        death.advice = name.clone();
        death.evidence = vec![name];
        let page = story(&death);
        prop_assert_eq!(page.lines().count(), lines);
        prop_assert!(page.chars().all(|c| c == '\n' || !c.is_control()));
    }
}
