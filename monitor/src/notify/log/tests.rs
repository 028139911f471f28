//! The worker: order, recovery, loss and shutdown.

use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::death::sample;
use crate::ledger::LedgerConfig;
use crate::metrics::{Metrics, MetricsConfig};

#[derive(Clone, Default)]
struct Out {
    text: Arc<Mutex<Vec<u8>>>,
    broken: Arc<AtomicBool>,
}

impl Write for Out {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.text.lock().unwrap().write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Rig {
    out: Out,
    ledger: Arc<Ledger>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

impl Rig {
    fn new(max_deaths: usize) -> Self {
        let config =
            LedgerConfig { max_deaths: max_deaths.try_into().unwrap(), ..LedgerConfig::default() };
        Self {
            out: Out::default(),
            ledger: Arc::new(Ledger::new(config)),
            metrics: Arc::new(Metrics::new(MetricsConfig::default())),
            stop: CancellationToken::new(),
        }
    }

    fn start(&self, deadline: Duration) -> tokio::task::JoinHandle<()> {
        let ops = Arc::new(Ops::new(Arc::clone(&self.metrics)));
        let worker =
            Worker::new(Lines::to(Box::new(self.out.clone())), Arc::clone(&self.ledger), ops);
        tokio::spawn(worker.run(self.stop.clone(), deadline))
    }

    fn append(&self, deaths: usize) {
        for _ in 0..deaths {
            self.ledger.append(sample::oom_memcg()).unwrap();
        }
    }

    fn lines(&self) -> usize {
        self.out.text.lock().unwrap().iter().filter(|b| **b == b'\n').count()
    }

    /// Written, failed, skipped.
    fn counts(&self) -> (u64, u64, u64) {
        let sink = self.metrics.sink(NAME);
        (sink.written.get(), sink.failed.get(), sink.skipped.get())
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_left_is_written_before_the_end() {
    let rig = Rig::new(1000);
    rig.append(3);
    let worker = rig.start(Duration::from_secs(5));
    rig.append(600);
    rig.stop.cancel();
    worker.await.unwrap();
    assert_eq!(rig.lines(), 603);
    assert_eq!(rig.counts(), (603, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_fails_tries_on_and_counts_what_was_overtaken() {
    let rig = Rig::new(10);
    rig.out.broken.store(true, Ordering::SeqCst);
    let worker = rig.start(Duration::from_secs(5));
    rig.append(4);
    while rig.counts().1 < 3 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    rig.append(10);
    rig.out.broken.store(false, Ordering::SeqCst);
    rig.stop.cancel();
    worker.await.unwrap();
    let (written, _, skipped) = rig.counts();
    assert_eq!((written, skipped), (10, 4));
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_stays_broken_ends_at_the_deadline() {
    let rig = Rig::new(10);
    rig.out.broken.store(true, Ordering::SeqCst);
    rig.append(5);
    let worker = rig.start(Duration::from_secs(2));
    rig.stop.cancel();
    worker.await.unwrap();
    let (written, failed, skipped) = rig.counts();
    assert_eq!((written, skipped), (0, 5));
    assert!(failed > 5, "it tried until the deadline: {failed}");
}
