//! `top` on a screen of any size. Pure: what is known goes in, cells come out.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use unicode_width::UnicodeWidthChar as _;

use super::rows;
use super::state::{Over, Pane, State};
use crate::api::CgroupUse;
use crate::cli::deaths::row;
use crate::cli::look::Look;
use crate::cli::story::story;
use crate::cli::table::Table;
use crate::text::plain;

/// Columns of the bar that shows a share.
const BAR: usize = 16;
/// A share from which on it is shown as near, where the daemon does not say so.
const HIGH: f64 = 0.85;
/// Longest page of a death, in lines.
const LINES: usize = 2000;

const HELP: &[&str] = &[
    "killwatch top",
    "",
    "  q               end, or back from a page; Esc: back; Ctrl-C: end",
    "  up, down, j, k  choose",
    "  PgUp, PgDn      further; g, G: first, last",
    "  Tab             cgroups or deaths",
    "  s               sort by share, use, growth, time left, name",
    "  Enter           the page of a death; of a cgroup, of the newest in it",
    "  ?               this",
    "",
    "USED is what the kernel cannot take back, SHARE that part of the tightest limit",
    "on the path.",
];

/// A column of the list: its name, its width, and from which width of the screen on it is shown.
const COLUMNS: &[(&str, usize, usize)] = &[
    ("SHARE", 6, 0),
    ("USED", 11, 40),
    ("LIMIT", 11, 54),
    ("GROWTH/MIN", 12, 70),
    ("LEFT", 8, 84),
];
/// From this width on there is a bar.
const WITH_BAR: usize = 104;

/// Draws it, and says which line of a death's page is the first on the screen.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State) -> usize {
    let area = frame.area();
    let mut screen = Screen { look: state.look, area, buffer: frame.buffer_mut() };
    match &state.over {
        Over::Nothing => lists(&mut screen, state),
        Over::Help => {
            for (y, line) in HELP.iter().enumerate() {
                screen.put(y, line, Style::default());
            }
        }
        Over::Death(death, from) => {
            let look = Look { width: usize::from(area.width).max(40), color: false, ..state.look };
            let lines = wrapped(&story(death, look), usize::from(area.width));
            let room = usize::from(area.height).saturating_sub(1);
            let from = (*from).min(lines.len().saturating_sub(room));
            for (y, line) in lines.iter().skip(from).take(room).enumerate() {
                let is_title = line.starts_with(|c: char| !c.is_whitespace());
                screen.put(y, line, if is_title { bold() } else { Style::default() });
            }
            screen.put(room, "q back   j, k scroll", quiet());
            return from;
        }
    }
    0
}

/// What may be drawn upon.
struct Screen<'a> {
    look: Look,
    area: Rect,
    buffer: &'a mut Buffer,
}

impl Screen<'_> {
    /// A line, cut at the edge. What a stranger wrote in it is nothing but text.
    fn put(&mut self, y: usize, text: &str, style: Style) {
        self.put_at(0, y, text, style);
    }

    fn put_at(&mut self, x: usize, y: usize, text: &str, style: Style) {
        let (width, height) = (usize::from(self.area.width), usize::from(self.area.height));
        let (Ok(column), Ok(row)) = (u16::try_from(x), u16::try_from(y)) else { return };
        if x >= width || y >= height {
            return;
        }
        let text = self.look.spelled(plain(text));
        let (column, row) = (self.area.x + column, self.area.y + row);
        self.buffer.set_stringn(column, row, text, width - x, style);
    }

    /// The style of a whole line, over what is there.
    fn mark(&mut self, y: usize, style: Style) {
        if let Ok(row) = u16::try_from(y)
            && row < self.area.height
        {
            let line = Rect { y: self.area.y + row, height: 1, ..self.area };
            self.buffer.set_style(line, style);
        }
    }

    fn colored(&self, color: Color) -> Style {
        if self.look.color { Style::default().fg(color) } else { bold() }
    }
}

fn bold() -> Style {
    Style::default().add_modifier(Modifier::BOLD)
}

fn quiet() -> Style {
    Style::default().add_modifier(Modifier::DIM)
}

fn chosen() -> Style {
    Style::default().add_modifier(Modifier::REVERSED)
}

fn lists(screen: &mut Screen<'_>, state: &State) {
    let height = usize::from(screen.area.height);
    let width = usize::from(screen.area.width);
    let summary = match (&state.cgroups, &state.trouble) {
        (_, Some(trouble)) => format!("{}: {trouble}", state.api),
        (Some(cgroups), None) => rows::summary(cgroups),
        (None, None) => format!("{} is asked", state.api),
    };
    let style = if state.trouble.is_some() { screen.colored(Color::Red) } else { bold() };
    screen.put(0, &summary, style);
    // Head and foot are a line each, and each list has a header.
    let room = height.saturating_sub(2);
    let for_deaths = if room < 8 { 0 } else { (room / 3).max(3) };
    let for_cgroups = room - for_deaths;
    // Where there is room for one list only, it is the chosen one.
    if for_deaths == 0 && state.pane == Pane::Deaths {
        deaths(screen, state, 1, room, width);
    } else {
        cgroups(screen, state, 1, for_cgroups, width);
        if for_deaths > 0 {
            deaths(screen, state, 1 + for_cgroups, for_deaths, width);
        }
    }
    let foot = match state.note {
        Some(note) => note.to_owned(),
        None => {
            format!("q end   ? help   Tab list   Enter page   s sort: {}", state.sort.words())
        }
    };
    if height > 1 {
        screen.put(height - 1, &foot, quiet());
    }
}

/// The first line that is shown, so that the chosen one is.
fn first(chosen: usize, length: usize, room: usize) -> usize {
    chosen.saturating_sub(room / 2).min(length.saturating_sub(room))
}

fn cgroups(screen: &mut Screen<'_>, state: &State, top: usize, lines: usize, width: usize) {
    if lines == 0 {
        return;
    }
    let shown: Vec<_> = COLUMNS.iter().filter(|(_, _, from)| width >= *from).collect();
    let bar = if width >= WITH_BAR { BAR + 1 } else { 0 };
    let fixed: usize = shown.iter().map(|(_, columns, _)| columns).sum::<usize>() + bar;
    let name = width.saturating_sub(fixed);
    screen.mark(top, quiet());
    screen.put(top, "WHERE", quiet());
    let mut x = name + bar;
    for (title, columns, _) in &shown {
        screen.put_at(x + columns.saturating_sub(title.len()), top, title, quiet());
        x += columns;
    }
    let list = state.list();
    if list.is_empty() {
        let words = if state.cgroups.is_some() { "No cgroup is followed." } else { "" };
        screen.put(top + 1, words, Style::default());
    }
    let room = lines - 1;
    let at = state.chosen_cgroup();
    let from = first(at, list.len(), room);
    for (n, cgroup) in list.iter().enumerate().skip(from).take(room) {
        let y = top + 1 + n - from;
        let cells = rows::cells(cgroup);
        let style = how_near(screen, cgroup);
        screen.put(y, &cut(&plain(&rows::place(cgroup)), name.saturating_sub(1)), style);
        if bar > 0 {
            screen.put_at(name, y, &bar_of(cgroup, screen.look), style);
        }
        let mut x = name + bar;
        for (cell, (_, columns, _)) in cells.iter().skip(1).zip(&shown) {
            screen.put_at(x + columns.saturating_sub(cell.len()), y, cell, style);
            x += columns;
        }
        if n == at && state.pane == Pane::Cgroups {
            screen.mark(y, chosen());
        }
    }
}

fn how_near(screen: &Screen<'_>, cgroup: &CgroupUse) -> Style {
    let share = cgroup.share.unwrap_or(0.0);
    match (cgroup.near, share) {
        (true, _) => screen.colored(Color::Red),
        (false, share) if share >= HIGH => screen.colored(Color::Yellow),
        _ => Style::default(),
    }
}

fn bar_of(cgroup: &CgroupUse, look: Look) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share is held between 0 and 1"
    )]
    let full = (cgroup.share.unwrap_or(0.0).clamp(0.0, 1.0) * BAR as f64).round() as usize;
    let (used, free) = if look.unicode { ("█", "░") } else { ("#", ".") };
    if cgroup.share.is_none() {
        return String::new();
    }
    used.repeat(full) + &free.repeat(BAR - full)
}

fn deaths(screen: &mut Screen<'_>, state: &State, top: usize, lines: usize, width: usize) {
    let room = lines.saturating_sub(1);
    let at = state.chosen_death();
    let from = first(at, state.deaths.len(), room);
    let cells: Vec<_> = state
        .deaths
        .iter()
        .skip(from)
        .take(room)
        .map(|death| row::cells(death, false, &state.zone))
        .collect();
    if cells.is_empty() {
        screen.put(top, "No death is kept.", quiet());
        return;
    }
    let text = Table::new(row::NAMES, Some(width)).lines(&cells);
    for (n, line) in text.lines().take(lines).enumerate() {
        screen.put(top + n, line, if n == 0 { quiet() } else { Style::default() });
        if n > 0 && from + n - 1 == at && state.pane == Pane::Deaths {
            screen.mark(top + n, chosen());
        }
    }
}

/// The first characters of a safe text that fit into so many columns.
fn cut(text: &str, columns: usize) -> String {
    let mut room = columns;
    let fits = |c: &char| {
        let rest = room.checked_sub(c.width().unwrap_or(0));
        room = rest.unwrap_or(0);
        rest.is_some()
    };
    text.chars().take_while(fits).collect()
}

/// Lines that are no wider than so many columns.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(1);
    let mut lines = Vec::new();
    for line in text.lines() {
        let (mut piece, mut used) = (String::new(), 0);
        for c in line.chars() {
            let wide = c.width().unwrap_or(0);
            if used + wide > columns && !piece.is_empty() {
                lines.push(std::mem::take(&mut piece));
                used = 0;
            }
            piece.push(c);
            used += wide;
        }
        lines.push(piece);
        if lines.len() >= LINES {
            break;
        }
    }
    lines
}
