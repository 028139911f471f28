//! Docker and Podman, which speak one API: HTTP over a Unix socket.
//!
//! A client of our own, since those at hand (`bollard`, which wraps the whole API) read an answer to its end however long it is. This one asks four
//! things, each within a bound: who it is, what runs, one container, and to be told of changes.
//!
//! * A request is a connection of its own, closed when its answer is there or is given up. So one that is never answered holds nothing up, and
//!   nothing of it is taken for the answer to the next.
//! * The list of all does not say how often a container was started anew, nor always its image by name. So what is listed is looked at one by one
//!   too, for as long as [`CLOSER`] lasts, and what was seen is kept for the next list, while the engine tells of changes.
//! * Podman's pods are not in this API, so its containers have no pod; what cri-dockerd and the old dockershim made is known by its labels.
//!
//! [`answers`] decodes, without I/O; [`lines`] cuts the stream of changes.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::{Instant, timeout_at};

use self::answers::{Teller, is_id};
use self::lines::Lines;
use super::worker::{Client, Error};
use super::{Info, Wanted};

pub mod answers;
pub mod lines;
#[cfg(test)]
mod tests;

/// Longest list of containers, in bytes: some 5,000 of them.
const MAX_LIST: usize = 8 << 20;
/// Longest answer of any other kind, in bytes.
const MAX_ONE: usize = 1 << 20;
/// Longest head of an answer, in bytes.
const MAX_HEAD: usize = 64 << 10;
/// Of an answer that says no, this much is read, in bytes.
const MAX_REFUSAL: usize = 4 << 10;
/// How long the containers of a list are looked at one by one; the rest is for the next list. Whoever is asked for meanwhile waits as long.
const CLOSER: Duration = Duration::from_millis(100);
/// Containers whose looks are kept.
const MAX_SEEN: usize = answers::MAX_CONTAINERS;

/// `{"type":["container"],"event":["create","start","rename"]}`, which both engines tell alike. A restart is a start too. That a container goes is
/// not asked: its cgroup tells.
const CHANGES: &str = "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B%22create%22%2C%22start%22%2C%22rename%22%5D%7D";

/// One of the engines that speak this API.
pub trait Engine: Send + Sync + 'static {
    /// The name of the source.
    const SOURCE: &'static str;
    /// Its well-known sockets.
    const SOCKETS: &'static [&'static str];
    /// What is asked for the list of containers that run or are about to. Neither engine takes a state that it does not know.
    const LIST: &'static str;

    /// Whether it may know the containers of a runtime, if the path tells one.
    #[must_use]
    fn serves(runtime: Option<&str>) -> bool {
        runtime.is_none_or(|runtime| runtime == Self::SOURCE)
    }
}

/// Docker.
#[derive(Debug)]
pub enum Docker {}

/// Podman.
#[derive(Debug)]
pub enum Podman {}

impl Engine for Docker {
    const SOURCE: &'static str = "docker";
    const SOCKETS: &'static [&'static str] = &["/run/docker.sock"];
    /// `{"status":["created","running","paused","restarting"]}`
    const LIST: &'static str = "/containers/json?filters=%7B%22status%22%3A%5B%22created%22%2C%22running%22%2C%22paused%22%2C%22restarting%22%5D%7D";
}

impl Engine for Podman {
    const SOURCE: &'static str = "podman";
    const SOCKETS: &'static [&'static str] = &["/run/podman/podman.sock"];
    /// `{"status":["created","running","paused"]}`
    const LIST: &'static str = "/containers/json?filters=%7B%22status%22%3A%5B%22created%22%2C%22running%22%2C%22paused%22%5D%7D";
}

/// Asks one engine.
pub struct EngineClient<E> {
    socket: PathBuf,
    wanted: Arc<Wanted>,
    version: String,
    teller: Teller,
    seen: Mutex<Seen>,
    /// Changes that were not taken.
    refused: AtomicU64,
    engine: PhantomData<fn() -> E>,
}

/// What was seen of containers one by one and a list does not say, by id.
#[derive(Default)]
struct Seen {
    /// Whether the engine tells of changes: what was seen holds until then.
    told: bool,
    looks: HashMap<String, Look>,
}

/// `None` in a look is what could not be had.
#[derive(Debug, Clone, Default)]
struct Look {
    attempt: Option<u32>,
    image: Option<String>,
}

impl<E> fmt::Debug for EngineClient<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineClient").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl<E: Engine> Client for EngineClient<E> {
    const TELLS_OF_CHANGES: bool = true;

    async fn connect(socket: &Path, wanted: &Arc<Wanted>) -> Result<Self, Error> {
        let body = get(socket, "/version", MAX_ONE).await?;
        let body = body.ok_or(Error::Unsupported)?;
        let version = answers::version(&body).map_err(malformed)?;
        Ok(Self {
            socket: socket.to_owned(),
            wanted: Arc::clone(wanted),
            teller: Teller { source: E::SOURCE, runtime: version.runtime.unwrap_or(E::SOURCE) },
            version: version.text,
            seen: Mutex::default(),
            refused: AtomicU64::new(0),
            engine: PhantomData,
        })
    }

    async fn version(&self) -> Result<String, Error> {
        Ok(self.version.clone())
    }

    async fn list(&self) -> Result<Vec<Info>, Error> {
        let body = get(&self.socket, E::LIST, MAX_LIST).await?.ok_or(Error::Unsupported)?;
        let mut infos = answers::list(&body, &self.wanted, self.teller).map_err(malformed)?;
        drop(body);
        self.look_closer(&mut infos).await;
        Ok(infos)
    }

    async fn find(&self, id: &str) -> Result<Option<Info>, Error> {
        // A shorter one would be taken for the beginning of an id, or for a name.
        if !is_id(id) {
            return Ok(None);
        }
        let Some(body) = get(&self.socket, &format!("/containers/{id}/json"), MAX_ONE).await?
        else {
            return Ok(None);
        };
        let info = answers::container(&body, &self.wanted, self.teller).map_err(malformed)?;
        if info.id != id {
            return Err(Error::Malformed("it is of another container".to_owned()));
        }
        let look = Look { attempt: info.attempt, image: info.image.clone() };
        self.seen().keep(id, look);
        Ok(Some(info))
    }

    async fn watch(&self, ids: mpsc::Sender<String>, listening: impl FnOnce() + Send) -> Error {
        let told = exchange(&self.socket, CHANGES, async |mut response| {
            check(&mut response).await?.ok_or(Error::Unsupported)?;
            // What changed before is not told.
            *self.seen() = Seen { told: true, looks: HashMap::new() };
            listening();
            self.tell(response.into_body(), &ids).await
        });
        let end = told.await.err();
        *self.seen() = Seen::default();
        end.unwrap_or_else(|| Error::Failed("it tells of changes no more".to_owned()))
    }

    fn refused(&self) -> u64 {
        self.refused.swap(0, Ordering::Relaxed)
    }
}

impl<E: Engine> EngineClient<E> {
    /// Sends the ids of a stream of changes, until it ends or nobody listens.
    async fn tell(&self, mut body: Incoming, ids: &mpsc::Sender<String>) -> Result<(), Error> {
        let mut lines = Lines::default();
        let mut told = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(failed)?.into_data() else { continue };
            let too_long = lines.feed(&data, |line| told.push(answers::change(line)));
            self.refuse(too_long);
            for id in told.drain(..) {
                let Some(id) = id else {
                    self.refuse(1);
                    continue;
                };
                self.seen().looks.remove(&id);
                match ids.try_send(id) {
                    Ok(()) => {}
                    Err(TrySendError::Full(_)) => self.refuse(1),
                    Err(TrySendError::Closed(_)) => return Ok(()),
                }
            }
        }
        Ok(())
    }

    fn refuse(&self, more: u64) {
        self.refused.fetch_add(more, Ordering::Relaxed);
    }

    /// Adds what a list does not say.
    async fn look_closer(&self, infos: &mut [Info]) {
        let until = Instant::now() + CLOSER;
        {
            let listed: HashSet<&str> = infos.iter().map(|info| info.id.as_str()).collect();
            let mut seen = self.seen();
            if seen.told {
                seen.looks.retain(|id, _| listed.contains(id.as_str()));
            } else {
                seen.looks.clear();
            }
        }
        for info in infos {
            let kept = self.seen().looks.get(&info.id).cloned();
            let began = Instant::now();
            let look = match kept {
                Some(look) => look,
                None if began >= until => continue,
                None => match timeout_at(until, self.find(&info.id)).await {
                    Ok(Ok(Some(found))) => Look { attempt: found.attempt, image: found.image },
                    // It had no time left.
                    Err(_) if began.elapsed() < CLOSER / 2 => continue,
                    // An engine may hang at one container for ever: it is not to keep the others from being looked at.
                    Ok(Ok(None) | Err(_)) | Err(_) => {
                        self.seen().keep(&info.id, Look::default());
                        continue;
                    }
                },
            };
            info.attempt = info.attempt.or(look.attempt);
            info.image = look.image.or_else(|| info.image.take());
        }
    }

    /// A panic elsewhere leaves no half-made state here: nothing between lock and unlock can panic.
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn keep(&mut self, id: &str, look: Look) {
        if self.told && (self.looks.len() < MAX_SEEN || self.looks.contains_key(id)) {
            self.looks.insert(id.to_owned(), look);
        }
    }
}

/// The body of a good answer, at most `limit` bytes; `None` if it says 404.
async fn get(socket: &Path, path: &str, limit: usize) -> Result<Option<Bytes>, Error> {
    exchange(socket, path, async |mut response| match check(&mut response).await? {
        Some(()) => read(response.body_mut(), limit).await.map(Some),
        None => Ok(None),
    })
    .await
}

/// Sends a GET, and has `then` read the answer. The connection ends with it.
async fn exchange<T>(
    socket: &Path,
    path: &str,
    then: impl AsyncFnOnce(Response<Incoming>) -> Result<T, Error>,
) -> Result<T, Error> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| Error::Failed(format!("cannot connect: {error}")))?;
    let mut http = http1::Builder::new();
    http.max_buf_size(MAX_HEAD);
    let (mut sender, connection) = http.handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let request = Request::get(path).header("host", "docker").body(Empty::<Bytes>::new());
    let request = request.map_err(|error| Error::Failed(error.to_string()))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        then(response).await
    };
    // The connection does the work of the request; when it ends, the answer knows how.
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
}

/// Whether it says yes; `None` if it says 404.
async fn check(response: &mut Response<Incoming>) -> Result<Option<()>, Error> {
    match response.status() {
        StatusCode::OK => Ok(Some(())),
        StatusCode::NOT_FOUND => Ok(None),
        StatusCode::NOT_IMPLEMENTED => Err(Error::Unsupported),
        other => {
            let why = read(response.body_mut(), MAX_REFUSAL).await.ok();
            let why = why.and_then(|body| answers::refusal(&body));
            Err(Error::Failed(match why {
                Some(why) => format!("it says {other}: {why}"),
                None => format!("it says {other}"),
            }))
        }
    }
}

async fn read(body: &mut Incoming, limit: usize) -> Result<Bytes, Error> {
    let body = Limited::new(body, limit).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            Error::Malformed(format!("it is longer than {limit} bytes"))
        } else {
            Error::Failed(format!("it cannot be read: {error}"))
        }
    })?;
    Ok(body.to_bytes())
}

#[expect(clippy::needless_pass_by_value, reason = "it is passed to map_err")]
fn failed(error: hyper::Error) -> Error {
    if error.is_parse() {
        Error::Malformed(error.to_string())
    } else {
        Error::Failed(error.to_string())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is passed to map_err")]
fn malformed(error: serde_json::Error) -> Error {
    Error::Malformed(error.to_string())
}
