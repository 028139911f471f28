//! Bounded queues whose full-policy has a name and whose losses are counted.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::mpsc;

/// What a queue does when it is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFull {
    /// The newcomer is dropped and counted; the sender never waits.
    DropNewest,
}

/// The end that never waits.
#[derive(Debug)]
pub struct Sender<T> {
    queue: mpsc::Sender<T>,
    on_full: OnFull,
    dropped: Arc<AtomicU64>,
}

/// Makes a queue of `capacity` items, at least one.
#[must_use]
pub fn bounded<T>(capacity: usize, on_full: OnFull) -> (Sender<T>, mpsc::Receiver<T>) {
    let (queue, receiver) = mpsc::channel(capacity.max(1));
    (Sender { queue, on_full, dropped: Arc::default() }, receiver)
}

impl<T> Sender<T> {
    /// Puts an item in the queue, or does what the full-policy says. A queue whose receiver is gone counts as full.
    pub fn offer(&self, item: T) {
        match self.on_full {
            OnFull::DropNewest => {
                if self.queue.try_send(item).is_err() {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// The counter of what was dropped.
    #[must_use]
    pub fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_the_newest_and_counts() {
        let (sender, mut receiver) = bounded(2, OnFull::DropNewest);
        for item in 0..5 {
            sender.offer(item);
        }
        assert_eq!(sender.dropped().load(Ordering::Relaxed), 3);
        assert_eq!((receiver.try_recv(), receiver.try_recv()), (Ok(0), Ok(1)));
        assert!(receiver.try_recv().is_err());
    }
}
