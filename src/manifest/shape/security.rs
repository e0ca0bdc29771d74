//! How far a container is locked in, and whose users it has.

use super::advice;
use crate::manifest::problem::Placed;
use crate::manifest::read::{Read, Reading, Whole, choice, either, placed, table};
use crate::manifest::tree::{Node, Value};

table! {
    /// A range of the host's users and groups: 0 inside is `uid_start` outside.
    UsersTable: "a range of users", requires ["uid_start"], advice advice::USERS, {
        /// The first one.
        uid_start: Whole<1, 4294901759>,
        /// How many. Default: 65536.
        size: Whole<1, 4294901759>,
    }
}

table! {
    /// How far a container is locked in.
    Security: "a container's security", requires [], advice advice::SECURITY, {
        /// `hardened`: a root that cannot be written to, no capabilities, users of its own. Default: `default`.
        profile: Profile,
        /// `default`, `unconfined`, or the path of a profile in Docker's JSON format, relative to this file.
        seccomp: String,
    }
}

/// What several keys begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::manifest) enum Profile {
    Default,
    Hardened,
}

choice!(Profile, "a security profile", [
    "default" => Profile::Default,
    "hardened" => Profile::Hardened,
]);

/// `host`, `auto`, or a range.
#[derive(Debug)]
pub(in crate::manifest) enum UsersWord {
    Host,
    Auto,
    Range(Placed<UsersTable>),
}

/// The words of it.
#[derive(Debug, Clone, Copy)]
enum UsersChoice {
    Host,
    Auto,
}

choice!(UsersChoice, "whose users it has", [
    "host" => UsersChoice::Host,
    "auto" => UsersChoice::Auto,
]);

impl Read for UsersWord {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<UsersWord> {
        match &node.value {
            Value::Table(_) => placed(node, reading).map(UsersWord::Range),
            _ => UsersChoice::read(node, reading).map(|word| match word {
                UsersChoice::Host => UsersWord::Host,
                UsersChoice::Auto => UsersWord::Auto,
            }),
        }
    }
}

either!(UsersWord: UsersChoice, UsersTable);
