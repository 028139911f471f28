//! The two ends between the thread and the rest of the house. Nobody waits: what finds no room is dropped, and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;

use rustix::fd::OwnedFd;
use tokio::sync::{mpsc, oneshot};

use super::listing::Cgroups;
use super::scene::{LookAt, Scene};
use crate::alert::Alert;

/// A question or a notice.
#[derive(Debug)]
pub enum Ask {
    /// A cgroup is there.
    Seen {
        /// Its id in the hierarchy that accounts memory.
        id: u64,
        /// Its path.
        path: Arc<str>,
        /// Whether a container, a pod or a unit goes by it.
        named: bool,
        /// Whether it was just made.
        made: bool,
    },
    /// A cgroup is gone.
    Gone {
        /// Its id.
        id: u64,
    },
    /// A process is killed, or ended.
    Look(Box<LookAt>),
    /// What is followed.
    List(oneshot::Sender<Cgroups>),
}

/// What the thread tells.
#[derive(Debug)]
pub enum Told {
    /// The scene that was asked for.
    Scene(LookAt, Arc<Scene>),
    /// A cgroup has come near its limit.
    Near(Box<Alert>),
}

/// The handle. The thread ends with the last one.
#[derive(Debug, Clone)]
pub struct Watch {
    line: Arc<Line>,
}

#[derive(Debug)]
struct Line {
    /// `None` only as it goes.
    asks: Option<SyncSender<Ask>>,
    wake: OwnedFd,
    dropped: Arc<AtomicU64>,
}

/// The thread's own end: where it tells.
#[derive(Debug)]
pub(super) struct Tell {
    told: mpsc::Sender<Told>,
    dropped: Arc<AtomicU64>,
}

/// Both ends. `wake` wakes the thread.
pub(super) fn ends(
    asks: SyncSender<Ask>,
    wake: OwnedFd,
    room: usize,
) -> (Watch, Tell, mpsc::Receiver<Told>) {
    let (told, hears) = mpsc::channel(room);
    let dropped = Arc::new(AtomicU64::new(0));
    let line = Line { asks: Some(asks), wake, dropped: Arc::clone(&dropped) };
    (Watch { line: Arc::new(line) }, Tell { told, dropped }, hears)
}

impl Tell {
    pub(super) fn tell(&self, told: Told) {
        if self.told.try_send(told).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Watch {
    /// Asks or tells, without waiting. False if there was no room, which is counted.
    pub fn ask(&self, ask: Ask) -> bool {
        let sent = self.line.asks.as_ref().is_some_and(|asks| asks.try_send(ask).is_ok());
        if sent {
            wake(&self.line.wake);
        } else {
            self.line.dropped.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    /// What is followed. `None` if the thread does not answer.
    pub async fn list(&self) -> Option<Cgroups> {
        let (answer, listing) = oneshot::channel();
        if !self.ask(Ask::List(answer)) {
            return None;
        }
        listing.await.ok()
    }

    /// Questions, notices and answers that found no room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.line.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.asks = None;
        wake(&self.wake);
    }
}

fn wake(event: &OwnedFd) {
    // It fails only when the thread has been told 2^64 times already.
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    #[test]
    fn what_finds_no_room_is_counted_on_both_ways() {
        let (asks, _questions) = std::sync::mpsc::sync_channel(1);
        let (watch, tell, _told) = ends(asks, eventfd(0, EventfdFlags::CLOEXEC).unwrap(), 1);
        assert!(watch.ask(Ask::Gone { id: 1 }) && !watch.ask(Ask::Gone { id: 2 }));
        let near = || Told::Near(Box::new(crate::alert::sample::near_limit()));
        tell.tell(near());
        assert_eq!(watch.dropped(), 1);
        tell.tell(near());
        assert_eq!(watch.dropped(), 2);
    }
}
