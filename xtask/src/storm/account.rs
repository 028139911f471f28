//! What the daemon itself says became of the deaths.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::daemon::Api;

/// Deaths that one page of the API has at most.
const PAGE: usize = 1000;

/// Counts since the daemon started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    /// Deaths that were recorded.
    pub(crate) recorded: u64,
    /// Ends of processes that found no room on the ring.
    pub(crate) dropped: u64,
}

impl Account {
    /// Asks the daemon.
    pub(crate) fn of(api: &Api) -> Result<Self> {
        Ok(Self::parse(&api.get("/metrics")?))
    }

    fn parse(metrics: &str) -> Self {
        let sum = |start: &str, label: &str| -> u64 {
            let lines =
                metrics.lines().filter(|line| line.starts_with(start) && line.contains(label));
            lines.filter_map(|line| line.split(' ').nth(1)?.parse::<u64>().ok()).sum()
        };
        Self {
            recorded: sum("killwatch_deaths_total{", ""),
            dropped: sum("killwatch_kernel_records_lost_total{", "program=\"sched_process_exit\""),
        }
    }

    /// What came after `before`.
    pub(crate) fn since(self, before: &Self) -> Self {
        Self { recorded: self.recorded - before.recorded, dropped: self.dropped - before.dropped }
    }
}

/// The ids of all records in the ledger.
pub(crate) fn ids(api: &Api) -> Result<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    let mut after = 0;
    loop {
        let text = api.get(&format!("/api/v1/deaths?after={after}&limit={PAGE}"))?;
        let page: Value = serde_json::from_str(&text).context("the answer is not JSON")?;
        let deaths = page["deaths"].as_array().context("the answer has no `deaths`")?;
        ids.extend(deaths.iter().filter_map(|death| death["id"].as_str().map(str::to_owned)));
        let next = page["last"].as_u64().context("the answer has no `last`")?;
        if deaths.is_empty() || next <= after {
            return Ok(ids);
        }
        after = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_add_up_and_other_records_do_not_count() {
        let metrics = "# TYPE killwatch_deaths counter\n\
            killwatch_deaths_total{cause=\"killed\"} 40\nkillwatch_deaths_total{cause=\"self\"} 2\n\
            killwatch_kernel_records_lost_total{program=\"sched_process_exit\"} 3\n\
            killwatch_kernel_records_lost_total{program=\"signal_deliver\"} 900\n";
        let account = Account::parse(metrics);
        assert_eq!(account, Account { recorded: 42, dropped: 3 });
        let later = Account { recorded: 50, dropped: 3 };
        assert_eq!(later.since(&account), Account { recorded: 8, dropped: 0 });
    }
}
