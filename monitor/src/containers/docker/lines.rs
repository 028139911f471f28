//! Cuts a stream of bytes into lines, with a bound. No I/O.

/// Longest line that is kept, in bytes. A change's line has all labels of its container.
pub const MAX_LINE: usize = 64 << 10;

/// The beginning of a line that has no end yet.
#[derive(Debug, Default)]
pub struct Lines {
    begun: Vec<u8>,
    /// Whether this line is too long already, and is let go up to its end.
    too_long: bool,
}

impl Lines {
    /// Hands on each line that ends in `data`, without its end, unless it is longer than [`MAX_LINE`] or empty. One that is too long does not
    /// spoil the next. Says how many were found to be.
    pub fn feed(&mut self, data: &[u8], mut line: impl FnMut(&[u8])) -> u64 {
        let mut found_too_long = 0;
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            if self.too_long || self.begun.len() + text.len() > MAX_LINE {
                found_too_long += u64::from(!self.too_long);
                self.too_long = true;
                self.begun.clear();
            } else if ends && self.begun.is_empty() {
                hand_on(text, &mut line);
            } else {
                self.begun.extend_from_slice(text);
            }
            if ends {
                hand_on(&self.begun, &mut line);
                self.begun.clear();
                self.too_long = false;
            }
        }
        found_too_long
    }
}

fn hand_on(text: &[u8], line: &mut impl FnMut(&[u8])) {
    if !text.is_empty() {
        line(text);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.feed(piece, |line| found.push(line.to_vec()));
        }
        found
    }

    #[test]
    fn a_line_may_come_in_pieces_and_several_at_once() {
        assert_eq!(
            cut(&[b"a", b"b\nc\n\nd\ne", b"", b"\n", b"never ended"]),
            [b"ab".to_vec(), b"c".to_vec(), b"d".to_vec(), b"e".to_vec()]
        );
    }

    #[test]
    fn a_line_too_long_is_let_go_and_the_next_is_not() {
        let longest = vec![b'x'; MAX_LINE];
        assert_eq!(cut(&[&longest, b"\na\n"]), [longest.clone(), b"a".to_vec()]);
        assert_eq!(cut(&[&longest, b"x", &longest, b"x\na\n"]), [b"a".to_vec()]);
        let mut whole = longest;
        whole.extend_from_slice(b"x\na\n");
        assert_eq!(cut(&[&whole]), [b"a".to_vec()]);
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut lines = Lines::default();
        let too_long: u64 =
            (0..1000).map(|_| lines.feed(&[b'x'; 4096], |_| panic!("a line"))).sum();
        assert_eq!(too_long, 1);
        assert!(lines.begun.capacity() <= 2 * MAX_LINE, "{}", lines.begun.capacity());
    }

    proptest! {
        #[test]
        fn where_the_pieces_end_does_not_matter(
            text in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200),
            at in proptest::collection::vec(any::<prop::sample::Index>(), 0..5),
        ) {
            let mut at: Vec<usize> = at.iter().map(|at| at.index(text.len() + 1)).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|ends| &text[ends[0]..ends[1]]).collect();
            prop_assert_eq!(cut(&pieces), cut(&[&text]));
        }
    }
}
