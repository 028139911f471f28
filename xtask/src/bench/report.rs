//! The report: a table for the terminal, a page with plots for people, JSON for programs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::figure::{Figure, Part};
use super::machine::Machine;

/// All that was measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    /// Fewer and shorter runs: to try the command, not to quote.
    pub(super) quick: bool,
    pub(super) parts: Vec<Part>,
}

impl Report {
    /// For the terminal.
    pub(super) fn table(&self) -> String {
        let mut out = String::new();
        let wide = self.figures().map(|figure| figure.name.chars().count()).max().unwrap_or(0);
        let _ = writeln!(out, "\n{}", self.about());
        for part in &self.parts {
            let _ = writeln!(out, "\n{}", part.title);
            for figure in &part.figures {
                let pad = wide - figure.name.chars().count();
                let _ = writeln!(
                    out,
                    "  {}{:pad$}  {} {}{}",
                    figure.name,
                    "",
                    figure.spread.words(),
                    figure.unit,
                    promise(figure).map(|words| format!("   [{words}]")).unwrap_or_default()
                );
            }
            for note in &part.notes {
                let _ = writeln!(out, "  - {note}");
            }
        }
        let _ = writeln!(out, "\n{}", self.verdict());
        out
    }

    /// Writes the page, and the plots beside it.
    pub(super) fn write(&self, file: &Path) -> Result<()> {
        let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        for plot in self.parts.iter().flat_map(|part| &part.plots) {
            let path = dir.join(format!("{}.svg", plot.slug));
            fs::write(&path, plot.svg())
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        fs::write(file, self.markdown()).with_context(|| format!("cannot write {}", file.display()))
    }

    fn markdown(&self) -> String {
        let mut out = format!(
            "# Measured\n\nMade by `cargo xtask bench --report`; how to read it: [README.md](README.md).\n\n{}\n\n{}\n",
            self.about(),
            self.verdict()
        );
        for part in &self.parts {
            let _ = write!(
                out,
                "\n## {}\n\n{}\n\n| | measured | | target | |\n|---|---|---|---|---|\n",
                part.title, part.how
            );
            for figure in &part.figures {
                let (target, met) = match (figure.target, figure.met) {
                    (Some(target), Some(true)) => (target.words(), "met"),
                    (Some(target), _) => (target.words(), "**missed**"),
                    (None, _) => (String::new(), ""),
                };
                let _ = writeln!(
                    out,
                    "| {} | {} | {} | {target} | {met} |",
                    cell(&figure.name),
                    cell(&figure.spread.words()),
                    figure.unit
                );
            }
            if !part.notes.is_empty() {
                out.push('\n');
            }
            for note in &part.notes {
                let _ = writeln!(out, "- {note}");
            }
            for plot in &part.plots {
                let _ = writeln!(out, "\n![{}]({}.svg)", plot.title, plot.slug);
            }
        }
        out
    }

    fn about(&self) -> String {
        let machine = &self.machine;
        let mut about = format!(
            "{} at {}, Linux {}, {}, {} cores, {} MiB, {}.",
            machine.daemon,
            machine.commit,
            machine.kernel,
            machine.cpu,
            machine.cores,
            machine.memory_mib,
            machine.cgroups
        );
        if let Some(stolen) = machine.stolen_percent {
            let _ = write!(about, " {stolen:.1} % of what ran was taken by the host for others.");
        }
        if self.quick {
            about += " **With --quick: few and short runs, not to be quoted.**";
        }
        if let Some(doubt) = machine.doubt() {
            let _ = write!(about, " **Doubtful: {doubt}.**");
        }
        about
    }

    fn verdict(&self) -> String {
        let promised = self.figures().filter(|figure| figure.met.is_some()).count();
        let missed: Vec<&str> = self
            .figures()
            .filter(|figure| figure.met == Some(false))
            .map(|figure| figure.name.as_str())
            .collect();
        let met = promised - missed.len();
        if missed.is_empty() {
            return format!("{met} of {promised} targets met.");
        }
        format!("{met} of {promised} targets met; missed: {}.", missed.join("; "))
    }

    fn figures(&self) -> impl Iterator<Item = &Figure> {
        self.parts.iter().flat_map(|part| &part.figures)
    }
}

fn promise(figure: &Figure) -> Option<String> {
    let target = figure.target?.words();
    Some(format!("{target}: {}", if figure.met == Some(true) { "met" } else { "MISSED" }))
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
