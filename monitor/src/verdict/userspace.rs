//! Userspace OOM killers: by their name, and proven by their place or by what they leave.

use super::{
    facts::{Facts, Sender, Verdict},
    stop,
};
use crate::death::{Cause, Killer};

/// The verdict, if the sender is such a killer.
pub(super) fn oom_killer(
    facts: &Facts<'_>,
    sender: &Sender,
    killer: &Killer,
    evidence: &[String],
) -> Option<Verdict> {
    // systemd kills for systemd-oomd, without a SIGTERM before. Its mark stays: an old one may be what is seen.
    let for_it =
        sender.comm == "systemd" && !facts.marks.is_empty() && stop::before(facts).is_none();
    if !(facts.names.is_oom_killer(&sender.comm) || for_it) {
        return None;
    }
    let mut evidence = evidence.to_vec();
    let marks = facts.marks.iter();
    evidence.extend(marks.map(|(name, value)| {
        format!("the victim's cgroup carries the mark of such a killer, {name}={value}")
    }));
    // The system's own slice: a user or a container may name a unit of its own alike.
    let own_unit =
        sender.cgroup.as_deref() == Some(format!("/system.slice/{}.service", sender.comm).as_str());
    if own_unit {
        evidence.push(format!("it runs as the system's own {}.service", sender.comm));
    }
    // Whoever owns a cgroup may write user attributes there; trusted ones take CAP_SYS_ADMIN.
    let proven = own_unit || facts.marks.keys().any(|name| name.starts_with("trusted."));
    let killer = Killer { marks: facts.marks.clone(), ..killer.clone() };
    let verdict = Verdict::new(Cause::OomUserspace, killer, evidence);
    Some(if for_it {
        verdict
            .inferring("that systemd killed for systemd-oomd: the mark may be of an earlier kill")
    } else if proven {
        verdict
    } else {
        verdict.inferring(format!("that {} is the userspace OOM killer of that name", sender.comm))
    })
}
