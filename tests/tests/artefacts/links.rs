//! Links of the documents: what they name is there. Addresses on the network are not asked.

use std::path::{Component, Path, PathBuf};

use crate::markdown::{self, Page};
use crate::tool;

#[test]
fn links_lead_to_files_and_headings_that_are_there() {
    let pages = markdown::pages();
    let (mut wrong, mut held) = (Vec::new(), 0);
    for page in &pages {
        for (line, target) in page.links() {
            held += 1;
            if let Err(why) = leads(page, &target, &pages) {
                wrong.push(format!("{}:{line}: {target}: {why}", page.path));
            }
        }
    }
    assert!(held > 100, "only {held} links");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn each_page_is_linked_to_from_the_readme() {
    let readme = markdown::page("README.md");
    let linked: Vec<String> = readme.links().into_iter().map(|(_, target)| target).collect();
    for page in markdown::pages() {
        let named = linked.iter().any(|target| target.split('#').next() == Some(&page.path));
        assert!(page.path == "README.md" || named, "{} is not in the README's map", page.path);
    }
}

/// Whether a link leads somewhere.
fn leads(page: &Page, target: &str, pages: &[Page]) -> Result<(), String> {
    if ["http://", "https://", "mailto:"].iter().any(|scheme| target.starts_with(scheme)) {
        return Ok(());
    }
    let (file, anchor) = target.split_once('#').map_or((target, None), |(f, a)| (f, Some(a)));
    let path = if file.is_empty() { page.path.clone() } else { beside(&page.path, file)? };
    if !tool::file(&path).exists() {
        return Err("no such file".into());
    }
    let Some(anchor) = anchor else { return Ok(()) };
    let page = pages.iter().find(|page| page.path == path).ok_or("only pages have headings")?;
    let anchors = page.anchors();
    if anchors.contains(anchor) {
        return Ok(());
    }
    Err(format!("{path} has {anchors:?}"))
}

/// The path in the repository of what a page links to.
fn beside(page: &str, file: &str) -> Result<String, String> {
    let mut path = PathBuf::from(page);
    path.pop();
    for part in Path::new(file).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            Component::ParentDir if path.pop() => {}
            _ => return Err("leads out of the repository".into()),
        }
    }
    path.to_str().map(str::to_owned).ok_or_else(|| "no text".into())
}
