//! Tests of [`Cri`] against a server that does what no real runtime does when asked to: lies, garbage, silence. What real ones do is held to containerd
//! itself, in the tests of the whole daemon.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::made::{field, list, pod, wanted, web};
use super::*;
use crate::clock::Clock;
use crate::containers::worker::Worker;
use crate::containers::{Registry, SourceState};

/// What is said to a request.
#[derive(Clone)]
enum Say {
    /// A message, and that all is well.
    Message(Bytes),
    /// Bytes in place of messages, and that all is well.
    Raw(Bytes),
    /// Bytes in place of messages, and nothing more.
    Stuck(Bytes),
    /// A status alone, `grpc-message` with it.
    Status(u32, String),
    /// An answer that is no gRPC.
    Http(u16),
    /// Nothing.
    Nothing,
}

type Reply = Response<Frames>;
type Answers = dyn Fn(&str, Bytes) -> Say + Send + Sync;

/// A server; it ends with this.
struct Server {
    dir: tempfile::TempDir,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    fn new(say: impl Fn(&str, Bytes) -> Say + Send + Sync + 'static) -> Self {
        let say: Arc<Answers> = Arc::new(say);
        Self::with(move |stream| {
            let say = Arc::clone(&say);
            async move {
                let service = service_fn(move |request| reply(Arc::clone(&say), request));
                let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            }
        })
    }

    fn with<F: Future<Output = ()> + Send + 'static>(
        serve: impl Fn(tokio::net::UnixStream) -> F + Send + 'static,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let task = tokio::spawn(async move {
            let mut served = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                served.spawn(serve(stream));
            }
        });
        Self { dir, _task: AbortOnDropHandle::new(task) }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// Connected, and its version known.
    async fn client(&self) -> Cri {
        let client = Cri::connect(&self.socket(), &Arc::new(wanted())).await.unwrap();
        client.version().await.unwrap();
        client
    }
}

async fn reply(say: Arc<Answers>, request: Request<Incoming>) -> io::Result<Reply> {
    assert_eq!(request.headers()["content-type"], "application/grpc");
    let path = request.uri().path().rsplit('/').next().unwrap().to_owned();
    let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    let said = say(&path, body.slice(5..));
    let (frames, stuck) = match said {
        Say::Message(message) => (vec![data(framed(&message)), trailers(0)], false),
        Say::Raw(bytes) => (vec![data(bytes), trailers(0)], false),
        Say::Stuck(bytes) => (vec![data(bytes)], true),
        Say::Status(code, message) => {
            let head = Response::builder().header("content-type", "application/grpc");
            let head = head.header("grpc-status", code).header("grpc-message", message);
            return Ok(head.body(Frames { frames: VecDeque::new(), stuck: false }).unwrap());
        }
        Say::Http(status) => {
            return Ok(Response::builder()
                .status(status)
                .body(Frames { frames: VecDeque::new(), stuck: false })
                .unwrap());
        }
        Say::Nothing => std::future::pending().await,
    };
    let head = Response::builder().header("content-type", "application/grpc");
    Ok(head.body(Frames { frames: frames.into(), stuck }).unwrap())
}

/// Frames, and then the end or nothing.
struct Frames {
    frames: VecDeque<Frame<Bytes>>,
    stuck: bool,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.frames.pop_front() {
            None if self.stuck => Poll::Pending,
            next => Poll::Ready(next.map(Ok)),
        }
    }
}

fn data(bytes: Bytes) -> Frame<Bytes> {
    Frame::data(bytes)
}

fn trailers(status: u32) -> Frame<Bytes> {
    let trailers = [("grpc-status".parse().unwrap(), status.into())];
    Frame::trailers(trailers.into_iter().collect())
}

/// A message as gRPC frames it.
fn framed(message: &[u8]) -> Bytes {
    headed(0, u32::try_from(message.len()).unwrap(), message)
}

fn headed(compressed: u8, length: u32, rest: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(compressed);
    bytes.put_u32(length);
    bytes.put_slice(rest);
    bytes.freeze()
}

fn version(name: &str, number: &str) -> Say {
    let mut answer = BytesMut::new();
    for (tag, text) in [(1, "0.1.0"), (2, name), (3, number), (4, "v1")] {
        field(&mut answer, tag, text.as_bytes());
    }
    Say::Message(answer.freeze())
}

/// A runtime that answers `Version`, and one other request as given.
fn runtime(method: &'static str, says: Say) -> Server {
    Server::new(move |path, _| match path {
        "Version" => version("cri-o", "1.30.0"),
        path if path == method => says.clone(),
        _ => Say::Message(Bytes::new()),
    })
}

#[tokio::test]
async fn asks_by_id_and_takes_that_one_only() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    let server = Server::new(move |path, request| {
        let filter = ListRequest::decode(request).unwrap().filter;
        heard.lock().unwrap().push((path.to_owned(), filter.map(|filter| filter.id)));
        match path {
            "Version" => version("containerd", "1.6.20"),
            // Another one too, which was not asked for.
            "ListContainers" => {
                Say::Message(list([web("c10", "s9"), web("c1", "s1")].map(|c| c.encode_to_vec())))
            }
            _ => Say::Message(list([pod("s1").encode_to_vec()])),
        }
    });
    let client = server.client().await;
    let found = client.find("c1").await.unwrap().unwrap();
    assert_eq!((found.id.as_str(), found.pod.as_deref()), ("c1", Some("web-0")));
    assert_eq!(found.runtime.as_deref(), Some("containerd"));
    // The sandbox's own id.
    let found = client.find("s1").await.unwrap().unwrap();
    assert_eq!((found.name, found.pod.as_deref()), (None, Some("web-0")));
    assert_eq!(client.find("c").await.unwrap(), None);
    let asked = std::mem::take(&mut *asked.lock().unwrap());
    let some = |id: &str| Some(id.to_owned());
    let wants = [
        ("Version", None),
        ("ListContainers", some("c1")),
        ("ListPodSandbox", some("s1")),
        ("ListContainers", some("s1")),
        ("ListPodSandbox", some("s1")),
        ("ListContainers", some("c")),
        ("ListPodSandbox", some("c")),
    ];
    assert_eq!(asked, wants.map(|(path, id)| (path.to_owned(), id)));
    assert_eq!(client.find("not/an id").await.unwrap(), None);
}

#[tokio::test]
async fn not_found_is_no_failure_of_the_runtime() {
    let server = runtime("ListContainers", Say::Status(5, "no such container".to_owned()));
    let client = server.client().await;
    assert_eq!(client.find("c1").await.unwrap(), None);
    assert!(matches!(client.list().await, Err(Error::Failed(_))), "a list cannot be not found");
}

#[tokio::test]
async fn lies_are_errors_and_leave_the_connection_in_use() {
    let malformed: fn(&Error) -> bool = |error| matches!(error, Error::Malformed(_));
    let failed: fn(&Error) -> bool = |error| matches!(error, Error::Failed(_));
    let unsupported: fn(&Error) -> bool = |error| matches!(error, Error::Unsupported);
    let too_long = u32::try_from(channel::MAX_MESSAGE + 1).unwrap();
    let lies = [
        ("a message over the bound", Say::Stuck(headed(0, too_long, b"")), malformed),
        ("one of 4 GiB", Say::Stuck(headed(0, u32::MAX, b"xx")), malformed),
        ("garbage in a frame", Say::Message(Bytes::from_static(b"\xff\xff\xff")), malformed),
        ("garbage in place of a frame", Say::Raw(Bytes::from_static(b"\x99garbage")), failed),
        ("half a message", Say::Raw(headed(0, 100, b"x")), failed),
        ("a compressed message that was not asked for", Say::Raw(headed(1, 3, b"xxx")), failed),
        ("no message at all", Say::Raw(Bytes::new()), failed),
        ("a web page", Say::Http(404), unsupported),
        ("a server's error", Say::Http(500), failed),
        ("a refusal", Say::Status(7, "no".to_owned()), failed),
        ("a status that does not exist", Say::Status(4711, "?".to_owned()), failed),
        ("a long refusal", Say::Status(2, "x".repeat(9000)), failed),
        ("no such request", Say::Status(12, "unknown service".to_owned()), unsupported),
    ];
    for (what, lie, expected) in lies {
        let server = runtime("ListContainers", lie);
        let client = server.client().await;
        let error = client.list().await.unwrap_err();
        assert!(expected(&error), "{what}: {error:?}");
        assert!(error.to_string().len() < 400, "{what}: {error}");
        assert_eq!(client.version().await.unwrap(), "cri-o 1.30.0", "{what}");
    }
}

#[tokio::test]
async fn a_large_answer_within_the_bound_is_read() {
    let mut items = vec![vec![0xff; channel::MAX_MESSAGE - 4096]];
    items.push(web("c1", "").encode_to_vec());
    let server = runtime("ListContainers", Say::Message(list(items)));
    let client = server.client().await;
    let infos = client.list().await.unwrap();
    assert_eq!(infos.iter().map(|info| info.id.as_str()).collect::<Vec<_>>(), ["c1"]);
    assert_eq!((client.refused(), client.refused()), (1, 0));
}

#[tokio::test]
async fn whoever_speaks_no_http2_is_an_error() {
    for greeting in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"", &[0; 100]] {
        let server = Server::with(move |mut stream| async move {
            let _ = stream.write_all(greeting).await;
        });
        let client = Cri::connect(&server.socket(), &Arc::default()).await;
        let error = match client {
            Ok(client) => client.version().await.unwrap_err(),
            Err(error) => error,
        };
        assert!(matches!(error, Error::Failed(_)), "{error:?}");
    }
    let error = Cri::connect(Path::new("/nowhere/socket"), &Arc::default()).await.unwrap_err();
    assert!(error.to_string().contains("cannot connect"), "{error}");
}

#[tokio::test]
async fn events_are_told_where_they_are_for_every_listener() {
    let event = |id: &str, kind: u64| {
        let mut message = BytesMut::new();
        field(&mut message, 1, id.as_bytes());
        encode_key(2, WireType::Varint, &mut message);
        encode_varint(kind, &mut message);
        framed(&message)
    };
    let says = [
        event("c1", 0),
        event("c1", 1),
        event("c1", 3),
        event("a/b", 0),
        framed(b"\xff"),
        event("c2", 0),
    ];
    let says: Bytes = says.concat().into();
    let cases = [
        (("containerd", "1.7.24"), false),
        (("containerd", "nonsense"), false),
        (("containerd", "v2.0.0"), true),
        (("containerd", "2.1.9+unknown"), true),
        (("cri-o", "1.26.0"), true),
    ];
    for ((name, number), shared) in cases {
        let says = says.clone();
        let server = Server::new(move |path, _| match path {
            "Version" => version(name, number),
            _ => Say::Raw(says.clone()),
        });
        let client = server.client().await;
        let (told, mut ids) = mpsc::channel(2);
        let mut listening = false;
        let watch = client.watch(told, || listening = true);
        if shared {
            let error = watch.await;
            assert!(listening && matches!(error, Error::Failed(_)), "{name} {number}: {error:?}");
            let mut heard = Vec::new();
            while let Some(id) = ids.recv().await {
                heard.push(id);
            }
            // Two that cannot be read, and one more than there is room for.
            assert_eq!((heard, client.refused()), (vec!["c1".to_owned(), "c1".to_owned()], 3));
        } else {
            // It waits for the end of the connection, which answers meanwhile.
            tokio::select! {
                error = watch => panic!("{name} {number}: {error}"),
                answered = client.version() => drop(answered.unwrap()),
            }
            assert!(!listening, "{name} {number}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_says_nothing_yet_is_listening() {
    let server = runtime("GetContainerEvents", Say::Nothing);
    let client = server.client().await;
    let (begun, listening) = tokio::sync::oneshot::channel();
    let (told, _ids) = mpsc::channel(1);
    let watch = client.watch(told, || begun.send(()).unwrap());
    tokio::select! {
        error = watch => panic!("{error}"),
        heard = listening => heard.unwrap(),
    }
}

/// Runs a worker until its source is in this state.
async fn until(server: &Server, state: SourceState) -> String {
    let registry = Arc::new(Registry::new(&crate::containers::ContainersConfig::default()));
    let (handle, asks) = registry.source(NAME, "socket".to_owned(), serves).unwrap();
    let worker = Worker {
        handle,
        asks,
        sockets: vec![server.socket()],
        wanted: Arc::new(wanted()),
        poll: Duration::from_secs(30),
        clock: Clock,
    };
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker.run::<Cri>(stop.clone()));
    let reached = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let report = registry.reports().remove(0);
            if let (true, Some(why)) = (report.state == state, report.why) {
                return why;
            }
            registry.changed().await;
        }
    });
    let why = reached.await.expect("the state is reached");
    stop.cancel();
    running.await.unwrap();
    why
}

#[tokio::test(start_paused = true)]
async fn a_wedged_runtime_is_given_up_in_time() {
    // It takes the connection and does not read: as one that is stopped.
    let server = Server::with(|stream| async move {
        let _stream = stream;
        std::future::pending::<()>().await;
    });
    let why = until(&server, SourceState::Down).await;
    assert!(why.ends_with("no answer within 2s"), "{why}");
}

#[tokio::test]
async fn a_containerd_that_serves_docker_alone_is_no_source() {
    let server =
        Server::new(|_, _| Say::Status(12, "unknown service runtime.v1.RuntimeService".to_owned()));
    let why = until(&server, SourceState::Absent).await;
    assert!(why.contains("does not speak cri"), "{why}");
}
