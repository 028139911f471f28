//! A body of pieces that exist already: an answer of a thousand deaths copies none of them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::ledger::Entry;

/// `begin`, then the records with commas between them, then the end of a list in an object.
pub(super) fn page(begin: impl Into<Bytes>, entries: &[Arc<Entry>]) -> Chunks {
    let records = entries.iter().enumerate().flat_map(|(n, entry)| {
        let comma = (n > 0).then_some(Bytes::from_static(b","));
        comma.into_iter().chain([entry.json.clone()])
    });
    std::iter::once(begin.into()).chain(records).chain([Bytes::from_static(b"]}")]).collect()
}

/// The pieces that are still to be sent.
#[derive(Debug)]
pub(super) struct Chunks(VecDeque<Bytes>);

impl FromIterator<Bytes> for Chunks {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Self {
        Self(pieces.into_iter().collect())
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}
