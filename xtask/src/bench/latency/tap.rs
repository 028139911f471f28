//! A receiver of HTTP that notes when each death is there. It answers by itself, or passes the request on and answers as it was answered: then what it notes is when that one
//! had taken it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{boot_ns, number_after};

/// A request that is longer is not ours.
const MAX_BODY: usize = 16 << 20;

/// A death, as it arrived.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) at: u64,
    pub(super) ktime_ns: Option<u64>,
    pub(super) pid: Option<u32>,
}

/// The receiver. It ends with this program.
pub(super) struct Tap {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Tap {
    /// Opens one. `next`: scheme, host and port of who is asked behind it.
    pub(super) fn open(next: Option<String>) -> Result<Self> {
        let listener =
            TcpListener::bind(("127.0.0.1", 0)).context("no free port on the loopback")?;
        let tap = Self { address: listener.local_addr()?, seen: Arc::default() };
        let seen = Arc::clone(&tap.seen);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, next) = (Arc::clone(&seen), next.clone());
                thread::spawn(move || {
                    if let Err(error) = serve(&stream, next.as_deref(), &seen) {
                        eprintln!("    a receiver's connection ended: {error:#}");
                    }
                });
            }
        });
        Ok(tap)
    }

    /// Scheme, host and port.
    pub(super) fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Deaths so far.
    pub(super) fn count(&self) -> usize {
        locked(&self.seen).len()
    }

    /// All of them.
    pub(super) fn seen(&self) -> Vec<Seen> {
        locked(&self.seen).clone()
    }
}

fn locked(seen: &Mutex<Vec<Seen>>) -> MutexGuard<'_, Vec<Seen>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers requests of one connection until the other side closes it.
fn serve(stream: &TcpStream, next: Option<&str>, seen: &Mutex<Vec<Seen>>) -> Result<()> {
    stream.set_nodelay(true)?;
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .proxy(None)
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(10)))
        .build()
        .into();
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return Ok(());
        }
        let (mut length, mut kind) = (None, "application/json".to_owned());
        let mut line = first.clone();
        while !line.trim().is_empty() {
            if let Some((name, value)) = line.split_once(':') {
                match name.to_ascii_lowercase().as_str() {
                    "content-length" => length = value.trim().parse::<usize>().ok(),
                    "content-type" => value.trim().clone_into(&mut kind),
                    _ => {}
                }
            }
            line.clear();
            ensure!(reader.read_line(&mut line)? > 0, "it ended inside a head");
        }
        let length = length.filter(|length| *length <= MAX_BODY).context("no usable length")?;
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let status = match next {
            None => 200,
            Some(base) => {
                let path = first.split(' ').nth(1).context("no path")?;
                let request = agent.post(format!("{base}{path}")).header("content-type", &kind);
                request
                    .send(&body[..])
                    .context("who is behind it does not answer")?
                    .status()
                    .as_u16()
            }
        };
        let at = boot_ns();
        if (200..300).contains(&status) {
            locked(seen).extend(deaths(&String::from_utf8_lossy(&body), at));
        }
        let answer = format!("HTTP/1.1 {status} Answered\r\ncontent-length: 0\r\n\r\n");
        (&mut &*stream).write_all(answer.as_bytes())?;
    }
}

/// The deaths of a body: CloudEvents with records, or alerts that name a process.
fn deaths(body: &str, at: u64) -> Vec<Seen> {
    let records = body.match_indices("\"ktime_ns\":").filter_map(|(start, key)| {
        let ktime_ns = number_after(&body[start..], key);
        // Others end in the same letters, such as that of a start.
        ktime_ns.map(|_| Seen { at, ktime_ns, pid: None })
    });
    let mut seen: Vec<Seen> = records.collect();
    if seen.is_empty() {
        seen.extend(body.match_indices("(pid ").filter_map(|(start, key)| {
            let pid = number_after(&body[start..], key)?.try_into().ok();
            Some(Seen { at, ktime_ns: None, pid })
        }));
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_and_alerts_are_told_apart() {
        let records = deaths(r#"[{"ktime_ns":5,"start_ktime_ns":1},{"ktime_ns":6}]"#, 9);
        let times: Vec<_> = records.iter().map(|seen| seen.ktime_ns).collect();
        assert_eq!(times, [Some(5), Some(6)]);
        let alerts = deaths(r#"[{"description":"process a (pid 7): x"}]"#, 9);
        assert_eq!((alerts.len(), alerts[0].pid, alerts[0].at), (1, Some(7), 9));
    }

    #[test]
    fn what_is_passed_on_counts_once_it_is_taken() {
        let last = Tap::open(None).unwrap();
        let relay = Tap::open(Some(last.base())).unwrap();
        let mut stream = TcpStream::connect(relay.address).unwrap();
        let body = r#"{"ktime_ns":4}"#;
        write!(stream, "POST /x HTTP/1.1\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"));
        assert_eq!((last.count(), relay.count()), (1, 1));
        assert!(last.seen()[0].at <= relay.seen()[0].at);
    }
}
