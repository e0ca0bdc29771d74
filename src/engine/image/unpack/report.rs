//! What an unpacking child tells its parent.

use serde::{Deserialize, Serialize};

use crate::engine::image::store::record::LayerRecord;
use crate::model::id::Digest;

/// The child's last words, as JSON on its standard output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    Unpacked { diff_id: Digest, record: LayerRecord },
    Listed { members: Vec<Listed> },
    Failed(Problem),
}

/// A file in an archive and where its bytes are, or a link to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub name: String,
    pub offset: u64,
    pub size: u64,
    pub link: Option<String>,
}

/// Why a stream could not be unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    DiskFull,
    /// More than the limit was needed.
    Memory,
    /// A sentence that names the member.
    Other(String),
}

impl Problem {
    pub fn new(text: impl Into<String>) -> Problem {
        Problem::Other(text.into())
    }

    /// A failure to write something that is no member.
    pub fn writing(what: &str, error: &std::io::Error) -> Problem {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Problem::DiskFull,
            _ => Problem::Other(format!("cannot {what}: {error}")),
        }
    }

    /// A failed system call on a member.
    pub fn on(action: &str, path: &[u8], error: rustix::io::Errno) -> Problem {
        match error {
            rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT => Problem::DiskFull,
            error => Problem::Other(format!("cannot {action} `{}`: {error}", show(path))),
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Problem::DiskFull => "the disk is full",
            Problem::Memory => "it takes more memory than is allowed",
            Problem::Other(text) => text,
        })
    }
}

/// A member's name for people.
pub fn show(path: &[u8]) -> String {
    match path {
        b"" => "/".to_owned(),
        path => path.escape_ascii().to_string(),
    }
}
