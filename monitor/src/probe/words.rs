//! Puts a victim's last words together: the texts arrive in pieces, between the records of others.
//!
//! The environment is filtered here, piece by piece, as it comes from the ring. Nothing behind this file ever sees a variable that is not on the
//! allowlist.

use std::collections::{BTreeMap, VecDeque};

use killwatch_ebpf::wire::{
    LARGE_CHUNK, LastWords, Level, MAX_ARG_CHUNKS, MAX_ENV_CHUNKS, Memory, SMALL_CHUNK, Task, Text,
};

use super::{
    Record,
    decode::{ChunkRef, Raw},
};
use crate::{
    attribute::environ::{Allowlist, Scanner},
    text,
};

/// Victims whose texts are still arriving. The pieces of one follow each other closely: more than one per CPU is rare.
const MAX_OPEN: usize = 64;
/// Arguments of a command line that are kept. Two thousand empty ones are two kilobytes in the process and fifty here.
const MAX_ARGS: usize = 128;

/// What a victim left, read in its own context as the fatal signal arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// The thread that took the signal.
    pub victim: Task,
    /// The signal.
    pub signal: u32,
    /// Threads of the process.
    pub threads: Option<u32>,
    /// Its memory.
    pub memory: Memory,
    /// The cgroup on its path with the least room below its limit, if any has one.
    pub tightest: Option<Level>,
    /// Command line; empty if it could not be read.
    pub cmdline: Vec<String>,
    /// Whether the command line goes on.
    pub cmdline_truncated: bool,
    /// The variables on the allowlist.
    pub environ: BTreeMap<String, String>,
    /// Why variables may be missing.
    pub environ_missing: Option<&'static str>,
}

impl Words {
    /// Bytes of memory, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let of = |text: &String| size_of::<String>() + text.len();
        let cmdline: usize = self.cmdline.iter().map(of).sum();
        let environ: usize = self.environ.iter().map(|(name, value)| of(name) + of(value)).sum();
        size_of::<Self>() + cmdline + environ
    }
}

/// Victims whose texts are arriving.
#[derive(Debug)]
pub struct Assembler {
    allowlist: Allowlist,
    open: VecDeque<Open>,
}

#[derive(Debug)]
struct Open {
    words: Box<LastWords>,
    args: Vec<u8>,
    environ: Scanner,
}

impl Assembler {
    /// Keeps the variables on `allowlist`.
    #[must_use]
    pub fn new(allowlist: Allowlist) -> Self {
        Self { allowlist, open: VecDeque::new() }
    }

    /// Takes one record and passes on what is whole: last words before the end of the same process.
    pub fn push(&mut self, raw: Raw<'_>, mut pass: impl FnMut(Record)) {
        match raw {
            Raw::LastWords(words) => {
                if self.open.len() >= MAX_OPEN
                    && let Some(oldest) = self.open.pop_front()
                {
                    pass(oldest.close());
                }
                let open = Open { words, args: Vec::new(), environ: Scanner::new(&self.allowlist) };
                if open.last_piece().is_none() {
                    pass(open.close());
                } else {
                    self.open.push_back(open);
                }
            }
            Raw::Chunk(chunk) => {
                let Some(place) = self.find(chunk.tgid, chunk.start_ns) else { return };
                let Some(open) = self.open.get_mut(place) else { return };
                open.take(&chunk);
                if open.last_piece() == Some((chunk.text, chunk.offset)) {
                    self.close(place, pass);
                }
            }
            Raw::Exit(exit) => {
                // A piece that did not fit on the ring never comes; the end closes what is open.
                if let Some(place) = self.find(exit.victim.tgid, exit.victim.start_ns) {
                    self.close(place, &mut pass);
                }
                pass(Record::Exit(exit));
            }
            Raw::Mark(mark) => pass(Record::Mark(mark)),
            Raw::CountedAgain(again) => pass(Record::CountedAgain(again)),
            Raw::CgroupMade(made) => {
                pass(Record::CgroupMade {
                    id: made.id,
                    path: made.path.into(),
                    truncated: made.truncated,
                });
            }
            Raw::CgroupRenamed(made) => {
                pass(Record::CgroupRenamed {
                    id: made.id,
                    path: made.path.into(),
                    truncated: made.truncated,
                });
            }
            Raw::CgroupGone(id, ktime_ns) => pass(Record::CgroupGone { id, ktime_ns }),
        }
    }

    /// Passes on what is open: no more pieces will come.
    pub fn finish(&mut self, mut pass: impl FnMut(Record)) {
        self.open.drain(..).for_each(|open| pass(open.close()));
    }

    fn find(&self, tgid: u32, start_ns: u64) -> Option<usize> {
        self.open.iter().position(|open| {
            open.words.victim.tgid == tgid && open.words.victim.start_ns == start_ns
        })
    }

    fn close(&mut self, place: usize, mut pass: impl FnMut(Record)) {
        if let Some(open) = self.open.remove(place) {
            pass(open.close());
        }
    }
}

impl Open {
    /// Bytes of the command line and of the environment that the kernel side sends.
    fn expected(&self) -> (u64, u64) {
        if self.words.texts_skipped != 0 {
            return (0, 0);
        }
        let most = |len: u64, chunks: usize, size: usize| len.min((chunks * size) as u64);
        (
            most(self.words.args_len, MAX_ARG_CHUNKS, SMALL_CHUNK),
            most(self.words.env_len, MAX_ENV_CHUNKS, LARGE_CHUNK),
        )
    }

    /// The last piece that the kernel side sends; `None` if it sends none.
    fn last_piece(&self) -> Option<(Text, u32)> {
        let (args, env) = self.expected();
        let start =
            |len: u64, size: usize| u32::try_from((len - 1) / size as u64 * size as u64).ok();
        if env > 0 {
            let size = if env <= SMALL_CHUNK as u64 { SMALL_CHUNK } else { LARGE_CHUNK };
            Some((Text::Env, start(env, size)?))
        } else if args > 0 {
            Some((Text::Args, start(args, SMALL_CHUNK)?))
        } else {
            None
        }
    }

    fn take(&mut self, chunk: &ChunkRef<'_>) {
        match chunk.text {
            // A hole in a command line ends it: what follows would read as if it were next.
            Text::Args if chunk.offset as usize == self.args.len() => {
                self.args.extend_from_slice(chunk.bytes)
            }
            Text::Args => {}
            Text::Env => self.environ.feed(chunk.offset, chunk.bytes),
        }
    }

    fn close(self) -> Record {
        let (_, env) = self.expected();
        let environ = self.environ.finish(env);
        let environ_missing = if self.words.texts_skipped != 0 {
            Some("left out while the ring was filling up: deaths come before texts")
        } else if !environ.complete {
            Some(
                "part of it was not in memory, was held back by NUMA balancing, or did not fit on the ring",
            )
        } else if self.words.env_len > env {
            Some("only its first 32 KiB were read")
        } else {
            None
        };
        let cut = (self.args.len() as u64) < self.words.args_len;
        let mut args = self.args.as_slice();
        if !cut && args.last() == Some(&0) {
            args = &args[..args.len() - 1];
        }
        let mut pieces = args.split(|byte| *byte == 0);
        let cmdline = if args.is_empty() {
            Vec::new()
        } else {
            pieces.by_ref().take(MAX_ARGS).map(text::from_bytes).collect()
        };
        let cmdline_truncated = cut || (!args.is_empty() && pieces.next().is_some());
        Record::Words(Box::new(Words {
            victim: self.words.victim,
            signal: self.words.signal,
            threads: (self.words.threads != 0).then_some(self.words.threads),
            memory: self.words.memory,
            tightest: (self.words.tightest.cgroup != 0).then_some(self.words.tightest),
            cmdline,
            cmdline_truncated,
            environ: environ.variables,
            environ_missing,
        }))
    }
}

#[cfg(test)]
mod tests {
    use killwatch_ebpf::wire::Exit;
    use zerocopy::FromZeros as _;

    use super::*;

    fn words(tgid: u32, args: u64, env: u64) -> Raw<'static> {
        let mut words = Box::new(LastWords::new_zeroed());
        words.victim.tgid = tgid;
        words.args_len = args;
        words.env_len = env;
        Raw::LastWords(words)
    }

    fn chunk(tgid: u32, text: Text, offset: u32, bytes: &[u8]) -> Raw<'_> {
        Raw::Chunk(ChunkRef { tgid, start_ns: 0, text, offset, bytes })
    }

    fn exit(tgid: u32) -> Raw<'static> {
        let mut exit = Box::new(Exit::new_zeroed());
        exit.victim.tgid = tgid;
        Raw::Exit(exit)
    }

    fn run(raws: Vec<Raw<'_>>) -> Vec<Record> {
        let mut assembler = Assembler::new(Allowlist::new(&[]).unwrap());
        let mut out = Vec::new();
        for raw in raws {
            assembler.push(raw, |record| out.push(record));
        }
        out
    }

    fn only_words(records: &[Record]) -> &Words {
        let mut words = records.iter().filter_map(|record| match record {
            Record::Words(words) => Some(words),
            _ => None,
        });
        let first = words.next().expect("words");
        assert!(words.next().is_none());
        first
    }

    #[test]
    fn texts_come_whole_and_filtered() {
        let env = b"SECRET=x\0JOB_ID=4711\0";
        let records = run(vec![
            words(1, 6, env.len() as u64),
            words(2, 0, 0),
            chunk(1, Text::Args, 0, b"a\0b c\0"),
            chunk(1, Text::Env, 0, env),
            exit(1),
        ]);
        assert!(matches!(&records[0], Record::Words(words) if words.victim.tgid == 2));
        let words = only_words(&records[1..]);
        assert_eq!(words.cmdline, ["a", "b c"]);
        assert!(!words.cmdline_truncated);
        assert_eq!(words.environ, BTreeMap::from([("JOB_ID".to_owned(), "4711".to_owned())]));
        assert_eq!(words.environ_missing, None);
        assert!(!format!("{records:?}").contains("SECRET"));
    }

    #[test]
    fn a_lost_piece_does_not_hold_the_death_back() {
        let records = run(vec![words(1, 4, 5000), chunk(1, Text::Args, 0, b"a\0bc"), exit(1)]);
        assert_eq!(records.len(), 2);
        let words = only_words(&records);
        assert_eq!(words.cmdline, ["a", "bc"]);
        assert!(words.environ_missing.is_some());
        assert!(matches!(records[1], Record::Exit(_)));
    }

    #[test]
    fn a_crowd_of_arguments_is_cut() {
        for (count, truncated) in [(MAX_ARGS, false), (MAX_ARGS + 1, true), (1000, true)] {
            let args = vec![0; count];
            let records = run(vec![words(1, count as u64, 0), chunk(1, Text::Args, 0, &args)]);
            let words = only_words(&records);
            assert_eq!(words.cmdline, vec![String::new(); count.min(MAX_ARGS)]);
            assert_eq!(words.cmdline_truncated, truncated, "{count}");
        }
    }

    #[test]
    fn is_bounded() {
        let records = run((0..1000).map(|tgid| words(tgid, 1, 1)).collect());
        assert_eq!(records.len(), 1000 - MAX_OPEN);
    }
}
