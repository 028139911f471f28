//! Deaths for the tests of rules: numbers made by hand.

use std::collections::BTreeMap;

use super::case::Found;
use super::{Earlier, advise};
use crate::death::{
    CgroupMemory, Death, History, LevelUse, MemoryStory, ProcessMemory, Rule, UsageAt, sample,
};

pub(super) const MIB: u64 = 1 << 20;

/// A kill at the own cgroup's limit of so many MiB, of which nothing else is known.
pub(super) fn oom(mib: u64) -> Death {
    let mut death = sample::oom_memcg();
    let cgroup = death.memory.limit_cgroup.clone();
    let (usage_bytes, limit_bytes) = (mib * MIB, Some(mib * MIB));
    death.memory = MemoryStory {
        usage_bytes: Some(usage_bytes),
        limit_bytes,
        limit_cgroup: cgroup.clone(),
        levels: vec![LevelUse { cgroup, usage_bytes, limit_bytes, ..LevelUse::default() }],
        ..MemoryStory::default()
    };
    death
}

/// A kill at a parent's limit of so many MiB, of which the victim's own cgroup used `own`.
pub(super) fn under(mib: u64, own: u64) -> Death {
    let mut death = oom(mib);
    let parent = Some("/parent.slice".to_owned());
    death.memory.limit_cgroup.clone_from(&parent);
    death.memory.levels[0].limit_bytes = None;
    death.memory.levels[0].usage_bytes = own * MIB;
    death.memory.levels.push(LevelUse {
        cgroup: parent,
        usage_bytes: mib * MIB,
        limit_bytes: Some(mib * MIB),
        ..LevelUse::default()
    });
    death
}

/// A kill of which it is known what its cgroup was charged for.
pub(super) fn charged(mib: u64, change: impl FnOnce(&mut CgroupMemory)) -> Death {
    let mut death = oom(mib);
    let mut cgroup = CgroupMemory {
        cgroup: death.memory.limit_cgroup.clone().unwrap(),
        usage_bytes: Some(mib * MIB),
        ..CgroupMemory::default()
    };
    change(&mut cgroup);
    death.memory.cgroup = Some(cgroup);
    death
}

pub(super) fn process(pid: u32, comm: &str, mib: u64) -> ProcessMemory {
    ProcessMemory {
        pid,
        comm: comm.to_owned(),
        rss_bytes: (mib + 3) * MIB,
        anon_bytes: Some(mib * MIB),
        tags: BTreeMap::new(),
        ..ProcessMemory::default()
    }
}

/// Usage by seconds before the death, in MiB.
pub(super) fn history(death: &Death, looks: &[(f64, u64)]) -> History {
    let usage = looks
        .iter()
        .map(|(ago_seconds, mib)| UsageAt { ago_seconds: *ago_seconds, bytes: mib * MIB });
    History {
        cgroup: death.memory.limit_cgroup.clone().unwrap(),
        limit_bytes: death.memory.limit_bytes,
        usage: usage.collect(),
        ..History::default()
    }
}

/// What a rule finds in a death without earlier ones.
pub(super) fn fires(death: &Death, rule: Rule) -> Option<Found> {
    fires_after(death, &Earlier::default(), rule)
}

pub(super) fn fires_after(death: &Death, earlier: &Earlier, rule: Rule) -> Option<Found> {
    let mut death = death.clone();
    advise(&mut death, earlier);
    let finding = death.findings.into_iter().find(|finding| finding.rule == rule)?;
    Some(Found { evidence: finding.evidence, advice: finding.advice })
}

/// The same victim, started otherwise.
pub(super) fn started(mut death: Death, arguments: &[&str], environ: &[(&str, &str)]) -> Death {
    let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
    let file = arguments[0].rsplit('/').next().unwrap().to_owned();
    death.victim.comm = file;
    death.victim.cmdline = Some(arguments);
    death.victim.environ =
        environ.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    death
}
