use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc};

/// Where a transport connects: one network address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Address {
    /// An IPv4 or IPv6 address and a TCP port.
    Tcp(SocketAddr),
    /// The path of a Unix-domain stream socket.
    Unix(PathBuf),
    /// The name of a Unix-domain stream socket in Linux's abstract namespace, without its leading zero byte.
    UnixAbstract(Arc<[u8]>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::UnixAbstract(name) => write!(f, "unix-abstract:{}", name.escape_ascii()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// One instance of a service: what a policy chooses among (gRFC A61).
///
/// An instance may be reachable at several addresses (say, IPv4 and IPv6); a call goes to whichever of them connects.
/// Two endpoints with the same set of addresses are the same endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint {
    /// In the order in which they should be tried. Never empty.
    pub addresses: Arc<[Address]>,
    /// The share of calls relative to other endpoints, for policies that read it. Default 1; never 0.
    pub weight: u32,
    /// The rank that `priority` goes by: endpoints of a higher number are used only while those of lower ones are out.
    /// Default 0, the first.
    pub priority: u32,
    /// Where it runs, such as an availability zone. Default: not known.
    pub zone: Option<Arc<str>>,
    /// Places it on the hash ring in place of its address (gRFC A76), so that an instance keeps its calls when its
    /// address changes. Default: its first address.
    pub hash_key: Option<Arc<str>>,
    /// The children that it belongs to in a tree of policies with named children, from the root down (gRFC A56).
    pub path: Arc<[Arc<str>]>,
}

impl Endpoint {
    /// An endpoint of one address and weight 1.
    pub fn new(address: impl Into<Address>) -> Self {
        Self::at(Arc::new([address.into()]))
    }

    /// An endpoint that is reachable at each of `addresses`, or `None` where there is none.
    pub fn with_addresses(addresses: impl IntoIterator<Item = Address>) -> Option<Self> {
        let addresses: Arc<[Address]> = addresses.into_iter().collect();
        (!addresses.is_empty()).then(|| Self::at(addresses))
    }

    fn at(addresses: Arc<[Address]>) -> Self {
        Self { addresses, weight: 1, priority: 0, zone: None, hash_key: None, path: Arc::default() }
    }

    /// The same endpoint with another weight; 0 is taken as 1.
    #[must_use]
    pub fn weighted(self, weight: u32) -> Self {
        Self { weight: weight.max(1), ..self }
    }

    /// The same endpoint with another rank.
    #[must_use]
    pub fn with_priority(self, priority: u32) -> Self {
        Self { priority, ..self }
    }

    /// The same endpoint in `zone`.
    #[must_use]
    pub fn in_zone(self, zone: impl Into<Arc<str>>) -> Self {
        Self { zone: Some(zone.into()), ..self }
    }

    /// The same endpoint with a place of its own on the hash ring.
    #[must_use]
    pub fn with_hash_key(self, key: impl Into<Arc<str>>) -> Self {
        Self { hash_key: Some(key.into()), ..self }
    }

    /// The same endpoint, belonging to these children of the policy tree.
    #[must_use]
    pub fn under<P: Into<Arc<str>>>(self, path: impl IntoIterator<Item = P>) -> Self {
        Self { path: path.into_iter().map(Into::into).collect(), ..self }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, address) in self.addresses.iter().enumerate() {
            if i > 0 {
                f.write_str("|")?;
            }
            address.fmt(f)?;
        }
        Ok(())
    }
}
