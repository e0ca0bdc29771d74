//! `process.scheduler` and `process.ioPriority` (config.md, "Linux Process"), set while the process may still do so.

use oci_spec::runtime::{IOPriorityClass, LinuxSchedulerFlag, LinuxSchedulerPolicy, Process, Scheduler};

use super::error::{Context, RuntimeError, invalid, unsupported};
use crate::sys::scheduling::{self, Attributes};

/// When a process runs, beside others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Scheduling {
    io: Option<i32>,
    policy: Option<Attributes>,
}

/// Reads both.
pub(super) fn prepare(process: &Process) -> Result<Scheduling, RuntimeError> {
    let io = process.io_priority().as_ref().map(|wanted| io_priority(wanted.class(), wanted.priority()));
    Ok(Scheduling { io: io.transpose()?, policy: process.scheduler().as_ref().map(attributes).transpose()? })
}

/// Class in the upper bits, priority in the lower 13 (linux/ioprio.h).
fn io_priority(class: IOPriorityClass, priority: i64) -> Result<i32, RuntimeError> {
    let class = match class {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match priority {
        0..=7 => Ok(class << 13 | priority as i32),
        _ => Err(invalid("process.ioPriority.priority", "it lies between 0 and 7")),
    }
}

fn attributes(wanted: &Scheduler) -> Result<Attributes, RuntimeError> {
    let policy = match wanted.policy() {
        LinuxSchedulerPolicy::SchedOther => libc::SCHED_OTHER,
        LinuxSchedulerPolicy::SchedFifo => libc::SCHED_FIFO,
        LinuxSchedulerPolicy::SchedRr => libc::SCHED_RR,
        LinuxSchedulerPolicy::SchedBatch => libc::SCHED_BATCH,
        LinuxSchedulerPolicy::SchedIdle => libc::SCHED_IDLE,
        LinuxSchedulerPolicy::SchedDeadline => libc::SCHED_DEADLINE,
        LinuxSchedulerPolicy::SchedIso => {
            return Err(unsupported("process.scheduler.policy", "Linux has reserved `SCHED_ISO` and never had it"));
        }
    };
    let priority = u32::try_from(wanted.priority().unwrap_or(0));
    let mut flags = 0;
    for flag in wanted.flags().iter().flatten() {
        flags |= bit(*flag)?;
    }
    Ok(Attributes {
        policy: policy as u32,
        flags,
        nice: wanted.nice().unwrap_or(0),
        priority: priority.map_err(|_| invalid("process.scheduler.priority", "it cannot be below 0"))?,
        runtime: wanted.runtime().unwrap_or(0),
        deadline: wanted.deadline().unwrap_or(0),
        period: wanted.period().unwrap_or(0),
        ..Attributes::default()
    })
}

/// linux/sched.h, `SCHED_FLAG_*`.
fn bit(flag: LinuxSchedulerFlag) -> Result<u64, RuntimeError> {
    Ok(match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin | LinuxSchedulerFlag::SchedFlagUtilClampMax => {
            return Err(unsupported(
                "process.scheduler.flags",
                format!("`{flag}`: the specification has no clamp to set"),
            ));
        }
    })
}

impl Scheduling {
    /// Early, and copies of the process have it too (ioprio_set(2)): before Linux 5.16 the class of real time takes
    /// `CAP_SYS_ADMIN`, which who is seen by a container has not.
    pub(super) fn set_io_priority(&self) -> Result<(), RuntimeError> {
        match self.io {
            Some(value) => scheduling::set_io_priority(value).during("set", "process.ioPriority"),
            None => Ok(()),
        }
    }

    /// No copy has every policy (`SCHED_DEADLINE`, sched(7)), so the process itself takes it.
    pub(super) fn apply(&self) -> Result<(), RuntimeError> {
        if let Some(attributes) = self.policy {
            scheduling::set_attributes(attributes).during("set", "process.scheduler")?;
        }
        Ok(())
    }
}
