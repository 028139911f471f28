//! A **mock** of a CRI runtime: it answers what it is told to, in good ways and bad. It has no containers. Where a real runtime can play the part,
//! [`crate::containerd`] does; this one is for numbers of containers, and for answers, that no real runtime gives.
//!
//! It speaks HTTP/2 by hand, so that an answer may be wrong at each level: the bytes on the socket, the frames of gRPC, the message.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use prost::Message as _;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;

use crate::cri::messages as cri;

/// What [`Mode::Oversized`] sends in one message, at most: far more than anybody may keep.
pub const OVERSIZED: usize = 256 << 20;
/// Largest request that it reads.
const MAX_REQUEST: usize = 64 << 10;
/// Requests on their way at once.
const MAX_STREAMS: u32 = 64;

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As a runtime does.
    Good,
    /// As a runtime does, this much later.
    Slow(Duration),
    /// Never.
    Wedged,
    /// With a whole message that no parser takes.
    Garbage,
    /// With bytes that are no HTTP/2, on new connections; it closes those that are there.
    NotHttp,
    /// With a message of up to [`OVERSIZED`] bytes, every byte of it well-formed.
    Oversized,
    /// With well-formed messages whose known members have other types.
    WrongTypes,
    /// With an error of gRPC.
    Refuses,
}

/// A container that it tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its pod.
    pub pod: String,
    /// Its pod's uid.
    pub pod_uid: String,
    /// Its pod's namespace.
    pub namespace: String,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    containers: BTreeMap<String, Listed>,
    asked: u64,
    told: BTreeSet<String>,
}

/// A running one. Dropping it ends it.
#[derive(Debug)]
pub struct FakeCri {
    state: Arc<Mutex<State>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    dir: TempDir,
}

impl FakeCri {
    /// Starts one that answers as a runtime without containers does.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start() -> Result<Self> {
        let dir = TempDir::with_prefix("killwatch-test-").context("make a directory")?;
        let state = State {
            mode: Mode::Good,
            containers: BTreeMap::new(),
            asked: 0,
            told: BTreeSet::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("make a runtime for the mock")?;
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(dir.path().join("cri.sock")).context("listen")?
        };
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("fake-cri".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = serve(&listener, &shared) => {}
                        _ = stopped => {}
                    }
                });
            })
            .context("start a thread")?;
        Ok(Self { state, stop: Some(stop), thread: Some(thread), dir })
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("cri.sock")
    }

    /// Answers in this way from now on.
    pub fn answer(&self, mode: Mode) {
        lock(&self.state).mode = mode;
    }

    /// Tells of a container from now on.
    pub fn put(&self, id: &str, container: Listed) {
        lock(&self.state).containers.insert(id.to_owned(), container);
    }

    /// Tells of it no more.
    pub fn remove(&self, id: &str) {
        lock(&self.state).containers.remove(id);
    }

    /// Whether it has told of that container, well.
    #[must_use]
    pub fn told(&self, id: &str) -> bool {
        lock(&self.state).told.contains(id)
    }

    /// Requests so far, and connections that got no HTTP/2.
    #[must_use]
    pub fn asked(&self) -> u64 {
        lock(&self.state).asked
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for FakeCri {
    fn drop(&mut self) {
        // Fails only when the thread is gone, which is what is wanted.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: &UnixListener, state: &Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(state);
        tokio::spawn(async move {
            // However it ends, the other side sees that it has.
            let _ = converse(stream, state).await;
        });
    }
}

async fn converse(mut stream: UnixStream, state: Arc<Mutex<State>>) -> Result<()> {
    if lock(&state).mode == Mode::NotHttp {
        lock(&state).asked += 1;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n\xff\x00\xfe").await?;
        stream.write_all(&[0x5a; 64 << 10]).await?;
        return Ok(());
    }
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(MAX_STREAMS);
    let mut connection: h2::server::Connection<UnixStream, Bytes> =
        builder.handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let (request, reply) = request?;
        if lock(&state).mode == Mode::NotHttp {
            lock(&state).asked += 1;
            return Ok(());
        }
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            // A client that has given up is no matter.
            let _ = answer(request, reply, &state).await;
        });
    }
    Ok(())
}

async fn answer(
    request: http::Request<RecvStream>,
    mut reply: SendResponse<Bytes>,
    state: &Mutex<State>,
) -> Result<()> {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let asked = read(request.into_body()).await?;
    let mode = {
        let mut state = lock(state);
        state.asked += 1;
        state.mode
    };
    let message = match mode {
        Mode::Wedged => return std::future::pending().await,
        Mode::Refuses => return end(&mut reply, "13"),
        Mode::Slow(time) => {
            tokio::time::sleep(time).await;
            good(&method, &asked, state)
        }
        Mode::Good | Mode::NotHttp => good(&method, &asked, state),
        // A member of 2^40 bytes, after a tag that there cannot be.
        Mode::Garbage => {
            Some(b"\x07\xff\xff\xff\xff\xff\x3f\x0a\xff\xff\xff\xff\xff\x20ouch".to_vec())
        }
        // Member 1 of every answer as a number, then members 1 to 4 of a first item: numbers in place of texts and messages.
        Mode::WrongTypes => Some(b"\x08\x07\x0a\x08\x08\x01\x10\x02\x18\x03\x20\x04".to_vec()),
        Mode::Oversized => return flood(&mut reply).await,
    };
    let Some(message) = message else { return end(&mut reply, "12") };
    let mut body = begin(&mut reply)?;
    send(&mut body, framed(message.len(), &message)).await?;
    finish(&mut body, "0")
}

/// What a runtime says; nothing to a request that it does not have.
fn good(method: &str, asked: &[u8], state: &Mutex<State>) -> Option<Vec<u8>> {
    let wanted = cri::ListRequest::decode(asked).unwrap_or_default().filter.unwrap_or_default().id;
    let State { containers, told, .. } = &mut *lock(state);
    let listed = containers.iter();
    Some(match method {
        "Version" => cri::VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: "containerd".to_owned(),
            runtime_version: "mock".to_owned(),
            runtime_api_version: "v1".to_owned(),
        }
        .encode_to_vec(),
        "ListContainers" => {
            let listed = listed.filter(|(id, _)| wanted.is_empty() || **id == wanted);
            let listed = listed.inspect(|(id, _)| {
                told.insert((*id).clone());
            });
            let containers = listed.map(|(id, which)| container(id, which)).collect();
            cri::ListContainersResponse { containers }.encode_to_vec()
        }
        "ListPodSandbox" => {
            let listed = listed
                .filter(|(_, which)| wanted.is_empty() || sandbox_id(&which.pod_uid) == wanted);
            let items: BTreeMap<_, _> =
                listed.map(|(_, which)| (&which.pod_uid, sandbox(which))).collect();
            cri::ListPodSandboxResponse { items: items.into_values().collect() }.encode_to_vec()
        }
        // As containerd 1.6: nobody tells of containers by itself.
        _ => return None,
    })
}

/// The id of a pod's sandbox: its uid, made as long as an id is.
#[must_use]
pub fn sandbox_id(pod_uid: &str) -> String {
    format!("{:b>64}", pod_uid.replace('-', ""))
}

fn container(id: &str, which: &Listed) -> cri::Container {
    let mut labels = labels(which);
    labels.insert("io.kubernetes.container.name".to_owned(), which.name.clone());
    cri::Container {
        id: id.to_owned(),
        pod_sandbox_id: sandbox_id(&which.pod_uid),
        metadata: Some(cri::ContainerMetadata { name: which.name.clone(), attempt: 0 }),
        image: Some(cri::ImageSpec { image: "mock:1".to_owned() }),
        image_ref: "mock:1".to_owned(),
        state: 1,
        created_at: 1,
        labels: labels.into_iter().collect(),
        annotations: Default::default(),
    }
}

fn sandbox(which: &Listed) -> cri::PodSandbox {
    cri::PodSandbox {
        id: sandbox_id(&which.pod_uid),
        metadata: Some(cri::PodSandboxMetadata {
            name: which.pod.clone(),
            uid: which.pod_uid.clone(),
            namespace: which.namespace.clone(),
            attempt: 0,
        }),
        state: 0,
        created_at: 1,
        labels: labels(which).into_iter().collect(),
        annotations: Default::default(),
    }
}

fn labels(which: &Listed) -> BTreeMap<String, String> {
    [
        ("io.kubernetes.pod.name", &which.pod),
        ("io.kubernetes.pod.namespace", &which.namespace),
        ("io.kubernetes.pod.uid", &which.pod_uid),
    ]
    .map(|(key, value)| (key.to_owned(), value.clone()))
    .into()
}

/// The message of a request, without gRPC's five bytes before it.
async fn read(mut body: RecvStream) -> Result<Vec<u8>> {
    let mut read = Vec::new();
    while let Some(bytes) = body.data().await {
        let bytes = bytes?;
        body.flow_control().release_capacity(bytes.len())?;
        if read.len() + bytes.len() <= MAX_REQUEST {
            read.extend_from_slice(&bytes);
        }
    }
    Ok(read.split_off(read.len().min(5)))
}

/// gRPC's five bytes, and then `bytes`, as the beginning of a message of `len`.
fn framed(len: usize, bytes: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + bytes.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    frame.put_slice(bytes);
    frame.freeze()
}

/// Containers without end: each of them could be one.
async fn flood(reply: &mut SendResponse<Bytes>) -> Result<()> {
    let which = Listed {
        name: "n".repeat(200),
        pod: "p".repeat(200),
        pod_uid: "00000000-0000-4000-8000-000000000000".to_owned(),
        namespace: "s".repeat(200),
    };
    let one = cri::ListContainersResponse { containers: vec![container(&"f".repeat(64), &which)] };
    let one = one.encode_to_vec();
    let count = OVERSIZED / one.len();
    let chunk = Bytes::from(one.repeat(64));
    let mut body = begin(reply)?;
    send(&mut body, framed(count * one.len(), &[])).await?;
    for _ in 0..count / 64 {
        send(&mut body, chunk.clone()).await?;
    }
    finish(&mut body, "0")
}

fn begin(reply: &mut SendResponse<Bytes>) -> Result<SendStream<Bytes>> {
    Ok(reply.send_response(head().body(())?, false)?)
}

/// An answer without a message.
fn end(reply: &mut SendResponse<Bytes>, status: &'static str) -> Result<()> {
    reply.send_response(head().header("grpc-status", status).body(())?, true)?;
    Ok(())
}

fn head() -> http::response::Builder {
    http::Response::builder().status(200).header("content-type", "application/grpc")
}

fn finish(body: &mut SendStream<Bytes>, status: &'static str) -> Result<()> {
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static(status));
    Ok(body.send_trailers(trailers)?)
}

/// Sends as much at a time as the other side takes.
async fn send(body: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<()> {
    while !bytes.is_empty() {
        body.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|context| body.poll_capacity(context));
        let room = room.await.ok_or(h2::Error::from(Reason::CANCEL))??;
        body.send_data(bytes.split_to(room.min(bytes.len())), false)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::Client;

    #[test]
    fn speaks_as_a_runtime_until_it_is_told_otherwise() {
        let fake = FakeCri::start().unwrap();
        let client = Client::new(&fake.socket()).unwrap();
        assert_eq!(client.version().unwrap().runtime_name, "containerd");
        assert!(client.pods().unwrap().is_empty());
        let which = Listed {
            name: "a".to_owned(),
            pod: "b".to_owned(),
            pod_uid: "c-d".to_owned(),
            namespace: "e".to_owned(),
        };
        fake.put("1", which);
        assert_eq!(client.pods().unwrap(), [sandbox_id("c-d")]);
        fake.remove("1");
        assert!(client.pods().unwrap().is_empty());
        for mode in [Mode::Garbage, Mode::WrongTypes, Mode::Refuses, Mode::Oversized, Mode::NotHttp]
        {
            fake.answer(mode);
            assert!(client.pods().is_err(), "{mode:?}");
        }
        fake.answer(Mode::Good);
        assert!(client.pods().is_ok());
        assert!(fake.asked() >= 9, "{}", fake.asked());
    }
}
