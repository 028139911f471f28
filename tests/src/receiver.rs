//! A **mock** of who is told of deaths by HTTP: it answers as its script says, in good ways and bad, and keeps what it was sent.
//!
//! Its port is its own from the start. Until [`Receiver::listen`] nobody listens there, and whoever connects is refused.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
use serde_json::Value;

/// Longest head and body that it reads.
const MAX_REQUEST: usize = 4 << 20;
/// A sender that says nothing for so long is hung up on.
const SILENCE: Duration = Duration::from_secs(30);

/// How it answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// With this status.
    Status(u16),
    /// 503, and when to come again, in seconds.
    Busy(u32),
    /// Not, until it is told to answer otherwise; then it hangs up.
    Hang,
    /// By hanging up.
    HangUp,
}

/// A request that it got whole.
#[derive(Debug, Clone)]
pub struct Received {
    /// Method and path, such as `POST /hook`.
    pub what: String,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// What was posted.
    pub body: Value,
    /// How it was answered.
    pub answer: Answer,
    /// When it was there.
    pub at: Instant,
}

impl Received {
    /// Ids of the events in it, in order.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        let id = |event: &Value| event["id"].as_str().map(str::to_owned);
        match &self.body {
            Value::Array(events) => events.iter().filter_map(id).collect(),
            event => id(event).into_iter().collect(),
        }
    }
}

#[derive(Debug)]
struct State {
    /// Answers to the next requests; then `answer`.
    script: VecDeque<Answer>,
    answer: Answer,
    received: Vec<Received>,
    hanging: usize,
    /// Rises with each new answer: whoever hangs under another one is let go.
    turn: u64,
    stopped: bool,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

/// A running one. Dropping it ends it.
#[derive(Debug)]
pub struct Receiver {
    state: Shared,
    address: SocketAddrV4,
    /// Until it listens.
    deaf: Option<std::os::fd::OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// One that is down: it has an address, and connections to it are refused.
    ///
    /// # Errors
    /// When there is no port.
    pub fn down() -> Result<Self> {
        let deaf = socket(AddressFamily::INET, SocketType::STREAM, None).context("a socket")?;
        bind(&deaf, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).context("bind a port")?;
        let address = getsockname(&deaf).context("which port it is")?;
        let address = SocketAddrV4::try_from(address).context("which port it is")?;
        let state = State {
            script: VecDeque::new(),
            answer: Answer::Status(200),
            received: Vec::new(),
            hanging: 0,
            turn: 0,
            stopped: false,
        };
        let state = Arc::new((Mutex::new(state), Condvar::new()));
        Ok(Self { state, address, deaf: Some(deaf), thread: None })
    }

    /// One that answers so.
    ///
    /// # Errors
    /// As [`Receiver::down`], and when no thread can be started.
    pub fn up(answer: Answer) -> Result<Self> {
        let mut receiver = Self::down()?;
        receiver.answer(answer);
        receiver.listen()?;
        Ok(receiver)
    }

    /// From now on it is up.
    ///
    /// # Errors
    /// When it is up already, or no thread can be started.
    pub fn listen(&mut self) -> Result<()> {
        let socket = self.deaf.take().context("it listens already")?;
        listen(&socket, 128).context("listen")?;
        let (listener, state) = (TcpListener::from(socket), Arc::clone(&self.state));
        let thread = std::thread::Builder::new().name("receiver".to_owned());
        self.thread = Some(thread.spawn(move || accept(&listener, &state)).context("a thread")?);
        Ok(())
    }

    /// Its address.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// From now on, and after what is scripted, it answers so. Who hangs is let go.
    pub fn answer(&self, answer: Answer) {
        let mut state = locked(&self.state);
        state.answer = answer;
        state.turn += 1;
        self.state.1.notify_all();
    }

    /// The next requests are answered so, one by one.
    pub fn script(&self, answers: &[Answer]) {
        locked(&self.state).script.extend(answers);
    }

    /// Requests that are kept waiting.
    #[must_use]
    pub fn hanging(&self) -> usize {
        locked(&self.state).hanging
    }

    /// All requests, in order.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        locked(&self.state).received.clone()
    }

    /// Ids of the events that it took, in order; one that it was sent twice is there twice.
    #[must_use]
    pub fn taken(&self) -> Vec<String> {
        let received = self.received();
        let took =
            received.iter().filter(|request| matches!(request.answer, Answer::Status(200..=299)));
        took.flat_map(Received::ids).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        locked(&self.state).stopped = true;
        self.state.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // It looks whether it is to end when somebody comes.
            let _ = TcpStream::connect(SocketAddr::V4(self.address));
            let _ = thread.join();
        }
    }
}

fn locked(state: &Shared) -> MutexGuard<'_, State> {
    state.0.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, state: &Shared) {
    for stream in listener.incoming() {
        if locked(state).stopped {
            return;
        }
        let (Ok(stream), state) = (stream, Arc::clone(state)) else { continue };
        // A thread each: one that hangs must not keep others waiting. They end with their connection, or when it stops.
        let spawned =
            std::thread::Builder::new().name("receiver-conn".to_owned()).spawn(move || {
                // A sender that breaks off is no failure of the test.
                let _ = serve(&stream, &state);
            });
        if spawned.is_err() {
            return;
        }
    }
}

/// Answers the requests of a connection, until one is answered by hanging up.
fn serve(stream: &TcpStream, state: &Shared) -> Result<()> {
    stream.set_read_timeout(Some(SILENCE))?;
    let mut reader = BufReader::new(stream);
    while let Some((what, headers, body)) = request(&mut reader)? {
        let (answer, turn) = {
            let mut state = locked(state);
            if state.stopped {
                return Ok(());
            }
            let answer = state.script.pop_front().unwrap_or(state.answer);
            state.received.push(Received { what, headers, body, answer, at: Instant::now() });
            (answer, state.turn)
        };
        let (status, more) = match answer {
            Answer::Status(status) => (status, String::new()),
            Answer::Busy(seconds) => (503, format!("retry-after: {seconds}\r\n")),
            Answer::HangUp => return Ok(()),
            Answer::Hang => {
                let mut held = locked(state);
                held.hanging += 1;
                while held.turn == turn && !held.stopped {
                    held = state.1.wait(held).unwrap_or_else(PoisonError::into_inner);
                }
                held.hanging -= 1;
                return Ok(());
            }
        };
        let head = format!("HTTP/1.1 {status} Scripted\r\ncontent-length: 0\r\n{more}\r\n");
        (&*stream).write_all(head.as_bytes())?;
    }
    Ok(())
}

type Request = (String, Vec<(String, String)>, Value);

/// The next request; none if the sender has ended.
fn request(reader: &mut BufReader<&TcpStream>) -> Result<Option<Request>> {
    let mut first = String::new();
    if line(reader, &mut first)? == 0 {
        return Ok(None);
    }
    let what = first.rsplit_once(' ').context("no request line")?.0.to_owned();
    let (mut headers, mut length) = (Vec::new(), 0);
    loop {
        let mut text = String::new();
        line(reader, &mut text)?;
        let Some((name, value)) = text.split_once(':') else { break };
        let (name, value) = (name.to_ascii_lowercase(), value.trim().to_owned());
        match name.as_str() {
            "content-length" => length = value.parse().context("a length")?,
            "transfer-encoding" => bail!("it reads bodies of a stated length only"),
            _ => {}
        }
        headers.push((name, value));
    }
    anyhow::ensure!(length <= MAX_REQUEST, "a body of {length} bytes");
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body)? };
    Ok(Some((what, headers, body)))
}

fn line(reader: &mut BufReader<&TcpStream>, text: &mut String) -> Result<usize> {
    let count = reader.by_ref().take(MAX_REQUEST as u64).read_line(text)?;
    text.truncate(text.trim_end().len());
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::wait_until;

    fn post(receiver: &Receiver, id: &str) -> Result<u16> {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(20)))
            .proxy(None)
            .http_status_as_error(false);
        let body = format!(r#"{{"id":"{id}"}}"#);
        let answer = config.build().new_agent().post(receiver.url("/hook")).send(&body)?;
        Ok(answer.status().as_u16())
    }

    #[test]
    fn it_answers_as_its_script_says() {
        let mut receiver = Receiver::down().unwrap();
        assert!(post(&receiver, "refused").is_err(), "nobody listens yet");
        receiver.listen().unwrap();
        receiver.script(&[Answer::Status(400), Answer::Busy(7), Answer::HangUp]);
        assert_eq!(post(&receiver, "a").unwrap(), 400);
        assert_eq!(post(&receiver, "b").unwrap(), 503);
        assert!(post(&receiver, "c").is_err());
        assert_eq!(post(&receiver, "d").unwrap(), 200);
        assert_eq!(receiver.taken(), ["d"]);
        let received = receiver.received();
        assert_eq!((received.len(), received[1].answer), (4, Answer::Busy(7)));
        assert_eq!(received[0].what, "POST /hook");
    }

    #[test]
    fn who_hangs_is_let_go_when_it_answers_otherwise() {
        let receiver = Receiver::up(Answer::Hang).unwrap();
        std::thread::scope(|scope| {
            let kept = scope.spawn(|| post(&receiver, "kept"));
            let hangs = || Ok((receiver.hanging() == 1).then_some(()));
            wait_until(Duration::from_secs(10), "it hangs", hangs).unwrap();
            receiver.answer(Answer::Status(204));
            assert!(kept.join().unwrap().is_err());
            assert_eq!(post(&receiver, "next").unwrap(), 204);
        });
        assert_eq!(receiver.taken(), ["next"]);
    }
}
