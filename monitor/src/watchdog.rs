//! systemd's watchdog (`WatchdogSec=`): told only as the pipeline moves, so that one that hangs is ended and started anew.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::ops::worth_a_line;

/// Of the time that the watchdog waits, this part may pass between two words to it: some may be late.
const SHARE: u32 = 4;

/// The pipeline's sign of life.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Arc<Notify>);

impl Pulse {
    /// It moves. Waits for nobody.
    pub fn beat(&self) {
        self.0.notify_one();
    }
}

/// Tells systemd's watchdog of the beats of `pulse`. Returns if none waits for that.
pub async fn run(pulse: Pulse) {
    let mut micros = 0;
    if sd_notify::watchdog_enabled(false, &mut micros) {
        let tell = || sd_notify::notify(false, &[sd_notify::NotifyState::Watchdog]);
        pass_on(pulse, Duration::from_micros(micros), tell).await;
    }
}

/// Tells of beats, and of nothing else. Where it may block: systemd may be too busy to listen.
async fn pass_on(
    pulse: Pulse,
    waits: Duration,
    tell: impl Fn() -> io::Result<()> + Clone + Send + 'static,
) {
    let failures = AtomicU64::new(0);
    let mut told: Option<Instant> = None;
    loop {
        pulse.0.notified().await;
        if told.is_some_and(|told| told.elapsed() < waits / SHARE) {
            continue;
        }
        match tokio::task::spawn_blocking(tell.clone()).await.map_err(io::Error::from).flatten() {
            Ok(()) => told = Some(Instant::now()),
            Err(error) => {
                if let Some(times) = worth_a_line(&failures, 1) {
                    tracing::warn!(%error, times, "systemd's watchdog cannot be told");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    /// What comes out of the other end, one word a message.
    struct Ear {
        socket: UnixDatagram,
        task: tokio::task::JoinHandle<()>,
    }

    impl Ear {
        fn of(pulse: &Pulse, waits: Duration) -> Self {
            let (mouth, socket) = UnixDatagram::pair().unwrap();
            let mouth = Arc::new(mouth);
            let tell = move || mouth.send(b"alive").map(drop);
            Self { socket, task: tokio::spawn(pass_on(pulse.clone(), waits, tell)) }
        }

        /// Waits for one.
        async fn hears(&self) {
            let socket = self.socket.try_clone().unwrap();
            socket.set_nonblocking(false).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let heard = tokio::task::spawn_blocking(move || socket.recv(&mut [0; 16])).await;
            assert_eq!(heard.unwrap().unwrap(), 5);
        }

        /// Whether there is none, now that the task has been ended.
        async fn silent(self) -> bool {
            self.task.abort();
            assert!(self.task.await.unwrap_err().is_cancelled());
            self.socket.set_nonblocking(true).unwrap();
            self.socket.recv(&mut [0; 16]).is_err()
        }
    }

    #[tokio::test]
    async fn who_does_not_move_is_not_said_to_live() {
        let pulse = Pulse::default();
        let ear = Ear::of(&pulse, Duration::ZERO);
        for _ in 0..3 {
            pulse.beat();
            ear.hears().await;
        }
        assert!(ear.silent().await, "three beats, and more than three words");
    }

    #[tokio::test]
    async fn a_beat_that_came_first_counts() {
        let pulse = Pulse::default();
        pulse.beat();
        Ear::of(&pulse, Duration::ZERO).hears().await;
    }

    #[tokio::test]
    async fn the_watchdog_is_not_told_more_often_than_it_needs() {
        let pulse = Pulse::default();
        let ear = Ear::of(&pulse, Duration::from_secs(3600));
        pulse.beat();
        ear.hears().await;
        for _ in 0..100 {
            pulse.beat();
            tokio::task::yield_now().await;
        }
        assert!(ear.silent().await);
    }
}
