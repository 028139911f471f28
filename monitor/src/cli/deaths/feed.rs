//! Deaths as they come, for whoever shows them beside other things.

use jiff::Timestamp;

use super::follow::Follower;
use super::page::{self, PAGE};
use super::question::Question;
use super::record::Record;
use crate::cli::client::{Api, Unanswered};
use crate::death::Death;

/// What was told of so far.
#[derive(Default)]
pub(in crate::cli) struct Feed {
    follower: Option<Follower>,
}

impl Feed {
    /// The newest `first` deaths at first, then those that came since; oldest first.
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub(in crate::cli) async fn next(
        &mut self,
        api: &Api,
        first: usize,
    ) -> Result<Vec<Death>, Unanswered> {
        let known = |records: &[Record]| records.iter().filter_map(Record::death).collect();
        if let Some(follower) = &mut self.follower {
            let (question, after) = follower.next();
            let page = page::get(api, &question, PAGE, Some(after)).await?;
            return Ok(known(&follower.take(page, Timestamp::now()).records));
        }
        let question = Question { limit: first, ..Question::default() };
        let (records, place) = page::newest(api, &question).await?;
        let shown = records.iter().filter_map(Record::id);
        self.follower = Some(Follower::new(question, place, shown, Timestamp::now()));
        Ok(known(&records))
    }
}
