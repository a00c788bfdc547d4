//! Which header lists are valid messages (RFC 9113, 8.1 to 8.3). What gRPC asks beyond that is not judged here.

#![allow(clippy::needless_bitwise_bool, reason = "without branches the compiler looks at many bytes at once")]

use crate::fields::{Field, Fields};

/// What a header list has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Request,
    Response,
    Trailers,
}

/// What a connection wants to know of a valid head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) content_length: Option<u64>,
    /// A status of 1xx: the response's true head is still to come.
    pub(super) is_interim: bool,
}

/// The list is malformed; the text says how.
pub(super) type Malformed = &'static str;

const METHOD: u8 = 1;
const SCHEME: u8 = 2;
const PATH: u8 = 4;
const AUTHORITY: u8 = 8;
const STATUS: u8 = 16;

/// Judges a whole header list.
pub(super) fn check(kind: Kind, fields: &Fields) -> Result<Head, Malformed> {
    let mut check = Check { kind, seen: 0, regular: false, connects: false, bodiless: false, head: Head::default() };
    check_bytes(fields.bytes())?;
    for field in fields.iter() {
        check.field(field)?;
    }
    check.finish()
}

struct Check {
    kind: Kind,
    /// The pseudo-header fields there were.
    seen: u8,
    /// Whether a field came that is none.
    regular: bool,
    connects: bool,
    /// The status tells of a content that does not come.
    bodiless: bool,
    head: Head,
}

impl Check {
    #[inline]
    fn field(&mut self, Field { name, value, .. }: Field<'_>) -> Result<(), Malformed> {
        check_ends(value)?;
        if let Some((b':', pseudo)) = name.split_first() {
            return self.pseudo(pseudo, value);
        }
        self.regular = true;
        check_name(name)?;
        self.regular_field(name, value)
    }

    fn pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
        if self.regular {
            return Err("a pseudo-header field behind other fields");
        }
        let bit = match (self.kind, name) {
            (Kind::Request, b"method") => METHOD,
            (Kind::Request, b"scheme") => SCHEME,
            (Kind::Request, b"path") => PATH,
            (Kind::Request, b"authority") => AUTHORITY,
            (Kind::Response, b"status") => STATUS,
            _ => return Err("a pseudo-header field that does not belong there"),
        };
        if self.seen & bit != 0 {
            return Err("a pseudo-header field that comes twice");
        }
        self.seen |= bit;
        match bit {
            METHOD if value.is_empty() => Err("an empty :method"),
            PATH if value.is_empty() => Err("an empty :path"),
            METHOD => {
                self.connects = value == b"CONNECT";
                Ok(())
            }
            STATUS => self.status(value),
            _ => Ok(()),
        }
    }

    fn status(&mut self, value: &[u8]) -> Result<(), Malformed> {
        match value {
            b"101" => Err("status 101, which HTTP/2 does not have"),
            [b'1', b'0'..=b'9', b'0'..=b'9'] => {
                self.head.is_interim = true;
                Ok(())
            }
            [b'2'..=b'9', b'0'..=b'9', b'0'..=b'9'] => {
                self.bodiless = matches!(value, b"204" | b"304");
                Ok(())
            }
            _ => Err("a :status that is no number of three digits"),
        }
    }

    #[inline]
    fn regular_field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
        match name {
            // Most names begin otherwise, and comparing costs more than looking at one byte.
            [first, ..] if !b"cktpu".contains(first) => Ok(()),
            b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => {
                Err("a field that belongs to HTTP/1.1 connections")
            }
            b"te" if !value.eq_ignore_ascii_case(b"trailers") => Err("a te other than trailers"),
            b"content-length" if self.kind != Kind::Trailers => self.content_length(value),
            _ => Ok(()),
        }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Malformed> {
        let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let length = digits.and_then(|text| text.parse().ok()).ok_or("a content-length that is no number")?;
        match self.head.content_length.replace(length) {
            Some(other) if other != length => Err("two different content-lengths"),
            _ => Ok(()),
        }
    }

    fn finish(mut self) -> Result<Head, Malformed> {
        match self.kind {
            Kind::Request if self.connects && self.seen != METHOD | AUTHORITY => {
                Err("a CONNECT with other pseudo-header fields than :method and :authority")
            }
            Kind::Request if !self.connects && self.seen & !AUTHORITY != METHOD | SCHEME | PATH => {
                Err("a request that lacks :method, :scheme or :path")
            }
            Kind::Response if self.seen != STATUS => Err("a response without :status"),
            _ => {
                if self.bodiless {
                    self.head.content_length = None;
                }
                Ok(self.head)
            }
        }
    }
}

/// No byte of a name is a control, a space, a capital, a colon, or beyond ASCII.
#[inline]
fn check_name(name: &[u8]) -> Result<(), Malformed> {
    let bad = name.iter().fold(name.is_empty(), |bad, &byte| {
        bad | (byte <= b' ') | (byte >= 0x7f) | byte.is_ascii_uppercase() | (byte == b':')
    });
    if bad { Err("a field's name with a forbidden byte, or none") } else { Ok(()) }
}

/// No byte of a value is NUL, CR or LF. None of a name is either, so all are looked at in one pass.
#[inline]
fn check_bytes(bytes: &[u8]) -> Result<(), Malformed> {
    let look = |bad: u8, &byte: &u8| bad | u8::from(byte == 0) | u8::from(byte == b'\n') | u8::from(byte == b'\r');
    let (chunks, rest) = bytes.as_chunks::<16>();
    let bad = chunks.iter().fold(0, |bad, chunk| bad | chunk.iter().fold(0, look));
    if rest.iter().fold(bad, look) == 0 { Ok(()) } else { Err("a field with NUL, CR or LF") }
}

/// There is no white space around a value.
#[inline]
fn check_ends(value: &[u8]) -> Result<(), Malformed> {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if is_blank(value.first()) || is_blank(value.last()) { Err("a value with white space around it") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(kind: Kind, list: &[(&str, &str)]) -> Result<Head, Malformed> {
        let mut fields = Fields::new();
        for (name, value) in list {
            fields.push(Field::new(name.as_bytes(), value.as_bytes()));
        }
        check(kind, &fields)
    }

    const REQUEST: [(&str, &str); 4] =
        [(":method", "POST"), (":scheme", "http"), (":path", "/a.B/C"), (":authority", "10.0.0.1:1,10.0.0.2:1")];

    fn request(more: &[(&str, &str)]) -> Result<Head, Malformed> {
        judge(Kind::Request, &[&REQUEST, more].concat())
    }

    #[test]
    fn what_grpc_clients_send_is_valid() {
        let valid = Ok(Head::default());
        assert_eq!(request(&[("te", "trailers"), ("content-type", "application/grpc"), ("x-y_z.w", "")]), valid);
        assert_eq!(judge(Kind::Request, &REQUEST[..3]), valid, "no :authority");
        let mut unix = REQUEST;
        unix[3].1 = "/run/some socket";
        assert_eq!(judge(Kind::Request, &unix), valid);
        assert_eq!(judge(Kind::Response, &[(":status", "200"), ("grpc-status", "0")]), valid);
        assert_eq!(judge(Kind::Trailers, &[("grpc-status", "0"), ("grpc-message", "it\tis %20 so")]), valid);
        assert_eq!(judge(Kind::Trailers, &[]), valid);
        assert_eq!(judge(Kind::Request, &[(":method", "CONNECT"), (":authority", "a:1")]), valid);
    }

    #[test]
    fn interim_responses_and_lengths_are_told() {
        let head = judge(Kind::Response, &[(":status", "103")]).unwrap();
        assert!(head.is_interim);
        assert_eq!(request(&[("content-length", "007")]).unwrap().content_length, Some(7));
        assert_eq!(request(&[("content-length", "7"), ("content-length", "7")]).unwrap().content_length, Some(7));
        let head = judge(Kind::Response, &[(":status", "304"), ("content-length", "9")]).unwrap();
        assert_eq!(head.content_length, None);
    }

    #[test]
    fn malformed_requests() {
        for missing in &REQUEST[..3] {
            let list: Vec<_> = REQUEST.into_iter().filter(|field| field != missing).collect();
            assert!(judge(Kind::Request, &list).is_err(), "without {}", missing.0);
        }
        for field in REQUEST {
            assert!(request(&[field]).is_err(), "{} twice", field.0);
        }
        for (name, value) in [
            (":status", "200"),
            (":protocol", "websocket"),
            (":Method", "POST"),
            ("connection", "close"),
            ("keep-alive", "1"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip"),
            ("te", "trailers, deflate"),
            ("content-length", "-1"),
            ("content-length", ""),
            ("content-length", "18446744073709551616"),
            ("Name", "v"),
            ("na me", "v"),
            ("n\u{e4}me", "v"),
            ("na:me", "v"),
            ("", "v"),
            ("name", "a\0b"),
            ("name", "a\nb"),
            ("name", "a\rb"),
            ("name", " a"),
            ("name", "a\t"),
        ] {
            assert!(request(&[(name, value)]).is_err(), "{name:?}: {value:?}");
        }
        assert!(request(&[("content-length", "7"), ("content-length", "8")]).is_err());
        let late = [REQUEST[0], REQUEST[1], ("a", "b"), REQUEST[2]];
        assert!(judge(Kind::Request, &late).is_err(), "pseudo-header fields come first");
        let empty = [REQUEST[0], REQUEST[1], (":path", "")];
        assert!(judge(Kind::Request, &empty).is_err());
        let connect = [(":method", "CONNECT"), (":authority", "a"), (":path", "/")];
        assert!(judge(Kind::Request, &connect).is_err());
    }

    #[test]
    fn malformed_responses_and_trailers() {
        for status in ["", "20", "2000", "abc", "099", "101"] {
            assert!(judge(Kind::Response, &[(":status", status)]).is_err(), "{status}");
        }
        assert!(judge(Kind::Response, &[("a", "b")]).is_err());
        assert!(judge(Kind::Response, &[(":status", "200"), (":path", "/")]).is_err());
        assert!(judge(Kind::Trailers, &[(":status", "200")]).is_err());
    }
}
