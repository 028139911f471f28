//! Texts of strangers: what people try, and what breaks by itself. No page is any other for them, but for the texts.

use proptest::prelude::*;
use serde_json::Value;

use super::super::shown::Shown;
use super::{page, state};
use crate::death::{Death, sample};
use crate::text::is_plain;

/// What people try, and what breaks by itself.
const CORPUS: &[&str] = &[
    "<script>document.title='owned'</script>",
    "</title><script>document.title='owned'</script>",
    "\"><img src=x onerror=\"document.title='owned'\">",
    "' onmouseover='document.title=1' x='",
    "<svg/onload=document.title='owned'>",
    "</textarea></select></script><script>document.title='owned'</script>",
    "javascript:document.title='owned'",
    "{{constructor.constructor('document.title=1')()}}",
    "<!--<b>--!>",
    "-->",
    "]]>",
    "&lt;script&gt;",
    "&#60;script&#62;",
    "&",
    "a\0b\u{1}\u{7f}\u{85}\u{9b}31m\x1b[2J",
    "line\nbreak\r\ttab\u{2028}\u{2029}",
    "\u{202e}exe.gpj\u{202c}\u{2066}\u{2069}\u{200b}\u{feff}\u{ad}",
    "e\u{301}\u{301}\u{301}\u{301}",
    "\\u003cscript\\u003e",
    "%3Cscript%3E",
    "\\",
    "`${1}`",
    "שלום",
    "日本語",
    "🦀",
];

/// Every text of a record in the place of which another may stand.
fn poisoned(death: &Death, text: &str) -> Death {
    fn walk(value: &mut Value, path: &str, places: &mut Vec<String>) {
        match value {
            Value::String(_) => places.push(path.to_owned()),
            Value::Array(list) => {
                for (n, item) in list.iter_mut().enumerate() {
                    walk(item, &format!("{path}/{n}"), places);
                }
            }
            Value::Object(map) => {
                for (key, item) in map.iter_mut() {
                    walk(
                        item,
                        &format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")),
                        places,
                    );
                }
            }
            _ => {}
        }
    }
    let mut record = serde_json::to_value(death).unwrap();
    for map in [
        "/victim/environ",
        "/workload/labels",
        "/workload/annotations",
        "/tags",
        "/killer/marks",
        "/memory/processes/0/tags",
    ] {
        let (at, key) = map.rsplit_once('/').unwrap();
        let Some(into) = record.pointer_mut(at).and_then(Value::as_object_mut) else { continue };
        into.insert(key.into(), serde_json::json!({ text: text }));
    }
    let mut places = Vec::new();
    walk(&mut record, "", &mut places);
    for place in places {
        let old = std::mem::replace(record.pointer_mut(&place).unwrap(), Value::from(text));
        if serde_json::from_value::<Death>(record.clone()).is_err() {
            *record.pointer_mut(&place).unwrap() = old;
        }
    }
    serde_json::from_value(record).unwrap()
}

/// Each element and the names of its attributes, in order; those that show what would not be seen left out.
fn structure(html: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = html;
    let mut strange = false;
    while let Some(at) = rest.find('<') {
        let (mut tag, mut quoted, mut end) = (String::new(), false, 0);
        for (n, c) in rest[at..].char_indices() {
            match c {
                '"' => quoted = !quoted,
                '>' if !quoted => {
                    end = at + n;
                    break;
                }
                c if !quoted => tag.push(c),
                _ => {}
            }
        }
        assert_ne!(end, 0, "an element that does not end: {}", &rest[at..]);
        if rest[at..].starts_with("<span class=\"strange\"") {
            strange = true;
        } else if !std::mem::take(&mut strange) {
            found.push(tag);
        }
        rest = &rest[end + 1..];
    }
    found
}

async fn structures(text: &str) -> Vec<(Vec<String>, String)> {
    let state = state();
    let mut deaths = [
        sample::memory::leak(),
        sample::killed(),
        sample::stop_timeout(),
        sample::relayed(),
        sample::rlimit(),
        sample::oom_userspace(),
    ]
    .map(|death| poisoned(&death, text));
    for (n, death) in deaths.iter_mut().enumerate() {
        death.id = uuid::Uuid::from_u128(n as u128);
        // A pod is only linked where the filter takes its name.
        (death.workload.pod, death.job) = (None, None);
        death.workload.labels.insert("a".into(), text.into());
        state.ledger.append(death.clone()).unwrap();
    }
    let mut found = Vec::new();
    for path in ["/".to_owned()]
        .into_iter()
        .chain(deaths.iter().map(|death| format!("/deaths/{}", death.id)))
    {
        let html = page(&state, &path).await;
        found.push((structure(&html), html));
    }
    found
}

#[tokio::test]
async fn no_text_of_a_stranger_is_markup_or_unseen() {
    let tame = structures("x").await;
    let hidden = Shown("\u{202e}");
    assert!(maud::Render::render(&hidden).into_string().contains("strange"));
    for text in CORPUS {
        for ((expected, _), (found, html)) in tame.iter().zip(structures(text).await) {
            assert_eq!(&found, expected, "{text:?} changed a page: {html}");
            let unseen: Vec<char> = html.chars().filter(|c| !is_plain(*c)).collect();
            assert!(unseen.is_empty(), "{text:?}: {unseen:?}");
        }
    }
}

#[tokio::test]
async fn what_was_asked_comes_back_as_text() {
    let state = state();
    let tame = structure(&page(&state, "/?job=x&container=x").await);
    for text in CORPUS {
        let encoded =
            percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
        let html = page(&state, &format!("/?job={encoded}&container={encoded}")).await;
        assert_eq!(structure(&html), tame, "{text:?}: {html}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn nor_is_any_text(text in ".{1,20}|[<>\"'&/=a\\\\]{1,12}") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let tame = structures("x").await;
            for ((expected, _), (found, html)) in tame.iter().zip(structures(&text).await) {
                assert_eq!(&found, expected, "{html}");
                assert!(html.chars().all(is_plain));
            }
        });
    }
}
