//! Deaths that wait for what was seen of their scene. In order, each up to a deadline: what was asked for as the kernel decided is there long before.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;

use super::scene::Scene;
use crate::death::{Death, State};
use crate::join::ProcessId;

/// Scenes that are awaited, or of victims that are stuck; with one more, the oldest goes.
const MAX_SCENES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);
/// Deaths that may wait; with one more, the oldest leaves as it is.
const MAX_DEATHS: usize = 1024;

/// A scene that was asked for.
#[derive(Debug)]
struct Asked {
    decided_ns: u64,
    scene: Option<Arc<Scene>>,
}

/// Deaths and scenes.
#[derive(Debug)]
pub struct Scenes {
    asked: LruCache<ProcessId, Asked>,
    waiting: VecDeque<(Death, u64)>,
    deadline_ns: u64,
}

impl Scenes {
    /// `deadline`: how long a death waits from when it came here.
    #[must_use]
    pub fn new(deadline: Duration) -> Self {
        Self {
            asked: LruCache::new(MAX_SCENES),
            waiting: VecDeque::new(),
            deadline_ns: u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// The scene of a victim was asked for. `decided_ns`: when the kernel decided, ns since boot, as all times here.
    pub fn asked(&mut self, victim: ProcessId, decided_ns: u64) {
        self.asked.push(victim, Asked { decided_ns, scene: None });
    }

    /// Whether the scene of a victim was asked for.
    #[must_use]
    pub fn is_asked(&self, victim: ProcessId) -> bool {
        self.asked.contains(&victim)
    }

    /// What was seen.
    pub fn told(&mut self, victim: ProcessId, scene: Arc<Scene>) {
        if let Some(asked) = self.asked.get_mut(&victim) {
            asked.scene = Some(scene);
        }
    }

    /// A death.
    pub fn death(&mut self, death: Death, now_ns: u64) {
        self.waiting.push_back((death, now_ns.saturating_add(self.deadline_ns)));
    }

    /// The next death whose scene is known, or that has none, or may not wait for it any longer.
    pub fn next(&mut self, now_ns: u64) -> Option<Death> {
        let (death, until_ns) = self.waiting.front()?;
        let victim = process(death);
        let pending = self.asked.peek(&victim).is_some_and(|asked| asked.scene.is_none());
        if pending && *until_ns > now_ns && self.waiting.len() <= MAX_DEATHS {
            return None;
        }
        let (mut death, _) = self.waiting.pop_front()?;
        // One that is stuck has a second record, with the same scene.
        let asked = match death.state {
            State::Stuck => {
                self.asked.peek(&victim).map(|asked| (asked.decided_ns, asked.scene.clone()))
            }
            State::Dead => self.asked.pop(&victim).map(|asked| (asked.decided_ns, asked.scene)),
        };
        if let Some((decided_ns, scene)) = asked {
            match scene {
                Some(scene) => scene.put_into(&mut death, decided_ns),
                None => Scene::absent("the memory of its cgroup was not looked at in time")
                    .put_into(&mut death, decided_ns),
            }
        } else if death.oom.is_some() {
            // It is switched off, or was asked too much.
            Scene::absent("the memory of its cgroup is not followed (watch.enabled), or there was no room for the question")
                .put_into(&mut death, 0);
        }
        Some(death)
    }

    /// Whether something waits.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

fn process(death: &Death) -> ProcessId {
    ProcessId { tgid: death.victim.tgid, start_ns: death.victim.start_ktime_ns.unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::death::{HostMemory, sample};

    const DEADLINE: u64 = 100_000_000;

    fn scenes() -> Scenes {
        Scenes::new(Duration::from_nanos(DEADLINE))
    }

    fn death(pid: u32) -> Death {
        let mut death = sample::oom_memcg();
        (death.victim.pid, death.victim.tgid) = (pid, pid);
        death.victim.start_ktime_ns = Some(u64::from(pid));
        death.missing.clear();
        death
    }

    fn id(pid: u32) -> ProcessId {
        ProcessId { tgid: pid, start_ns: u64::from(pid) }
    }

    #[test]
    fn deaths_leave_in_order_with_what_was_seen() {
        let mut scenes = scenes();
        scenes.asked(id(1), 0);
        scenes.death(death(1), 0);
        scenes.death(death(2), 0);
        assert_eq!(scenes.next(0), None, "2 waits behind 1");
        let host = HostMemory { total_bytes: 7, ..HostMemory::default() };
        scenes.told(id(1), Arc::new(Scene { host: Some(host), ..Scene::default() }));
        let first = scenes.next(1).unwrap();
        assert_eq!((first.victim.pid, first.memory.host), (1, Some(host)));
        let second = scenes.next(1).unwrap();
        assert_eq!((second.victim.pid, second.memory.host), (2, None));
        assert_eq!(second.missing[0].field, "memory.history", "nobody asked, and it says so");
        assert!(!scenes.is_waiting());
    }

    #[test]
    fn nobody_waits_longer_than_the_deadline() {
        let mut scenes = scenes();
        scenes.asked(id(1), 0);
        scenes.death(death(1), 0);
        assert_eq!(scenes.next(DEADLINE - 1), None);
        let late = scenes.next(DEADLINE).unwrap();
        assert_eq!(late.missing[0].field, "memory.history");
    }

    #[test]
    fn too_many_push_out_the_oldest_as_it_is() {
        let mut scenes = scenes();
        scenes.asked(id(0), 0);
        (0..=u32::try_from(MAX_DEATHS).unwrap()).for_each(|pid| scenes.death(death(pid), 0));
        let left = std::iter::from_fn(|| scenes.next(0)).count();
        assert_eq!(left, MAX_DEATHS + 1);
    }
}
