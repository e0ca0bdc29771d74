//! The netfilter socket: transactions in, the list of a table out.

use std::io;
use std::time::Duration;

use netlink_packet_core::{DefaultNla, parse_string, parse_u32_be};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use sha2::{Digest, Sha256};

use super::super::netlink::{Batch, Netlink, Tries, attributes};
use super::super::snapshot::Snapshot;
use super::conversations::{self, Stale};
use super::record;
use super::table::{DIGEST, RECORD};
use crate::model::firewall::Ruleset;

/// Batches of some thousand ports, and their acknowledgements.
const ROOM: usize = 8 << 20;

pub(super) struct Kernel {
    netlink: Netlink,
}

/// A table as the kernel lists it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    /// Of everything but `sealed`.
    pub digest: [u8; 32],
    /// The digest that was written down.
    pub sealed: Option<[u8; 32]>,
    /// User data of the elements of the record, in their order.
    pub record: Vec<Vec<u8>>,
}

impl Listed {
    pub fn is_intact(&self) -> bool {
        self.sealed == Some(self.digest)
    }
}

/// linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h: subsystem and message types.
const NFTABLES: u16 = 10 << 8;
const GETTABLE: u16 = NFTABLES | 1;
const GETCHAIN: u16 = NFTABLES | 4;
const GETRULE: u16 = NFTABLES | 7;
const GETSET: u16 = NFTABLES | 10;
const GETSETELEM: u16 = NFTABLES | 13;
const GETGEN: u16 = NFTABLES | 16;
const BATCH_BEGIN: u8 = 16;

/// The attribute that names the table is the first of each kind of object but set elements', where it is too.
const TABLE: u16 = 1;
const SET_NAME: u16 = 2;
/// Attributes that differ between two tables that are the same: handles, positions, counters.
const TABLE_HANDLE: &[u16] = &[4];
const CHAIN_HANDLE_COUNTERS: &[u16] = &[2, 8];
const RULE_HANDLE_POSITION: &[u16] = &[3, 6];
/// NFTA_SET_COUNT counts the digest, too.
const SET_HANDLE_COUNT: &[u16] = &[16, 20];

/// How long the list is begun again that others' changes disturb.
const LIST_PATIENCE: Duration = Duration::from_secs(3);

impl Kernel {
    pub fn open() -> io::Result<Kernel> {
        let netlink = Netlink::open(NETLINK_NETFILTER)?;
        netlink.widen(ROOM)?;
        Ok(Kernel { netlink })
    }

    /// The number of the last change of any table of this namespace.
    pub fn generation(&mut self) -> io::Result<u32> {
        let answer = self.netlink.get(GETGEN, &header(NetfilterProtoFamily::Unspec))?;
        let id = objects(&answer).find(|(kind, _)| *kind == 1).and_then(|(_, value)| parse_u32_be(value).ok());
        id.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a generation without a number"))
    }

    /// Everything that `fill` adds, or nothing. With a generation: only while it is the current one.
    pub fn commit(&mut self, generation: Option<u32>, fill: impl FnOnce(&mut Batch)) -> io::Result<()> {
        let mut batch = self.netlink.batch();
        let begin = match generation {
            Some(id) => {
                let attributes = vec![DefaultNla::new(1, id.to_be_bytes().to_vec())];
                ControlMessage::Other { message_type: BATCH_BEGIN, attributes }
            }
            None => ControlMessage::BatchBegin,
        };
        let bracket = |control| {
            let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFTABLES >> 8);
            NetfilterMessage::new(header, control)
        };
        batch.push_silent(bracket(begin));
        fill(&mut batch);
        batch.push_silent(bracket(ControlMessage::BatchEnd));
        self.netlink.send(batch)
    }

    /// Conversations that the change from `old` to `new` concerns meet the rules anew.
    pub fn forget(&mut self, old: &Ruleset, new: &Ruleset) -> io::Result<()> {
        let stale = Stale::between(old, new);
        conversations::forget(&mut self.netlink, &stale, || {
            let host = Snapshot::of_links(&mut Netlink::open(NETLINK_ROUTE)?)?;
            Ok(host.addresses.into_iter().map(|(_, address, _)| address).collect())
        })
    }

    /// The table, all of one generation; `None` where there is none. Where others change other tables all the time, what is
    /// read twice in a row the same: none of these changes was about it.
    pub fn list(&mut self, name: &str) -> io::Result<Option<Listed>> {
        let mut tries = Tries::until(LIST_PATIENCE);
        let mut last = None;
        loop {
            let before = self.generation()?;
            let listed = match self.list_once(name) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => None,
                other => Some(other?),
            };
            if self.generation()? == before || last.as_ref() == Some(&listed) {
                return Ok(listed);
            }
            last = Some(listed);
            if !tries.again() {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "others change the firewall again and again"));
            }
        }
    }

    fn list_once(&mut self, name: &str) -> io::Result<Listed> {
        let mut listed = Listed::default();
        let mut digest = Sha256::new();
        let of_table = [header(NetfilterProtoFamily::Inet), text(TABLE, name)].concat();
        absorb(&mut digest, &self.netlink.get(GETTABLE, &of_table)?, TABLE_HANDLE);
        for (kind, volatile) in [(GETCHAIN, CHAIN_HANDLE_COUNTERS), (GETRULE, RULE_HANDLE_POSITION)] {
            // Not every kernel filters chains by table.
            let frames = self.netlink.dump(kind, &of_table)?;
            for (_, object) in frames.iter().filter(|(_, object)| names(object, TABLE) == Some(name.to_owned())) {
                absorb(&mut digest, object, volatile);
            }
        }
        let sets = self.netlink.dump(GETSET, &of_table)?;
        for (_, set) in sets.iter() {
            absorb(&mut digest, set, SET_HANDLE_COUNT);
            let Some(set) = names(set, SET_NAME) else { continue };
            let elements = self.elements(name, &set)?;
            match set.as_str() {
                DIGEST => {
                    listed.sealed = elements.first().and_then(|element| record::bytes(note(element)?)?.try_into().ok())
                }
                RECORD => {
                    let mut pieces: Vec<_> = elements.iter().filter_map(|e| Some((key(e)?, note(e)?))).collect();
                    pieces.sort();
                    listed.record = pieces.into_iter().map(|(_, note)| note.to_vec()).collect();
                    elements.iter().for_each(|element| feed(&mut digest, element));
                }
                _ => elements.iter().for_each(|element| feed(&mut digest, element)),
            }
        }
        listed.digest = digest.finalize().into();
        Ok(listed)
    }

    /// The elements of a set, sorted: the kernel keeps them in a hash table that it rebuilds when it likes.
    fn elements(&mut self, table: &str, set: &str) -> io::Result<Vec<Vec<u8>>> {
        let body = [header(NetfilterProtoFamily::Inet), text(TABLE, table), text(SET_NAME, set)].concat();
        let frames = self.netlink.dump(GETSETELEM, &body)?;
        let mut elements: Vec<Vec<u8>> = frames
            .iter()
            .flat_map(|(_, list)| objects(list).filter(|(kind, _)| *kind == 3))
            .flat_map(|(_, elements)| attributes(elements).map(|(_, element)| element.to_vec()))
            .collect();
        elements.sort();
        Ok(elements)
    }
}

/// struct nfgenmsg: family, version, resource.
fn header(family: NetfilterProtoFamily) -> Vec<u8> {
    vec![family.into(), 0, 0, 0]
}

fn text(kind: u16, text: &str) -> Vec<u8> {
    super::super::netlink::attribute(kind, &[text.as_bytes(), &[0]].concat())
}

/// The attributes of an object, behind its header.
fn objects(payload: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    attributes(payload.get(4..).unwrap_or_default())
}

fn names(object: &[u8], wanted: u16) -> Option<String> {
    let (_, value) = objects(object).find(|(kind, _)| *kind == wanted)?;
    parse_string(value).ok()
}

/// An element's key: NFTA_SET_ELEM_KEY holds NFTA_DATA_VALUE.
fn key(element: &[u8]) -> Option<&[u8]> {
    let (_, data) = attributes(element).find(|(kind, _)| *kind == 1)?;
    attributes(data).next().map(|(_, value)| value)
}

/// An element's user data.
fn note(element: &[u8]) -> Option<&[u8]> {
    attributes(element).find(|(kind, _)| *kind == 6).map(|(_, value)| value)
}

/// Adds an object without its volatile attributes to the digest.
fn absorb(digest: &mut Sha256, object: &[u8], volatile: &[u16]) {
    for (kind, value) in objects(object).filter(|(kind, _)| !volatile.contains(kind)) {
        feed(digest, &kind.to_be_bytes());
        feed(digest, value);
    }
}

/// With its length before it, so that the borders between two values count.
fn feed(digest: &mut Sha256, bytes: &[u8]) {
    digest.update((bytes.len() as u64).to_be_bytes());
    digest.update(bytes);
}
