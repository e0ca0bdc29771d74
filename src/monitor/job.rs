//! A further process in the container, from the errand that starts it to its end.

use rustix::process::{Pid, Signal, kill_process};

use super::errand::{Errand, Report};

/// One process to be, or at work. Whoever owns the job is told of its end by the loop, which reaps.
#[derive(Debug)]
pub struct Job {
    /// Until the process runs.
    pub errand: Option<Errand>,
    pub pid: Option<Pid>,
}

impl Job {
    pub fn new(errand: Errand) -> Job {
        Job { errand: Some(errand), pid: None }
    }

    /// What the errand said since; takes the process over when it runs.
    pub fn report(&mut self) -> Report {
        let Some(errand) = &self.errand else { return Report::Nothing };
        let report = errand.report();
        if let Report::Started { pid, .. } = &report {
            self.pid = Some(*pid);
            self.errand = None;
        }
        report
    }

    /// Ends it. Nobody needs to wait: the loop reaps what ends.
    pub fn kill(&self) {
        match (self.pid, &self.errand) {
            (Some(pid), _) => {
                // Not reaped yet, since the owner has not been told; it may have ended, and that is as good.
                let _ = kill_process(pid, Signal::KILL);
            }
            (None, Some(errand)) => errand.kill(),
            (None, None) => {}
        }
    }
}
