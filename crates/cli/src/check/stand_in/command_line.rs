//! A command line as Go's flag package reads it, and what it says of a wrong one.

use std::{collections::VecDeque, ffi::OsString, fmt::Write};

use clap::{Args, Command, FromArgMatches};

use crate::check::{
    go::{GoDuration, parse_bool, quoted},
    options::Options,
};

/// What is asked for.
pub(super) enum Wanted {
    Probe(Box<Options>),
    Version,
}

/// What a flag takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Switch,
    Duration,
    Header,
}

/// Every flag, in alphabetical order.
const FLAGS: [(&str, Kind); 17] = [
    ("addr", Kind::Text),
    ("alts", Kind::Switch),
    ("connect-timeout", Kind::Duration),
    ("gzip", Kind::Switch),
    ("rpc-header", Kind::Header),
    ("rpc-timeout", Kind::Duration),
    ("service", Kind::Text),
    ("spiffe", Kind::Switch),
    ("tls", Kind::Switch),
    ("tls-ca-cert", Kind::Text),
    ("tls-client-cert", Kind::Text),
    ("tls-client-key", Kind::Text),
    ("tls-no-verify", Kind::Switch),
    ("tls-server-name", Kind::Text),
    ("user-agent", Kind::Text),
    ("v", Kind::Switch),
    ("version", Kind::Switch),
];

/// Reads flags up to the first argument that is none; what follows it is passed over, as Go does.
///
/// # Errors
///
/// What is to be printed: the problem and the usage.
pub(super) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Wanted, String> {
    let mut words: VecDeque<_> =
        arguments.into_iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let (mut wants_version, mut canonical) = (false, Vec::new());
    while let Some((name, value)) = next_flag(&mut words).map_err(|problem| refusal(&problem))? {
        if name == "version" {
            wants_version = value == "true";
        } else {
            canonical.push(format!("--{name}={value}"));
        }
    }
    if wants_version {
        return Ok(Wanted::Version);
    }
    let matches = command().try_get_matches_from(canonical).map_err(|error| error.to_string())?;
    let options = Options::from_arg_matches(&matches).map_err(|error| error.to_string())?;
    Ok(Wanted::Probe(Box::new(options)))
}

fn command() -> Command {
    Options::augment_args(Command::new("grpc_health_probe").no_binary_name(true).args_override_self(true))
}

/// The next flag and its value in one form; `None` at the end of the flags.
fn next_flag(words: &mut VecDeque<String>) -> Result<Option<(&'static str, String)>, String> {
    let Some(body) = words.front().and_then(|word| word.strip_prefix('-')).filter(|body| !body.is_empty()) else {
        return Ok(None);
    };
    let body = body.strip_prefix('-').unwrap_or(body).to_owned();
    let word = words.pop_front().unwrap_or_default();
    if word == "--" {
        return Ok(None);
    }
    if body.is_empty() || body.starts_with(['-', '=']) {
        return Err(format!("bad flag syntax: {word}"));
    }
    let (name, value) = body.split_once('=').map_or((body.as_str(), None), |(name, value)| (name, Some(value)));
    let Some((name, kind)) = FLAGS.into_iter().find(|(known, _)| *known == name) else {
        let asks_for_help = matches!(name, "h" | "help");
        return Err(if asks_for_help { String::new() } else { format!("flag provided but not defined: -{name}") });
    };
    let value = match value {
        Some(value) => value.to_owned(),
        None if kind == Kind::Switch => "true".to_owned(),
        None => words.pop_front().ok_or_else(|| format!("flag needs an argument: -{name}"))?,
    };
    checked(name, kind, value).map(|value| Some((name, value)))
}

fn checked(name: &str, kind: Kind, value: String) -> Result<String, String> {
    let invalid = |problem: &str| format!("invalid value {} for flag -{name}: {problem}", quoted(&value));
    match kind {
        Kind::Switch => match parse_bool(&value) {
            Ok(on) => Ok(on.to_string()),
            Err(_) => Err(format!("invalid boolean value {} for -{name}: parse error", quoted(&value))),
        },
        Kind::Duration if value.parse::<GoDuration>().is_err() => Err(invalid("parse error")),
        Kind::Header if !value.contains(':') => {
            let expected = format!("invalid RPC header, expected 'key: value', got {}", quoted(&value));
            Err(invalid(&expected))
        }
        _ => Ok(value),
    }
}

/// The problem, if there is one, and the usage, an entry for each flag in Go's form.
fn refusal(problem: &str) -> String {
    let mut text = if problem.is_empty() { String::new() } else { format!("{problem}\n") };
    text.push_str("Usage:\n");
    let command = command();
    for (name, kind) in FLAGS {
        let kind = match kind {
            Kind::Text => " string",
            Kind::Switch => "",
            Kind::Duration => " duration",
            Kind::Header => " value",
        };
        // A flag of one letter that takes nothing has its meaning on the same line.
        let separator = if name.len() == 1 { "\t" } else { "\n    \t" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  -{name}{kind}{separator}{}", meaning(&command, name));
    }
    text
}

fn meaning(command: &Command, name: &str) -> String {
    let Some(flag) = command.get_arguments().find(|flag| {
        flag.get_long() == Some(name) || flag.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
    }) else {
        return "Print the version".to_owned();
    };
    let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
    let default = flag.get_default_values().first().filter(|_| !flag.is_hide_default_value_set());
    match default.map(|value| value.to_string_lossy()) {
        Some(value) if name == "user-agent" => format!("{help} (default {})", quoted(&value)),
        Some(value) => format!("{help} (default {value})"),
        None => help,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Options {
        match parse(line.split_whitespace().map(OsString::from)) {
            Ok(Wanted::Probe(options)) => *options,
            _ => panic!("no probe is asked for by {line}"),
        }
    }

    fn problem(line: &str) -> String {
        let refusal = parse(line.split_whitespace().map(OsString::from)).err().expect("it is refused");
        refusal.lines().next().unwrap().to_owned()
    }

    #[test]
    fn flags_are_read_as_go_reads_them() {
        let read = options("-addr a:1 --service=s -tls -tls-no-verify=t -v -rpc-header a:b --rpc-header A:c");
        assert_eq!((read.addr.as_deref(), read.service.as_str()), (Some("a:1"), "s"));
        assert!(read.tls && read.tls_no_verify && read.verbose && !read.gzip);
        assert_eq!(read.rpc_headers.len(), 2);
        assert_eq!(options("-addr=a -addr=b").addr.as_deref(), Some("b"), "the last one counts");
        assert_eq!(options("-addr -v").addr.as_deref(), Some("-v"), "a value may look like a flag");
        assert_eq!(options("-connect-timeout=-1m30s").connect_timeout.to_string(), "-1m30s");
    }

    #[test]
    fn flags_end_where_go_ends_them() {
        for line in ["x -addr=a", "-- -addr=a", "- -addr=a"] {
            assert_eq!(options(line).addr, None, "{line}");
        }
        assert!(matches!(parse(["-version".into()]), Ok(Wanted::Version)));
        assert!(matches!(parse(["-version=false".into()]), Ok(Wanted::Probe(_))));
    }

    #[test]
    fn what_is_wrong_is_said_as_go_says_it() {
        for (line, said) in [
            ("-foo", "flag provided but not defined: -foo"),
            ("---", "bad flag syntax: ---"),
            ("--=x", "bad flag syntax: --=x"),
            ("-addr", "flag needs an argument: -addr"),
            ("-tls=maybe", "invalid boolean value \"maybe\" for -tls: parse error"),
            ("-rpc-timeout 1", "invalid value \"1\" for flag -rpc-timeout: parse error"),
            (
                "-rpc-header x",
                "invalid value \"x\" for flag -rpc-header: invalid RPC header, expected 'key: value', got \"x\"",
            ),
            ("-help", "Usage:"),
            ("-h", "Usage:"),
        ] {
            assert_eq!(problem(line), said);
        }
    }

    #[test]
    fn the_usage_has_every_flag_in_gos_form() {
        let usage = refusal("");
        for entry in ["  -addr string\n    \t", "  -tls\n    \t", "(default 1s)\n", "  -v\t", "  -rpc-header value\n"] {
            assert!(usage.contains(entry), "{entry:?} is not in {usage}");
        }
        assert_eq!(usage.lines().filter(|line| line.starts_with("  -")).count(), FLAGS.len());
    }
}
