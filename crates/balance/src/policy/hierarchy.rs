use std::{collections::BTreeMap, sync::Arc};

use crate::Endpoint;

/// Endpoints by the child of this policy that they belong to (gRFC A56): the first name of their path, which the child
/// does not see. Those without a path, and those of names not in `children`, belong to nobody.
#[derive(Debug)]
pub(super) struct Shares {
    pub(super) by_child: BTreeMap<Arc<str>, Arc<[Endpoint]>>,
    /// How many endpoints belong to nobody.
    pub(super) strays: usize,
}

impl Shares {
    pub(super) fn by_path<'a>(endpoints: &[Endpoint], children: impl IntoIterator<Item = &'a str>) -> Self {
        let mut shares: BTreeMap<Arc<str>, Vec<Endpoint>> =
            children.into_iter().map(|name| (name.into(), Vec::new())).collect();
        let mut strays = 0;
        for endpoint in endpoints {
            match endpoint.path.split_first().and_then(|(name, rest)| Some((shares.get_mut(name)?, rest))) {
                Some((share, rest)) => share.push(Endpoint { path: rest.into(), ..endpoint.clone() }),
                None => strays += 1,
            }
        }
        Self { by_child: shares.into_iter().map(|(name, share)| (name, share.into())).collect(), strays }
    }

    /// The endpoints of each rank that is there (`Endpoint::priority`).
    pub(super) fn by_rank(endpoints: &[Endpoint]) -> BTreeMap<u32, Arc<[Endpoint]>> {
        let mut ranks: BTreeMap<u32, Vec<Endpoint>> = BTreeMap::new();
        for endpoint in endpoints {
            ranks.entry(endpoint.priority).or_default().push(endpoint.clone());
        }
        ranks.into_iter().map(|(rank, share)| (rank, share.into())).collect()
    }

    /// What an operator is told of endpoints that get no calls, if there are any.
    pub(super) fn warning(&self) -> Option<String> {
        let strays = self.strays;
        (strays > 0).then(|| format!("{strays} endpoints belong to no child of the config and get no calls"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint::new(std::net::SocketAddr::from(([127, 0, 0, 1], port)))
    }

    #[test]
    fn a56_the_first_name_of_the_path_is_the_child_and_the_child_sees_the_rest() {
        let endpoints = [
            endpoint(1).under(["a", "x"]),
            endpoint(2).under(["b"]),
            endpoint(3),
            endpoint(4).under(["c"]),
            endpoint(5).under(["a", "y"]),
        ];
        let shares = Shares::by_path(&endpoints, ["a", "b"]);
        assert_eq!(*shares.by_child["a"], [endpoint(1).under(["x"]), endpoint(5).under(["y"])]);
        assert_eq!(*shares.by_child["b"], [endpoint(2)]);
        assert_eq!(shares.strays, 2);
    }

    #[test]
    fn ranks_are_in_the_order_of_their_numbers() {
        let endpoints = [endpoint(1).with_priority(10), endpoint(2).with_priority(9), endpoint(3).with_priority(10)];
        let ranks = Shares::by_rank(&endpoints);
        let sizes: Vec<_> = ranks.iter().map(|(&rank, share)| (rank, share.len())).collect();
        assert_eq!(sizes, [(9, 1), (10, 2)]);
    }
}
