//! The containers that a case wants: so many, all alike.

/// How many lines the image's file `/lines` has.
pub const LINES_IN_FILE: usize = 20_000;

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    Sleep,
    /// Waits for the file `/go`, then writes `/lines` so often, each line by a `write` of its own.
    Write {
        rounds: usize,
    },
}

/// What looks after a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care {
    Nothing,
    /// Restarted whenever it ends.
    Restart,
    /// Checked every second by a command in it, which adds a byte to `/checks`.
    Health,
}

#[derive(Debug, Clone, Copy)]
pub struct Fleet {
    pub count: usize,
    pub workload: Workload,
    pub care: Care,
    /// In the environment of the first container: another value makes it another container.
    pub generation: usize,
}

/// Adds a byte to the file that counts the checks.
pub const CHECK: &str = "echo -n x >>/checks";

impl Fleet {
    pub fn sleeping(count: usize) -> Fleet {
        Fleet { count, workload: Workload::Sleep, care: Care::Nothing, generation: 0 }
    }

    pub fn names(&self) -> impl Iterator<Item = String> {
        (0..self.count).map(|number| format!("c{number:03}"))
    }

    pub fn command(&self) -> Vec<String> {
        match self.workload {
            Workload::Sleep => vec!["sleep".into(), "424242".into()],
            Workload::Write { rounds } => {
                let write = "until [ -e /go ]; do sleep 0.01; done; n=0; while [ $n -lt $0 ]; do \
                    dd if=/lines bs=64 2>/dev/null; n=$((n+1)); done";
                vec!["sh".into(), "-c".into(), write.into(), rounds.to_string()]
            }
        }
    }

    /// Its first processes, as the kernel lists them.
    pub fn processes(&self) -> Vec<u32> {
        let command = self.command();
        crate::processes::with_arguments(&command.iter().map(String::as_str).collect::<Vec<_>>())
    }
}
