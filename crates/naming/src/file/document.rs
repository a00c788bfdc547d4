//! The document that a `file:` target reads.

use std::{collections::BTreeSet, fmt, marker::PhantomData, num::NonZeroU32};

use evenkeel_balance::{Address, Endpoint};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use crate::{
    FailureKind, Resolution, ResolveError, interface, json,
    nearest::nearest,
    target::{Host, HostPort, Place, Scope, Target},
};

impl Resolution {
    /// Reads the document of a `file:` target: an object with the list `endpoints` and, if wanted, standby groups and a
    /// `serviceConfig`.
    ///
    /// `standby` is a list of lists of endpoints: the first takes over from `endpoints`, the second from that one, and so
    /// on, under a policy that goes by ranks, `failover` or `priority`. It is the short way to write `priority`, so the two
    /// exclude each other.
    ///
    /// | key of an endpoint | value | default |
    /// |---|---|---|
    /// | `address` | `10.0.0.1:50051`, `[fd00::1]:50051`, `unix:/run/a.sock` or `unix-abstract:a`; the port is 443 unless given | |
    /// | `addresses` | in place of `address`: all that reach this one instance, in the order in which to try them | |
    /// | `weight` | its share of the calls, from 1 on | 1 |
    /// | `priority` | its rank: `failover` and `priority` use the lowest first, the others are standby groups | 0 |
    /// | `zone` | where it runs | not known |
    /// | `hashKey` | its place on the hash ring (gRFC A76) | its first address |
    /// | `path` | the children that it belongs to in a tree of policies, from the root down (A56) | none |
    ///
    /// ```
    /// use evenkeel_naming::Resolution;
    ///
    /// let resolution = Resolution::from_json(br#"{
    ///     "endpoints": [
    ///         {"address": "10.0.0.1:50051", "weight": 2, "zone": "a"},
    ///         {"addresses": ["10.0.0.2:50051", "[fd00::2]:50051"], "priority": 1}
    ///     ],
    ///     "serviceConfig": {"loadBalancingConfig": [{"round_robin": {}}]}
    /// }"#)?;
    /// assert_eq!(resolution.endpoints[1].to_string(), "10.0.0.2:50051|[fd00::2]:50051");
    ///
    /// let grouped = Resolution::from_json(br#"{
    ///     "endpoints": [{"address": "10.0.0.1:50051"}, {"address": "10.0.0.2:50051"}],
    ///     "standby": [[{"address": "10.1.0.1:50051"}], [{"address": "10.2.0.1:50051"}]],
    ///     "serviceConfig": {"loadBalancingConfig": [{"failover": {}}]}
    /// }"#)?;
    /// assert_eq!(grouped.endpoints.iter().map(|endpoint| endpoint.priority).collect::<Vec<_>>(), [0, 0, 1, 2]);
    ///
    /// let error = Resolution::from_json(br#"{"endpoints": [{"adress": "10.0.0.1:50051"}]}"#).unwrap_err();
    /// assert_eq!(
    ///     error.message,
    ///     "at `endpoints[0]`: unknown key `adress`: did you mean `address`? at line 1 column 24"
    /// );
    /// # Ok::<(), evenkeel_naming::ResolveError>(())
    /// ```
    ///
    /// # Errors
    /// [`FailureKind::Invalid`] with the path in the document, the line and the column: where it is no JSON, where a
    /// key is unknown, missing or written twice, where a value is not what the table says, where two endpoints have
    /// the same addresses, where `standby` and `priority` are mixed, and where an address is on a network interface that is not there. The service config is not
    /// looked into.
    pub fn from_json(json: &[u8]) -> Result<Self, ResolveError> {
        let invalid = |problem| ResolveError::new(FailureKind::Invalid, problem);
        json::parse::<Read<Document>>(json).map(|Read(resolution)| resolution).map_err(invalid)
    }
}

/// The keys of an object, filled in one after the other.
trait Object: Default {
    const KEYS: &[&str];
    type Whole;

    /// Takes the value of a key, which is one of `KEYS`.
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error>;

    fn finish(self) -> Result<Self::Whole, &'static str>;
}

/// What an object with the keys of `O` means. Other keys are refused, with the nearest that there is.
struct Read<O: Object>(O::Whole);

impl<'de, O: Object> Deserialize<'de> for Read<O> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Keys(PhantomData))
    }
}

struct Keys<O>(PhantomData<O>);

impl<'de, O: Object> Visitor<'de> for Keys<O> {
    type Value = Read<O>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with the keys `{}`", O::KEYS.join("`, `"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Read<O>, A::Error> {
        let mut object = O::default();
        while let Some(key) = map.next_key::<String>()? {
            if !O::KEYS.contains(&key.as_str()) {
                return Err(A::Error::custom(unknown_key(&key, O::KEYS)));
            }
            object.take(&key, &mut map)?;
        }
        object.finish().map(Read).map_err(A::Error::custom)
    }
}

fn unknown_key(key: &str, known: &[&'static str]) -> String {
    match nearest(key, known, 3) {
        Some(meant) => format!("unknown key `{key}`: did you mean `{meant}`?"),
        None => format!("unknown key `{key}`; there are `{}`", known.join("`, `")),
    }
}

/// Takes a value that may be there once.
fn once<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    slot: &mut Option<T>,
    key: &str,
    map: &mut A,
) -> Result<(), A::Error> {
    if slot.is_some() {
        return Err(A::Error::custom(format_args!("key `{key}` is written twice")));
    }
    *slot = Some(map.next_value()?);
    Ok(())
}

#[derive(Default)]
struct Document {
    endpoints: Option<Endpoints>,
    standby: Option<Vec<Endpoints>>,
    service_config: Option<Map<String, Value>>,
}

impl Object for Document {
    const KEYS: &[&str] = &["endpoints", "standby", "serviceConfig"];
    type Whole = Resolution;

    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "endpoints" => once(&mut self.endpoints, key, map),
            "standby" => once(&mut self.standby, key, map),
            _ => once(&mut self.service_config, key, map),
        }
    }

    fn finish(self) -> Result<Resolution, &'static str> {
        let endpoints = self.endpoints.ok_or("key `endpoints` is missing")?;
        let resolution = Resolution::new(match self.standby {
            Some(standby) => ranked(endpoints, standby)?,
            None => endpoints.0,
        });
        Ok(match self.service_config {
            Some(config) => resolution.with_service_config(Value::Object(config).to_string()),
            None => resolution,
        })
    }
}

/// The endpoints of all groups, of which the first has rank 0.
fn ranked(first: Endpoints, standby: Vec<Endpoints>) -> Result<Vec<Endpoint>, &'static str> {
    let (mut endpoints, mut seen) = (Vec::new(), BTreeSet::new());
    for (rank, Endpoints(group)) in (0..).zip(std::iter::once(first).chain(standby)) {
        for endpoint in group {
            if endpoint.priority != 0 {
                return Err("key `standby` and the key `priority` of an endpoint exclude each other");
            }
            if !seen.insert(addresses(&endpoint)) {
                return Err("an endpoint is in two groups of `endpoints` and `standby`");
            }
            endpoints.push(endpoint.with_priority(rank));
        }
    }
    Ok(endpoints)
}

fn addresses(endpoint: &Endpoint) -> BTreeSet<Address> {
    endpoint.addresses.iter().cloned().collect()
}

/// No two with the same addresses.
struct Endpoints(Vec<Endpoint>);

impl<'de> Deserialize<'de> for Endpoints {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(EndpointList)
    }
}

struct EndpointList;

impl<'de> Visitor<'de> for EndpointList {
    type Value = Endpoints;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of endpoints")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Endpoints, A::Error> {
        let (mut endpoints, mut seen) = (Vec::new(), BTreeSet::new());
        while let Some(Read(endpoint)) = list.next_element::<Read<Draft>>()? {
            if !seen.insert(addresses(&endpoint)) {
                return Err(A::Error::custom(format_args!("endpoint {endpoint} is written twice")));
            }
            endpoints.push(endpoint);
        }
        Ok(Endpoints(endpoints))
    }
}

/// An endpoint before it is whole.
#[derive(Default)]
struct Draft {
    address: Option<Written>,
    addresses: Option<Vec<Written>>,
    weight: Option<NonZeroU32>,
    priority: Option<u32>,
    zone: Option<String>,
    hash_key: Option<String>,
    path: Option<Vec<String>>,
}

impl Object for Draft {
    const KEYS: &[&str] = &["address", "addresses", "weight", "priority", "zone", "hashKey", "path"];
    type Whole = Endpoint;

    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "address" => once(&mut self.address, key, map),
            "addresses" => once(&mut self.addresses, key, map),
            "weight" => once(&mut self.weight, key, map),
            "priority" => once(&mut self.priority, key, map),
            "zone" => once(&mut self.zone, key, map),
            "hashKey" => once(&mut self.hash_key, key, map),
            _ => once(&mut self.path, key, map),
        }
    }

    fn finish(self) -> Result<Endpoint, &'static str> {
        let written = match (self.address, self.addresses) {
            (Some(one), None) => vec![one],
            (None, Some(several)) => several,
            (None, None) => return Err("key `address` or `addresses` is missing"),
            (Some(_), Some(_)) => return Err("keys `address` and `addresses` exclude each other"),
        };
        let addresses = written.into_iter().map(|Written(address)| address);
        let endpoint = Endpoint::with_addresses(addresses).ok_or("`addresses` is empty")?;
        let endpoint = endpoint
            .weighted(self.weight.map_or(1, NonZeroU32::get))
            .with_priority(self.priority.unwrap_or_default())
            .under(self.path.unwrap_or_default());
        let endpoint = self.zone.into_iter().fold(endpoint, Endpoint::in_zone);
        Ok(self.hash_key.into_iter().fold(endpoint, Endpoint::with_hash_key))
    }
}

/// An address as it is written in a document.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Written(Address);

impl TryFrom<String> for Written {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let target: Target = text.parse().map_err(|error: crate::TargetError| error.problem.to_string())?;
        match target.place {
            Place::Unix(path) => Ok(Self(Address::Unix(path))),
            Place::UnixAbstract(name) => Ok(Self(Address::UnixAbstract(name.as_bytes().into()))),
            Place::Hosts { server: None, hosts } if hosts.len() == 1 => of_host(&hosts[0], &text),
            Place::Hosts { .. } | Place::File(_) => Err(format!("{text:?} is not one address")),
        }
    }
}

fn of_host(host: &HostPort, text: &str) -> Result<Written, String> {
    if let Some(address) = host.address() {
        return Ok(Written(address.into()));
    }
    match &host.host {
        Host::Scoped(ip, Scope::Interface(name)) => {
            let number = interface::number_of(name)
                .map_err(|error| format!("{text:?} is on the network interface `{name}`: {error}"))?;
            let address = std::net::SocketAddrV6::new(*ip, host.port(), 0, number.get());
            Ok(Written(Address::Tcp(address.into())))
        }
        _ => Err(format!("{text:?} is a name, and names in a file are not looked up: write its addresses")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(json: &str) -> String {
        let error = Resolution::from_json(json.as_bytes()).expect_err(json);
        assert_eq!(error.kind, FailureKind::Invalid);
        error.message
    }

    #[test]
    fn each_key_is_read() {
        let resolution = Resolution::from_json(
            br#"{"serviceConfig": {"b": 1.5, "a": []}, "endpoints": [
                {"address": "10.0.0.1", "weight": 7, "priority": 3, "zone": "z", "hashKey": "k", "path": ["p", "q"]},
                {"addresses": ["unix:/run/a", "unix-abstract:a", "[fe80::1%4]:1"]}
            ]}"#,
        );
        let first = Endpoint::new("10.0.0.1:443".parse::<std::net::SocketAddr>().unwrap());
        let first = first.weighted(7).with_priority(3).in_zone("z").with_hash_key("k").under(["p", "q"]);
        let resolution = resolution.unwrap();
        assert_eq!(resolution.endpoints[0], first);
        assert_eq!(resolution.endpoints[1].to_string(), "unix:/run/a|unix-abstract:a|[fe80::1%4]:1");
        assert_eq!(resolution.service_config, Some(Ok(r#"{"a":[],"b":1.5}"#.to_owned())));
        assert_eq!(Resolution::from_json(br#"{"endpoints":[]}"#), Ok(Resolution::new(Vec::new())));
    }

    #[test]
    fn standby_groups_are_ranks() {
        let json = r#"{"standby": [[{"address": "10.1.0.1:1"}], [], [{"address": "10.3.0.1:1"}]], "endpoints": [{"address": "10.0.0.1:1"}]}"#;
        let resolution = Resolution::from_json(json.as_bytes()).unwrap();
        let ranks: Vec<_> = resolution.endpoints.iter().map(|it| (it.to_string(), it.priority)).collect();
        assert_eq!(ranks, [("10.0.0.1:1".to_owned(), 0), ("10.1.0.1:1".to_owned(), 1), ("10.3.0.1:1".to_owned(), 3)]);
        let mixed = json.replace("10.3.0.1:1\"", "10.3.0.1:1\", \"priority\": 2");
        assert!(error(&mixed).contains("key `standby` and the key `priority` of an endpoint exclude each other"));
        assert!(error(&json.replace("10.3", "10.0")).contains("an endpoint is in two groups"));
        assert!(error(&json.replace("10.3.0.1:1", "x.example")).contains("at `standby[2][0].address`"));
        assert!(error(&json.replace("\"endpoints\"", "\"standbys\"")).contains("did you mean `standby`?"));
    }

    #[test]
    fn errors_say_what_is_wrong_and_where() {
        for (endpoint, says) in [
            (r#"{"address": "a.example:1"}"#, r#"at `endpoints[1].address`: "a.example:1" is a name"#),
            (
                r#"{"address": "10.0.0.1:1,10.0.0.2:1"}"#,
                r#"at `endpoints[1].address`: "10.0.0.1:1,10.0.0.2:1" is not one"#,
            ),
            (r#"{"address": "10.0.0.1:0"}"#, r#"at `endpoints[1].address`: "0" is no port"#),
            (r#"{"address": "[fe80::1%nosuch]:1"}"#, "is on the network interface `nosuch`"),
            (
                r#"{"address": "10.0.0.1:1", "wieght": 2}"#,
                "at `endpoints[1]`: unknown key `wieght`: did you mean `weight`?",
            ),
            (r#"{"address": "10.0.0.1:1", "colour": 2}"#, "unknown key `colour`; there are `address`, `addresses`,"),
            (r#"{"address": "10.0.0.1:1", "weight": 0}"#, "at `endpoints[1].weight`: invalid value: integer `0`"),
            (r#"{"address": "10.0.0.1:1", "priority": -1}"#, "at `endpoints[1].priority`"),
            (r#"{"address": "10.0.0.1:1", "path": "a"}"#, "at `endpoints[1].path`"),
            (r#"{"zone": "a", "zone": "a"}"#, "key `zone` is written twice"),
            (r#"{"addresses": []}"#, "`addresses` is empty"),
            ("{}", "key `address` or `addresses` is missing"),
            (r#"{"address": "::1", "addresses": ["::1"]}"#, "exclude each other"),
            (r#"{"address": "10.0.0.9:1"}"#, "at `endpoints`: endpoint 10.0.0.9:1 is written twice"),
            ("7", "at `endpoints[1]`: invalid type: integer `7`, expected an object with the keys `address`"),
            ("", "at `endpoints`: trailing comma"),
        ] {
            let message = error(&format!("{{\"endpoints\": [{{\"address\": \"10.0.0.9:1\"}},\n{endpoint}]}}"));
            assert!(message.contains(says) && message.contains("at line 2 column "), "{endpoint}: {message}");
        }
        assert!(error("{}").contains("key `endpoints` is missing at line 1 column 2"));
        assert!(error(r#"{"endpoints": [], "serviceConfig": []}"#).contains("at `serviceConfig`"));
        assert!(error(r#"{"endpoint": []}"#).contains("unknown key `endpoint`: did you mean `endpoints`?"));
        assert!(error(r#"{"endpoints": []} x"#).contains("trailing characters at line 1 column 19"));
        assert!(error("").contains("at line 1 column 0"));
    }

    proptest! {
        #[test]
        fn every_part_of_a_document_is_refused(length in 0..96_usize) {
            let whole = r#"{"endpoints":[{"address":"10.0.0.1:1","weight":2}],"serviceConfig":{"methodConfig":[{"name":[]}]}}"#;
            prop_assert!(Resolution::from_json(whole.as_bytes()).is_ok());
            prop_assert!(Resolution::from_json(&whole.as_bytes()[..length]).is_err());
        }

        #[test]
        fn no_bytes_panic(json in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Resolution::from_json(&json);
        }
    }
}
