/// Follows the frames that are written, to know which streams' HEADERS have begun to leave.
///
/// When a connection dies, a call whose HEADERS were still in our own buffers has reached no server, and may be sent
/// again whatever it does. The HTTP/2 library does not say which those are, so it is read off the wire.
#[derive(Debug)]
pub(crate) struct OpenedScan {
    header: [u8; HEADER],
    /// Bytes of `header` that are filled.
    filled: usize,
    /// Bytes until the next frame's header.
    skip: usize,
}

const PREFACE: usize = 24;
const HEADER: usize = 9;
const HEADERS: u8 = 1;

impl OpenedScan {
    /// For a connection on which nothing was written yet.
    pub(crate) fn new() -> Self {
        Self { header: [0; HEADER], filled: 0, skip: PREFACE }
    }

    /// Takes in the next bytes; returns the stream of the last HEADERS frame whose header is complete in them.
    pub(crate) fn scan(&mut self, mut bytes: &[u8]) -> Option<u32> {
        let mut found = None;
        while !bytes.is_empty() {
            let skipped = bytes.len().min(self.skip);
            self.skip -= skipped;
            let part = (bytes.len() - skipped).min(HEADER - self.filled);
            self.header[self.filled..self.filled + part].copy_from_slice(&bytes[skipped..skipped + part]);
            self.filled += part;
            bytes = &bytes[skipped + part..];
            if self.filled == HEADER {
                let [a, b, c, kind, _, stream @ ..] = self.header;
                (self.filled, self.skip) = (0, u32::from_be_bytes([0, a, b, c]) as usize);
                found = (kind == HEADERS).then(|| u32::from_be_bytes(stream)).or(found);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_headers_among_other_frames_however_the_bytes_are_split() {
        let frame = |kind, stream, payload: &[u8]| {
            let length = u8::try_from(payload.len()).unwrap();
            [&[0, 0, length, kind, 0, 0, 0, 0, stream][..], payload].concat()
        };
        let bytes = [
            vec![HEADERS; PREFACE],
            frame(4, 0, &[]),
            frame(HEADERS, 1, &[HEADERS; 30]),
            frame(0, 1, &[HEADERS; 200]),
            frame(HEADERS, 3, &[]),
            frame(0, 1, &[]),
        ]
        .concat();
        for step in 1..bytes.len() {
            let mut scan = OpenedScan::new();
            let found: Vec<_> = bytes.chunks(step).filter_map(|chunk| scan.scan(chunk)).collect();
            assert_eq!(found.last(), Some(&3), "in steps of {step}");
            assert!(found.len() == 1 || found == [1, 3]);
        }
    }
}
