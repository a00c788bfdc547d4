/// Payload that is kept: because the side it goes to does not take it yet, or because another attempt may need it.
///
/// ```text
///   0 ········ base ─────────── passed ─────────── end
///   let go     kept for another  has not gone
///              attempt           anywhere yet
/// ```
#[derive(Debug, Default)]
pub(crate) struct Stock {
    bytes: Vec<u8>,
    /// Where in the stream `bytes` begin.
    base: u64,
    /// How far it has been passed on.
    passed: u64,
}

/// An empty buffer above this size goes back to the allocator.
const KEPT_CAPACITY: usize = 16 * 1024;

impl Stock {
    /// Where the stream ends so far.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    /// Bytes that are kept.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What is kept, from a place in the stream on.
    pub(crate) fn from(&self, place: u64) -> &[u8] {
        let skipped = usize::try_from(place.saturating_sub(self.base)).unwrap_or(usize::MAX);
        self.bytes.get(skipped..).unwrap_or_default()
    }

    /// Keeps `data` at the end.
    pub(crate) fn push(&mut self, data: &[u8]) {
        self.bytes.extend_from_slice(data);
    }

    /// So many bytes went straight on: nothing of them is kept, and nothing before them.
    pub(crate) fn skip(&mut self, bytes: usize) {
        debug_assert!(self.is_empty(), "what is kept goes first");
        self.base += bytes as u64;
        self.passed = self.base;
    }

    /// It has been passed on up to this place. Returns by how many bytes that is news.
    pub(crate) fn pass(&mut self, place: u64) -> usize {
        let news = place.saturating_sub(self.passed);
        self.passed += news;
        usize::try_from(news).unwrap_or(usize::MAX)
    }

    /// Lets go of all before this place. Returns how many bytes that frees.
    pub(crate) fn trim(&mut self, place: u64) -> usize {
        let freed = usize::try_from(place.saturating_sub(self.base)).unwrap_or(usize::MAX).min(self.bytes.len());
        self.base += freed as u64;
        if freed == self.bytes.len() {
            self.bytes.clear();
            if self.bytes.capacity() > KEPT_CAPACITY {
                self.bytes = Vec::new();
            }
        } else if freed > 0 {
            self.bytes.drain(..freed);
        }
        freed
    }

    /// Begins anew, with the memory of before. Returns how many bytes were kept.
    pub(crate) fn reset(&mut self) -> usize {
        let freed = self.trim(self.end());
        (self.base, self.passed) = (0, 0);
        freed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_passed_on_can_be_read_again_until_it_is_let_go() {
        let mut stock = Stock::default();
        stock.skip(10);
        stock.push(b"abcdef");
        assert_eq!((stock.pass(13), stock.pass(12)), (3, 0));
        assert_eq!(stock.from(10), b"abcdef");
        assert_eq!(stock.from(13), b"def");
        assert_eq!((stock.trim(13), stock.len(), stock.end()), (3, 3, 16));
        assert_eq!((stock.from(13), stock.from(99)), (&b"def"[..], &b""[..]));
        assert_eq!((stock.reset(), stock.end()), (3, 0));
    }
}
