//! The page in a real browser, of a real daemon that watched real deaths: with scripts and without, in the light and in the dark, for a keyboard, and against names
//! that want to be more than names.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::path::Path;

use killwatch_tests::cgroup::Tree;
use killwatch_tests::daemon::Daemon;
use killwatch_tests::victim::Casting;
use serde_json::{Value, json};

use crate::browser::{Browser, Driver};
use crate::tool;

/// The limit that hogs meet, in bytes.
const LIMIT: u64 = 32 << 20;
/// Names of processes, 15 bytes at most.
const NAMES: [&str; 8] = [
    "<script>",
    "</a><svg/onload",
    "\"><img src=x>",
    "' onload=x '",
    "</title><b>x",
    "&lt;&amp;&#60;",
    "\u{202e}gpj.exe\u{202c}",
    "{{7*7}}\n\t\x1b[1m",
];
/// Name of a cgroup, and a job's id.
const LONG: &str =
    "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'<\u{2215}script>";

#[test]
fn the_page_in_a_browser() {
    let tools = [tool::find("chromium"), tool::find("chromedriver")];
    let [Some(chromium), Some(chromedriver)] = tools else { return };
    let daemon = Daemon::start().unwrap();
    let deaths = Deaths { tree: Tree::new().unwrap() };
    deaths.hostile();
    deaths.hog(&job(1));
    let origin = format!("http://{}", daemon.address());
    let driver = Driver::start(&chromedriver);
    {
        let browser = driver.open(&chromium, true);
        keeps_itself_up_to_date(&browser, &origin, &deaths);
        shows_hostile_names_as_names(&browser, &origin, &daemon);
        lets_no_script_make_markup(&browser, &origin);
        serves_a_keyboard_and_a_screen_reader(&browser, &origin);
        can_be_read_in_the_light_and_in_the_dark(&browser, &origin, &daemon);
    }
    let browser = driver.open(&chromium, false);
    is_whole_without_scripts(&browser, &origin);
}

/// A job of this run: others may play the same on this host.
fn job(number: u32) -> String {
    format!("render-{}-{number}", std::process::id())
}

/// Those who die for this.
struct Deaths {
    tree: Tree,
}

impl Deaths {
    fn cast(&self) -> Casting {
        Casting::new(Path::new(env!("CARGO_BIN_EXE_victim")).to_owned())
    }

    fn hostile(&self) {
        let group = self.tree.make(LONG).unwrap();
        for name in NAMES {
            let casting = self.cast().within(&group).with_env("JOB_ID", LONG);
            let act = ["named", name, "--", "abort"];
            casting.args(act).start().unwrap().reap_killed_by(6).unwrap();
        }
    }

    fn hog(&self, job: &str) {
        let group = self.tree.limited(job, LIMIT).unwrap();
        let casting = self.cast().within(&group).with_env("JOB_ID", job).args(["hog"]);
        casting.start().unwrap().reap_killed_by(9).unwrap();
    }
}

const ROWS: &str = "return document.querySelectorAll('#deaths tbody tr').length";

fn keeps_itself_up_to_date(browser: &Browser<'_>, origin: &str, deaths: &Deaths) {
    browser.go(origin);
    browser.until("the deaths are there", &format!("{ROWS} > {}", NAMES.len()));
    let title = browser.text("return document.title");
    assert!(title.starts_with("Deaths · killwatch on node-of-"), "{title}");
    // Others die on this host too, and each is said.
    browser.ask("window.said = []; const live = document.querySelector('[aria-live=polite]');
        new MutationObserver(() => window.said.push(live.textContent)).observe(live, { childList: true })");
    // Whoever reads is not thrown elsewhere by news.
    browser.ask("document.querySelector('#deaths tbody a').focus()");
    let focused = browser.text("return document.activeElement.textContent");
    deaths.hog(&job(2));
    let row = format!(
        "[...document.querySelectorAll('#deaths tbody tr')].filter((row) => row.innerText.includes('{}'))",
        job(2)
    );
    browser.until("a row more", &format!("return {row}.length === 1"));
    let newest = browser.text(&format!("return {row}[0].innerText"));
    assert!(newest.contains("oom_memcg"), "{newest}");
    let said = browser.ask("return window.said").to_string();
    assert!(said.contains("ew death"), "{said}");
    assert_eq!(browser.text("return document.activeElement.textContent"), focused);
    assert_eq!(browser.text("return document.title"), title);
    browser.ask("document.getElementById('pause').click()");
    assert_eq!(browser.text("return document.getElementById('pause').ariaPressed"), "true");
    stays_here(browser, origin);
}

fn shows_hostile_names_as_names(browser: &Browser<'_>, origin: &str, daemon: &Daemon) {
    let found = daemon.json("/api/v1/deaths?cause=abort").unwrap();
    let found = found["deaths"].as_array().unwrap().iter();
    let found: Vec<_> = found.filter(|death| death["job"]["id"] == LONG).collect();
    assert_eq!(found.len(), NAMES.len());
    let pages =
        found.iter().map(|death| format!("{origin}/deaths/{}", death["id"].as_str().unwrap()));
    for page in pages.chain([
        origin.to_owned(),
        format!("{origin}/?cause=abort"),
        format!("{origin}/?job=%3Cscript%3Ealert(1)%3C/script%3E"),
    ]) {
        browser.go(&page);
        let title = browser.text("return document.title");
        assert!(title.contains("killwatch on node-of-") && title != "owned", "{page}: {title}");
        let strange = browser.ask("return [...document.querySelectorAll('img, svg:not(.bar svg), main script, iframe, object, embed, [onerror], [onload], b')].map((e) => e.outerHTML)");
        assert_eq!(strange, json!([]), "{page}");
        let text = browser.text("return document.body.innerText");
        assert!(!text.contains(['\u{202e}', '\u{1b}']), "{page}: {text}");
    }
    browser.go(origin);
    let text = browser.text("return document.querySelector('#deaths').innerText");
    for name in ["<script>", "</title><b>x", "\\u{202e}gpj.exe", "{{7*7}}\\n\\t"] {
        assert!(text.contains(name), "{name}: {text}");
    }
    browser.picture("hostile");
    stays_here(browser, origin);
}

/// What would happen if a text became markup after all.
fn lets_no_script_make_markup(browser: &Browser<'_>, origin: &str) {
    browser.go(origin);
    let tries = [
        "document.body.innerHTML = '<b>x</b>'",
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.owned = 1\">')",
        "setTimeout('window.owned = 1', 0)",
        "const s = document.createElement('script'); s.textContent = 'window.owned = 1'; document.body.append(s)",
        "const i = document.createElement('img'); i.setAttribute('onerror', 'window.owned = 1'); i.src = '/none'; document.body.append(i)",
    ];
    for attempt in tries {
        browser.ask(&format!("try {{ {attempt} }} catch {{ }}"));
    }
    browser.ask("document.body.append(Object.assign(document.createElement('img'), {src: 'http://127.0.0.1:1/elsewhere'}))");
    // Of eval nothing can be said so: what WebDriver runs may.
    assert_eq!(
        browser.ask("return [window.owned ?? null, document.querySelectorAll('b').length]"),
        json!([null, 0])
    );
    let complaints = browser.complaints().join("\n");
    assert!(complaints.contains("Content Security Policy"), "{complaints}");
    // Refused before it is sent.
    let requests = browser.requests();
    assert!(
        !requests.is_empty()
            && requests.iter().all(|url| url.starts_with(origin) || url.ends_with("/elsewhere")),
        "{requests:?}"
    );
}

fn serves_a_keyboard_and_a_screen_reader(browser: &Browser<'_>, origin: &str) {
    const LACKS: &str = "
        const lacks = [];
        const need = (what, good) => { if (!good) { lacks.push(what); } };
        need('a language', document.documentElement.lang === 'en');
        need('one main', document.querySelectorAll('main').length === 1);
        need('one h1', document.querySelectorAll('h1').length === 1);
        need('header and footer', document.querySelector('body > header') && document.querySelector('body > footer'));
        document.querySelectorAll('nav').forEach((e) => need('a label of ' + e.outerHTML, e.ariaLabel));
        document.querySelectorAll('input, select').forEach((e) => need('a label of ' + e.id, e.labels.length === 1));
        document.querySelectorAll('button, a').forEach((e) => need('words of ' + e.outerHTML, e.textContent.trim()));
        document.querySelectorAll('th').forEach((e) => need('a scope of ' + e.outerHTML, ['col', 'row'].includes(e.scope)));
        document.querySelectorAll('tbody tr').forEach((e) => need('a head of ' + e.outerHTML, e.querySelector('th[scope=row]')));
        document.querySelectorAll('table').forEach((e) => need('a name of a table', e.caption || e.closest('[aria-labelledby]')));
        const labels = (e) => (e.getAttribute('aria-labelledby') || '').split(' ').map((id) => (document.getElementById(id) || {}).textContent);
        document.querySelectorAll('svg').forEach((e) => need('a label of a picture', e.role === 'img' && (e.ariaLabel || labels(e).every((text) => text))));
        document.querySelectorAll('[aria-labelledby], [aria-describedby]').forEach((e) => {
            const ids = (e.getAttribute('aria-labelledby') ?? e.getAttribute('aria-describedby')).split(' ');
            ids.forEach((id) => need('the element ' + id, document.getElementById(id)));
        });
        const levels = [...document.querySelectorAll('h1, h2, h3')].map((e) => Number(e.tagName[1]));
        need('headings in order ' + levels, levels.every((level, n) => n === 0 ? level === 1 : level <= levels[n - 1] + 1));
        const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
        need('ids that are one each', new Set(ids).size === ids.length);
        return lacks;";
    browser.go(origin);
    let oom = browser.text("return [...document.querySelectorAll('#deaths a')].find((a) => a.closest('tr').innerText.includes('oom_memcg')).href");
    for page in [origin, &oom, &format!("{origin}/host"), &format!("{origin}/?since=never")] {
        browser.go(page);
        assert_eq!(browser.ask(LACKS), json!([]), "{page}");
    }
    // Tab, as the W3C writes it.
    browser.go(origin);
    browser.press("\u{e004}");
    let focused = "const e = document.activeElement; const style = getComputedStyle(e);
        return [e.className, style.outlineStyle, e.getBoundingClientRect().left >= 0]";
    assert_eq!(browser.ask(focused), json!(["skip", "solid", true]));
    // Enter, and it is the content that is next.
    browser.press("\u{e007}");
    browser.until("the content has the focus", "return document.activeElement.id === 'main'");
}

/// Contrast of each text with what is behind it (WCAG 2.2, 1.4.3: 4.5 to 1, 3 to 1 for large).
const FAINT: &str = "
    const light = (c) => { const [r, g, b] = c.map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
    const back = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
        if (c.length < 4 || c[3] > 0) { return c.slice(0, 3); } } return [255, 255, 255]; };
    const faint = new Set();
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const e = walk.currentNode.parentElement;
        if (!walk.currentNode.textContent.trim() || !e.checkVisibility()) { continue; }
        const style = getComputedStyle(e);
        const [a, b] = [light(rgb(style.color).slice(0, 3)), light(back(e))].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        const large = parseFloat(style.fontSize) >= 24;
        if (ratio < (large ? 3 : 4.5)) { faint.add(`${e.tagName}.${e.className} ${ratio.toFixed(2)} ${style.color}`); }
    }
    return [...faint];";

fn can_be_read_in_the_light_and_in_the_dark(browser: &Browser<'_>, origin: &str, daemon: &Daemon) {
    let oom = daemon.json("/api/v1/deaths?cause=oom_memcg&limit=1").unwrap();
    let oom = format!("{origin}/deaths/{}", oom["deaths"][0]["id"].as_str().unwrap());
    let pages = [("list", origin.to_owned()), ("death", oom), ("host", format!("{origin}/host"))];
    let mut backs = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefer(scheme);
        for (name, page) in &pages {
            browser.resize(1280, 1000);
            browser.go(page);
            assert_eq!(browser.ask(FAINT), json!([]), "{page}, {scheme}");
            browser.picture(&format!("{name}-{scheme}"));
            browser.resize(360, 800);
            let wider = browser.ask("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
            assert_eq!(wider, Value::from(0), "{page} is wider than a telephone");
            browser.picture(&format!("{name}-{scheme}-narrow"));
        }
        backs.push(browser.text("return getComputedStyle(document.body).backgroundColor"));
    }
    assert_ne!(backs[0], backs[1], "the dark is dark");
}

fn is_whole_without_scripts(browser: &Browser<'_>, origin: &str) {
    // WebDriver's own scripts still run; the page's do not.
    browser.go(origin);
    assert!(browser.ask(ROWS).as_u64().unwrap() >= 10);
    assert_eq!(browser.text("return document.getElementById('live').textContent"), "");
    assert_eq!(browser.ask("return document.getElementById('pause').checkVisibility()"), false);
    let job = job(1);
    browser.ask(&format!(
        "document.getElementById('f-job').value = '{job}'; document.querySelector('form').submit()"
    ));
    browser.until("the form is answered", &format!("return location.search.includes('job={job}')"));
    assert_eq!(browser.ask(ROWS), Value::from(1));
    browser.ask("document.querySelector('#deaths a').click()");
    browser.until(
        "a death's page",
        "return location.pathname.startsWith('/deaths/') && document.querySelector('h1') !== null",
    );
    let story = browser.text("return document.querySelector('article').innerText");
    for part in [
        "was killed by the kernel's OOM killer",
        "What to do",
        "Why",
        "Memory",
        "Deaths of this job",
        "killwatch why",
    ] {
        assert!(story.contains(part), "{part}: {story}");
    }
    stays_here(browser, origin);
}

/// Nothing was asked of anybody else, and the browser had nothing to complain of.
fn stays_here(browser: &Browser<'_>, origin: &str) {
    let requests = browser.requests();
    assert!(
        !requests.is_empty() && requests.iter().all(|url| url.starts_with(origin)),
        "{requests:?}"
    );
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
