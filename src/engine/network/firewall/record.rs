//! The ruleset as the table itself remembers it: JSON in pieces, each the user data of one element of a set.

use std::io;

use serde::{Deserialize, Serialize};

use crate::model::firewall::Ruleset;

/// Raised when the rules that follow from a ruleset change, so that a table of an older Evenkeel is made anew.
const VERSION: u32 = 1;

/// Elements hold at most 256 bytes (NFT_USERDATA_MAXLEN).
const PIECE: usize = 240;

/// User data is a row of type, length, value (libnftnl's udata); this type is none of those that nft prints.
const KIND: u8 = 0x45;

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    ruleset: &'a Ruleset,
}

#[derive(Deserialize)]
struct Read {
    version: u32,
    ruleset: Ruleset,
}

/// The user data of the elements, in their order.
pub(super) fn write(ruleset: &Ruleset) -> io::Result<Vec<Vec<u8>>> {
    let text = serde_json::to_vec(&Written { version: VERSION, ruleset })?;
    Ok(text.chunks(PIECE).map(note).collect())
}

/// User data of at most [`PIECE`] bytes.
pub(super) fn note(bytes: &[u8]) -> Vec<u8> {
    [&[KIND, bytes.len() as u8], bytes].concat()
}

/// The bytes in user data.
pub(super) fn bytes(note: &[u8]) -> Option<&[u8]> {
    note.get(2..)
}

/// The ruleset in these pieces; `None` when it is not one of this version.
pub(super) fn read(pieces: &[Vec<u8>]) -> Option<Ruleset> {
    let values: Option<Vec<&[u8]>> = pieces.iter().map(|piece| bytes(piece)).collect();
    let read: Read = serde_json::from_slice(&values?.concat()).ok()?;
    (read.version == VERSION).then_some(read.ruleset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_ruleset_reads_back_from_its_pieces() {
        let mut ruleset = Ruleset::default();
        for port in 1..100 {
            let host = format!("*:{port}").parse().unwrap();
            ruleset.ports.entry(host).or_default().v4.insert("10.89.0.2:80".parse().unwrap());
        }
        let pieces = write(&ruleset).unwrap();
        assert!(pieces.len() > 5 && pieces.iter().all(|piece| piece.len() <= 256));
        assert_eq!(read(&pieces), Some(ruleset));
        assert_eq!(read(&pieces[1..]), None);
        assert_eq!(read(&[]), None);
    }
}
