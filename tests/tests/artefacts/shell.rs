//! Commands of the documents, taken apart: lines as a person would type them, words, and which of them belong together.

use crate::markdown::{Block, Page};

/// A command: its words, without what it is given by the shell (variables, redirections).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) words: Vec<String>,
    /// Page and line, for people.
    pub(crate) at: String,
}

/// A line that is typed, and what a `console` block shows below it.
#[derive(Debug)]
pub(crate) struct Typed {
    pub(crate) line: String,
    /// Where in the page's blocks.
    pub(crate) at: usize,
    pub(crate) answer: Option<String>,
}

/// What is typed in a block: each line of `sh`; of `console` those behind the prompt that it begins with, `$ ` or `# `, with what follows as the answer.
pub(crate) fn typed(block: &Block) -> Vec<Typed> {
    let prompt = match block.language.as_str() {
        "sh" => "",
        "console" => block.text.get(..2).unwrap_or_default(),
        _ => return Vec::new(),
    };
    let (mut all, mut joined): (Vec<Typed>, String) = (Vec::new(), String::new());
    for (number, line) in block.text.lines().enumerate() {
        let rest = if joined.is_empty() { line.strip_prefix(prompt) } else { Some(line) };
        let Some(rest) = rest else {
            if let Some(last) = all.last_mut() {
                let answer = last.answer.get_or_insert_default();
                answer.push_str(line);
                answer.push('\n');
            }
            continue;
        };
        match rest.strip_suffix('\\') {
            Some(open) => joined.push_str(open),
            None => {
                let line = std::mem::take(&mut joined) + rest;
                all.push(Typed { line, at: block.line + number, answer: None });
            }
        }
    }
    all
}

/// All commands of a page: those of its blocks, and pieces of code in its text, which are one command each.
pub(crate) fn commands(page: &Page) -> Vec<Command> {
    let lines = page.blocks.iter().flat_map(typed).map(|typed| (typed.at, typed.line));
    let all = lines.chain(page.spans());
    all.flat_map(|(line, text)| simple(&text, &format!("{}:{line}", page.path))).collect()
}

/// The simple commands of a line.
pub(crate) fn simple(line: &str, at: &str) -> Vec<Command> {
    let (mut all, mut words) = (Vec::new(), Vec::new());
    for word in words_of(line) {
        match word {
            Word::Operator => all.push(std::mem::take(&mut words)),
            Word::Plain(word) => words.push(word),
        }
    }
    all.push(words);
    let is_variable = |word: &String| {
        word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.chars().all(|c| c == '_' || c.is_ascii_uppercase())
        })
    };
    let command = |words: Vec<String>| {
        let words: Vec<_> =
            words.into_iter().skip_while(|word| is_variable(word) || word == "sudo").collect();
        (!words.is_empty()).then(|| Command { words, at: at.to_owned() })
    };
    all.into_iter().filter_map(command).collect()
}

enum Word {
    Plain(String),
    /// What ends a command.
    Operator,
}

/// Words by the shell's rules, as far as documents need them: quotes, comments, `|`, `&`, `;`, `$(`.
fn words_of(line: &str) -> Vec<Word> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take().map(Word::Plain)),
            (None, '|' | '&' | ';' | ')') => {
                words.extend(word.take().map(Word::Plain));
                words.push(Word::Operator);
            }
            (None, '$') if characters.peek() == Some(&'(') => {
                characters.next();
                words.extend(word.take().map(Word::Plain));
                words.push(Word::Operator);
            }
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word.map(Word::Plain));
    words
}

#[test]
fn a_line_is_taken_apart() {
    let of = |line: &str| {
        simple(line, "").into_iter().map(|command| command.words.join(" ")).collect::<Vec<_>>()
    };
    assert_eq!(of("A=1 killwatch why 'a b' # c"), ["killwatch why a b"]);
    assert_eq!(of("a | b && c; d &"), ["a", "b", "c", "d"]);
    assert_eq!(of("x $(killwatch why 1)"), ["x", "killwatch why 1"]);
    assert_eq!(of("# only a comment"), Vec::<String>::new());
    let block = Block { line: 1, language: "console".into(), text: "$ a \\\n  b\nsaid\n".into() };
    let all = typed(&block);
    let [typed] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((typed.line.as_str(), typed.answer.as_deref()), ("a   b", Some("said\n")));
}
