//! What a stranger sends to the daemon's socket: tags, queries, cursors. What is read is within its bounds and reads the same again.
#![no_main]

use killwatch::api::socket::query::{self, Cursor, DeathsQuery, StreamQuery};
use killwatch::tags::TagSet;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(tags) = TagSet::parse(bytes) {
        let map = tags.to_map();
        assert!((1..=16).contains(&map.len()));
        for (key, value) in &map {
            assert!(!key.is_empty() && key.len() <= 64 && value.len() <= 256);
            assert!(!value.chars().any(char::is_control));
        }
        let again = serde_json::to_vec(&map).expect("a map of strings");
        assert_eq!(TagSet::parse(&again).expect("what was allowed is allowed").to_map(), map);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(query) = DeathsQuery::parse(text, Default::default()) {
        assert!(query.wait.as_secs() <= 30);
    }
    let _ = StreamQuery::parse(text);
    let _ = query::start(text);
    let _ = query::process(text);
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert_eq!(cursor.to_string().parse::<Cursor>(), Ok(cursor));
    }
});
