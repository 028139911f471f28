//! The documents of the repository, read: blocks of code, what else is said, headings.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use crate::tool;

/// A page.
#[derive(Debug)]
pub(crate) struct Page {
    /// Its path in the repository.
    pub(crate) path: String,
    pub(crate) blocks: Vec<Block>,
    /// The page without its blocks; their lines are empty.
    pub(crate) prose: String,
}

/// A block between fences.
#[derive(Debug)]
pub(crate) struct Block {
    /// Where its text begins.
    pub(crate) line: usize,
    /// What stands behind the fence.
    pub(crate) language: String,
    pub(crate) text: String,
}

/// All pages.
pub(crate) fn pages() -> Vec<Page> {
    let (root, mut paths) = (tool::file(""), Vec::new());
    walk(&root, &mut paths);
    paths.sort();
    assert!(paths.len() > 10, "{paths:?}");
    paths.into_iter().map(|path| page(&path)).collect()
}

/// One of them.
pub(crate) fn page(path: &str) -> Page {
    read(path, &crate::rules::text(path))
}

fn walk(directory: &Path, paths: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir()
            && !path.is_symlink()
            && !["target", "testdata"].contains(&&*name)
            && !name.starts_with('.')
        {
            walk(&path, paths);
        } else if name.ends_with(".md") {
            let inside = path.strip_prefix(tool::file("")).unwrap();
            paths.push(inside.to_str().unwrap().to_owned());
        }
    }
}

fn read(path: &str, text: &str) -> Page {
    let mut page = Page { path: path.to_owned(), blocks: Vec::new(), prose: String::new() };
    let mut open: Option<(String, Block)> = None;
    for (number, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        let indent = &line[..line.len() - trimmed.len()];
        match &mut open {
            None if trimmed.starts_with("```") => {
                let language = trimmed.trim_start_matches('`').trim().to_owned();
                let block = Block { line: number + 2, language, text: String::new() };
                open = Some((indent.to_owned(), block));
            }
            None => page.prose.push_str(line),
            Some(_) if trimmed.starts_with("```") => {
                page.blocks.extend(open.take().map(|(_, block)| block));
            }
            Some((indent, block)) => {
                block.text.push_str(line.strip_prefix(indent.as_str()).unwrap_or(line));
                block.text.push('\n');
            }
        }
        page.prose.push('\n');
    }
    assert!(open.is_none(), "{path}: a block is not closed");
    page
}

impl Page {
    /// Pieces of code within the text, with their lines. One may go over the end of a line, and not over that of a paragraph.
    pub(crate) fn spans(&self) -> Vec<(usize, String)> {
        self.split().1
    }

    /// Targets of links, with their lines.
    pub(crate) fn links(&self) -> Vec<(usize, String)> {
        let text = self.split().0;
        let mut links = Vec::new();
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', '\n']).next().unwrap_or_default();
            links.push((line_of(&text, at), target.to_owned()));
        }
        links
    }

    /// What `#…` may name here: headings as GitHub calls them, and `<a id="…">`.
    pub(crate) fn anchors(&self) -> BTreeSet<String> {
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut anchors = BTreeSet::new();
        for line in self.prose.lines() {
            let title = line.trim_start_matches('#');
            if title.len() < line.len() && title.starts_with(' ') {
                let slug = slug(title.trim());
                let nth = seen.entry(slug.clone()).or_default();
                anchors.insert(if *nth == 0 { slug } else { format!("{slug}-{nth}") });
                *nth += 1;
            }
            let ids = line.split("<a id=\"").skip(1).filter_map(|rest| rest.split('"').next());
            anchors.extend(ids.map(str::to_owned));
        }
        anchors
    }

    /// The text with its pieces of code taken out, and these.
    fn split(&self) -> (String, Vec<(usize, String)>) {
        let (mut text, mut spans) = (String::new(), Vec::new());
        for paragraph in self.prose.split_inclusive("\n\n") {
            let before = text.matches('\n').count();
            let mut rest = paragraph;
            while let Some((plain, code)) = rest.split_once('`') {
                let ticks = 1 + code.len() - code.trim_start_matches('`').len();
                let fence = "`".repeat(ticks);
                text.push_str(plain);
                let Some((code, after)) = code[ticks - 1..].split_once(&fence) else {
                    rest = code;
                    continue;
                };
                spans.push((1 + text.matches('\n').count().max(before), code.replace('\n', " ")));
                text.push('x');
                text.extend(code.chars().filter(|c| *c == '\n'));
                rest = after;
            }
            text.push_str(rest);
        }
        (text, spans)
    }
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text[..at].matches('\n').count()
}

/// The anchor that GitHub makes of a heading.
fn slug(title: &str) -> String {
    // A link in a heading counts by its text.
    let mut plain = String::new();
    let mut rest = title;
    while let Some((before, link)) = rest.split_once("](") {
        plain.push_str(&before.replace('[', ""));
        rest = link.split_once(')').map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    let kept = plain.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).flat_map(char::to_lowercase).collect()
}

#[test]
fn a_page_is_read_as_it_is_shown() {
    let text = "# A `b` c: [d](e.md)?\n\nSee [`x`](y.md#z) and `[no](link)`, `a\nb`.\n\n```sh\n[no](link)\n```\n<a id=\"i\"></a>\n\n## B\n## B\n";
    let page = read("p.md", text);
    let links: Vec<_> = page.links();
    assert_eq!(links, [(1, "e.md".to_owned()), (3, "y.md#z".to_owned())]);
    let spans: Vec<_> = page.spans().into_iter().map(|(_, code)| code).collect();
    assert_eq!(spans, ["b", "x", "[no](link)", "a b"]);
    let anchors: Vec<_> = page.anchors().into_iter().collect();
    assert_eq!(anchors, ["a-b-c-d", "b", "b-1", "i"]);
    let [block] = page.blocks.as_slice() else { panic!("{page:?}") };
    assert_eq!(
        (block.language.as_str(), block.text.as_str(), block.line),
        ("sh", "[no](link)\n", 7)
    );
}
