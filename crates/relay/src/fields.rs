//! A header list, flat: one buffer of bytes, and where in it each field lies.

/// The fields of a header block, in order: pseudo-header fields, headers or trailers.
///
/// Cleared and filled again it allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

/// Where a field lies: its name, and its value right behind.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    name: u32,
    value: u32,
    sensitive: bool,
}

impl Span {
    fn end(&self) -> u32 {
        self.start + self.name + self.value
    }
}

/// One field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// In lower case on the wire; pseudo-header fields begin with a colon.
    pub name: &'a [u8],
    /// Any bytes but NUL, CR and LF in a valid message.
    pub value: &'a [u8],
    /// Whether its sender forbade any table to remember it (RFC 7541, 7.1.3); that holds for whoever passes it on.
    pub sensitive: bool,
}

impl<'a> Field<'a> {
    /// A field that may be remembered.
    pub const fn new(name: &'a [u8], value: &'a [u8]) -> Self {
        Self { name, value, sensitive: false }
    }

    /// What the field counts as in a header list or a dynamic table, in bytes (RFC 9113, 6.5.2).
    pub const fn size(&self) -> usize {
        self.name.len() + self.value.len() + OVERHEAD
    }
}

/// What a field counts beyond its bytes.
pub const OVERHEAD: usize = 32;

impl Fields {
    /// An empty list.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), spans: Vec::new() }
    }

    /// Empties the list and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.spans.clear();
    }

    /// Adds a field at the end.
    ///
    /// # Panics
    ///
    /// Where the list would exceed 4 GiB.
    pub fn push(&mut self, field: Field<'_>) {
        self.bytes.extend_from_slice(field.name);
        self.bytes.extend_from_slice(field.value);
        self.seal(field.name.len(), field.sensitive);
    }

    /// Adds a field whose name and value lie one behind the other: its name are the first `name` bytes of `joined`.
    #[inline]
    pub(crate) fn push_joined(&mut self, joined: &[u8], name: usize) {
        self.bytes.extend_from_slice(joined);
        self.seal(name, false);
    }

    /// The buffer, for a name and then a value to be appended to; [`seal`](Self::seal) makes them a field.
    #[inline]
    pub(crate) fn open(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Makes a field of what was appended since the last one; its name are the first `name` bytes of that.
    #[inline]
    pub(crate) fn seal(&mut self, name: usize, sensitive: bool) {
        let offset = |n: usize| u32::try_from(n).expect("a header list is far below 4 GiB");
        let start = self.spans.last().map_or(0, Span::end);
        let (name, value) = (offset(name), offset(self.bytes.len()) - start - offset(name));
        self.spans.push(Span { start, name, value, sensitive });
    }

    /// Removes the last field.
    pub(crate) fn pop(&mut self) {
        self.spans.pop();
        self.bytes.truncate(self.spans.last().map_or(0, Span::end) as usize);
    }

    /// The last field.
    #[inline]
    pub(crate) fn last(&self) -> Option<Field<'_>> {
        self.spans.last().map(|span| self.field(span))
    }

    /// The bytes of all names and values, one behind the other.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The list's size in bytes, as `SETTINGS_MAX_HEADER_LIST_SIZE` counts it.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.spans.len() * OVERHEAD
    }

    /// The field at `index`, if there is one.
    pub fn get(&self, index: usize) -> Option<Field<'_>> {
        self.spans.get(index).map(|span| self.field(span))
    }

    /// The fields in order.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Field<'_>> + Clone {
        self.spans.iter().map(|span| self.field(span))
    }

    /// The value of the first field of this name.
    pub fn value(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter().find(|field| field.name == name).map(|field| field.value)
    }

    #[inline]
    fn field(&self, span: &Span) -> Field<'_> {
        let (name, rest) = self.bytes[span.start as usize..].split_at(span.name as usize);
        Field { name, value: &rest[..span.value as usize], sensitive: span.sensitive }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_as_they_were_put_in() {
        let mut fields = Fields::new();
        let put = [Field::new(b":path", b"/a.B/C"), Field { name: b"k", value: b"", sensitive: true }];
        for field in put {
            fields.push(field);
        }
        assert!(fields.iter().eq(put));
        assert_eq!((fields.value(b"k"), fields.value(b"path"), fields.size()), (Some(&b""[..]), None, 12 + 2 * 32));
        fields.open().extend_from_slice(b"namevalue");
        fields.seal(4, false);
        assert_eq!(fields.last(), Some(Field::new(b"name", b"value")));
        fields.pop();
        assert!(fields.iter().eq(put));
        fields.clear();
        assert!(fields.is_empty() && fields.get(0).is_none());
    }
}
