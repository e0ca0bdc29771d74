//! Resources and ulimits.

use crate::model::resources::{Resources, Ulimit, Ulimits};
use crate::model::units::ByteSize;

use super::{entries, value_of};
use crate::manifest::problem::{Placed, Problem};
use crate::manifest::read::Reading;
use crate::manifest::shape::container::{self as shape, Container};

/// Docker's minimum: with less the container's own start would be killed.
const MIN_MEMORY: ByteSize = ByteSize::from_mib(6);

pub(super) fn resources(written: &Container, reading: &mut Reading<'_>) -> Resources {
    let Some(written) = &written.resources else { return Resources::default() };
    check_memory(&written.value, reading);
    Resources {
        memory: value_of(&written.memory),
        memory_swap: value_of(&written.memory_swap),
        memory_reservation: value_of(&written.memory_reservation),
        cpus: value_of(&written.cpus),
        cpu_shares: written.cpu_shares.as_ref().map(|number| number.0.unsigned_abs()),
        cpuset: written.cpuset.as_ref().map(|list| list.0.clone()),
        pids: written.pids.as_ref().map(|number| number.0.unsigned_abs()),
    }
}

fn check_memory(written: &shape::Resources, reading: &mut Reading<'_>) {
    let memory = written.memory.as_ref();
    if let Some(memory) = memory.filter(|memory| memory.value < MIN_MEMORY) {
        let problem = Problem::at(&memory.place, format!("a container cannot start with {} of memory", memory.value));
        reading.report(problem.label(format!("expected at least {MIN_MEMORY}")));
    }
    match (&written.memory_swap, memory) {
        (None, _) => {}
        (Some(swap), None) if !written.unread.contains(&"memory") => reading
            .report(Problem::at(&swap.place, "`memory_swap` needs `memory`").label("it is memory and swap together")),
        (Some(swap), Some(memory)) if swap.value < memory.value => reading.report(
            Problem::at(&swap.place, "memory and swap together are less than memory alone")
                .label(format!("expected at least {}", memory.value))
                .related(&memory.place, "memory alone"),
        ),
        (Some(_), _) => {}
    }
    if let (Some(reservation), Some(memory)) = (&written.memory_reservation, memory)
        && reservation.value > memory.value
    {
        reading.report(
            Problem::at(&reservation.place, "more memory is reserved than may be used")
                .label(format!("expected at most {}", memory.value))
                .related(&memory.place, "the limit"),
        );
    }
}

pub(super) fn ulimits(written: &Container, reading: &mut Reading<'_>) -> Ulimits {
    let mut ulimits = Ulimits::new();
    for (name, limit) in entries(&written.ulimits) {
        if let Some(limit) = ulimit(limit, reading) {
            ulimits.insert(name.0.clone(), limit);
        }
    }
    ulimits
}

fn ulimit(written: &shape::Ulimit, reading: &mut Reading<'_>) -> Option<Ulimit> {
    let pair = match written {
        shape::Ulimit::Both(limit) => return Some(Ulimit { soft: limit.0, hard: limit.0 }),
        shape::Ulimit::Pair(pair) => pair,
    };
    let (soft, hard) = (pair.soft.as_ref()?, pair.hard.as_ref()?);
    if exceeds(soft, hard) {
        reading.report(
            Problem::at(&soft.place, "the soft limit is above the hard limit").related(&hard.place, "the hard limit"),
        );
    }
    Some(Ulimit { soft: soft.0, hard: hard.0 })
}

fn exceeds(
    soft: &Placed<crate::manifest::shape::form::Limit>,
    hard: &Placed<crate::manifest::shape::form::Limit>,
) -> bool {
    match (soft.0, hard.0) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(soft), Some(hard)) => soft > hard,
    }
}
