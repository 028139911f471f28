//! `GET /v1/deaths/stream`: deaths as they come, as server-sent events (the HTML standard, section 9.2).
//!
//! Nothing is buffered for a reader beyond one batch: it has a cursor into the ledger, and the next batch is read when it has taken the
//! last. If the ledger let go of deaths that it has not seen, it is told so (`event: gap`). Whoever takes nothing for a while is hung up on
//! ([`super::paced`]); whoever takes slowly while others die, with a last gap.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, RawQuery, State as Shared};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::State;
use super::peer::Peer;
use super::query::{Cursor, StreamQuery};
use super::refusal::Refusal;
use crate::ledger::Filter;
use crate::metrics::Rejected;

/// Without a death, something is sent after this time.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Deaths in a batch, and bytes of it from which on no more are added.
const BATCH: usize = 32;
const BATCH_BYTES: usize = 64 << 10;
/// Whoever takes longer than this for a batch, and is so many deaths further behind than it began, is cut off.
const SLOW: Duration = Duration::from_secs(1);
const MAX_LAG: u64 = 1000;

/// Begins at the cursor, or now.
pub(super) async fn get(
    Shared(state): Shared<Arc<State>>,
    Extension(peer): Extension<Arc<Peer>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let query = StreamQuery::parse(query.as_deref().unwrap_or_default())?;
    let cursor = match (query.cursor, headers.get("last-event-id")) {
        (Some(cursor), _) => Some(cursor),
        (None, Some(id)) => Some(id.to_str().unwrap_or_default().parse()?),
        (None, None) => None,
    };
    let StreamQuery { cgroup, pod, job, .. } = query;
    let filter = Filter { cgroup, pod, job, viewer: peer.viewer(), ..Filter::default() };
    let reader = Reader::new(&state, filter, cursor)?;
    let mut response = Response::new(Body::new(Events(reader.next())));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// One reader's place.
struct Reader {
    state: Arc<State>,
    filter: Filter,
    changed: watch::Receiver<u64>,
    /// Number of the last death that was dealt with.
    seq: u64,
    /// How far behind it may be.
    max_lag: u64,
    /// What is to be said before the next death.
    first: Option<String>,
    /// When it was given the last batch.
    given: Option<Instant>,
}

/// The next piece and the reader after it; `None` ends the stream.
type Next = Pin<Box<dyn Future<Output = Option<(Bytes, Reader)>> + Send>>;

#[derive(Serialize)]
struct Gap {
    /// Deaths of the node that the reader was not shown, of whomever; absent if not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<u64>,
    why: &'static str,
}

impl Reader {
    fn new(state: &Arc<State>, filter: Filter, cursor: Option<Cursor>) -> Result<Self, Refusal> {
        let changed = state.ledger.changed();
        let last = *changed.borrow();
        let mut begin = "retry: 1000\n".to_owned();
        let seq = match cursor {
            None => last,
            Some(cursor) if cursor.run != state.run => {
                let why = "the cursor is of another ledger than the daemon has now: from here on come all deaths that it keeps";
                begin.push_str(&event("gap", None, &Gap { missed: None, why }));
                0
            }
            Some(cursor) if cursor.seq > last => {
                return Err(Refusal::new(
                    Rejected::BadRequest,
                    "cursor: is ahead of the last death",
                ));
            }
            Some(cursor) => cursor.seq,
        };
        begin.push_str(&format!(": from here on\nid: {}\n\n", Cursor { run: state.run, seq }));
        Ok(Self {
            state: Arc::clone(state),
            filter,
            changed,
            seq,
            max_lag: last.saturating_sub(seq).saturating_add(MAX_LAG),
            first: Some(begin),
            given: None,
        })
    }

    fn next(mut self) -> Next {
        Box::pin(async move {
            let text = match self.first.take() {
                Some(first) => first,
                None => self.events().await?,
            };
            self.given = Some(Instant::now());
            Some((Bytes::from(text), self))
        })
    }

    /// Deaths, or a sign of life. `None` once the reader was cut off, or the daemon ends.
    async fn events(&mut self) -> Option<String> {
        if self.seq == u64::MAX {
            return None;
        }
        let slow = self.given.is_some_and(|given| given.elapsed() > SLOW);
        let last = *self.changed.borrow_and_update();
        let lag = last.saturating_sub(self.seq);
        if slow && lag > self.max_lag {
            self.seq = u64::MAX;
            let why = "you take events more slowly than processes die; ask /v1/deaths for what you missed, or begin again at an earlier id";
            return Some(event("gap", Some(self.cursor(last)), &Gap { missed: Some(lag), why }));
        }
        let keepalive = Instant::now() + KEEPALIVE;
        loop {
            let text = self.read().await;
            if !text.is_empty() {
                return Some(text);
            }
            tokio::select! {
                changed = self.changed.changed() => changed.ok()?,
                () = self.state.stop.cancelled() => return None,
                () = tokio::time::sleep_until(keepalive) => {
                    // With an id, so that a reader whom nothing concerned for long does not begin again far back.
                    return Some(format!(": alive\nid: {}\n\n", self.cursor(self.seq)));
                }
            }
        }
    }

    /// The deaths that are there and concern the reader: a batch at most.
    async fn read(&mut self) -> String {
        let mut text = String::new();
        loop {
            let batch = self.state.ledger.next(self.seq, BATCH).await;
            if batch.skipped > 0 {
                self.seq += batch.skipped;
                let why = "the daemon let go of deaths before you took them (ledger.max_deaths, ledger.max_bytes)";
                text.push_str(&event(
                    "gap",
                    Some(self.cursor(self.seq)),
                    &Gap { missed: Some(batch.skipped), why },
                ));
            }
            if batch.entries.is_empty() {
                return text;
            }
            for entry in batch.entries {
                self.seq = entry.seq;
                if self.filter.lets(&entry) {
                    let json = String::from_utf8_lossy(&entry.json);
                    text.push_str(&format!(
                        "id: {}\nevent: death\ndata: {json}\n\n",
                        self.cursor(self.seq)
                    ));
                }
                if text.len() >= BATCH_BYTES {
                    return text;
                }
            }
            if !text.is_empty() {
                return text;
            }
        }
    }

    fn cursor(&self, seq: u64) -> Cursor {
        Cursor { run: self.state.run, seq }
    }
}

fn event(name: &str, id: Option<Cursor>, data: &impl Serialize) -> String {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("{id}event: {name}\ndata: {data}\n\n")
}

/// The body: asks for the next piece only when the last was taken.
struct Events(Next);

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let next = ready!(self.0.as_mut().poll(context));
        Poll::Ready(next.map(|(piece, reader)| {
            self.0 = reader.next();
            Ok(Frame::data(piece))
        }))
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::api::socket::peer::Host;
    use crate::death::sample;
    use crate::ledger::{Ledger, LedgerConfig};
    use crate::metrics::{Metrics, MetricsConfig};
    use crate::procfs::Proc;

    fn state(max_deaths: usize) -> Arc<State> {
        let config =
            LedgerConfig { max_deaths: max_deaths.try_into().unwrap(), ..LedgerConfig::default() };
        let metrics = Arc::new(Metrics::new(MetricsConfig::default()));
        let host = Host::of_test(Proc::default(), 0);
        let ledger = Arc::new(Ledger::new(config));
        Arc::new(State::new(ledger, Arc::default(), metrics, host, CancellationToken::new()))
    }

    fn die(state: &State, times: usize) {
        (0..times).for_each(|_| drop(state.ledger.append(sample::killed()).unwrap()));
    }

    async fn next(reader: Reader) -> (String, Reader) {
        let (text, reader) = reader.next().await.unwrap();
        (String::from_utf8(text.to_vec()).unwrap(), reader)
    }

    fn count(text: &str, what: &str) -> usize {
        text.matches(&format!("event: {what}\n")).count()
    }

    #[tokio::test]
    async fn begins_behind_the_cursor_and_says_what_is_gone() {
        let state = state(3);
        die(&state, 5);
        let cursor = Cursor { run: state.run, seq: 1 };
        let reader = Reader::new(&state, Filter::default(), Some(cursor)).unwrap();
        let (begin, reader) = next(reader).await;
        assert!(begin.contains(&format!("id: {cursor}\n")), "{begin}");
        // Of the second to the fifth, the second is kept no more.
        let (text, reader) = next(reader).await;
        assert_eq!((count(&text, "gap"), count(&text, "death")), (1, 3), "{text}");
        assert!(text.contains("{\"missed\":1,"), "{text}");
        die(&state, 1);
        let (text, _) = next(reader).await;
        assert_eq!((count(&text, "gap"), count(&text, "death")), (0, 1), "{text}");
    }

    #[tokio::test]
    async fn a_cursor_of_another_run_is_a_gap_and_one_ahead_is_refused() {
        let state = state(10);
        die(&state, 1);
        let foreign = Cursor { run: !state.run, seq: 7 };
        let reader = Reader::new(&state, Filter::default(), Some(foreign)).unwrap();
        let (begin, reader) = next(reader).await;
        assert!(count(&begin, "gap") == 1 && !begin.contains("missed"), "{begin}");
        assert_eq!(count(&next(reader).await.0, "death"), 1, "all that is kept");
        let ahead = Cursor { run: state.run, seq: 2 };
        assert!(Reader::new(&state, Filter::default(), Some(ahead)).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_falls_far_behind_is_cut_off_with_a_gap() {
        let max = usize::try_from(MAX_LAG).unwrap();
        for (deaths, cut_off) in [(max, false), (max + 1, true)] {
            let state = state(2 * max);
            let (_, reader) = next(Reader::new(&state, Filter::default(), None).unwrap()).await;
            die(&state, deaths);
            tokio::time::advance(2 * SLOW).await;
            let (text, reader) = next(reader).await;
            assert_eq!(count(&text, "gap"), usize::from(cut_off), "{deaths}");
            assert_eq!(text.contains(&format!("\"missed\":{deaths}")), cut_off);
            assert_eq!(reader.next().await.is_none(), cut_off);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_death_there_is_a_sign_of_life() {
        let state = state(10);
        let (_, reader) = next(Reader::new(&state, Filter::default(), None).unwrap()).await;
        let (text, _) = next(reader).await;
        assert!(text.starts_with(": alive\n"), "{text}");
    }
}
