//! How far a container is locked in: the profile is a word for several keys, which may say more but nothing else.

use crate::model::container::{Capabilities, CapabilitySet, Namespace};
use crate::model::seccomp::Seccomp;
use crate::model::security::{Capability, IdRange, Users};

use super::value_of;
use crate::manifest::problem::{Place, Placed, Problem, Source};
use crate::manifest::read::Reading;
use crate::manifest::shape::container::Container;
use crate::manifest::shape::security::{Profile, UsersWord};

/// What `security` and `userns` say, with the keys that a profile stands for.
pub(super) struct Security {
    pub read_only: bool,
    pub users: Users,
    pub pid: Namespace,
    pub ipc: Namespace,
    pub seccomp: Seccomp,
    pub capabilities: Capabilities,
}

/// Powers over what belongs to the host and to no user namespace (capabilities(7)): the network namespace among it,
/// since the engine lays the links.
const OF_THE_HOST: [&str; 12] = [
    "AUDIT_CONTROL",
    "LINUX_IMMUTABLE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BROADCAST",
    "NET_RAW",
    "SYSLOG",
    "SYS_BOOT",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_TIME",
    "WAKE_ALARM",
];

pub(super) fn security(written: &Container, capabilities: Capabilities, reading: &mut Reading<'_>) -> Security {
    let table = written.security.as_ref().map(|table| &table.value);
    let profile = table.and_then(|table| table.profile.as_ref());
    let hardened = profile.filter(|profile| profile.value == Profile::Hardened);
    let users = written.userns.as_ref().map(|users| (&users.place, of_word(&users.value, reading)));
    if let Some(profile) = hardened {
        check_hardened(written, &profile.place, reading);
    }
    let users = match users {
        Some((_, users)) => users,
        None if hardened.is_some() => Users::Auto,
        None => Users::Host,
    };
    check_users(written, users, &capabilities, reading);
    check_namespaces(written, users, reading);
    let seccomp = table.and_then(|table| table.seccomp.as_ref());
    Security {
        read_only: value_of(&written.read_only).unwrap_or(hardened.is_some()),
        users,
        pid: value_of(&written.pid).unwrap_or_default(),
        ipc: value_of(&written.ipc).unwrap_or_default(),
        seccomp: seccomp.map(|word| filter(word, reading)).unwrap_or_default(),
        capabilities: match hardened {
            Some(_) => Capabilities { drop: CapabilitySet::All, ..capabilities },
            None => capabilities,
        },
    }
}

fn of_word(word: &UsersWord, reading: &mut Reading<'_>) -> Users {
    let table = match word {
        UsersWord::Host => return Users::Host,
        UsersWord::Auto => return Users::Auto,
        UsersWord::Range(table) => table,
    };
    let start = table.uid_start.as_ref().map_or(0, |number| number.0 as u32);
    let size = table.size.as_ref().map_or(IdRange::USUAL_SIZE, |number| number.0 as u32);
    // 4294967295 is nobody's number (setreuid(2)).
    if start.checked_add(size).is_none() {
        let problem = Problem::at(&table.place, "this range of users ends above the largest number");
        reading.report(problem.label("expected an end of 4294967295 at most"));
    }
    Users::Range(IdRange { start, size })
}

/// A key that says otherwise than the profile is a contradiction, not an exception: who wants an exception writes the
/// keys.
fn check_hardened(written: &Container, profile: &Place, reading: &mut Reading<'_>) {
    let mut refuse = |place: &Place, what: &str| {
        let problem = Problem::at(place, format!("a hardened container {what}"));
        let problem = problem.label("contradicts the profile").related(profile, "hardened here");
        reading.report(problem.help("take this out, or write the keys that you want in place of the profile"));
    };
    if let Some(key) = written.read_only.as_ref().filter(|key| !key.value) {
        refuse(&key.place, "has a root filesystem that cannot be written to");
    }
    if let Some(key) = written.privileged.as_ref().filter(|key| key.value) {
        refuse(&key.place, "is not privileged");
    }
    if let Some(key) = written.userns.as_ref().filter(|key| matches!(key.value, UsersWord::Host)) {
        refuse(&key.place, "has users of its own");
    }
}

/// The host's namespaces belong to its own users: who has others can neither mount their /proc nor their queues.
fn check_namespaces(written: &Container, users: Users, reading: &mut Reading<'_>) {
    let all = [("pid", &written.pid), ("ipc", &written.ipc)];
    let shared = all.into_iter().filter_map(|(key, word)| Some((key, word.as_ref()?)));
    for (key, word) in shared.filter(|(_, word)| word.value == Namespace::Host && users != Users::Host) {
        let problem = Problem::at(&word.place, format!("`{key}` of the host needs the host's users"));
        let problem = problem.label("the container has users of its own");
        reading.report(match (&written.userns, &written.security) {
            (Some(own), _) => problem.related(&own.place, "declared here"),
            (None, Some(security)) => problem.related(&security.place, "hardened here"),
            (None, None) => problem,
        });
    }
}

fn check_users(written: &Container, users: Users, capabilities: &Capabilities, reading: &mut Reading<'_>) {
    if users == Users::Host {
        return;
    }
    if let (Some(key), Some(users)) = (written.privileged.as_ref().filter(|key| key.value), &written.userns) {
        let problem = Problem::at(&key.place, "a privileged container has the host's users");
        reading.report(problem.label("it is the host's root").related(&users.place, "declared to have others"));
    }
    let CapabilitySet::Some(added) = &capabilities.add else { return };
    let useless: Vec<&Capability> =
        added.iter().filter(|capability| OF_THE_HOST.contains(&capability.to_string().as_str())).collect();
    if let (Some(key), Some(first)) = (&written.cap_add, useless.first()) {
        let problem = Problem::at(&key.place, format!("`{first}` means nothing to a container with users of its own"));
        reading
            .report(problem.label("a power over what is the host's").help("write `userns = \"host\"`, or take it out"));
    }
}

fn filter(word: &Placed<String>, reading: &mut Reading<'_>) -> Seccomp {
    match word.value.as_str() {
        "default" => return Seccomp::Default,
        "unconfined" => return Seccomp::Unconfined,
        _ => {}
    }
    let path = reading.absolute(&word.place, &word.value);
    let shown = path.display().to_string();
    let read = match (reading.surroundings.read_file)(&path) {
        Ok(text) => text,
        Err(error) => {
            let problem = Problem::at(&word.place, format!("cannot read the seccomp profile `{shown}`"));
            reading.report(
                problem.label(error.to_string()).help("`default`, `unconfined` or the path of a profile is expected"),
            );
            return Seccomp::Default;
        }
    };
    let parsed = read.parse();
    reading.sources.push(Source { path, text: read });
    match parsed {
        Ok(profile) => Seccomp::Profile { path: shown, profile: Box::new(profile) },
        Err(error) => {
            let problem = Problem::at(&word.place, format!("`{shown}` is no seccomp profile"));
            let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            reading.report(problem.label(why).help("the format is Docker's: `defaultAction`, `archMap`, `syscalls`"));
            Seccomp::Default
        }
    }
}
