//! Service configs in DNS (gRFC A2).

use evenkeel_balance::Entropy;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{FailureKind, ResolveError, json};

/// How the text of a TXT record with service configs begins.
const ATTRIBUTE: &[u8] = b"grpc_config=";

/// What this client calls itself in `clientLanguage`.
const LANGUAGE: &str = "rust";

/// Who this client is to the choices of a service config in DNS (gRFC A2).
///
/// ```
/// use evenkeel_naming::ConfigClient;
///
/// let client = ConfigClient { percentile: 10, hostname: "canary-1".to_owned() };
/// let choices = r#"[
///     {"clientLanguage": ["go"], "serviceConfig": {"loadBalancingConfig": [{"pick_first": {}}]}},
///     {"percentage": 5, "serviceConfig": {"loadBalancingConfig": [{"least_request": {}}]}},
///     {"clientHostname": ["canary-1"], "serviceConfig": {"loadBalancingConfig": [{"random": {}}]}},
///     {"serviceConfig": {"loadBalancingConfig": [{"round_robin": {}}]}}
/// ]"#;
/// assert_eq!(client.choose(choices)?.as_deref(), Some(r#"{"loadBalancingConfig":[{"random":{}}]}"#));
/// # Ok::<(), evenkeel_naming::ResolveError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigClient {
    /// Its place among all clients, from 0 to 99: it is one of the first `percentage` per cent if it is below that.
    pub percentile: u8,
    /// The name of its machine.
    pub hostname: String,
}

impl ConfigClient {
    /// A client on this machine; `seed` alone decides its percentile, for good.
    ///
    /// gRFC A2 leaves open how often clients draw. grpc-go draws at each look-up, so that its clients change sides; one
    /// that stays on its side can be told from the others.
    pub fn of_this_machine(seed: u64) -> Self {
        let percentile = u8::try_from(Entropy::new(seed).below(100)).unwrap_or(99);
        Self { percentile, hostname: rustix::system::uname().nodename().to_string_lossy().into_owned() }
    }

    /// The `serviceConfig`, as JSON, of the first of `choices` that is for this client; `None` where none is.
    ///
    /// `choices` is the JSON list that follows `grpc_config=`. A choice is for the client if what it has of these
    /// agrees: `clientLanguage` has `rust` (in any case), `percentage` is above the percentile, `clientHostname` has the
    /// client's. As in grpc-go, an empty list agrees with nobody. No agreeing choice is the same as no record, as the
    /// gRFC has it; grpc-go takes it for an invalid config.
    ///
    /// # Errors
    /// [`FailureKind::Invalid`], with the place in the JSON, if any part of the list is malformed: no choice then
    /// counts. An unknown field of a choice is malformed too. The `serviceConfig`s themselves are not looked into.
    pub fn choose(&self, choices: &str) -> Result<Option<String>, ResolveError> {
        let choices: Vec<Choice> =
            json::parse(choices.as_bytes()).map_err(|problem| ResolveError::new(FailureKind::Invalid, problem))?;
        let chosen = choices.into_iter().find(|choice| choice.is_for(self));
        Ok(chosen.map(|choice| Value::Object(choice.service_config).to_string()))
    }

    /// What the TXT records of `name` say: `None` where there is no service config for this client.
    pub(crate) fn read(&self, name: &str, records: &[Vec<u8>]) -> Option<Result<String, ResolveError>> {
        let invalid = |problem: &str| {
            ResolveError::new(FailureKind::Invalid, format!("service config in the TXT record of `{name}`: {problem}"))
        };
        let mut values = records.iter().filter_map(|record| record.strip_prefix(ATTRIBUTE));
        let value = values.next()?;
        // Records have no order: which of two came first would be chance.
        if values.next().is_some() {
            return Some(Err(invalid("more than one record begins with `grpc_config=`; join them into one")));
        }
        match std::str::from_utf8(value) {
            Err(error) => Some(Err(invalid(&error.to_string()))),
            Ok(choices) => self.choose(choices).map_err(|error| invalid(&error.message)).transpose(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Choice {
    client_language: Option<Vec<String>>,
    percentage: Option<Percentage>,
    client_hostname: Option<Vec<String>>,
    service_config: Map<String, Value>,
}

impl Choice {
    fn is_for(&self, client: &ConfigClient) -> bool {
        let by_language = |languages: &Vec<String>| languages.iter().any(|one| one.eq_ignore_ascii_case(LANGUAGE));
        self.client_language.as_ref().is_none_or(by_language)
            && self.percentage.as_ref().is_none_or(|percentage| client.percentile < percentage.0)
            && self.client_hostname.as_ref().is_none_or(|names| names.contains(&client.hostname))
    }
}

#[derive(Deserialize)]
#[serde(try_from = "u64")]
struct Percentage(u8);

impl TryFrom<u64> for Percentage {
    type Error = String;

    fn try_from(number: u64) -> Result<Self, String> {
        let percentage = u8::try_from(number).ok().filter(|percentage| *percentage <= 100);
        percentage.map(Self).ok_or_else(|| format!("{number} is no percentage from 0 to 100"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(percentile: u8) -> ConfigClient {
        ConfigClient { percentile, hostname: "here".to_owned() }
    }

    fn chosen(choices: &str) -> Option<String> {
        client(50).choose(choices).unwrap()
    }

    #[test]
    fn the_first_choice_whose_every_condition_agrees_wins() {
        for (conditions, agrees) in [
            ("", true),
            (r#""clientLanguage": ["java", "RUST"],"#, true),
            (r#""clientLanguage": ["go"],"#, false),
            (r#""clientLanguage": [],"#, false),
            (r#""clientLanguage": null,"#, true),
            (r#""percentage": 100,"#, true),
            (r#""percentage": 51,"#, true),
            (r#""percentage": 50,"#, false),
            (r#""percentage": 0,"#, false),
            (r#""clientHostname": ["there", "here"],"#, true),
            (r#""clientHostname": ["Here"],"#, false),
            (r#""clientLanguage": ["rust"], "clientHostname": ["there"],"#, false),
        ] {
            let choices = format!(r#"[{{{conditions} "serviceConfig": {{"a": 1}}}}, {{"serviceConfig": {{}}}}]"#);
            assert_eq!(chosen(&choices).as_deref(), Some(if agrees { r#"{"a":1}"# } else { "{}" }), "{choices}");
        }
        assert_eq!(chosen(r#"[{"percentage": 0, "serviceConfig": {}}]"#), None);
        assert_eq!(chosen("[]"), None);
    }

    #[test]
    fn one_malformed_choice_refuses_them_all_and_says_where() {
        for (choice, says) in [
            (r#"{"clientLanguages": ["rust"], "serviceConfig": {}}"#, "at `[1].clientLanguages`: unknown field"),
            (r#"{"percentage": 101, "serviceConfig": {}}"#, "at `[1].percentage`: 101 is no percentage from 0 to 100"),
            (r#"{"percentage": -1, "serviceConfig": {}}"#, "at `[1].percentage`: invalid value"),
            (r#"{"clientHostname": "here", "serviceConfig": {}}"#, "at `[1].clientHostname`: invalid type"),
            ("{}", "missing field `serviceConfig`"),
            (r#"{"serviceConfig": "{}"}"#, "at `[1].serviceConfig`: invalid type"),
            ("", "line 1 column 24"),
        ] {
            let choices = format!(r#"[{{"serviceConfig": {{}}}},{choice}]"#);
            let error = client(0).choose(&choices).unwrap_err();
            assert_eq!(error.kind, FailureKind::Invalid);
            assert!(error.message.contains(says) && error.message.contains("line 1 column"), "{choices}: {error}");
        }
        assert!(client(0).choose("[] []").unwrap_err().message.contains("trailing characters"));
    }

    #[test]
    fn other_records_of_the_name_do_not_matter_and_a_second_config_does() {
        let read = |records: &[&str]| {
            let records: Vec<Vec<u8>> = records.iter().map(|record| record.as_bytes().to_vec()).collect();
            client(0).read("_grpc_config.a", &records)
        };
        let config = r#"grpc_config=[{"serviceConfig":{}}]"#;
        assert_eq!(read(&["v=spf1 -all"]), None);
        assert_eq!(read(&["v=spf1 -all", config]), Some(Ok("{}".to_owned())));
        let message = |records: &[&str]| read(records).unwrap().unwrap_err().message;
        assert!(message(&[config, config]).contains("`_grpc_config.a`: more than one record"));
        assert!(message(&["grpc_config=[{}]"]).contains("`_grpc_config.a`: at `[0]"));
        let bytes = client(0).read("a", &[b"grpc_config=\xff".to_vec()]);
        assert!(bytes.unwrap().unwrap_err().message.contains("utf-8"));
    }

    #[test]
    fn the_percentile_is_drawn_from_the_seed_evenly() {
        let draw = |seed| ConfigClient::of_this_machine(seed).percentile;
        assert_eq!(draw(7), draw(7));
        let below_half = (0..1000).filter(|seed| draw(*seed) < 50).count();
        assert!((400..600).contains(&below_half), "{below_half}");
    }

    proptest! {
        #[test]
        fn a_percentage_is_that_share_of_clients(percentage in 0..=100_usize) {
            let choices = format!(r#"[{{"percentage": {percentage}, "serviceConfig": {{}}}}]"#);
            let served = (0..100).filter(|percentile| client(*percentile).choose(&choices).unwrap().is_some());
            prop_assert_eq!(served.count(), percentage);
        }

        #[test]
        fn no_text_panics(text in "[\\[\\]{}\":,a-z0-9 ]{0,40}") {
            let _ = client(0).choose(&text);
        }
    }
}
