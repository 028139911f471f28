//! Tables and lines of JSON.

use jiff::tz::TimeZone;
use proptest::prelude::*;
use unicode_width::UnicodeWidthChar as _;

use super::super::Output;
use super::super::printer::{Out, Printer};
use super::super::record::Record;
use super::super::row;
use crate::cli::table::Table;
use crate::death::{Cause, Death, sample};

fn record(death: &Death) -> Record {
    Record::new(serde_json::to_string(death).unwrap())
}

fn deaths() -> Vec<Death> {
    let mut on_the_host = sample::killed();
    (on_the_host.workload.container_id, on_the_host.workload.pod_uid) = (None, None);
    on_the_host.workload.unit = None;
    on_the_host.workload.cgroup = Some("/user.slice/user-1000.slice/session-3.scope".into());
    let mut of_the_root = on_the_host.clone();
    of_the_root.workload.cgroup = Some("/".into());
    of_the_root.memory = crate::death::MemoryStory::default();
    vec![
        sample::oom_memcg(),
        sample::in_a_pod(),
        sample::stuck(),
        sample::oom_global(),
        on_the_host,
        of_the_root,
        sample::by_itself(Cause::Crash, 11),
        sample::relayed(),
        sample::rlimit(),
        sample::unknown(),
        sample::hostile(),
    ]
}

fn printed(output: Output, columns: Option<usize>, batches: &[&[Record]]) -> String {
    let mut printer = Printer::new(output, columns, TimeZone::UTC, Out::to(Vec::new()));
    for batch in batches {
        assert!(printer.print(batch).unwrap());
    }
    String::from_utf8(printer.into_inner()).unwrap()
}

#[test]
fn each_form_reads_so() {
    let records: Vec<_> = deaths().iter().map(record).collect();
    for (name, output, columns) in [
        ("table", Output::Table, None),
        ("table_120", Output::Table, Some(120)),
        ("table_80", Output::Table, Some(80)),
        ("wide", Output::Wide, Some(80)),
        ("json", Output::Json, Some(80)),
    ] {
        let text = printed(output, columns, &[&records]);
        crate::golden::check_named(&format!("deaths/{name}.txt"), &text);
    }
}

#[test]
fn the_header_comes_once_and_only_before_something() {
    let records: Vec<_> = deaths().iter().map(record).collect();
    let (first, second) = records.split_at(2);
    let text = printed(Output::Table, None, &[&[], first, &[], second]);
    assert_eq!(text.lines().filter(|line| line.starts_with("TIME")).count(), 1);
    assert!(text.starts_with("TIME"));
    assert_eq!(text.lines().count(), records.len() + 1);
    assert_eq!(printed(Output::Table, None, &[&[]]), "");
}

#[test]
fn json_is_the_very_bytes_even_of_what_is_not_known() {
    let strange = Record::new(r#"{"schema": 99,  "cause":"new"}"#);
    let text = printed(Output::Json, Some(10), &[std::slice::from_ref(&strange)]);
    assert_eq!(text, "{\"schema\": 99,  \"cause\":\"new\"}\n");
    assert_eq!(printed(Output::Table, None, &[&[strange]]), "");
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    struct Gone;
    impl std::io::Write for Gone {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let records = [record(&sample::killed())];
    for output in [Output::Table, Output::Json] {
        let mut printer = Printer::new(output, None, TimeZone::UTC, Out::to(Gone));
        assert!(!printer.print(&records).unwrap());
    }
}

fn columns_of(line: &str) -> usize {
    line.chars().map(|c| c.width().unwrap_or(usize::MAX / 4096)).sum()
}

proptest! {
    /// Whatever a cell holds, a row is one line of characters that do nothing but stand there, and it fits.
    #[test]
    fn no_name_breaks_a_line(
        rows in prop::collection::vec(prop::collection::vec(any::<String>(), 6), 1..6),
        columns in prop::option::of(1usize..200),
    ) {
        let mut table = Table::new(row::NAMES, columns);
        let text = table.lines(&rows);
        prop_assert_eq!(text.matches('\n').count(), rows.len() + 1);
        prop_assert!(text.ends_with('\n'));
        for line in text.split_terminator('\n') {
            prop_assert!(!line.chars().any(char::is_control), "{:?}", line);
            prop_assert!(line.chars().all(|c| c.width().unwrap_or(0) > 0), "{:?}", line);
            prop_assert!(columns.is_none_or(|columns| columns_of(line) <= columns), "{:?}", line);
        }
    }

    /// Hostile names in a whole record.
    #[test]
    fn no_record_breaks_a_line(comm in any::<String>(), cgroup in any::<String>(), job in any::<String>()) {
        let mut death = sample::killed();
        death.victim.comm = comm;
        death.workload.cgroup = Some(cgroup);
        death.workload.unit = None;
        death.workload.container_id = None;
        death.tags.insert("job_id".into(), job);
        death.job = None;
        for (output, begin) in [(Output::Table, "01-31 12:00:00  killed"), (Output::Wide, "2026-01-31 12:00:00  killed")] {
            let text = printed(output, None, &[&[record(&death)]]);
            prop_assert_eq!(text.lines().count(), 2);
            let row = text.split('\n').nth(1).unwrap();
            prop_assert!(row.starts_with(begin), "{}", row);
        }
    }

    /// What is not cut keeps its columns: each begins where its name does.
    #[test]
    fn columns_stand_below_their_names(cells in prop::collection::vec("[a-zé界]{1,20}", 6)) {
        let text = Table::new(row::NAMES, None).lines(std::slice::from_ref(&cells));
        let (header, row) = text.split_once('\n').unwrap();
        for (name, cell) in row::NAMES.iter().zip(&cells) {
            let at = header.find(name).unwrap();
            let mut column = 0;
            let found = row.chars().skip_while(|c| {
                let before = column < at;
                column += c.width().unwrap();
                before
            });
            let found: String = found.collect();
            prop_assert!(found.starts_with(cell.as_str()), "{}\n{}", header, row);
        }
    }
}
