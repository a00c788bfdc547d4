//! What a caller says of one call: put into the request's extensions.

use bytes::Bytes;
use evenkeel_balance::{Address, Metadata};
use http::{Extensions, HeaderMap};

/// Overrides, for one call, whether it waits out failing endpoints: put it into the request's extensions.
///
/// Without it the service config's `waitForReady` holds, and by default a call fails at once when every endpoint is
/// out. With it the call waits for one to return, for as long as its deadline lets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitForReady(pub bool);

/// What policies that place calls by a hash (`ring_hash`, `maglev`) are to hash one call by: put it into the request's
/// extensions. Without it they go by their own config, such as `requestHashHeader`.
///
/// ```
/// # use evenkeel_channel::HashKey;
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(HashKey::new("user-4711"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashKey(Bytes);

impl HashKey {
    /// Any bytes: a user's id, say.
    pub fn new(key: impl Into<Bytes>) -> Self {
        Self(key.into())
    }
}

/// Sends one call to the endpoint at this address and nowhere else, whatever the policy would say: put it into the
/// request's extensions.
///
/// The endpoint must be one of the channel's own. While it has no connection, the call fails with UNAVAILABLE, or
/// waits for one where it [waits for ready](WaitForReady). Health reports, ejections and retries on other endpoints
/// do not apply to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedTo(pub Address);

/// How urgent one call is among those that wait for a stream, where a server allows no more at a time
/// (`MAX_CONCURRENT_STREAMS`): higher ones go first. Put it into the request's extensions. Default 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallPriority(pub i8);

/// The overrides of one call, read where they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Overrides<'a>(pub(crate) &'a Extensions);

impl<'a> Overrides<'a> {
    pub(crate) fn wait_for_ready(self) -> Option<bool> {
        self.0.get::<WaitForReady>().map(|wait| wait.0)
    }

    pub(crate) fn hash_key(self) -> Option<&'a [u8]> {
        self.0.get::<HashKey>().map(|key| &key.0[..])
    }

    pub(crate) fn pinned(self) -> Option<&'a Address> {
        self.0.get::<PinnedTo>().map(|pinned| &pinned.0)
    }

    pub(crate) fn priority(self) -> i8 {
        self.0.get::<CallPriority>().copied().unwrap_or_default().0
    }
}

/// A call's headers as a picker reads them.
#[derive(Debug)]
pub(crate) struct CallMetadata<'a>(pub(crate) &'a HeaderMap);

impl Metadata for CallMetadata<'_> {
    fn values(&self, name: &str, visit: &mut dyn FnMut(&[u8])) {
        for value in self.0.get_all(name) {
            visit(value.as_bytes());
        }
    }
}
