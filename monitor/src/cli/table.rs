//! Lines of cells under a header. Whatever stands in a cell, a row is one line, and each of its columns begins below its name or, if
//! something before it is wider than all before, after that.
//!
//! Pure. The width of a character is that of the Unicode standard (annex 11); whatever takes no column of its own, or would turn
//! the rest of the line around, is written as its number.

use unicode_width::UnicodeWidthChar as _;

use crate::text::plain;

/// Between two columns.
const GAP: usize = 2;
/// To fit a terminal, no column is made narrower than this.
const NARROWEST: usize = 8;
/// Stands for what was cut.
const CUT: char = '…';
/// Columns that are cut to fit a terminal: VICTIM, WHERE, JOB.
const FLEXIBLE: [usize; 3] = [2, 3, 4];

/// A list that grows. The header comes with the first rows.
#[derive(Debug)]
pub(in crate::cli) struct Table {
    widths: Vec<usize>,
    names: Option<&'static [&'static str]>,
    columns: Option<usize>,
}

impl Table {
    /// A list with these columns, cut to a terminal of so many.
    pub(in crate::cli) fn new(names: &'static [&'static str], columns: Option<usize>) -> Self {
        let widths = names.iter().map(|name| name.len()).collect();
        Self { widths, names: Some(names), columns }
    }

    /// The lines of some more rows, each ended by a newline.
    pub(in crate::cli) fn lines(&mut self, rows: &[Vec<String>]) -> String {
        if rows.is_empty() {
            return String::new();
        }
        let rows: Vec<Vec<String>> =
            rows.iter().map(|cells| cells.iter().map(|cell| plain(cell)).collect()).collect();
        for cells in &rows {
            for (widest, cell) in self.widths.iter_mut().zip(cells) {
                *widest = (*widest).max(width(cell));
            }
        }
        let widths = self.fitted();
        let header = self.names.take().into_iter();
        let header = header.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let header: Vec<Vec<String>> = header.collect();
        let mut text = String::new();
        for cells in header.iter().chain(&rows) {
            let line = line(cells, &widths);
            text.push_str(
                &self.columns.map_or_else(|| line.clone(), |columns| cut(&line, columns)),
            );
            text.push('\n');
        }
        text
    }

    /// Widths with which a row fits the terminal, so far as it can.
    fn fitted(&self) -> Vec<usize> {
        let mut widths = self.widths.clone();
        let Some(columns) = self.columns else { return widths };
        let gaps = GAP * widths.len().saturating_sub(1);
        let mut excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(columns);
        // The widest gives way first, so that one long name costs the others nothing.
        while excess > 0 {
            let widest = FLEXIBLE.into_iter().filter_map(|column| {
                widths
                    .get(column)
                    .copied()
                    .filter(|width| *width > NARROWEST)
                    .map(|width| (width, column))
            });
            let Some(width) = widest.max().and_then(|(_, column)| widths.get_mut(column)) else {
                break;
            };
            *width -= 1;
            excess -= 1;
        }
        widths
    }
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, columns) in cells.iter().zip(widths) {
        let cell = shortened(cell, *columns);
        let rest = columns - width(&cell).min(*columns) + GAP;
        line.push_str(&cell);
        line.extend(std::iter::repeat_n(' ', rest));
    }
    line.truncate(line.trim_end_matches(' ').len());
    line
}

fn width(text: &str) -> usize {
    text.chars().filter_map(|c| c.width()).sum()
}

/// At most so many columns of a safe text, the last of them saying that there was more.
fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut kept = fitting(text.chars(), columns.saturating_sub(1));
    if columns > 0 {
        kept.push(CUT);
    }
    kept
}

/// At most so many columns of a safe text: more of its end than of its begin, for there stand process ids and containers' names.
fn shortened(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let room = columns.saturating_sub(1);
    let head = fitting(text.chars(), room / 3);
    let tail = fitting(text.chars().rev(), room - width(&head));
    let mark = (columns > 0).then_some(CUT);
    head.chars().chain(mark).chain(tail.chars().rev()).collect()
}

/// The first characters that fit.
fn fitting(text: impl Iterator<Item = char>, columns: usize) -> String {
    let mut room = columns;
    text.map_while(|c| {
        room = room.checked_sub(c.width().unwrap_or(0))?;
        Some(c)
    })
    .collect()
}
