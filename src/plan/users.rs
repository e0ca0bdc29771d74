//! Which of the host's users and groups a container gets.
//!
//! Ranges lie where no user of a usual host is: above those of systemd's (524288 to 1879048191, systemd.io
//! UIDS-GIDS) and of subuid(5) (from 100000 on), below its foreign ones (2147352576). A range is stored in the
//! container's record and never handed out twice in a state root, so that a container which breaks out of one meets
//! nothing that is another's.

use super::{FieldChange, Findings, World};
use crate::model::id::Instance;
use crate::model::record::ContainerRecord;
use crate::model::security::{IdRange, Users};

const FIRST: u32 = 1_879_048_192;
const BEHIND_LAST: u32 = 2_147_352_576;

/// What is taken.
pub(super) struct UserBook {
    taken: Vec<IdRange>,
}

impl UserBook {
    /// Every range in a record or declared.
    pub(super) fn of(world: &World<'_>) -> UserBook {
        let recorded = world.actual.containers.values().filter_map(|container| container.record.users);
        let recorded = recorded.chain(world.actual.unreadable.iter().filter_map(|record| record.users));
        let declared = world.desired.containers.values().filter_map(|container| match container.spec.users {
            Users::Range(range) => Some(range),
            Users::Host | Users::Auto => None,
        });
        UserBook { taken: recorded.chain(declared).collect() }
    }

    /// The range of an instance; that of the one whose place it takes, where it leaves first.
    pub(super) fn assign(
        &mut self,
        instance: &Instance,
        users: Users,
        heir_of: Option<&ContainerRecord>,
        findings: &mut Findings,
    ) -> Option<IdRange> {
        let range = match users {
            Users::Host => return None,
            Users::Range(range) => return Some(range),
            Users::Auto => heir_of.filter(|old| old.spec.users == Users::Auto).and_then(|old| old.users),
        };
        let range = range.or_else(|| self.lowest_free());
        match range {
            Some(range) => self.taken.push(range),
            None => findings.impossible(
                format!("container {instance}"),
                "no range of users is free".to_owned(),
                "give it one: `userns = { uid_start = .. }`",
            ),
        }
        range
    }

    fn lowest_free(&self) -> Option<IdRange> {
        let all = (FIRST..BEHIND_LAST).step_by(IdRange::USUAL_SIZE as usize);
        all.map(|start| IdRange { start, size: IdRange::USUAL_SIZE })
            .find(|range| !self.taken.iter().any(|taken| taken.overlaps(range)))
    }
}

/// Says which range was chosen.
pub(super) fn show(record: &ContainerRecord, changes: &mut [FieldChange]) {
    let Some(range) = record.users.filter(|_| record.spec.users == Users::Auto) else { return };
    for change in changes.iter_mut().filter(|change| change.field == "userns") {
        change.new = change.new.take().map(|text| format!("{text} at {}", range.start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_range_is_taken() {
        let range = |start, size| IdRange { start, size };
        let first = range(FIRST, 65536);
        let book = |taken: &[IdRange]| UserBook { taken: taken.to_vec() }.lowest_free();
        assert_eq!(book(&[]), Some(first));
        assert_eq!(book(&[first, range(FIRST + 131_072, 1)]), Some(range(FIRST + 65536, 65536)));
        assert_eq!(book(&[range(FIRST + 65535, 2)]), Some(range(FIRST + 131_072, 65536)));
        assert_eq!(book(&[range(1, u32::MAX - 1)]), None);
    }
}
