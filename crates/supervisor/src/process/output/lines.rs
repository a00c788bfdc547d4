//! Bytes into lines.

/// The longest line, in bytes; longer ones are cut into pieces of this length.
pub(super) const LONGEST_LINE: usize = 64 * 1024;

/// A line, or a piece of one, without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    pub(super) bytes: &'a [u8],
    /// Whether it goes on from the piece before.
    pub(super) is_continued: bool,
}

/// Cuts what a child writes into lines. Keeps less than [`LONGEST_LINE`] bytes.
#[derive(Debug)]
pub(super) struct Lines {
    partial: Vec<u8>,
    longest: usize,
    /// Whether what comes next goes on from a piece that was cut off.
    is_continued: bool,
}

impl Default for Lines {
    fn default() -> Self {
        Self { partial: Vec::new(), longest: LONGEST_LINE, is_continued: false }
    }
}

impl Lines {
    /// Takes in some bytes, and gives each line that they end to `take`.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut take: impl FnMut(Piece<'_>)) {
        while !bytes.is_empty() {
            let room = self.longest - self.partial.len();
            let end = bytes.iter().take(room + 1).position(|byte| *byte == b'\n');
            let Some(end) = end.or_else(|| (bytes.len() > room).then_some(room)) else {
                self.partial.extend_from_slice(bytes);
                return;
            };
            self.partial.extend_from_slice(&bytes[..end]);
            let is_whole = bytes[end] == b'\n';
            bytes = &bytes[end + usize::from(is_whole)..];
            self.take_partial(&mut take, !is_whole);
        }
    }

    /// Gives what has been written of a line that did not end.
    pub(super) fn finish(&mut self, mut take: impl FnMut(Piece<'_>)) {
        if !self.partial.is_empty() {
            self.take_partial(&mut take, false);
        }
    }

    fn take_partial(&mut self, take: &mut impl FnMut(Piece<'_>), goes_on: bool) {
        let line = self.partial.strip_suffix(b"\r").filter(|_| !goes_on).unwrap_or(&self.partial);
        take(Piece { bytes: line, is_continued: self.is_continued });
        self.is_continued = goes_on;
        self.partial.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(longest: usize, pushes: &[&[u8]]) -> Vec<(String, bool)> {
        let mut lines = Lines { longest, ..Lines::default() };
        let mut taken = Vec::new();
        let mut take =
            |piece: Piece<'_>| taken.push((String::from_utf8_lossy(piece.bytes).into_owned(), piece.is_continued));
        for bytes in pushes {
            lines.push(bytes, &mut take);
            assert!(lines.partial.len() <= longest);
        }
        lines.finish(&mut take);
        taken
    }

    fn whole(lines: &[&str]) -> Vec<(String, bool)> {
        lines.iter().map(|line| ((*line).to_owned(), false)).collect()
    }

    #[test]
    fn lines_end_wherever_they_were_cut_by_the_pipe() {
        assert_eq!(lines(100, &[b"a\nb", b"c\n", b"\n", b"d\r\n", b"e"]), whole(&["a", "bc", "", "d", "e"]));
        assert_eq!(lines(100, &[b"", b""]), whole(&[]));
    }

    #[test]
    fn a_line_that_is_too_long_comes_in_marked_pieces() {
        let pieces = lines(3, &[b"abcdefgh\nxyz\nxyz", b"\nu"]);
        let texts: Vec<_> = pieces.iter().map(|(text, is_continued)| (text.as_str(), *is_continued)).collect();
        let expected = [("abc", false), ("def", true), ("gh", true), ("xyz", false), ("xyz", false), ("u", false)];
        assert_eq!(texts, expected);
    }

    proptest! {
        #[test]
        fn pieces_put_together_are_what_was_written(
            text in "[ab\n]{0,60}", cuts in prop::collection::vec(1_usize..7, 0..20), longest in 1_usize..9,
        ) {
            let mut rest = text.as_bytes();
            let mut pushes = Vec::new();
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                pushes.push(head);
                rest = tail;
            }
            pushes.push(rest);
            let pieces = lines(longest, &pushes);
            let mut joined: Vec<String> = Vec::new();
            for (text, is_continued) in pieces {
                prop_assert!(text.len() <= longest);
                match joined.last_mut().filter(|_| is_continued) {
                    Some(line) => line.push_str(&text),
                    None => joined.push(text),
                }
            }
            prop_assert_eq!(joined, text.lines().map(str::to_owned).collect::<Vec<_>>());
        }
    }
}
