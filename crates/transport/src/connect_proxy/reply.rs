//! The head of a proxy's answer to CONNECT. It comes from a stranger: it is bounded, and shown escaped.

/// The head of a response, as it comes in.
#[derive(Debug, Default)]
pub(super) struct ReplyHead {
    bytes: Vec<u8>,
}

/// What a proxy has answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// The HTTP status.
    pub(super) code: u16,
    /// The status line, escaped and cut to a length that can be shown.
    pub(super) line: String,
}

/// Why an answer cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReplyError {
    /// The head does not end.
    #[error("its answer has a head of more than {MAX_HEAD} bytes")]
    TooLong,
    /// The first line is no status line of HTTP/1.
    #[error("its answer begins with \"{0}\", which is not HTTP/1; is it an HTTP proxy?")]
    NotHttp(String),
}

/// The longest head that is read, in bytes.
pub(super) const MAX_HEAD: usize = 8 * 1024;
const BEGINNING: &[u8] = b"HTTP/1.";
/// How much of a line is shown.
const SHOWN: usize = 120;

impl ReplyHead {
    /// Takes in what has come, up to the end of the head. Returns how many bytes of it were the head's, and the reply if
    /// the head is complete: what follows belongs to the tunnel.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(usize, Option<Reply>), ReplyError> {
        for (taken, &byte) in bytes.iter().enumerate() {
            if self.bytes.len() == MAX_HEAD {
                return Err(ReplyError::TooLong);
            }
            self.bytes.push(byte);
            self.check_beginning()?;
            if self.is_complete() {
                return Ok((taken + 1, Some(self.parse()?)));
            }
        }
        Ok((bytes.len(), None))
    }

    /// A peer that speaks something else may never send what ends a head.
    fn check_beginning(&self) -> Result<(), ReplyError> {
        let begun = &self.bytes[..self.bytes.len().min(BEGINNING.len())];
        if BEGINNING.starts_with(begun) { Ok(()) } else { Err(ReplyError::NotHttp(shown(begun))) }
    }

    /// An empty line ends a head. A line may end without a carriage return (RFC 9112 section 2.2).
    fn is_complete(&self) -> bool {
        self.bytes.ends_with(b"\n\r\n") || self.bytes.ends_with(b"\n\n")
    }

    fn parse(&self) -> Result<Reply, ReplyError> {
        let line = self.bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let code = code(line).ok_or_else(|| ReplyError::NotHttp(shown(line)))?;
        Ok(Reply { code, line: shown(line) })
    }
}

/// The code in `HTTP/1.1 200 Connection established`: a version, a space, three digits, and an end or a space (RFC 9112
/// section 4).
fn code(line: &[u8]) -> Option<u16> {
    let [b'0'..=b'9', b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', end @ ..] =
        line.strip_prefix(BEGINNING)?
    else {
        return None;
    };
    let code = [a, b, c].into_iter().fold(0, |code, digit| 10 * code + u16::from(digit - b'0'));
    end.first().is_none_or(|&byte| byte == b' ').then_some(code)
}

fn shown(line: &[u8]) -> String {
    line[..line.len().min(SHOWN)].escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<(usize, Option<Reply>), ReplyError> {
        ReplyHead::default().take(bytes)
    }

    #[test]
    fn the_head_ends_at_the_empty_line_and_the_rest_is_the_tunnels() {
        for head in [
            "HTTP/1.1 200 Connection established\r\n\r\n",
            "HTTP/1.0 200 OK\r\nVia: x\r\nContent-Length: 9\r\n\r\n",
            "HTTP/1.1 200\r\n\r\n",
            "HTTP/1.1 200 \n\n",
        ] {
            let (taken, reply) = read(format!("{head}PRI * HTTP/2.0\r\n\r\n").as_bytes()).unwrap();
            assert_eq!((taken, reply.unwrap().code), (head.len(), 200), "{head:?}");
        }
        let (_, refused) = read(b"HTTP/1.1 407 Proxy \x1b[31mAuthentication\r\n\r\n").unwrap();
        let line = "HTTP/1.1 407 Proxy \\x1b[31mAuthentication".to_owned();
        assert_eq!(refused, Some(Reply { code: 407, line }));
    }

    #[test]
    fn however_it_is_split_it_reads_the_same() {
        let bytes = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nrest";
        let whole = read(bytes).unwrap();
        let mut head = ReplyHead::default();
        let steps: Vec<_> =
            bytes.iter().map_while(|byte| head.take(&[*byte]).unwrap().1.is_none().then_some(())).collect();
        assert_eq!(steps.len() + 1, whole.0);
        assert_eq!(read(&bytes[..20]), Ok((20, None)));
    }

    #[test]
    fn what_is_not_http_is_known_by_its_first_bytes() {
        for bytes in [&b"\0\0\x0c\x04"[..], b"SSH-2.0-x\r\n", b"HTTP/2 200\r\n", b"\r\n\r\n"] {
            assert!(matches!(read(bytes), Err(ReplyError::NotHttp(_))), "{bytes:?}");
        }
        for line in
            ["HTTP/1.1 20", "HTTP/1.1 2000", "HTTP/1.1 200OK", "HTTP/1.x 200 OK", "HTTP/1.1  200", "HTTP/1.1 020"]
        {
            let head = format!("{line}\r\n\r\n");
            assert_eq!(read(head.as_bytes()), Err(ReplyError::NotHttp(line.to_owned())));
        }
    }

    #[test]
    fn a_head_that_does_not_end_is_cut_off() {
        let head = [b"HTTP/1.1 200 OK\r\nA: ".as_slice(), &[b'x'; MAX_HEAD]].concat();
        assert_eq!(read(&head), Err(ReplyError::TooLong));
    }
}
