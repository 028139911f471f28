//! Which labels a family has, by the switches of the configuration, and the values of one series.
//!
//! A label that is switched off is in no sample. A value that is not known is empty, which is the same to Prometheus as no label. Values come from strangers:
//! they are cut at [`MAX_TEXT`](crate::containers::MAX_TEXT) bytes, and what is the same up to there is one series.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabel as _, EncodeLabelSet, LabelSetEncoder};

use crate::containers::cut;

/// What the overflow series has in place of its first value.
const OVERFLOW: &str = "overflow";

/// The values of one series, in the order of its family's labels.
pub(super) type Values = Arc<[Box<str>]>;
/// Reads the value of a label.
pub(super) type Read<T> = for<'a> fn(&'a T) -> Option<&'a str>;

/// The labels of a family that are switched on.
#[derive(Debug, Clone)]
pub(super) struct Scheme<T> {
    names: Vec<&'static str>,
    reads: Vec<Read<T>>,
}

impl<T> Scheme<T> {
    /// Of all labels, each with its switch.
    pub(super) fn new(all: impl IntoIterator<Item = (&'static str, bool, Read<T>)>) -> Self {
        let on = all.into_iter().filter(|(_, on, _)| *on);
        let (names, reads) = on.map(|(name, _, read)| (name, read)).unzip();
        Self { names, reads }
    }

    /// The series of something.
    pub(super) fn values(&self, of: &T) -> Values {
        self.reads.iter().map(|read| read(of).map(cut).unwrap_or_default().into()).collect()
    }

    /// The series of everything that finds no room; `None` if there can be only one series, which has room.
    pub(super) fn overflow(&self) -> Option<Values> {
        let values = |(place, _)| if place == 0 { OVERFLOW.into() } else { Box::default() };
        (!self.names.is_empty()).then(|| self.names.iter().enumerate().map(values).collect())
    }

    /// What a sample has between its braces; `last` comes after the labels of the family.
    pub(super) fn row<'a>(
        &'a self,
        values: &'a Values,
        last: Option<(&'static str, &'static str)>,
    ) -> Row<'a> {
        Row { names: &self.names, values, last }
    }
}

/// The labels of one sample.
#[derive(Debug)]
pub(super) struct Row<'a> {
    names: &'a [&'static str],
    values: &'a Values,
    last: Option<(&'static str, &'static str)>,
}

impl EncodeLabelSet for Row<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let values = self.values.iter().map(|value| &**value);
        for label in self.names.iter().copied().zip(values).chain(self.last) {
            label.encode(encoder.encode_label())?;
        }
        Ok(())
    }
}
