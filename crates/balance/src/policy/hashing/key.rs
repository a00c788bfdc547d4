use std::fmt;

use crate::{
    ConfigError, PickArgs,
    xxhash::{Xxh64, xxh64},
};

/// What a call is placed by: the key that its caller gave, else a header, else nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct RequestKey {
    header: Option<Box<str>>,
}

impl RequestKey {
    /// Calls whose caller gave no key are placed by `header`; by nothing if it is empty (gRFC A76).
    ///
    /// # Errors
    ///
    /// Where it is no name of a header with text in it.
    pub(in crate::policy) fn by_header(header: &str) -> Result<Self, ConfigError> {
        let name = header.to_ascii_lowercase();
        let refuse = |problem: &str| Err(ConfigError::new("requestHashHeader", format!("{header:?} {problem}")));
        if !name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.')) {
            return refuse("is not the name of a gRPC header: letters, digits, '-', '_' and '.' only");
        }
        if name.ends_with("-bin") {
            return refuse("is a binary header: name one that has text");
        }
        Ok(Self { header: (!name.is_empty()).then(|| name.into()) })
    }

    /// The hash of the call's key, if it has one.
    pub(super) fn hash(&self, args: &PickArgs<'_>) -> Option<u64> {
        match args.hash_key {
            Some(key) => Some(xxh64(key, 0)),
            None => self.hash_header(args),
        }
    }

    fn hash_header(&self, args: &PickArgs<'_>) -> Option<u64> {
        let (header, metadata) = (self.header.as_ref()?, args.metadata?);
        let mut hasher = Xxh64::new(0);
        let mut is_first = true;
        metadata.values(header, &mut |value| {
            if !std::mem::take(&mut is_first) {
                hasher.write(b",");
            }
            hasher.write(value);
        });
        (!hasher.is_empty()).then(|| hasher.finish())
    }
}

impl fmt::Display for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.header {
            Some(header) => write!(f, "calls are placed by their hash key, else by {header}, else at random"),
            None => f.write_str("calls are placed by their hash key, else at random: requestHashHeader is not set"),
        }
    }
}
