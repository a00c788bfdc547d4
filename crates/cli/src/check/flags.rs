//! Flags with one or two dashes, as Go's programs take them, brought into the one form that clap takes.

use std::ffi::OsString;

/// Rewrites what follows the first `subcommand`: `-addr x` and `--addr x` become `--addr=x`, whatever `x` begins with.
/// `command` is the subcommand with its flags; those that it does not know stay recognisable, so that clap can name the
/// nearest.
pub(crate) fn normalized(
    arguments: impl IntoIterator<Item = OsString>,
    subcommand: &str,
    command: &clap::Command,
) -> Vec<OsString> {
    let mut arguments = arguments.into_iter();
    let mut normal = Vec::new();
    for argument in arguments.by_ref() {
        let is_subcommand = argument == subcommand;
        normal.push(argument);
        if is_subcommand {
            break;
        }
    }
    while let Some(argument) = arguments.next() {
        let Some(flag) = argument.to_str().and_then(Flag::parse) else {
            let ends_flags = argument == "--";
            normal.push(argument);
            if ends_flags {
                break;
            }
            continue;
        };
        let mut long = OsString::from(format!("--{}", flag.name));
        let value = match flag.value {
            Some(value) => Some(value.into()),
            None if flag.takes_a_value(command) => arguments.next(),
            None => None,
        };
        if let Some(value) = value {
            long.push("=");
            long.push(value);
        }
        normal.push(if flag.is_short(command) { argument } else { long });
    }
    normal.extend(arguments);
    normal
}

/// `-name`, `--name`, and each with `=value`.
struct Flag<'a> {
    name: &'a str,
    value: Option<&'a str>,
    dashes: usize,
}

impl<'a> Flag<'a> {
    fn parse(argument: &'a str) -> Option<Self> {
        let body = argument.strip_prefix('-')?;
        let (body, dashes) = body.strip_prefix('-').map_or((body, 1), |body| (body, 2));
        let (name, value) = body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value)));
        name.starts_with(|c: char| c.is_ascii_alphabetic()).then_some(Self { name, value, dashes })
    }

    fn known<'c>(&self, command: &'c clap::Command) -> Option<&'c clap::Arg> {
        command.get_arguments().find(|known| {
            known.get_long() == Some(self.name) || known.get_all_aliases().is_some_and(|all| all.contains(&self.name))
        })
    }

    fn takes_a_value(&self, command: &clap::Command) -> bool {
        self.known(command).is_some_and(|known| known.get_action().takes_values() && !known.is_require_equals_set())
    }

    /// One letter behind one dash, such as `-h`, unless it is the whole name of a flag.
    fn is_short(&self, command: &clap::Command) -> bool {
        self.dashes == 1 && self.name.len() == 1 && self.known(command).is_none()
    }
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction, Command};

    use super::*;

    fn normal(line: &str) -> String {
        let command = Command::new("check")
            .arg(Arg::new("addr").long("addr"))
            .arg(Arg::new("tls").long("tls").num_args(0..=1).require_equals(true))
            .arg(Arg::new("watch").long("watch").action(ArgAction::SetTrue))
            .arg(Arg::new("verbose").long("verbose").alias("v").short('v').num_args(0..=1).require_equals(true));
        let arguments = line.split(' ').map(OsString::from);
        let joined: Vec<_> =
            normalized(arguments, "check", &command).into_iter().map(|a| a.into_string().unwrap()).collect();
        joined.join(" ")
    }

    #[test]
    fn one_dash_is_as_good_as_two() {
        assert_eq!(normal("evenkeel check -addr x -tls"), "evenkeel check --addr=x --tls");
        assert_eq!(normal("evenkeel check --addr x --tls=false y"), "evenkeel check --addr=x --tls=false y");
        assert_eq!(normal("evenkeel check -tls true"), "evenkeel check --tls true");
        assert_eq!(normal("evenkeel check -watch -v -v=0"), "evenkeel check --watch --v --v=0");
    }

    #[test]
    fn a_value_may_look_like_a_flag_and_be_missing() {
        assert_eq!(normal("evenkeel check -addr -tls"), "evenkeel check --addr=-tls");
        assert_eq!(normal("evenkeel check -addr"), "evenkeel check --addr");
    }

    #[test]
    fn what_is_unknown_or_no_flag_stays_recognisable() {
        assert_eq!(normal("evenkeel check -adr x -h - -1 --"), "evenkeel check --adr x -h - -1 --");
        assert_eq!(normal("evenkeel check -- -addr x"), "evenkeel check -- -addr x");
        assert_eq!(normal("evenkeel proxy -x check -addr"), "evenkeel proxy -x check --addr");
        assert_eq!(normal("evenkeel proxy -x"), "evenkeel proxy -x");
    }
}
