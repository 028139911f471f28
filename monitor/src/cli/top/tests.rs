//! What is drawn, at all sizes and of all names, and what keys do.

use jiff::tz::TimeZone;
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::state::{Key, News, Over, Pane, Sort};
use super::*;
use crate::api::CgroupUse;
use crate::death::{Death, HostMemory, Workload, sample};

const MIB: u64 = 1 << 20;
const NASTY: &str = ") Z\n\"} 1\u{1b}[2J\u{202e}</b>\\";

fn cgroup(path: &str, used: u64, limit: Option<u64>) -> CgroupUse {
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let share = limit.map(|limit| used as f64 / limit as f64);
    CgroupUse {
        cgroup: path.into(),
        usage_bytes: used * MIB,
        unreclaimable_bytes: Some(used * MIB),
        limit_bytes: limit.map(|limit| limit * MIB),
        share,
        near: share.is_some_and(|share| share > 0.9),
        ..CgroupUse::default()
    }
}

fn cgroups() -> Cgroups {
    let mut worker = cgroup("/kubepods/pod1/abc", 245, Some(256));
    worker.workload = sample::in_a_pod().workload;
    worker.workload.cgroup = Some(worker.cgroup.clone());
    (worker.growth_bytes_per_minute, worker.seconds_left) = (Some(46_137_344.0), Some(15.0));
    let mut unit = cgroup("/system.slice/postgresql.service", 900, Some(1024));
    unit.workload.unit = Some("postgresql.service".into());
    let mut idle = cgroup("/system.slice/cron.service", 3, Some(64));
    (idle.growth_bytes_per_minute, idle.seconds_left) = (Some(-2048.0), Some(1e9));
    let mut many = vec![worker, unit, idle, cgroup("/user.slice", 2000, None)];
    many.extend((0..30).map(|n| cgroup(&format!("/batch/job{n:02}"), 64 - n, Some(128))));
    Cgroups {
        cgroups: many,
        host: Some(HostMemory {
            total_bytes: 64 << 30,
            available_bytes: 40 << 30,
            swap_total_bytes: 8 << 30,
            swap_free_bytes: 7 << 30,
            oom_kills: Some(3),
            ..HostMemory::default()
        }),
        followed: 112,
        refused: 2,
    }
}

fn deaths() -> Vec<Death> {
    let mut leak = sample::memory::leak();
    leak.workload.cgroup = Some("/kubepods/pod1/abc/inner".into());
    let hostile = Death { id: uuid::Uuid::from_u128(9), ..sample::hostile() };
    vec![sample::killed(), leak, hostile]
}

fn state() -> State {
    let mut state = State::new("http://127.0.0.1:9435".into(), Look::PLAIN, TimeZone::UTC);
    state.take(News { cgroups: Ok(cgroups()), deaths: Ok(deaths()) });
    state
}

/// The screen as lines.
fn screen(state: &State, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| {
            view::draw(frame, state);
        })
        .unwrap();
    let buffer = terminal.backend().buffer().clone();
    let line = |y| {
        let cells = (0..width).map(|x| buffer[(x, y)].symbol().to_owned());
        cells.collect::<String>().trim_end().to_owned() + "\n"
    };
    (0..height).map(line).collect()
}

#[test]
fn how_it_reads() {
    let mut state = state();
    crate::golden::check_named("top/120x30.txt", &screen(&state, 120, 30));
    crate::golden::check_named("top/80x24.txt", &screen(&state, 80, 24));
    crate::golden::check_named("top/40x10.txt", &screen(&state, 40, 10));
    crate::golden::check_named("top/20x5.txt", &screen(&state, 20, 5));
    crate::golden::check_named("top/plain.txt", &plain(&cgroups()));
    state.on(Key::Help);
    crate::golden::check_named("top/help.txt", &screen(&state, 80, 24));
    state.on(Key::Back);
    state.on(Key::Open);
    crate::golden::check_named("top/death.txt", &screen(&state, 80, 40));
}

#[test]
fn before_anything_is_known_and_when_nobody_answers() {
    let mut state = State::new("http://127.0.0.1:9435".into(), Look::PLAIN, TimeZone::UTC);
    assert!(screen(&state, 80, 24).starts_with("http://127.0.0.1:9435 is asked\n"));
    for key in [Key::Down, Key::Last, Key::Open, Key::Other, Key::Down, Key::Open, Key::Sort] {
        assert!(state.on(key));
        screen(&state, 80, 24);
    }
    state.take(News { cgroups: Err("it is\x1b[2J away".into()), deaths: Err("so".into()) });
    assert!(screen(&state, 80, 24).starts_with("http://127.0.0.1:9435: it is\\u{1b}[2J away\n"));
    state.take(News { cgroups: Ok(Cgroups::default()), deaths: Ok(Vec::new()) });
    let text = screen(&state, 80, 24);
    assert!(
        text.contains("No cgroup is followed.") && text.contains("No death is kept."),
        "{text}"
    );
    assert_eq!(plain(&Cgroups::default()), "0 near their limit of 0 followed\n");
}

#[test]
fn keys_do_what_they_say() {
    let mut state = state();
    assert_eq!(state.chosen_cgroup(), 0);
    state.on(Key::Down);
    assert_eq!(state.list()[state.chosen_cgroup()].cgroup, "/system.slice/postgresql.service");
    state.on(Key::Sort);
    assert_eq!(state.sort, Sort::Used);
    assert_eq!(state.list()[0].cgroup, "/user.slice");
    assert_eq!(
        state.list()[state.chosen_cgroup()].cgroup,
        "/system.slice/postgresql.service",
        "it is the same one, wherever it stands now"
    );
    state.on(Key::Open);
    assert_eq!((&state.over, state.note), (&Over::Nothing, Some("no death there is known")));
    (0..4).for_each(|_| assert!(state.on(Key::Sort)));
    assert_eq!((state.sort, state.note), (Sort::Share, None));
    state.on(Key::First);
    state.on(Key::Open);
    assert!(matches!(&state.over, Over::Death(death, 0) if death.victim.comm == "worker"));
    assert!(state.on(Key::Quit), "back");
    state.on(Key::Other);
    assert_eq!((state.pane, state.chosen_death()), (Pane::Deaths, 0));
    state.on(Key::Last);
    assert_eq!(state.chosen_death(), 2);
    state.take(News { cgroups: Ok(cgroups()), deaths: Ok(vec![with_id(77)]) });
    assert_eq!(state.chosen_death(), 3, "it is the same one");
    state.on(Key::PageUp);
    assert_eq!(state.chosen_death(), 0);
    assert!(!state.on(Key::Quit));
    state.on(Key::Help);
    assert!(!state.on(Key::End), "Ctrl-C ends it wherever");
    let press = |code, with| screen::meaning(KeyEvent::new(code, with));
    assert_eq!(press(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::End));
    assert_eq!(press(KeyCode::Char('c'), KeyModifiers::NONE), None);
    assert_eq!(press(KeyCode::Char('G'), KeyModifiers::SHIFT), Some(Key::Last));
}

fn with_id(n: u128) -> Death {
    Death { id: uuid::Uuid::from_u128(n), ..sample::killed() }
}

#[test]
fn the_page_of_a_death_ends_where_it_ends() {
    let mut state = state();
    state.on(Key::Open);
    state.on(Key::Last);
    let mut terminal = Terminal::new(TestBackend::new(80, 20)).unwrap();
    let mut shown = 0;
    terminal.draw(|frame| shown = view::draw(frame, &state)).unwrap();
    state.shown_from(shown);
    let end = screen(&state, 80, 20);
    assert!(end.contains("What to do"), "{end}");
    state.on(Key::Up);
    assert!(matches!(state.over, Over::Death(_, line) if line == shown - 1));
}

#[test]
fn deaths_that_are_kept_are_bounded() {
    let mut state = state();
    for n in 0..50 {
        let deaths = (0..100).map(|m| with_id(1000 + n * 100 + m)).collect();
        state.take(News { cgroups: Ok(cgroups()), deaths: Ok(deaths) });
    }
    assert_eq!(state.deaths.len(), 200);
    assert_eq!(state.deaths[0].id, uuid::Uuid::from_u128(1000 + 4999), "the newest");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_size_and_any_name_is_drawn(
        width in 20u16..=300,
        height in 5u16..=100,
        name in "\\PC{0,60}|.{0,60}",
        unicode: bool,
        color: bool,
        share in any::<Option<f64>>(),
        keys in prop::collection::vec(0usize..12, 0..30),
    ) {
        let look = Look { width: usize::from(width), unicode, color, ..Look::PLAIN };
        let mut state = State::new(name.clone(), look, TimeZone::UTC);
        let mut known = cgroups();
        for text in [&name, NASTY] {
            let mut strange = cgroup(text, 5, Some(6));
            (strange.share, strange.growth_bytes_per_minute, strange.seconds_left) = (share, share, share);
            strange.workload = Workload { pod: Some(text.into()), container: Some(text.into()), ..Workload::default() };
            known.cgroups.push(strange);
        }
        let mut death = sample::hostile();
        death.victim.comm.clone_from(&name);
        state.take(News { cgroups: Ok(known), deaths: Ok(vec![death]) });
        const KEYS: [Key; 12] = [
            Key::Back, Key::Quit, Key::Up, Key::Down, Key::PageUp, Key::PageDown,
            Key::First, Key::Last, Key::Sort, Key::Other, Key::Open, Key::Help,
        ];
        for key in keys {
            state.on(KEYS[key]);
            let text = screen(&state, width, height);
            prop_assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
            prop_assert!(unicode || text.is_ascii(), "{text}");
            prop_assert_eq!(text.lines().count(), usize::from(height));
        }
    }
}

#[test]
fn a_screen_too_small_for_anything_is_no_mishap() {
    let mut state = state();
    for (width, height) in [(1, 1), (2, 2), (1, 40), (300, 1), (5, 3)] {
        screen(&state, width, height);
        state.on(Key::Open);
        screen(&state, width, height);
        state.on(Key::Back);
    }
}
