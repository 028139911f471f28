//! What is done each second.

use std::time::Instant;

use super::{RESCAN, Running, SKIPS};
use crate::{
    cgroup::index::Full,
    join::Forgotten,
    ops::{Gap, Queue},
    probe::stats::Lost,
};

/// What was let go, as far as it was told already.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Losses {
    dropped: u64,
    log_lines: usize,
    lost: u64,
    forgotten: Forgotten,
    refused: u64,
    watch: u64,
}

impl Running {
    /// Takes over the counts of what was lost, lets old things go, and has the cgroups walked over anew if some may have been missed.
    pub(super) fn upkeep(&mut self) {
        let dropped = self.parts.records.dropped();
        let new = dropped - self.lost.dropped;
        self.parts.ops.queue_dropped(Queue::Records, new);
        let log_lines = self.parts.log_lost.dropped_lines();
        self.parts.ops.queue_dropped(Queue::Log, (log_lines - self.lost.log_lines) as u64);
        let mut lost = 0;
        for (program, count) in self.parts.lost.as_ref().map(Lost::read).unwrap_or_default() {
            self.parts.ops.kernel_lost(program, count);
            lost += count;
        }
        let now = Instant::now();
        if now >= self.skips_due {
            self.skips_due = now + SKIPS;
            for (program, count) in self.parts.lost.as_ref().map(Lost::skipped).unwrap_or_default()
            {
                self.parts.ops.kernel_skipped(program, count);
            }
        }
        let watch = self.parts.watch.as_ref().map_or(0, |(watch, _)| watch.dropped());
        self.parts.ops.queue_dropped(Queue::Watch, watch - self.lost.watch);
        let refused = self.parts.index.dropped(Full::RefuseNew);
        self.must_walk |= new > 0 || lost > self.lost.lost || !self.parts.hears_of_cgroups;
        let forgotten = self.join.forgotten();
        self.parts.ops.gap(Gap::UnfinishedDeath, forgotten.open - self.lost.forgotten.open);
        self.parts.ops.gap(Gap::MissingMark, forgotten.unmarked - self.lost.forgotten.unmarked);
        self.parts.ops.gap(Gap::UnnamedCgroup, refused - self.lost.refused);
        self.lost = Losses { dropped, log_lines, lost, forgotten, refused, watch };
        self.parts.index.forget_gone(self.parts.clock.boot_ns());
        self.parts.naming.tick(self.parts.clock.boot_ns());
        self.parts.metrics.set_sources(&self.parts.naming.reports());
        let size = self.parts.naming.size();
        self.parts.metrics.set_containers(size.entries, size.refused);
        self.parts.metrics.set_names_late(self.parts.naming.late());
        self.parts.metrics.set_cgroups(self.parts.index.len());
        self.parts.metrics.expire(now);
        self.parts.audit.tick(&self.parts.index);
        if self.must_walk && self.walk.is_none() && self.last_walk.elapsed() > RESCAN {
            self.start_walk();
        }
        self.parts.pulse.beat();
    }
}
