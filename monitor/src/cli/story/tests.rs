//! The page of each cause, and of names that try to break out of it.

use proptest::prelude::*;

use super::{markdown, story};
use crate::cli::look::Look;
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
        crate::golden::check_named(&format!("story/{name}.txt"), &story(&death, Look::PLAIN));
    }
}

#[test]
fn a_page_for_each_way_in_which_memory_ends() {
    for (name, death) in sample::memory::all() {
        crate::golden::check_named(&format!("story/{name}.txt"), &story(&death, Look::PLAIN));
        crate::golden::check_named(&format!("story/{name}.md"), &markdown(&death));
    }
    crate::golden::check_named("story/hostile.md", &markdown(&sample::hostile()));
}

#[test]
fn where_only_ascii_may_be_shown_there_is_only_ascii() {
    let look = Look { width: 100, unicode: false, ..Look::PLAIN };
    let mut death = sample::memory::leak();
    death.victim.comm = "größe".into();
    let page = story(&death, look);
    assert!(page.is_ascii() && page.contains("gr\\u{f6}\\u{df}e"), "{page}");
    for (name, death) in sample::memory::all() {
        assert!(story(&death, look).is_ascii(), "{name}");
    }
}

proptest! {
    #[test]
    fn no_name_adds_a_line_or_a_control_character(name in ".*", arg in any::<String>()) {
        let mut death = sample::hostile();
        death.findings = sample::memory::leak().findings;
        let lines = story(&death, Look::PLAIN).lines().count();
        let (bold, headings) = (markdown(&death).matches("**").count(), markdown(&death).lines().count());
        death.victim.comm.clone_from(&name);
        death.victim.cmdline = Some(vec![arg]);
        death.killer.comm = Some(name.clone());
        death.workload.cgroup = Some(name.clone());
        death.workload.container_id = Some(name.clone());
        death.workload.container = Some(name.clone());
        death.workload.image = Some(name.clone());
        death.advice = name.clone();
        death.evidence = vec![name.clone()];
        for process in &mut death.memory.processes {
            process.comm.clone_from(&name);
            process.tags = [(name.clone(), name.clone())].into();
        }
        for finding in &mut death.findings {
            (finding.evidence, finding.advice) = (name.clone(), name.clone());
        }
        let page = story(&death, Look::PLAIN);
        prop_assert_eq!(page.lines().count(), lines);
        prop_assert!(page.chars().all(|c| c == '\n' || !c.is_control()));
        let page = markdown(&death);
        prop_assert_eq!((page.matches("**").count(), page.lines().count()), (bold, headings));
        prop_assert!(page.chars().all(|c| c == '\n' || !c.is_control()));
    }
}
