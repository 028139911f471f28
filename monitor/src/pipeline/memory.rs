//! What the pipeline and the watch over memory tell each other.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::Running;
use crate::{
    alert::AlertKind,
    cgroup::CgroupId,
    death::{Cause, Death, Workload},
    join::{Ended, ProcessId},
    ledger::Item,
    watch::{Ask, LookAt, Told, Watch},
};

impl Running {
    /// Has the watch look at the scene of a death.
    pub(super) fn look(&mut self, at: LookAt) {
        let Some((watch, _)) = &self.parts.watch else { return };
        let (victim, at_ns) = (at.victim, at.at_ns);
        if watch.ask(Ask::Look(Box::new(at))) {
            self.scenes.asked(victim, at_ns);
        }
    }

    /// Of a death without a decision of the kernel the minutes before are told where memory may be behind it.
    pub(super) fn look_back(&mut self, death: &Death, ended: &Ended) {
        let victim = ProcessId::from(&ended.exit.victim);
        let may_be = matches!(death.cause, Cause::Abort | Cause::OomUserspace);
        if may_be && !self.scenes.is_asked(victim) {
            let id = ended.exit.victim.cgroup_memory;
            let hierarchy = self.parts.hierarchy.id;
            let own = self.parts.index.path(CgroupId { hierarchy, id });
            self.look(LookAt { victim, at_ns: death.ktime_ns, hit: None, own, kill: false });
        }
    }

    pub(super) fn hear_of_memory(&mut self, told: Told) {
        match told {
            Told::Scene(at, scene) => self.scenes.told(at.victim, scene),
            Told::Near(alert) => {
                if let AlertKind::NearLimit(near) = &alert.kind {
                    self.parts.ops.near_limit(near);
                }
                if let Err(error) = self.parts.ledger.append(Item::Alert(Arc::from(alert))) {
                    self.parts.ops.not_recorded(&error);
                }
            }
        }
    }

    /// Has the memory of a cgroup followed. `made`: it was just made.
    pub(super) fn follow(&self, id: CgroupId, made: bool) {
        let Some((watch, _)) = &self.parts.watch else { return };
        let path = self.parts.index.path(id).filter(|_| id.hierarchy == self.parts.hierarchy.id);
        // What is cut cannot be opened; the next walk completes it.
        if let Some(path) = path.filter(|_| !self.parts.index.is_cut(id)) {
            let own = self.parts.naming.workload(Some(&path), Some(id.id));
            let above = path.rsplit_once('/').map(|(above, _)| above);
            let named = is_named(&own, &self.parts.naming.workload(above, None));
            watch.ask(Ask::Seen { id: id.id, path, named, made });
        }
    }

    pub(super) fn unfollow(&self, id: CgroupId) {
        if let Some((watch, _)) = &self.parts.watch
            && id.hierarchy == self.parts.hierarchy.id
        {
            watch.ask(Ask::Gone { id: id.id });
        }
    }
}

/// Whether a cgroup stands for something that the one `above` it does not.
fn is_named(own: &Workload, above: &Workload) -> bool {
    let new = |own: &Option<String>, above: &Option<String>| own.is_some() && own != above;
    new(&own.container_id, &above.container_id)
        || new(&own.pod_uid, &above.pod_uid)
        || new(&own.unit, &above.unit)
}

/// What the watch tells; never, if there is none.
pub(super) async fn told(watch: &mut Option<(Watch, mpsc::Receiver<Told>)>) -> Told {
    match watch {
        Some((_, told)) => match told.recv().await {
            Some(told) => told,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}
