//! Against the daemon's own server.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio_util::sync::CancellationToken;

use super::super::Output;
use super::super::follow::{Follower, go_on};
use super::super::page::{PAGE, newest};
use super::super::printer::{Out, Printer};
use super::super::question::Question;
use super::super::record::Record;
use crate::api::{Guard, State, Status, TelemetryPath, bind, router};
use crate::cli::client::{Api, Unanswered};
use crate::death::sample;
use crate::ledger::{Filter, Ledger, LedgerConfig};
use crate::metrics::{Metrics, MetricsConfig};

/// A daemon's API over an empty ledger.
struct Served {
    ledger: Arc<Ledger>,
    address: SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Served {
    async fn at(address: &str) -> Self {
        let ledger = Arc::new(Ledger::new(LedgerConfig::default()));
        let state = State {
            ledger: Arc::clone(&ledger),
            metrics: Arc::new(Metrics::new(MetricsConfig::default())),
            status: Arc::new(Status::new("node-1".into(), None)),
            links: Default::default(),
            deaths: true,
            watch: None,
        };
        let server = bind(&[address.parse().unwrap()]).unwrap();
        let (address, stop) = (server.addresses()[0], CancellationToken::new());
        let router =
            router(Arc::new(state), &TelemetryPath::default(), Arc::new(Guard::of_nobody()));
        let task = tokio::spawn(server.run(router, Arc::new(Guard::of_nobody()), stop.clone()));
        Self { ledger, address, stop, task }
    }

    fn api(&self) -> Api {
        format!("http://{}", self.address).parse().unwrap()
    }

    fn dies(&self, id: u128) {
        let mut death = sample::oom_memcg();
        death.id = uuid::Uuid::from_u128(id);
        death.time = Timestamp::now();
        self.ledger.append(death).unwrap();
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

fn ids(records: &[Record]) -> Vec<u128> {
    records.iter().map(|record| record.id().unwrap().as_u128()).collect()
}

#[tokio::test]
async fn the_newest_come_oldest_first_however_many() {
    let served = Served::at("127.0.0.1:0").await;
    let total = 3 * PAGE as u128 + 7;
    (1..=total).for_each(|id| served.dies(id));
    for limit in [1, PAGE, PAGE + 1, 2 * PAGE, 1000] {
        let question = Question { filter: Filter::default(), limit };
        let (records, place) = newest(&served.api(), &question).await.unwrap();
        let first = (total + 1).saturating_sub(limit as u128).max(1);
        assert_eq!(ids(&records), (first..=total).collect::<Vec<_>>(), "{limit}");
        assert_eq!(u128::from(place.last), total);
    }
    let none = Filter { job: Some("nobody's".into()), ..Filter::default() };
    let (records, place) =
        newest(&served.api(), &Question { filter: none, limit: 500 }).await.unwrap();
    assert_eq!((records.len(), u128::from(place.last)), (0, total));
    served.end().await;
}

#[tokio::test]
async fn no_answer_and_a_no_are_told_apart() {
    let served = Served::at("127.0.0.1:0").await;
    let api = served.api();
    let filter = Filter { pod: Some("a/b/c".into()), ..Filter::default() };
    let refused = newest(&api, &Question { filter, limit: 1 }).await.unwrap_err();
    assert!(
        refused.to_string().contains("400 Bad Request: pod: \"a/b/c\" is not allowed"),
        "{refused}"
    );
    served.end().await;
    let silent = newest(&api, &Question { filter: Filter::default(), limit: 1 }).await.unwrap_err();
    assert!(matches!(silent, Unanswered::Silence(_)), "{silent}");
    assert!(api.is_local() && "http://[::1]:1".parse::<Api>().unwrap().is_local());
    assert!(!"http://node-7:9435".parse::<Api>().unwrap().is_local());
}

/// What is printed, and a wait for it.
#[derive(Clone, Default)]
struct Shared(Arc<(Mutex<Vec<u8>>, tokio::sync::Notify)>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.0.lock().unwrap().extend_from_slice(bytes);
        self.0.1.notify_one();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Shared {
    async fn lines(&self, count: usize) -> Vec<u128> {
        loop {
            let text = String::from_utf8(self.0.0.lock().unwrap().clone()).unwrap();
            if text.lines().count() >= count {
                let records: Vec<_> = text.lines().map(Record::new).collect();
                return ids(&records);
            }
            self.0.1.notified().await;
        }
    }
}

#[tokio::test]
async fn a_follower_survives_a_daemon_that_forgets() {
    let served = Served::at("127.0.0.1:0").await;
    let (api, address) = (served.api(), served.address.to_string());
    (1..=3).for_each(|id| served.dies(id));
    let question = Question { filter: Filter::default(), limit: 2 };
    let (records, place) = newest(&api, &question).await.unwrap();
    let (out, said) = (Shared::default(), Shared::default());
    let mut printer = Printer::new(Output::Json, None, TimeZone::UTC, Out::to(out.clone()));
    printer.print(&records).unwrap();
    let shown = records.iter().filter_map(Record::id).collect::<Vec<_>>().into_iter();
    let follower = Follower::new(question, place, shown, Timestamp::now());
    let follows = {
        let (api, mut said) = (api.clone(), said.clone());
        tokio::spawn(async move {
            go_on(&api, follower, &mut printer, |words| writeln!(said, "{words}").unwrap()).await
        })
    };
    served.dies(4);
    assert_eq!(out.lines(3).await, [2, 3, 4]);
    served.end().await;

    let again = Served::at(&address).await;
    // Five new ones: the numbers of the new run go past where the old one was.
    (11..=15).for_each(|id| again.dies(id));
    assert_eq!(out.lines(8).await, [2, 3, 4, 11, 12, 13, 14, 15]);
    again.dies(16);
    assert_eq!(out.lines(9).await.last(), Some(&16));
    let said = String::from_utf8(said.0.0.lock().unwrap().clone()).unwrap();
    assert!(said.contains("started anew"), "{said}");
    follows.abort();
    again.end().await;
}
