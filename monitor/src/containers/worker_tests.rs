//! Tests of [`Worker`] with a source that is slow, fails, vanishes, and comes back. Time is the test's own.

use std::collections::HashMap;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinHandle;
use tokio::time::advance;

use super::super::registry::{Registry, SourceReport};
use super::super::{ContainersConfig, Lookup, cut};
use super::*;

/// How a source behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Works,
    /// It does not answer.
    Hangs,
    /// Every request fails.
    Fails,
    /// Somebody else listens there.
    Foreign,
}

/// A source as the test moves it.
#[derive(Debug)]
struct Source {
    mode: tokio::sync::watch::Sender<Mode>,
    listed: Mutex<Vec<String>>,
    /// Found, and in no list.
    found: Mutex<Vec<String>>,
    /// Told of by itself.
    told: tokio::sync::broadcast::Sender<String>,
    connects: AtomicUsize,
    lists: AtomicUsize,
    finds: AtomicUsize,
    watches: AtomicUsize,
}

/// Sources by their socket, since a client is made of nothing else.
static SOURCES: Mutex<Option<HashMap<PathBuf, Arc<Source>>>> = Mutex::new(None);

impl Source {
    fn new(socket: &Path) -> Arc<Self> {
        let source = Arc::new(Self {
            mode: tokio::sync::watch::Sender::new(Mode::Works),
            listed: Mutex::default(),
            found: Mutex::default(),
            told: tokio::sync::broadcast::Sender::new(16),
            connects: AtomicUsize::new(0),
            lists: AtomicUsize::new(0),
            finds: AtomicUsize::new(0),
            watches: AtomicUsize::new(0),
        });
        fs::write(socket, "").unwrap();
        let mut sources = SOURCES.lock().unwrap();
        sources.get_or_insert_default().insert(socket.to_owned(), Arc::clone(&source));
        source
    }

    fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    async fn answer(&self, count: &AtomicUsize) -> Result<(), Error> {
        count.fetch_add(1, Ordering::Relaxed);
        let mut mode = self.mode.subscribe();
        let mode = *mode.wait_for(|mode| *mode != Mode::Hangs).await.unwrap();
        match mode {
            Mode::Works | Mode::Hangs => Ok(()),
            Mode::Fails => Err(Error::Failed("it said no".to_owned())),
            Mode::Foreign => Err(Error::Unsupported),
        }
    }
}

struct Fake(Arc<Source>);

fn info(id: &str) -> Info {
    Info { id: cut(id), source: "fake", name: Some(format!("name of {id}")), ..Info::default() }
}

impl Client for Fake {
    async fn connect(socket: &Path, _: &Arc<Wanted>) -> Result<Self, Error> {
        let source =
            SOURCES.lock().unwrap().as_ref().and_then(|sources| sources.get(socket).cloned());
        let source = source.unwrap();
        source.answer(&source.connects).await?;
        Ok(Self(source))
    }

    async fn version(&self) -> Result<String, Error> {
        Ok("fake 1.0".to_owned())
    }

    async fn list(&self) -> Result<Vec<Info>, Error> {
        self.0.answer(&self.0.lists).await?;
        Ok(self.0.listed.lock().unwrap().iter().map(|id| info(id)).collect())
    }

    async fn find(&self, id: &str) -> Result<Option<Info>, Error> {
        self.0.answer(&self.0.finds).await?;
        let (listed, found) = (self.0.listed.lock().unwrap(), self.0.found.lock().unwrap());
        // One that takes a beginning for the whole.
        Ok(listed.iter().chain(found.iter()).find(|known| known.starts_with(id)).map(|id| info(id)))
    }

    async fn watch(&self, ids: mpsc::Sender<String>, listening: impl FnOnce() + Send) -> Error {
        self.0.watches.fetch_add(1, Ordering::Relaxed);
        let mut told = self.0.told.subscribe();
        listening();
        while let Ok(id) = told.recv().await {
            if id == "end" {
                break;
            }
            ids.send(id).await.unwrap();
        }
        Error::Failed("the end".to_owned())
    }

    fn refused(&self) -> u64 {
        1
    }
}

/// A worker at its sockets.
struct Stage {
    registry: Arc<Registry>,
    sources: Vec<Arc<Source>>,
    sockets: Vec<PathBuf>,
    _dir: tempfile::TempDir,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Stage {
    fn new(sockets: usize, set: impl FnOnce(&[Arc<Source>])) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sockets: Vec<PathBuf> = (0..sockets).map(|n| dir.path().join(n.to_string())).collect();
        let sources: Vec<Arc<Source>> = sockets.iter().map(|socket| Source::new(socket)).collect();
        set(&sources);
        let registry = Arc::new(Registry::new(&ContainersConfig::default()));
        let (handle, asks) = registry.source("fake", "here".to_owned(), |_| true).unwrap();
        let worker = Worker {
            handle,
            asks,
            sockets: sockets.clone(),
            wanted: Arc::default(),
            poll: Duration::from_secs(30),
            clock: Clock,
        };
        let stop = CancellationToken::new();
        let running = tokio::spawn(worker.run::<Fake>(stop.clone()));
        Self { registry, sources, sockets, _dir: dir, stop, running }
    }

    fn source(&self) -> &Source {
        &self.sources[0]
    }

    fn report(&self) -> SourceReport {
        self.registry.reports().remove(0)
    }

    /// Waits until something holds, for a minute of the test's time.
    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waited = timeout(Duration::from_secs(60), async {
            while !holds(self) {
                self.registry.changed().await;
            }
        });
        let reached = waited.await;
        assert!(reached.is_ok(), "not reached: {what}; {:?}", self.report());
    }

    async fn until_state(&self, state: SourceState) {
        self.until(&format!("{state:?}"), |stage| stage.report().state == state).await;
    }

    async fn until_known(&self, id: &str) {
        self.until(id, |stage| matches!(stage.registry.lookup(id), Lookup::Known(_))).await;
    }

    fn ask(&self, id: &str) {
        self.registry.ask(id, None, Clock.boot_ns());
    }

    async fn end(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

fn count(of: &AtomicUsize) -> usize {
    of.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn lists_what_is_there_and_finds_what_it_is_asked_for() {
    let stage = Stage::new(1, |sources| sources[0].listed.lock().unwrap().push("a".to_owned()));
    stage.until_known("a").await;
    stage.source().found.lock().unwrap().push("b1".to_owned());
    for id in ["b1", "b", "c"] {
        stage.ask(id);
        assert!(matches!(stage.registry.lookup(id), Lookup::Pending));
    }
    stage.until_known("b1").await;
    // Neither one that another's answer was given for, nor one that there is not.
    stage
        .until("answers", |stage| {
            ["b", "c"].iter().all(|id| matches!(stage.registry.lookup(id), Lookup::Unknown))
        })
        .await;
    let report = stage.report();
    assert_eq!((report.state, report.version.as_deref()), (SourceState::Up, Some("fake 1.0")));
    assert!(report.refused >= 4 && report.failed == 0 && report.events, "{report:?}");
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn many_at_once_are_listed_and_the_rest_found() {
    let stage = Stage::new(1, |_| ());
    stage.until_state(SourceState::Up).await;
    let ids: Vec<String> = (0..200).map(|n| format!("c{n:03}")).collect();
    let (listed, found) = ids.split_at(195);
    stage.source().listed.lock().unwrap().extend_from_slice(listed);
    stage.source().found.lock().unwrap().extend_from_slice(found);
    ids.iter().for_each(|id| stage.ask(id));
    for id in &ids {
        stage.until_known(id).await;
    }
    let (lists, finds) = (count(&stage.source().lists), count(&stage.source().finds));
    // One as it came up, one as it listened, one for all these.
    assert!(lists <= 3 && finds == found.len(), "{lists} lists, {finds} finds");
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_wedged_is_waited_for_no_longer_than_a_death_may_wait() {
    let stage = Stage::new(1, |sources| sources[0].listed.lock().unwrap().push("old".to_owned()));
    stage.until_known("old").await;
    stage.source().set(Mode::Hangs);
    stage.ask("a");
    assert!(matches!(stage.registry.lookup("a"), Lookup::Pending));
    stage.registry.too_late("a");
    assert!(matches!(stage.registry.lookup("a"), Lookup::Unknown));
    assert_eq!(stage.report().state, SourceState::Slow);
    stage.ask("b");
    assert!(matches!(stage.registry.lookup("b"), Lookup::Unknown), "nobody waits for it");
    stage.until_state(SourceState::Down).await;
    assert!(stage.report().why.unwrap().ends_with("no answer within 2s"));
    assert!(matches!(stage.registry.lookup("old"), Lookup::Known(_)), "names outlive the source");
    // It goes on, and has more than before.
    stage.source().listed.lock().unwrap().push("a".to_owned());
    stage.source().set(Mode::Works);
    stage.until_known("a").await;
    assert_eq!(stage.report().state, SourceState::Up);
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_was_slow_serves_again_with_its_late_answer() {
    let stage = Stage::new(1, |_| ());
    stage.until_state(SourceState::Up).await;
    stage.source().found.lock().unwrap().push("a".to_owned());
    stage.source().set(Mode::Hangs);
    stage.ask("a");
    stage.registry.too_late("a");
    advance(Duration::from_secs(1)).await;
    stage.source().set(Mode::Works);
    stage.until_known("a").await;
    assert_eq!((stage.report().state, stage.report().failed), (SourceState::Up, 0));
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_is_tried_less_and_less_often() {
    let stage = Stage::new(1, |sources| sources[0].set(Mode::Fails));
    stage.until_state(SourceState::Down).await;
    assert!(stage.report().why.unwrap().ends_with("it said no"));
    stage.ask("a");
    assert!(matches!(stage.registry.lookup("a"), Lookup::Unknown), "nobody can be asked");
    let since = Instant::now();
    stage.until("failures", |stage| stage.report().failed >= 6).await;
    let waited = since.elapsed();
    assert!(waited > Duration::from_secs(10), "{waited:?}");
    stage.source().set(Mode::Works);
    stage.until_state(SourceState::Up).await;
    assert!(since.elapsed() < waited + RETRY_MAX + LOOK);
    // It worked: the next failure is followed by a quick look.
    stage.source().set(Mode::Fails);
    stage.until_state(SourceState::Down).await;
    let since = Instant::now();
    stage.source().set(Mode::Works);
    stage.until_state(SourceState::Up).await;
    assert!(since.elapsed() <= RETRY_MIN * 2, "{:?}", since.elapsed());
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_vanishes_leaves_its_names_and_is_found_when_it_is_back() {
    let stage = Stage::new(1, |sources| sources[0].listed.lock().unwrap().push("old".to_owned()));
    stage.until_known("old").await;
    fs::remove_file(&stage.sockets[0]).unwrap();
    stage.source().set(Mode::Fails);
    stage.until_state(SourceState::Absent).await;
    assert_eq!(stage.report().why.as_deref(), Some("there is no socket"));
    assert!(matches!(stage.registry.lookup("old"), Lookup::Known(_)));
    let connects = count(&stage.source().connects);
    *stage.source().listed.lock().unwrap() = vec!["new".to_owned()];
    stage.source().set(Mode::Works);
    fs::write(&stage.sockets[0], "").unwrap();
    stage.until_known("new").await;
    assert_eq!(count(&stage.source().connects), connects + 1);
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_next_socket_serves_where_somebody_else_is_at_the_first() {
    let stage = Stage::new(3, |sources| {
        sources[0].set(Mode::Foreign);
        sources[1].set(Mode::Fails);
        sources[2].listed.lock().unwrap().push("a".to_owned());
    });
    stage.until_known("a").await;
    // It stays there.
    advance(Duration::from_secs(100)).await;
    assert_eq!((count(&stage.sources[0].connects), count(&stage.sources[2].connects)), (1, 1));
    stage.end().await;
    let foreign = Stage::new(1, |sources| sources[0].set(Mode::Foreign));
    foreign.until("a reason", |stage| stage.report().why.is_some()).await;
    let report = foreign.report();
    assert_eq!((report.state, report.failed), (SourceState::Absent, 0));
    assert!(report.why.as_ref().unwrap().contains("does not speak fake"), "{report:?}");
    foreign.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_it_tells_of_is_asked_for_and_it_is_listened_to_again() {
    let stage = Stage::new(1, |_| ());
    stage.until("listening", |stage| stage.report().events).await;
    stage.source().found.lock().unwrap().extend(["a", "b"].map(str::to_owned));
    stage.source().told.send("a".to_owned()).unwrap();
    stage.until_known("a").await;
    let (lists, watches) = (count(&stage.source().lists), count(&stage.source().watches));
    stage.source().told.send("end".to_owned()).unwrap();
    // The stream alone has ended: it goes on to be asked, and is listened to again with the next list.
    stage.until("a list", |stage| count(&stage.source().lists) >= lists + 2).await;
    assert_eq!((count(&stage.source().watches), count(&stage.source().connects)), (watches + 1, 1));
    stage.source().told.send("b".to_owned()).unwrap();
    stage.until_known("b").await;
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_listed_no_more_is_gone_and_keeps_its_names() {
    let stage = Stage::new(1, |sources| sources[0].listed.lock().unwrap().push("a".to_owned()));
    stage.until_known("a").await;
    stage.source().listed.lock().unwrap().clear();
    let lists = count(&stage.source().lists);
    stage.until("a list", |stage| count(&stage.source().lists) > lists).await;
    assert!(matches!(stage.registry.lookup("a"), Lookup::Known(_)));
    stage.registry.forget_gone(Clock.boot_ns());
    assert!(matches!(stage.registry.lookup("a"), Lookup::Known(_)));
    stage.registry.forget_gone(u64::MAX);
    assert!(matches!(stage.registry.lookup("a"), Lookup::Unknown));
    assert_eq!((stage.registry.size().entries, stage.registry.size().refused), (0, 0));
    stage.end().await;
}
