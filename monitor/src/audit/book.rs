//! Our count of the kernel's OOM kills, and how it differs from the kernel's own. Pure.
//!
//! A kill is accounted for once it was told as a death or reported as missed. What must hold:
//! * The kernel counts before it marks, and a look at its counters is compared with the book as it was *before* that look. So the kernel
//!   is never behind, except by an error of ours; it is ahead by the kills whose marks are on their way, which the next look does not have
//!   any more. What two looks have in common is what lasts ([`Differences::lasting`]).
//! * The host's number is the authority. A cgroup's number says where, and no more is ever reported of cgroups than of the host.
//! * Memory is bounded: a number for each living cgroup that had a kill, and [`MAX_GONE`] for places where cgroups are gone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::kernel::{Reading, above};

/// Cgroups below which others with kills are gone. With more, kills in what is gone are known of the host alone.
pub const MAX_GONE: usize = 4096;

/// Kills that are accounted for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book {
    /// Of the host, since boot.
    pub host: u64,
    /// By the id of the cgroup, of those that are there.
    pub own: HashMap<u64, Own>,
    /// In cgroups that are gone, by the path of the one above. v2 only.
    pub gone: BTreeMap<String, u64>,
}

/// Kills in one cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// Its path, as it was last known.
    pub path: Arc<str>,
    /// How many.
    pub kills: u64,
}

/// Where the kernel counts a kill.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In a cgroup that is there.
    Cgroup {
        /// Its path.
        path: Arc<str>,
        /// Its id.
        id: u64,
    },
    /// In cgroups that are gone, below this one.
    GoneBelow {
        /// Its path.
        path: Arc<str>,
    },
}

impl Place {
    /// The path of the cgroup.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Cgroup { path, .. } | Self::GoneBelow { path } => path,
        }
    }

    /// The id of the cgroup, if it is there.
    #[must_use]
    pub const fn id(&self) -> Option<u64> {
        match self {
            Self::Cgroup { id, .. } => Some(*id),
            Self::GoneBelow { .. } => None,
        }
    }
}

/// How far the kernel's numbers are ahead of the book.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// Of the host.
    pub host: i64,
    /// Of places; none is 0.
    pub places: BTreeMap<Place, i64>,
}

impl Differences {
    /// What two looks, one after the other, have in common.
    #[must_use]
    pub fn lasting(&self, later: &Self) -> Self {
        let places = later.places.iter().filter_map(|(place, n)| {
            let both = common(*self.places.get(place)?, *n);
            (both != 0).then(|| (place.clone(), both))
        });
        Self { host: common(self.host, later.host), places: places.collect() }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.host == 0 && self.places.is_empty()
    }
}

/// The one nearer to 0, if both are on one side of it.
fn common(a: i64, b: i64) -> i64 {
    if a.signum() == b.signum() { a.signum() * a.abs().min(b.abs()) } else { 0 }
}

/// Kills that nobody told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missed {
    /// Where. `None`: not known, or in a place that counts nothing, such as the root of v2.
    pub place: Option<Place>,
    /// How many.
    pub kills: u64,
}

impl Book {
    /// A kill was told. `cgroup` is where the kernel counts it, if known, with its path.
    pub fn killed(&mut self, cgroup: Option<(u64, Arc<str>)>) {
        self.host += 1;
        if let Some((id, path)) = cgroup {
            self.own.entry(id).or_insert(Own { path, kills: 0 }).kills += 1;
        }
    }

    /// A cgroup was removed. `hierarchical`: those above it keep its kills.
    pub fn gone(&mut self, id: u64, path: &str, hierarchical: bool) {
        let own = self.own.remove(&id).map_or(0, |own| own.kills);
        let below = self.gone.remove(path).unwrap_or(0);
        if hierarchical {
            self.bury(above(path), own + below);
        }
    }

    /// Lets go of what a look at every cgroup did not find, so that what is told of the gone is told of one that is there.
    pub fn fold(&mut self, reading: &Reading, hierarchical: bool) {
        self.vanished(&reading.vanished, hierarchical);
        let told = self.told_of_graves(&graves(reading));
        self.gone = told.into_iter().map(|(path, kills)| (path.to_owned(), kills)).collect();
    }

    /// Lets go of cgroups that a look did not find.
    pub fn vanished(&mut self, ids: &[u64], hierarchical: bool) {
        for id in ids {
            if let Some(path) = self.own.get(id).map(|own| Arc::clone(&own.path)) {
                self.gone(*id, &path, hierarchical);
            }
        }
    }

    fn bury(&mut self, below: Option<&str>, kills: u64) {
        let Some(path) = below.filter(|_| kills > 0) else { return };
        if let Some(count) = self.gone.get_mut(path) {
            *count += kills;
        } else if self.gone.len() < MAX_GONE {
            self.gone.insert(path.to_owned(), kills);
        }
    }

    /// How far a look at the kernel's numbers is ahead of this book, as it was before the look. `whole`: every cgroup was looked at, so that
    /// what is gone can be told.
    #[must_use]
    pub fn differences(&self, reading: &Reading, whole: bool) -> Differences {
        let hierarchical = reading.cgroups.iter().any(|counted| counted.below.is_some());
        let mut book = self.clone();
        book.vanished(&reading.vanished, hierarchical);
        let mut differences =
            Differences { host: ahead(reading.host, self.host), ..Differences::default() };
        let mut note = |place: Place, ahead: i64| {
            if ahead != 0 {
                differences.places.insert(place, ahead);
            }
        };
        for counted in &reading.cgroups {
            let told = book.own.get(&counted.id).map_or(0, |own| own.kills);
            let path = Arc::clone(&counted.path);
            note(Place::Cgroup { path, id: counted.id }, ahead(counted.own, told));
        }
        if whole && hierarchical {
            let graves = graves(reading);
            let told = book.told_of_graves(&graves);
            for (path, kills) in graves {
                let told = told.get(path.as_ref()).copied().unwrap_or(0);
                note(Place::GoneBelow { path }, ahead(kills, told));
            }
        }
        differences
    }

    /// Kills that were told of cgroups that are gone, by the nearest of the cgroups that are there.
    fn told_of_graves<'a>(&'a self, there: &BTreeMap<Arc<str>, u64>) -> HashMap<&'a str, u64> {
        let mut told = HashMap::new();
        for (path, kills) in &self.gone {
            let mut nearest = Some(path.as_str());
            while nearest.is_some_and(|path| !there.contains_key(path)) {
                nearest = nearest.and_then(above);
            }
            if let Some(path) = nearest {
                *told.entry(path).or_insert(0) += kills;
            }
        }
        told
    }

    /// Accounts for what the kernel is ahead by, and says what that was: never more than the host's number tells.
    pub fn settle(&mut self, differences: &Differences) -> Vec<Missed> {
        self.host = self.host.saturating_add_signed(differences.host);
        let mut left = u64::try_from(differences.host).unwrap_or(0);
        let mut missed = Vec::new();
        for (place, ahead) in &differences.places {
            self.adjust(place, *ahead);
            let kills = u64::try_from(*ahead).unwrap_or(0).min(left);
            left -= kills;
            if kills > 0 {
                missed.push(Missed { place: Some(place.clone()), kills });
            }
        }
        if left > 0 {
            missed.push(Missed { place: None, kills: left });
        }
        missed.sort_by_key(|missed| std::cmp::Reverse(missed.kills));
        missed
    }

    /// Takes the kernel's word for where kills were.
    pub fn adjust(&mut self, place: &Place, ahead: i64) {
        match place {
            Place::Cgroup { path, id } => {
                let own = self.own.entry(*id).or_insert(Own { path: Arc::clone(path), kills: 0 });
                own.kills = own.kills.saturating_add_signed(ahead);
            }
            Place::GoneBelow { path } if ahead > 0 => self.bury(Some(path), ahead.unsigned_abs()),
            Place::GoneBelow { path } => {
                if let Some(count) = self.gone.get_mut(path.as_ref()) {
                    *count = count.saturating_add_signed(ahead);
                }
            }
        }
    }
}

/// Kills in cgroups that are gone, by the nearest that is there: what a cgroup counts with all below it, but for its own and what those below
/// it count that are there. 0 is kept, for it says that the cgroup is there.
fn graves(reading: &Reading) -> BTreeMap<Arc<str>, u64> {
    let mut graves: BTreeMap<Arc<str>, u64> = reading
        .cgroups
        .iter()
        .filter_map(|c| Some((Arc::clone(&c.path), c.below?.saturating_sub(c.own))))
        .collect();
    for counted in &reading.cgroups {
        if let Some(count) = above(&counted.path).and_then(|above| graves.get_mut(above)) {
            *count = count.saturating_sub(counted.below.unwrap_or(0));
        }
    }
    graves
}

fn ahead(kernel: u64, told: u64) -> i64 {
    i64::try_from(i128::from(kernel) - i128::from(told)).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
