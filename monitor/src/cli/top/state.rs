//! What `top` knows and what is chosen in it. Pure: news and keys go in, and who draws looks at it.

use std::cmp::Ordering;
use std::collections::VecDeque;

use jiff::tz::TimeZone;
use uuid::Uuid;

use super::rows::place;
use crate::api::{CgroupUse, Cgroups};
use crate::cli::look::Look;
use crate::death::Death;

/// Deaths that are kept, the newest.
const DEATHS: usize = 200;
/// Lines that a page up or down goes.
const PAGE: isize = 10;

/// What was heard.
#[derive(Debug)]
pub(super) struct News {
    /// The cgroups, or why there are none.
    pub(super) cgroups: Result<Cgroups, String>,
    /// Deaths that are new, oldest first, or why it is not known.
    pub(super) deaths: Result<Vec<Death>, String>,
}

/// What a key means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// Ends, wherever.
    End,
    /// Ends, or leaves what is shown instead of the lists.
    Quit,
    /// Leaves that only.
    Back,
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    Sort,
    Other,
    Open,
    Help,
}

/// The two lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pane {
    Cgroups,
    Deaths,
}

/// Orders of the cgroups, in which a key goes through them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Share,
    Used,
    Growth,
    Left,
    Name,
}

impl Sort {
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Share => "share of the limit",
            Self::Used => "use",
            Self::Growth => "growth",
            Self::Left => "time left",
            Self::Name => "name",
        }
    }

    const fn next(self) -> Self {
        match self {
            Self::Share => Self::Used,
            Self::Used => Self::Growth,
            Self::Growth => Self::Left,
            Self::Left => Self::Name,
            Self::Name => Self::Share,
        }
    }
}

/// What is shown instead of the lists.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Over {
    Nothing,
    Help,
    /// A death, from that line of its page on.
    Death(Box<Death>, usize),
}

/// All of it.
#[derive(Debug)]
pub(super) struct State {
    /// Who is asked.
    pub(super) api: String,
    pub(super) look: Look,
    /// In which times are told.
    pub(super) zone: TimeZone,
    /// The last that was heard; its cgroups in the order that is chosen.
    pub(super) cgroups: Option<Cgroups>,
    /// Newest first.
    pub(super) deaths: VecDeque<Death>,
    /// Why what is shown may be old.
    pub(super) trouble: Option<String>,
    pub(super) pane: Pane,
    pub(super) sort: Sort,
    pub(super) over: Over,
    /// What the last key could not do.
    pub(super) note: Option<&'static str>,
    /// Chosen by what they are, not by their place, which changes.
    cgroup: Option<String>,
    death: Option<Uuid>,
}

impl State {
    pub(super) fn new(api: String, look: Look, zone: TimeZone) -> Self {
        Self {
            api,
            look,
            zone,
            cgroups: None,
            deaths: VecDeque::new(),
            trouble: None,
            pane: Pane::Cgroups,
            sort: Sort::Share,
            over: Over::Nothing,
            note: None,
            cgroup: None,
            death: None,
        }
    }

    /// Takes what was heard.
    pub(super) fn take(&mut self, news: News) {
        let troubles = [news.cgroups.as_ref().err().cloned(), news.deaths.as_ref().err().cloned()];
        self.trouble = troubles.into_iter().flatten().next();
        if let Ok(cgroups) = news.cgroups {
            self.cgroups = Some(cgroups);
            self.order();
        }
        for death in news.deaths.into_iter().flatten() {
            self.deaths.push_front(death);
        }
        self.deaths.truncate(DEATHS);
    }

    /// Does what a key says. `false`: it says to end.
    pub(super) fn on(&mut self, key: Key) -> bool {
        self.note = None;
        match (&mut self.over, key) {
            (_, Key::End) | (Over::Nothing, Key::Quit) => return false,
            (_, Key::Quit | Key::Back) => self.over = Over::Nothing,
            (Over::Help, _) => self.over = Over::Nothing,
            (Over::Death(_, line), key) => {
                // Who draws knows how long the page is, and says where it really is.
                *line = match key {
                    Key::First => 0,
                    Key::Last => usize::MAX,
                    key => line.saturating_add_signed(step(key)),
                }
            }
            (Over::Nothing, key) => self.on_lists(key),
        }
        true
    }

    /// From which line on the page of a death was really shown.
    pub(super) fn shown_from(&mut self, shown: usize) {
        if let Over::Death(_, line) = &mut self.over {
            *line = shown;
        }
    }

    fn on_lists(&mut self, key: Key) {
        match key {
            Key::Sort => {
                self.sort = self.sort.next();
                self.order();
            }
            Key::Other => {
                self.pane = match self.pane {
                    Pane::Cgroups => Pane::Deaths,
                    Pane::Deaths => Pane::Cgroups,
                };
            }
            Key::Help => self.over = Over::Help,
            Key::Open => self.open(),
            key => self.go(key),
        }
    }

    /// The page of the death that is chosen, or of the newest in the cgroup that is.
    fn open(&mut self) {
        let death = match self.pane {
            Pane::Deaths => self.deaths.get(self.chosen_death()),
            Pane::Cgroups => {
                let list = self.list();
                let chosen = list.get(self.chosen_cgroup()).map(|cgroup| cgroup.cgroup.as_str());
                self.deaths.iter().find(|death| {
                    let cgroup = death.workload.cgroup.as_deref();
                    chosen.zip(cgroup).is_some_and(|(top, path)| is_within(top, path))
                })
            }
        };
        match death.cloned() {
            Some(death) => self.over = Over::Death(Box::new(death), 0),
            None => self.note = Some("no death there is known"),
        }
    }

    fn go(&mut self, key: Key) {
        let (at, length) = match self.pane {
            Pane::Cgroups => (self.chosen_cgroup(), self.list().len()),
            Pane::Deaths => (self.chosen_death(), self.deaths.len()),
        };
        let last = length.saturating_sub(1);
        let to = match key {
            Key::First => 0,
            Key::Last => last,
            key => at.saturating_add_signed(step(key)).min(last),
        };
        match self.pane {
            Pane::Cgroups => self.cgroup = self.list().get(to).map(|cgroup| cgroup.cgroup.clone()),
            Pane::Deaths => self.death = self.deaths.get(to).map(|death| death.id),
        }
    }

    /// The cgroups in their order.
    pub(super) fn list(&self) -> &[CgroupUse] {
        self.cgroups.as_ref().map_or(&[], |cgroups| &cgroups.cgroups)
    }

    /// Where the cgroup that is chosen stands.
    pub(super) fn chosen_cgroup(&self) -> usize {
        let chosen = self.cgroup.as_ref();
        self.list().iter().position(|cgroup| Some(&cgroup.cgroup) == chosen).unwrap_or(0)
    }

    /// Where the death that is chosen stands.
    pub(super) fn chosen_death(&self) -> usize {
        self.deaths.iter().position(|death| Some(death.id) == self.death).unwrap_or(0)
    }

    fn order(&mut self) {
        let sort = self.sort;
        if let Some(cgroups) = &mut self.cgroups {
            cgroups.cgroups.sort_by(|one, other| compare(sort, one, other));
        }
    }
}

fn step(key: Key) -> isize {
    match key {
        Key::Up => -1,
        Key::Down => 1,
        Key::PageUp => -PAGE,
        Key::PageDown => PAGE,
        _ => 0,
    }
}

/// What presses most comes first; what is not known comes last.
fn compare(sort: Sort, one: &CgroupUse, other: &CgroupUse) -> Ordering {
    let down = |key: fn(&CgroupUse) -> Option<f64>| {
        let known = |cgroup| key(cgroup).unwrap_or(f64::NEG_INFINITY);
        known(other).total_cmp(&known(one))
    };
    let by = match sort {
        Sort::Share => down(|cgroup| cgroup.share),
        Sort::Used => other.usage_bytes.cmp(&one.usage_bytes),
        Sort::Growth => down(|cgroup| cgroup.growth_bytes_per_minute),
        Sort::Left => down(|cgroup| cgroup.seconds_left.map(|left| -left)),
        Sort::Name => place(one).cmp(&place(other)),
    };
    by.then_with(|| one.cgroup.cmp(&other.cgroup))
}

fn is_within(top: &str, path: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
