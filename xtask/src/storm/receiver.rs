//! A webhook's receiver that is down first: its port is reserved and refuses; opened, it accepts all and remembers the ids.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// A request that is longer is not ours.
const MAX_BODY: usize = 16 << 20;

/// What was delivered.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Each record once.
    pub(crate) ids: BTreeSet<String>,
    /// All of them.
    pub(crate) deliveries: u64,
}

/// The receiver.
pub(crate) struct Receiver {
    address: SocketAddr,
    heard: Arc<Mutex<Heard>>,
}

impl Receiver {
    /// Chooses a port at which nobody listens.
    pub(crate) fn reserve() -> Result<Self> {
        let listener =
            TcpListener::bind(("127.0.0.1", 0)).context("no free port on the loopback")?;
        Ok(Self { address: listener.local_addr()?, heard: Arc::default() })
    }

    /// Where it will listen.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Listens from now on, until this program ends.
    pub(crate) fn open(self) -> Result<Self> {
        let listener = TcpListener::bind(self.address)
            .with_context(|| format!("{} was taken by another", self.address))?;
        let heard = Arc::clone(&self.heard);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let heard = Arc::clone(&heard);
                thread::spawn(move || {
                    if let Err(error) = serve(&stream, &heard) {
                        eprintln!("    a receiver's connection ended: {error:#}");
                    }
                });
            }
        });
        Ok(self)
    }

    /// Records that were delivered, each counted once.
    pub(crate) fn heard(&self) -> usize {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).ids.len()
    }

    /// Everything that was delivered.
    pub(crate) fn close(self) -> Heard {
        std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Answers requests of one connection until the other side closes it.
fn serve(stream: &TcpStream, heard: &Mutex<Heard>) -> Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = None;
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        while !line.trim().is_empty() {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse::<usize>().ok();
            }
            line.clear();
            ensure!(reader.read_line(&mut line)? > 0, "it ended inside a head");
        }
        let length = length.filter(|length| *length <= MAX_BODY).context("no usable length")?;
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let body: Value = serde_json::from_slice(&body).context("not JSON")?;
        let events = match body {
            Value::Array(events) => events,
            event => vec![event],
        };
        {
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            for event in events {
                let id = event["id"].as_str().context("an event without an id")?;
                heard.deliveries += 1;
                heard.ids.insert(id.to_owned());
            }
        }
        (&mut &*stream).write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_refuses_and_then_remembers_each_once() {
        let receiver = Receiver::reserve().unwrap();
        assert!(TcpStream::connect(receiver.address).is_err());
        let receiver = receiver.open().unwrap();
        let mut stream = TcpStream::connect(receiver.address).unwrap();
        for body in [r#"{"id":"a"}"#, r#"[{"id":"b"},{"id":"a"}]"#] {
            write!(stream, "POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                .unwrap();
            let mut answer = [0; 27];
            stream.read_exact(&mut answer).unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 204"));
        }
        let heard = receiver.close();
        assert_eq!((heard.ids.len(), heard.deliveries), (2, 3));
    }
}
