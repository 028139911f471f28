//! Bounded queues whose full-policy has a name and whose losses are counted.
//!
//! Bounded twice, by items and by bytes: what a hostile workload can make large is not many.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::mpsc;

/// What a queue does when it is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFull {
    /// The newcomer is dropped and counted; the sender never waits.
    DropNewest,
}

/// Things that know about how much memory they hold.
pub trait Weigh {
    /// Bytes, roughly.
    fn bytes(&self) -> usize;
}

#[derive(Debug, Default)]
struct Counts {
    waiting_bytes: AtomicUsize,
    dropped: AtomicU64,
}

/// The end that never waits.
#[derive(Debug)]
pub struct Sender<T> {
    queue: mpsc::Sender<T>,
    max_bytes: usize,
    on_full: OnFull,
    counts: Arc<Counts>,
}

/// The end that waits.
#[derive(Debug)]
pub struct Receiver<T> {
    queue: mpsc::Receiver<T>,
    counts: Arc<Counts>,
}

/// Makes a queue of at most `items`, at least one, that hold at most `max_bytes` together. One sender may use it: with more, their
/// newcomers could exceed the bytes together.
#[must_use]
pub fn bounded<T>(items: usize, max_bytes: usize, on_full: OnFull) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel(items.max(1));
    let counts = Arc::new(Counts::default());
    let sender = Sender { queue: sender, max_bytes, on_full, counts: Arc::clone(&counts) };
    (sender, Receiver { queue: receiver, counts })
}

impl<T: Weigh> Sender<T> {
    /// Puts an item in the queue, or does what the full-policy says. A queue whose receiver is gone counts as full.
    pub fn offer(&self, item: T) {
        let bytes = item.bytes();
        let waiting = self.counts.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits =
            waiting.saturating_add(bytes) <= self.max_bytes && self.queue.try_send(item).is_ok();
        match self.on_full {
            OnFull::DropNewest if !fits => {
                self.counts.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
                self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            }
            OnFull::DropNewest => {}
        }
    }
}

impl<T> Sender<T> {
    /// Whether so many items of so many bytes together would fit now. A queue whose receiver is gone takes, and drops, whatever comes.
    #[must_use]
    pub fn has_room(&self, items: usize, bytes: usize) -> bool {
        let waiting = self.counts.waiting_bytes.load(Ordering::Relaxed);
        self.queue.is_closed()
            || (self.queue.capacity() >= items && waiting.saturating_add(bytes) <= self.max_bytes)
    }
}

impl<T: Weigh> Receiver<T> {
    /// The next item, or `None` once the sender is gone and the queue is empty.
    pub async fn recv(&mut self) -> Option<T> {
        let item = self.queue.recv().await?;
        self.counts.waiting_bytes.fetch_sub(item.bytes(), Ordering::Relaxed);
        Some(item)
    }

    /// Items that were dropped so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Weigh for usize {
        fn bytes(&self) -> usize {
            *self
        }
    }

    #[tokio::test]
    async fn drops_the_newest_and_counts() {
        let (sender, mut receiver) = bounded(2, 100, OnFull::DropNewest);
        for item in 1..6_usize {
            sender.offer(item);
        }
        assert_eq!(receiver.dropped(), 3);
        assert_eq!((receiver.recv().await, receiver.recv().await), (Some(1), Some(2)));
    }

    #[tokio::test]
    async fn says_whether_there_is_room() {
        let (sender, mut receiver) = bounded(3, 100, OnFull::DropNewest);
        assert!(sender.has_room(3, 100) && !sender.has_room(4, 1) && !sender.has_room(1, 101));
        sender.offer(60_usize);
        assert!(sender.has_room(2, 40) && !sender.has_room(3, 40) && !sender.has_room(1, 41));
        receiver.recv().await;
        assert!(sender.has_room(3, 100));
        drop(receiver);
        assert!(sender.has_room(1000, 1000));
    }

    #[tokio::test]
    async fn is_bounded_by_bytes_and_has_room_again() {
        let (sender, mut receiver) = bounded(10, 100, OnFull::DropNewest);
        for item in [60_usize, 60, 40, 1] {
            sender.offer(item);
        }
        assert_eq!(receiver.dropped(), 2);
        assert_eq!((receiver.recv().await, receiver.recv().await), (Some(60), Some(40)));
        sender.offer(100);
        drop(sender);
        assert_eq!((receiver.recv().await, receiver.recv().await), (Some(100), None));
        assert_eq!(receiver.dropped(), 2);
    }
}
