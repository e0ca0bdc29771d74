//! One question of a health check, from asking to the verdict.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use super::conversation::{Conversation, Question, Verdict};
use super::errand::{self, Descriptors, Report};
use super::error::MonitorError;
use super::job::Job;
use super::netns::Home;
use super::protocol::{ExecSpec, chain};
use crate::model::health::{self, Healthcheck};
use crate::model::launch::Launch;
use crate::model::status::Exit;

/// As much of a command's output as Docker keeps.
const KEPT_OUTPUT: usize = 4096;

/// What is read at one time: who writes without end must not keep the monitor from everything else.
const READS: usize = 16;

/// What is read at all. Then nobody reads any more, and who goes on writing is told so by SIGPIPE.
const MOST_OUTPUT: usize = 16 << 20;

#[derive(Debug)]
enum Asking {
    Command { job: Job, output: Captured },
    Conversation(Conversation),
}

/// A probe under way.
#[derive(Debug)]
pub struct Probe {
    asking: Asking,
    timeout: Duration,
    pub deadline: Duration,
}

impl Probe {
    /// Begins to ask; a verdict at once when even that fails.
    pub fn begin(launch: &Launch, check: &Healthcheck, target: Target<'_>, now: Duration) -> Result<Probe, Verdict> {
        let netns = launch.netns.as_deref();
        let asking = match &check.probe {
            health::Probe::Command(command) => run(launch, command, target.pid).map_err(|error| chain(&error)),
            health::Probe::Http { port, path } => {
                Conversation::begin(target.home, netns, *port, Question::Get { path })
                    .map(Asking::Conversation)
                    .map_err(|error| format!("port {port}: {error}"))
            }
            health::Probe::Tcp { port } => Conversation::begin(target.home, netns, *port, Question::Connection)
                .map(Asking::Conversation)
                .map_err(|error| format!("port {port}: {error}")),
            health::Probe::None => Err("there is no check".to_owned()),
        };
        let timeout = check.timeout.to_duration();
        match asking {
            Ok(asking) => Ok(Probe { asking, timeout, deadline: now.saturating_add(timeout) }),
            Err(output) => Err(Verdict { healthy: false, output }),
        }
    }

    pub fn interests(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        match &self.asking {
            Asking::Command { job, output } => {
                let errand = job.errand.iter().map(|errand| errand.as_fd());
                errand.chain(output.pipe.iter().map(|pipe| pipe.as_fd())).map(|fd| (fd, PollFlags::IN)).collect()
            }
            Asking::Conversation(conversation) => vec![(conversation.as_fd(), conversation.interest())],
        }
    }

    /// Goes on as far as it can.
    pub fn advance(&mut self) -> Option<Verdict> {
        match &mut self.asking {
            Asking::Conversation(conversation) => conversation.advance(),
            Asking::Command { job, output } => {
                let verdict = match job.report() {
                    Report::Failed(failure) => Some(Verdict { healthy: false, output: failure.message }),
                    Report::Gone => Some(Verdict { healthy: false, output: "its start was ended".into() }),
                    Report::Started { .. } | Report::Cgroup(_) | Report::Nothing => None,
                };
                output.read();
                verdict
            }
        }
    }

    /// The process of a command, to be told of its end.
    pub fn pid(&self) -> Option<Pid> {
        match &self.asking {
            Asking::Command { job, .. } => job.pid,
            Asking::Conversation(_) => None,
        }
    }

    /// The command ended so.
    pub fn ended(&mut self, exit: Exit) -> Verdict {
        let healthy = exit == Exit::Code(0);
        let output = match &mut self.asking {
            Asking::Command { output, .. } => {
                output.read();
                String::from_utf8_lossy(&output.text).into_owned()
            }
            Asking::Conversation(_) => String::new(),
        };
        match exit {
            _ if !output.is_empty() => Verdict { healthy, output },
            Exit::Code(code) => Verdict { healthy, output: format!("exit status {code}") },
            Exit::Signal(signal) => Verdict { healthy, output: format!("ended by {signal}") },
            Exit::OutOfMemory => Verdict { healthy, output: "killed for memory".into() },
        }
    }

    /// Its time is over.
    pub fn expire(mut self) -> Verdict {
        let mut output = format!("no answer within {}", humantime::format_duration(self.timeout));
        if let Asking::Command { output: captured, .. } = &mut self.asking {
            captured.read();
            if !captured.text.is_empty() {
                output = format!("{output}, but: {}", String::from_utf8_lossy(&captured.text));
            }
        }
        self.cancel();
        Verdict { healthy: false, output }
    }

    pub fn cancel(self) {
        if let Asking::Command { job, .. } = &self.asking {
            job.kill();
        }
    }
}

/// Where to ask.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The container's first process.
    pub pid: Pid,
    pub home: &'a Home,
}

fn run(launch: &Launch, command: &[String], target: Pid) -> Result<Asking, MonitorError> {
    let failed = |source: io::Error| MonitorError::system("make a pipe", "a health check", source);
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    let nonblocking = fcntl_getfl(&ours).and_then(|flags| fcntl_setfl(&ours, flags | OFlags::NONBLOCK));
    nonblocking.map_err(|error| failed(error.into()))?;
    let stderr = theirs.try_clone().map_err(failed)?;
    let stdin = File::open("/dev/null").map_err(failed)?.into();
    let descriptors = Descriptors { stdin, stdout: theirs, stderr };
    let request = ExecSpec { command: command.to_vec(), ..ExecSpec::default() };
    let errand = errand::exec(launch, &request, Some(&descriptors), target)?;
    Ok(Asking::Command {
        job: Job::new(errand),
        output: Captured { pipe: Some(File::from(ours)), text: Vec::new(), passed: 0 },
    })
}

/// What a command writes: the beginning is kept and the rest let go, so that the command never waits.
#[derive(Debug)]
struct Captured {
    /// Until its end. The command's own end is another matter: somebody else may hold the pipe open for longer.
    pipe: Option<File>,
    text: Vec<u8>,
    /// How much has come.
    passed: usize,
}

impl Captured {
    fn read(&mut self) {
        let mut piece = [0; 4096];
        for _ in 0..READS {
            let Some(pipe) = &mut self.pipe else { return };
            match pipe.read(&mut piece) {
                Ok(count @ 1..) => {
                    self.passed += count;
                    if self.passed > MOST_OUTPUT {
                        self.pipe = None;
                    }
                    let room = KEPT_OUTPUT - self.text.len();
                    self.text.extend_from_slice(&piece[..count.min(room)]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => self.pipe = None,
            }
        }
    }
}
