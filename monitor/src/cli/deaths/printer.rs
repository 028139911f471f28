//! Records to an output, in one of the forms.

use std::io::{self, ErrorKind, Stdout, Write};

use jiff::tz::TimeZone;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Output;
use super::record::Record;
use super::row;
use crate::cli::complain;
use crate::cli::table::Table;

/// An output, and whether anybody reads it.
#[derive(Debug)]
pub(super) struct Out<W> {
    to: W,
    /// Whether there is still a reader, so far as can be told without writing.
    has_reader: fn(&W) -> bool,
}

impl Out<Stdout> {
    /// Standard output.
    pub(super) fn stdout() -> Self {
        Self { to: io::stdout(), has_reader: is_open }
    }
}

#[cfg(test)]
impl<W> Out<W> {
    /// Any writer, which always has a reader.
    pub(super) fn to(to: W) -> Self {
        Self { to, has_reader: |_| true }
    }
}

/// A pipe whose reader has gone says so to who asks for nothing.
fn is_open(out: &Stdout) -> bool {
    let mut fds = [PollFd::new(out, PollFlags::empty())];
    let asked = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    let gone = PollFlags::ERR | PollFlags::NVAL;
    asked.is_err() || fds.iter().all(|fd| !fd.revents().intersects(gone))
}

/// Prints records.
pub(super) struct Printer<W> {
    form: Form,
    out: Out<W>,
}

enum Form {
    Json,
    Table { table: Table, wide: bool, zone: TimeZone },
}

impl<W: Write> Printer<W> {
    /// In this form; `columns` are the terminal's, if it is one. Times are told in `zone`.
    pub(super) fn new(output: Output, columns: Option<usize>, zone: TimeZone, out: Out<W>) -> Self {
        let form = match output {
            Output::Json => Form::Json,
            Output::Table => {
                Form::Table { table: Table::new(row::NAMES, columns), wide: false, zone }
            }
            Output::Wide => {
                Form::Table { table: Table::new(row::WIDE_NAMES, None), wide: true, zone }
            }
        };
        Self { form, out }
    }

    /// Whether somebody still reads.
    pub(super) fn has_reader(&self) -> bool {
        (self.out.has_reader)(&self.out.to)
    }

    /// Prints some more. `false`: nobody reads any more, which is no error.
    ///
    /// # Errors
    /// If the output fails otherwise.
    pub(super) fn print(&mut self, records: &[Record]) -> io::Result<bool> {
        let text = match &mut self.form {
            Form::Json => records.iter().flat_map(|record| [record.json(), "\n"]).collect(),
            Form::Table { table, wide, zone } => {
                let known: Vec<_> = records.iter().filter_map(Record::death).collect();
                let unknown = records.len() - known.len();
                if unknown > 0 {
                    complain(&format!(
                        "{unknown} records are not in this list: their form is not one that this killwatch knows; `-o json` prints them"
                    ));
                }
                let rows: Vec<_> =
                    known.iter().map(|death| row::cells(death, *wide, zone)).collect();
                table.lines(&rows)
            }
        };
        match self.out.to.write_all(text.as_bytes()).and_then(|()| self.out.to.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            written => written.map(|()| true),
        }
    }

    /// What was written to.
    #[cfg(test)]
    pub(super) fn into_inner(self) -> W {
        self.out.to
    }
}
