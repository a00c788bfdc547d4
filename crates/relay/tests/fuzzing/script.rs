//! Bytes as a sequence of decisions. Whoever finds the bytes, a fuzzer or chance, finds the decisions.

/// What is left of the bytes.
pub(crate) struct Script<'a>(pub(crate) &'a [u8]);

impl<'a> Script<'a> {
    /// Whether no decision is left.
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte, or zero.
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        byte
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Two bytes as a number.
    pub(crate) fn short(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// A number of any magnitude: five bits of the first byte say which.
    pub(crate) fn number(&mut self) -> u32 {
        let magnitude = u32::from(self.byte() & 31);
        u32::from_be_bytes([self.byte() | 0x80, self.byte(), self.byte(), self.byte()]) >> (31 - magnitude)
    }

    /// Up to `most` bytes, or however few are left.
    pub(crate) fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}
