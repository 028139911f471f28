//! Pages of deaths from the daemon.

use std::collections::VecDeque;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::question::Question;
use super::record::Record;
use crate::cli::client::{Api, Unanswered};

/// Deaths of a page. Records are a few KiB each, and an answer has an end.
pub(super) const PAGE: usize = 100;

/// How far the daemon looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Which numbers. Another ledger counts anew.
    pub(super) series: String,
    /// Number of the last entry that it looked at.
    pub(super) last: u64,
}

/// An answer of `/api/v1/deaths`.
#[derive(Debug)]
pub(super) struct Page {
    /// Up to where.
    pub(super) place: Place,
    /// Deaths that were asked for and are kept no more.
    pub(super) missed: u64,
    /// Those that are.
    pub(super) records: Vec<Record>,
}

/// Asks for a page.
pub(super) async fn get(
    api: &Api,
    question: &Question,
    limit: usize,
    after: Option<u64>,
) -> Result<Page, Unanswered> {
    let body = api.get(&question.path(limit, after)).await?;
    body.context("it knows no /api/v1/deaths")
        .and_then(|body| Page::read(&body))
        .map_err(Unanswered::Foreign)
}

impl Page {
    fn read(body: &[u8]) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Answer<'a> {
            series: String,
            last: u64,
            #[serde(default)]
            missed: u64,
            #[serde(borrow)]
            deaths: Vec<&'a RawValue>,
        }
        let answer: Answer<'_> = serde_json::from_slice(body)
            .context("the answer is not one that this killwatch knows")?;
        Ok(Self {
            place: Place { series: answer.series, last: answer.last },
            missed: answer.missed,
            records: answer.deaths.iter().map(|json| Record::new(json.get())).collect(),
        })
    }
}

/// The newest that are meant, oldest first, and the place to go on from.
pub(super) async fn newest(
    api: &Api,
    question: &Question,
) -> Result<(Vec<Record>, Place), Unanswered> {
    if question.limit <= PAGE {
        let mut page = get(api, question, question.limit, None).await?;
        page.records.reverse();
        return Ok((page.records, page.place));
    }
    // Page by page from the beginning; of what is more than was asked for, the oldest goes.
    let mut records = VecDeque::new();
    let mut last = 0;
    loop {
        let page = get(api, question, PAGE, Some(last)).await?;
        let excess = (records.len() + page.records.len()).saturating_sub(question.limit);
        records.extend(page.records);
        records.drain(..excess.min(records.len()));
        if page.place.last == last {
            return Ok((records.into(), page.place));
        }
        last = page.place.last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_very_bytes_of_each_record() {
        let series = "00ab".to_owned();
        let body = format!(
            r#"{{"series":"{series}","last":9,"new":1,"deaths":[{{"a": 1}},{{"b":[ ]}}]}}"#
        );
        let page = Page::read(body.as_bytes()).unwrap();
        assert_eq!(page.place, Place { series, last: 9 });
        assert_eq!(
            (page.records[0].json(), page.records[1].json()),
            (r#"{"a": 1}"#, r#"{"b":[ ]}"#)
        );
        assert_eq!((page.missed, page.records[0].id()), (0, None));
        for bad in ["", "{}", "[]", r#"{"deaths":[]}"#, "\u{0}"] {
            assert!(Page::read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
