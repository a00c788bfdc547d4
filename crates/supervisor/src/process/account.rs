//! Users and groups by name, from `/etc/passwd` and `/etc/group`.

use std::{fs, io};

use rustix::process::{getegid, geteuid};
use serde::{Deserialize, Serialize};

/// Whom a process is to run as, by numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) user: u32,
    pub(super) group: u32,
    /// The supplementary groups.
    pub(super) groups: Vec<u32>,
}

impl Identity {
    /// Whether we are that already, so that nothing has to change. Then supplementary groups stay as they are, too.
    pub(super) fn is_ours(&self) -> bool {
        self.user == geteuid().as_raw() && self.group == getegid().as_raw()
    }
}

/// An identity, and what the environment says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) identity: Identity,
    /// None for a user given by number that is not in `/etc/passwd`.
    pub(super) name: Option<String>,
    pub(super) home: Option<String>,
}

/// Why a user or a group cannot be found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// `/etc/passwd` has no such user.
    #[error("there is no user `{0}` in /etc/passwd: create it, or name one that exists or a number")]
    UnknownUser(String),
    /// `/etc/group` has no such group.
    #[error("there is no group `{0}` in /etc/group: create it, or name one that exists or a number")]
    UnknownGroup(String),
    /// A group without a user.
    #[error("a group (`{0}`) is given without a user: name the user too")]
    GroupWithoutUser(String),
    /// A number that is not in `/etc/passwd` has no group of its own.
    #[error("user {0} is not in /etc/passwd, so that its group is not known: name the group too")]
    NoGroup(u32),
    /// One of the two files cannot be read.
    #[error("cannot read {file}: {error}")]
    Unreadable {
        /// Which one.
        file: &'static str,
        /// Why.
        error: io::Error,
    },
}

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

impl Account {
    /// Looks up a user, and a group other than the user's own if one is given; each by name or by number.
    pub(super) fn find(user: &str, group: Option<&str>) -> Result<Self, AccountError> {
        Self::parse(&read(PASSWD)?, &read(GROUP)?, user, group)
    }

    fn parse(passwd: &str, groups: &str, user: &str, group: Option<&str>) -> Result<Self, AccountError> {
        let number = user.parse::<u32>().ok();
        let entry = passwd.lines().filter_map(User::parse).find(|entry| match number {
            Some(number) => entry.number == number,
            None => entry.name == user,
        });
        let group = group.map(|group| group_number(groups, group)).transpose()?;
        let (number, own_group) = match (&entry, number) {
            (Some(entry), _) => (entry.number, Some(entry.group)),
            (None, Some(number)) => (number, None),
            (None, None) => return Err(AccountError::UnknownUser(user.to_owned())),
        };
        let group = group.or(own_group).ok_or(AccountError::NoGroup(number))?;
        let supplementary = entry.as_ref().map_or_else(Vec::new, |entry| memberships(groups, entry.name));
        let groups = std::iter::once(group).chain(supplementary.into_iter().filter(|other| *other != group)).collect();
        Ok(Self {
            identity: Identity { user: number, group, groups },
            name: entry.as_ref().map(|entry| entry.name.to_owned()),
            home: entry.as_ref().map(|entry| entry.home.to_owned()),
        })
    }
}

/// A line of `/etc/passwd`.
struct User<'a> {
    name: &'a str,
    number: u32,
    group: u32,
    home: &'a str,
}

impl<'a> User<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let (number, group) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Self { name, number, group, home: fields.nth(1)? })
    }
}

/// The name, number and members of a line of `/etc/group`.
fn parse_group(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
    Some((name, fields.nth(1)?.parse().ok()?, fields.next().unwrap_or_default()))
}

fn group_number(groups: &str, group: &str) -> Result<u32, AccountError> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let found = groups.lines().filter_map(parse_group).find(|(name, ..)| *name == group);
    found.map(|(_, number, _)| number).ok_or_else(|| AccountError::UnknownGroup(group.to_owned()))
}

fn memberships(groups: &str, user: &str) -> Vec<u32> {
    let groups = groups.lines().filter_map(parse_group);
    let mine = groups.filter(|(_, _, members)| members.split(',').any(|member| member.trim() == user));
    mine.map(|(_, number, _)| number).collect()
}

fn read(file: &'static str) -> Result<String, AccountError> {
    let bytes = fs::read(file).map_err(|error| AccountError::Unreadable { file, error })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n# a comment\nbroken line\n\n\
        web:x:33:33:the web:/var/www:/usr/sbin/nologin\nodd:x:many:1::/:\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\nssl:x:110:mail,web\nlogs:x:4:web , root\nwebs:x:9:webmaster\n";

    fn find(user: &str, group: Option<&str>) -> Result<Account, AccountError> {
        Account::parse(PASSWD, GROUP, user, group)
    }

    #[test]
    fn a_user_has_its_group_and_supplementary_ones() {
        let web = find("web", None).expect("it is there");
        assert_eq!(web.identity, Identity { user: 33, group: 33, groups: vec![33, 110, 4] });
        assert_eq!((web.name.as_deref(), web.home.as_deref()), (Some("web"), Some("/var/www")));
        assert_eq!(find("33", None).expect("by number"), web);
    }

    #[test]
    fn another_group_takes_the_place_of_the_users_own() {
        assert_eq!(find("web", Some("ssl")).unwrap().identity.groups, [110, 4]);
        assert_eq!(
            find("web", Some("77")).unwrap().identity,
            Identity { user: 33, group: 77, groups: vec![77, 110, 4] }
        );
    }

    #[test]
    fn numbers_need_no_entry_but_a_group() {
        let account = find("1234", Some("5")).unwrap();
        assert_eq!(
            account,
            Account { identity: Identity { user: 1234, group: 5, groups: vec![5] }, name: None, home: None }
        );
        assert!(matches!(find("1234", None), Err(AccountError::NoGroup(1234))));
    }

    #[test]
    fn what_is_not_there_is_named() {
        assert!(matches!(find("nobody-here", None), Err(AccountError::UnknownUser(user)) if user == "nobody-here"));
        assert!(matches!(find("odd", None), Err(AccountError::UnknownUser(_))), "its number is none");
        assert!(matches!(find("web", Some("wheel")), Err(AccountError::UnknownGroup(group)) if group == "wheel"));
        assert!(matches!(find("", None), Err(AccountError::UnknownUser(_))));
    }

    #[test]
    fn any_text_is_read_without_a_panic() {
        for text in ["", ":", "::::::", ":::\n::", "a:b", "a:b:c:d:e:f:g:h", "\u{0}:\u{0}"] {
            assert!(Account::parse(text, text, "someone", None).is_err());
        }
    }
}
