//! Tests of [`Book`]: what each event does, that the bounds hold, and random events against a simple model.

use proptest::prelude::*;

use super::*;

/// What is known, and its weight.
#[derive(Debug, PartialEq)]
struct Thing(u32, usize);

impl Weigh for Thing {
    fn bytes(&self) -> usize {
        self.1
    }
}

const A: SourceBit = 1;
const B: SourceBit = 2;

fn book(entries: usize, bytes: usize) -> Book<Thing> {
    Book::new(Bounds { entries, bytes, keep_gone_ns: 10, ask_again_ns: 5 })
}

/// What a lookup says: `None` while it is pending.
fn says(book: &Book<Thing>, id: &str) -> Option<Option<u32>> {
    match book.lookup(id) {
        Lookup::Known(thing) => Some(Some(thing.0)),
        Lookup::Pending => None,
        Lookup::Unknown => Some(None),
    }
}

#[test]
fn waits_for_each_that_was_asked() {
    let mut book = book(10, 100);
    assert!(book.wants("c", 0));
    book.asked("c", A | B, 0);
    assert_eq!((says(&book, "c"), book.wants("c", 100)), (None, false));
    book.nothing("c", A);
    assert_eq!((says(&book, "c"), book.owing("c")), (None, B));
    book.nothing("c", B);
    assert_eq!(says(&book, "c"), Some(None));
    assert_eq!(
        (book.wants("c", 4), book.wants("c", 5)),
        (false, true),
        "it may be asked for again, after a while"
    );
    book.asked("c", A, 5);
    book.put("c", A, Thing(1, 1));
    assert_eq!((says(&book, "c"), book.wants("c", 100)), (Some(Some(1)), false));
}

#[test]
fn who_is_given_up_is_not_waited_for_and_may_still_tell() {
    let mut book = book(10, 100);
    book.asked("c", A, 0);
    book.give_up(A);
    assert_eq!(says(&book, "c"), Some(None));
    book.put("c", A, Thing(1, 1));
    assert_eq!(says(&book, "c"), Some(Some(1)));
}

#[test]
fn what_is_gone_keeps_its_names_for_a_while_and_does_not_come_back() {
    let mut book = book(10, 100);
    book.put("c", A, Thing(1, 1));
    book.gone("c", 100);
    book.put("c", A, Thing(2, 3));
    assert_eq!(book.live().count(), 0);
    book.forget_gone(109);
    assert_eq!(says(&book, "c"), Some(Some(2)));
    book.forget_gone(110);
    assert_eq!((says(&book, "c"), book.len(), book.bytes()), (Some(None), 0, 0));
}

#[test]
fn what_is_listed_again_lives_on() {
    let mut book = book(10, 100);
    book.put("c", A, Thing(1, 1));
    book.unlisted("c", 100);
    assert_eq!(book.live().count(), 0);
    book.put("c", A, Thing(1, 1));
    book.forget_gone(u64::MAX);
    assert_eq!((says(&book, "c"), book.live().count()), (Some(Some(1)), 1));
}

#[test]
fn what_died_while_it_was_asked_for_is_learnt_of_all_the_same() {
    let mut book = book(10, 100);
    book.asked("c", A, 0);
    book.gone("c", 1);
    book.put("c", A, Thing(1, 1));
    assert_eq!(says(&book, "c"), Some(Some(1)));
    book.forget_gone(10);
    assert_eq!(book.len(), 0, "its time runs from when it was first asked for");
}

#[test]
fn a_flood_pushes_out_what_is_gone_and_nothing_that_lives() {
    let mut book = book(2, 100);
    book.put("lives", A, Thing(1, 1));
    book.put("gone", A, Thing(2, 1));
    book.gone("gone", 0);
    book.put("new", A, Thing(3, 1));
    assert_eq!(
        (says(&book, "gone"), says(&book, "new"), book.refused()),
        (Some(None), Some(Some(3)), 0)
    );
    book.put("newer", A, Thing(4, 1));
    book.asked("newest", A, 0);
    assert_eq!(
        (says(&book, "newer"), says(&book, "newest"), book.refused()),
        (Some(None), Some(None), 2)
    );
    assert_eq!(says(&book, "lives"), Some(Some(1)));
}

#[test]
fn what_grows_makes_room_among_others_first() {
    let mut book = book(10, 10);
    for (id, at) in [("a", 0), ("b", 1)] {
        book.put(id, A, Thing(1, 5));
        book.unlisted(id, at);
    }
    // "a" has been gone for longest, and is the one that is told of.
    book.put("a", A, Thing(2, 8));
    assert_eq!((says(&book, "a"), says(&book, "b"), book.bytes()), (Some(Some(2)), Some(None), 8));
    book.put("a", A, Thing(3, 11));
    assert_eq!((says(&book, "a"), book.bytes(), book.refused()), (Some(Some(2)), 8, 1));
}

/// The book as its documents describe it, without any index.
#[derive(Default)]
struct Model {
    entries: Vec<Modelled>,
    turns: u64,
    refused: u64,
}

#[derive(Default)]
struct Modelled {
    id: u8,
    known: Option<(u32, usize)>,
    asked: u8,
    asked_ns: u64,
    /// Since when it is gone, and its turn.
    gone: Option<(u64, u64)>,
    left: bool,
}

impl Model {
    fn at(&mut self, id: u8) -> Option<&mut Modelled> {
        self.entries.iter_mut().find(|entry| entry.id == id)
    }

    fn bytes(&self) -> usize {
        self.entries.iter().filter_map(|entry| Some(entry.known?.1)).sum()
    }

    fn age(&mut self, id: u8, now: u64) {
        let turn = self.turns;
        if let Some(entry) = self.at(id).filter(|entry| entry.gone.is_none()) {
            entry.gone = Some((now, turn));
            self.turns += 1;
        }
    }

    /// Whether an entry may weigh so much, letting go of others.
    fn fits(&mut self, id: u8, weight: usize, bounds: Bounds) -> bool {
        loop {
            let others = self.entries.iter().filter(|entry| entry.id != id);
            let bytes: usize = others.clone().filter_map(|entry| Some(entry.known?.1)).sum();
            let now = self.at(id).and_then(|entry| entry.known).map_or(0, |known| known.1);
            // What shrinks always fits.
            if self.entries.iter().filter(|entry| entry.id != id).count() < bounds.entries
                && bytes + weight.max(now) <= bounds.bytes
            {
                return true;
            }
            let others = self.entries.iter().filter(|entry| entry.id != id);
            let Some(oldest) = others.filter_map(|entry| entry.gone).min() else { return false };
            self.entries.retain(|entry| entry.gone != Some(oldest));
        }
    }

    fn entry(&mut self, id: u8, bounds: Bounds) -> Option<&mut Modelled> {
        if self.at(id).is_none() {
            if !self.fits(id, 0, bounds) {
                self.refused += 1;
                return None;
            }
            self.entries.push(Modelled { id, ..Modelled::default() });
        }
        self.at(id)
    }
}

#[derive(Debug, Clone)]
enum Event {
    Asked(u8, SourceBit),
    Put(u8, SourceBit, u32, usize),
    Nothing(u8, SourceBit),
    GiveUp(SourceBit),
    Gone(u8),
    Unlisted(u8),
    Forget,
    Later(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let id = || 0_u8..8;
    let source = || prop_oneof![Just(A), Just(B)];
    prop_oneof![
        (id(), 0_u8..4).prop_map(|(id, sources)| Event::Asked(id, sources)),
        (id(), source(), any::<u32>(), 0_usize..12)
            .prop_map(|(id, source, what, weight)| Event::Put(id, source, what, weight)),
        (id(), source()).prop_map(|(id, source)| Event::Nothing(id, source)),
        source().prop_map(Event::GiveUp),
        id().prop_map(Event::Gone),
        id().prop_map(Event::Unlisted),
        Just(Event::Forget),
        (0_u64..8).prop_map(Event::Later),
    ]
}

proptest! {
    #[test]
    fn behaves_as_its_model(events in prop::collection::vec(event(), 0..120)) {
        let bounds = Bounds { entries: 5, bytes: 30, keep_gone_ns: 10, ask_again_ns: 5 };
        let mut book = Book::new(bounds);
        let mut model = Model::default();
        let mut now = 0;
        for event in events {
            match event {
                Event::Asked(id, sources) => {
                    book.asked(&id.to_string(), sources, now);
                    if let Some(entry) = model.entry(id, bounds) {
                        entry.asked |= sources;
                        entry.asked_ns = now;
                        if entry.known.is_none() {
                            model.age(id, now);
                        }
                    }
                }
                Event::Put(id, source, what, weight) => {
                    book.put(&id.to_string(), source, Thing(what, weight));
                    if let Some(entry) = model.at(id) {
                        entry.asked &= !source;
                    }
                    if model.fits(id, weight, bounds) {
                        let entry = model.entry(id, bounds).unwrap();
                        entry.known = Some((what, weight));
                        if !entry.left {
                            entry.gone = None;
                        }
                    } else {
                        model.refused += 1;
                    }
                }
                Event::Nothing(id, source) => {
                    book.nothing(&id.to_string(), source);
                    if let Some(entry) = model.at(id) {
                        entry.asked &= !source;
                    }
                }
                Event::GiveUp(source) => {
                    book.give_up(source);
                    model.entries.iter_mut().for_each(|entry| entry.asked &= !source);
                }
                Event::Gone(id) => {
                    book.gone(&id.to_string(), now);
                    if let Some(entry) = model.at(id) {
                        entry.left = true;
                    }
                    model.age(id, now);
                }
                Event::Unlisted(id) => {
                    book.unlisted(&id.to_string(), now);
                    model.age(id, now);
                }
                Event::Forget => {
                    book.forget_gone(now);
                    let keep = bounds.keep_gone_ns;
                    model.entries.retain(|entry| entry.gone.is_none_or(|(since, _)| now - since < keep));
                }
                Event::Later(time) => now += time,
            }
            prop_assert!(book.len() <= bounds.entries && book.bytes() <= bounds.bytes);
            prop_assert_eq!((book.len(), book.bytes(), book.refused()), (model.entries.len(), model.bytes(), model.refused));
            for id in 0..8 {
                let entry = model.at(id);
                let expected = match &entry {
                    Some(Modelled { known: Some((what, _)), .. }) => Some(Some(*what)),
                    Some(entry) if entry.asked != 0 => None,
                    _ => Some(None),
                };
                let wants = entry.is_none_or(|entry| {
                    entry.known.is_none() && entry.asked == 0 && now - entry.asked_ns >= bounds.ask_again_ns
                });
                let name = id.to_string();
                prop_assert_eq!((says(&book, &name), book.wants(&name, now)), (expected, wants), "{}", id);
            }
            let mut live: Vec<&str> = book.live().map(|(id, _)| id).collect();
            live.sort_unstable();
            let lives = |entry: &&Modelled| entry.known.is_some() && entry.gone.is_none();
            let mut expected: Vec<String> = model.entries.iter().filter(lives).map(|entry| entry.id.to_string()).collect();
            expected.sort();
            prop_assert_eq!(live, expected);
            for entry in &model.entries {
                prop_assert_eq!(book.owing(&entry.id.to_string()), entry.asked);
            }
        }
    }
}
