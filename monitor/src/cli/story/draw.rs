//! A plot in characters: eighths of blocks, or ASCII where the terminal takes no more. Pure.

use super::plot::Plot;
use super::words::bytes;
use crate::cli::look::Look;

/// Lines of the plot itself.
const ROWS: usize = 8;
/// Room for a size before the axis.
const SIZE: usize = 10;
/// Before the sizes, as before all lines of a section.
const INDENT: usize = 2;
/// Steps of height within a line.
const STEPS: usize = 8;
/// A mark of time each so many columns, at most.
const TICK: usize = 10;
/// A plot is not made wider than this: it would be no clearer.
const WIDEST: usize = 160;

/// With which characters.
struct Signs {
    /// Heights from 1 to 8 eighths of a line.
    blocks: [char; STEPS],
    limit: char,
    upright: char,
    mark: char,
    corner: char,
    level: char,
    tick: char,
}

const UNICODE: Signs = Signs {
    blocks: ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
    limit: '╌',
    upright: '│',
    mark: '┤',
    corner: '└',
    level: '─',
    tick: '┬',
};
const ASCII: Signs = Signs {
    blocks: ['.', '.', '.', ':', ':', ':', '#', '#'],
    limit: '-',
    upright: '|',
    mark: '+',
    corner: '+',
    level: '-',
    tick: '+',
};

/// Colours of the terminal: usage, limit.
const USED: &str = "36";
const LIMIT: &str = "31";

/// The lines of the plot, none wider than the page.
pub(super) fn draw(plot: &Plot, look: Look) -> Vec<String> {
    let signs = if look.unicode { &UNICODE } else { &ASCII };
    let columns = look.width.min(WIDEST).saturating_sub(INDENT + SIZE + 2).max(1);
    let heights: Vec<Option<usize>> =
        plot.columns(columns).into_iter().map(|used| used.map(|used| height(plot, used))).collect();
    let limit_row = plot.limit.map(|limit| height(plot, limit).saturating_sub(1) / STEPS);
    let mut lines: Vec<String> = (0..ROWS)
        .rev()
        .map(|row| {
            let is_limit = limit_row == Some(row);
            let size = match row {
                _ if is_limit => plot.limit,
                _ if row + 1 == ROWS => Some(plot.top),
                _ if row + 1 == ROWS / 2 => Some(plot.top / 2),
                _ => None,
            };
            let axis = if size.is_some() { signs.mark } else { signs.upright };
            let size = size.map_or_else(String::new, bytes);
            let size = painted(look, &format!("{size:>SIZE$}"), if is_limit { LIMIT } else { "" });
            let cells = heights.iter().map(|height| cell(*height, row, is_limit, signs));
            format!("{:INDENT$}{size} {axis}{}", "", runs(cells, look))
        })
        .collect();
    lines.extend(axis(plot, columns, signs));
    lines.push(legend(plot, signs, look));
    lines.into_iter().map(|line| line.trim_end().to_owned()).collect()
}

/// How high an amount stands, in steps. What is not nothing is seen.
fn height(plot: &Plot, amount: u64) -> usize {
    let steps = u128::from(amount) * (ROWS * STEPS) as u128 / u128::from(plot.top.max(1));
    let steps = usize::try_from(steps).unwrap_or(usize::MAX).min(ROWS * STEPS);
    steps.max(usize::from(amount > 0))
}

/// What a place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    Empty,
    Used(char),
    Limit(char),
}

fn cell(height: Option<usize>, row: usize, is_limit: bool, signs: &Signs) -> Cell {
    let here = height.unwrap_or(0).saturating_sub(row * STEPS).min(STEPS);
    let block = here.checked_sub(1).and_then(|step| signs.blocks.get(step));
    match block {
        Some(block) => Cell::Used(*block),
        None if is_limit => Cell::Limit(signs.limit),
        None => Cell::Empty,
    }
}

/// A line of places, each stretch of one kind painted at once.
fn runs(cells: impl Iterator<Item = Cell>, look: Look) -> String {
    let (mut line, mut run, mut color) = (String::new(), String::new(), "");
    for cell in cells {
        let (sign, next) = match cell {
            Cell::Empty => (' ', ""),
            Cell::Used(sign) => (sign, USED),
            Cell::Limit(sign) => (sign, LIMIT),
        };
        if next != color {
            line.push_str(&painted(look, &run, color));
            run.clear();
            color = next;
        }
        run.push(sign);
    }
    line + &painted(look, &run, color)
}

fn painted(look: Look, text: &str, color: &str) -> String {
    if color.is_empty() { text.to_owned() } else { look.painted(text, color) }
}

/// The axis of time and its labels.
fn axis(plot: &Plot, columns: usize, signs: &Signs) -> [String; 2] {
    let mut level = vec![signs.level; columns];
    let mut labels = vec![' '; columns];
    // From the death backwards: what has no room is left out, and the latest is what counts.
    let mut free = columns;
    for tick in plot.ticks(columns / TICK).iter().rev() {
        let at = plot.column(tick.ago, columns);
        let wide = tick.label.chars().count();
        let begin = at.saturating_sub(wide / 2).min(columns.saturating_sub(wide));
        if begin + wide > free {
            continue;
        }
        if let Some(sign) = level.get_mut(at) {
            *sign = signs.tick;
        }
        for (place, c) in labels.iter_mut().skip(begin).zip(tick.label.chars()) {
            *place = c;
        }
        free = begin.saturating_sub(1);
    }
    let before = INDENT + SIZE + 1;
    let line = |first: char, rest: Vec<char>| {
        format!("{:before$}{first}{}", "", rest.into_iter().collect::<String>())
    };
    [line(signs.corner, level), line(' ', labels)]
}

fn legend(plot: &Plot, signs: &Signs, look: Look) -> String {
    let [.., full] = signs.blocks;
    let used = format!("{} used", look.painted(&full.to_string(), USED));
    // How much it is stands at the axis.
    let limit = plot.limit.map(|_| {
        let line: String = [signs.limit; 2].iter().collect();
        format!("   {} limit", look.painted(&line, LIMIT))
    });
    format!("{:width$}{used}{}", "", limit.unwrap_or_default(), width = INDENT + SIZE + 2)
}

/// Columns of a line; what paints it takes none.
#[cfg(test)]
fn width(line: &str) -> usize {
    use unicode_width::UnicodeWidthStr as _;
    let bare = line.split('\x1b').enumerate().map(|(n, part)| {
        if n == 0 { part } else { part.split_once('m').map_or("", |(_, rest)| rest) }
    });
    bare.map(|part| part.width()).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::death::{History, UsageAt, sample};

    fn lines(usage: Vec<(f64, u64)>, limit: Option<u64>, look: Look) -> Vec<String> {
        let usage = usage.into_iter().map(|(ago_seconds, bytes)| UsageAt { ago_seconds, bytes });
        let history = History { usage: usage.collect(), limit_bytes: limit, ..History::default() };
        Plot::of(&history).map(|plot| draw(&plot, look)).unwrap_or_default()
    }

    #[test]
    fn widths_and_characters() {
        let history = sample::memory::spike().memory.history.unwrap();
        let plot = Plot::of(&history).unwrap();
        let mut text = String::new();
        for look in [
            Look { width: 40, ..Look::PLAIN },
            Look { width: 72, unicode: false, ..Look::PLAIN },
            Look { width: 120, ..Look::PLAIN },
        ] {
            text.push_str(&(draw(&plot, look).join("\n") + "\n\n"));
        }
        crate::golden::check_named("story/plot_widths.txt", &text);
        let colours = draw(&plot, Look { color: true, ..Look::PLAIN }).join("\n");
        assert!(colours.contains("\x1b[36m") && colours.contains("\x1b[31m"));
        let bare = colours.split('\x1b').enumerate().map(|(n, part)| {
            if n == 0 { part } else { part.split_once('m').map_or("", |(_, rest)| rest) }
        });
        assert_eq!(bare.collect::<String>(), draw(&plot, Look::PLAIN).join("\n"));
    }

    proptest! {
        #[test]
        fn any_history_at_any_width_fits(
            usage in prop::collection::vec((any::<f64>(), any::<u64>()), 0..60),
            limit in any::<Option<u64>>(),
            width_asked in 40usize..300,
            unicode: bool,
            color: bool,
        ) {
            let look = Look { width: width_asked, unicode, color, ..Look::PLAIN };
            for line in lines(usage, limit, look) {
                prop_assert!(width(&line) <= width_asked, "{line}");
                prop_assert!(unicode || line.is_ascii(), "{line}");
                prop_assert!(color || !line.contains('\x1b'), "{line}");
            }
        }

        #[test]
        fn plausible_histories_too(
            usage in prop::collection::vec((0.0f64..4000.0, 0u64..1 << 40), 2..300),
            limit in prop::option::of(0u64..1 << 41),
            width_asked in 40usize..300,
        ) {
            let look = Look { width: width_asked, ..Look::PLAIN };
            for line in lines(usage, limit, look) {
                prop_assert!(width(&line) <= width_asked, "{line}");
            }
        }

        #[test]
        fn the_axes_are_monotone(
            usage in prop::collection::vec((0.0f64..1e7, any::<u64>()), 2..100),
            columns in 1usize..300,
            amounts in prop::collection::vec(any::<u64>(), 2..20),
        ) {
            let usage = usage.into_iter().map(|(ago_seconds, bytes)| UsageAt { ago_seconds, bytes });
            let history = History { usage: usage.collect(), ..History::default() };
            if let Some(plot) = Plot::of(&history) {
                let ticks = plot.ticks(columns / TICK);
                prop_assert!(ticks.windows(2).all(|pair| pair[0].ago > pair[1].ago));
                let at: Vec<_> = ticks.iter().map(|tick| plot.column(tick.ago, columns)).collect();
                prop_assert!(at.windows(2).all(|pair| pair[0] <= pair[1]));
                prop_assert!(at.iter().all(|column| *column < columns));
                prop_assert_eq!(ticks.last().map(|tick| tick.ago), Some(0.0));
                let mut amounts = amounts;
                amounts.sort_unstable();
                let heights: Vec<_> = amounts.iter().map(|amount| height(&plot, *amount)).collect();
                prop_assert!(heights.is_sorted());
                prop_assert!(plot.points.iter().all(|point| point.bytes <= plot.top));
            }
        }
    }
}
