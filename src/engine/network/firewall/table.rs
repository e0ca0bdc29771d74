//! A table as data, and the requests that make it.

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DataAttribute, Hook as HookAttribute, HookNumber, InetHookNumber, ListAttribute,
    NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute, SetElementAttribute, SetElementList, SetElementMessage,
    SetFlags, SetMessage, TableAttribute, TableMessage,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};

use super::super::netlink::Batch;
use super::expression::Expression;
use super::record;

#[derive(Debug, Default)]
pub(super) struct Table {
    pub sets: Vec<Set>,
    pub chains: Vec<Chain>,
}

#[derive(Debug)]
pub(super) struct Set {
    pub name: String,
    pub key: &'static [Kind],
    /// What an element stands for, where the set is a map.
    pub value: &'static [Kind],
    pub elements: Vec<Element>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Element {
    pub key: Vec<u8>,
    /// Empty in a set that is no map.
    pub value: Vec<u8>,
    /// Empty where there is none.
    pub note: Vec<u8>,
}

/// What a part of a key is. The kernel knows lengths only; the number is nft's, which prints by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    V4,
    V6,
    Protocol,
    Port,
    Link,
    Number,
}

#[derive(Debug)]
pub(super) struct Chain {
    pub name: &'static str,
    pub hook: Option<Hook>,
    pub rules: Vec<Vec<Expression>>,
}

/// Where a chain is entered, and before and behind which others (netfilter's priorities).
#[derive(Debug, Clone, Copy)]
pub(super) struct Hook {
    pub kind: &'static str,
    pub place: InetHookNumber,
    pub priority: i32,
}

/// The set whose one element has the digest of the rest as user data, and the set that has the ruleset so.
pub(super) const DIGEST: &str = "digest";
pub(super) const RECORD: &str = "record";

/// So many elements stay below the 64 KiB that an attribute can hold.
const ELEMENTS_A_REQUEST: usize = 150;

impl Kind {
    /// The number of nft's data type, and the length in bytes. In a concatenation each part is padded to four.
    fn number_and_length(self) -> (u32, u32) {
        match self {
            Kind::V4 => (7, 4),
            Kind::V6 => (8, 16),
            Kind::Protocol => (12, 1),
            Kind::Port => (13, 2),
            Kind::Link => (41, libc::IFNAMSIZ as u32),
            Kind::Number => (19, 4),
        }
    }

    /// Type and length of a key or value of these parts.
    fn concatenated(parts: &[Kind]) -> (u32, u32) {
        match parts {
            [one] => one.number_and_length(),
            _ => parts.iter().map(|part| part.number_and_length()).fold((0, 0), |(numbers, sum), (number, length)| {
                (numbers << 6 | number, sum + length.next_multiple_of(4))
            }),
        }
    }
}

/// Declares, deletes and declares the table, so that it does not matter whether it was there, and fills it: sets,
/// chains, elements, rules, since each may name what came before.
pub(super) fn replace(batch: &mut Batch, name: &str, wanted: &Table) {
    remove(batch, name);
    declare(batch, name);
    for (number, set) in (1..).zip(&wanted.sets) {
        batch.push(message(NfTablesMessage::NewSet(set_message(name, set, number))), NLM_F_CREATE);
    }
    for chain in &wanted.chains {
        batch.push(message(NfTablesMessage::NewChain(chain_message(name, chain))), NLM_F_CREATE);
    }
    for set in &wanted.sets {
        for elements in set.elements.chunks(ELEMENTS_A_REQUEST) {
            add_elements(batch, name, &set.name, elements);
        }
    }
    for chain in &wanted.chains {
        for rule in &chain.rules {
            let attributes = vec![
                RuleAttribute::Table(name.to_owned()),
                RuleAttribute::Chain(chain.name.to_owned()),
                RuleAttribute::Expressions(rule.clone()),
            ];
            batch.push(message(NfTablesMessage::NewRule(RuleMessage { attributes })), NLM_F_CREATE | NLM_F_APPEND);
        }
    }
}

/// Deletes the table. It is declared first, because deleting what is not there is an error.
pub(super) fn remove(batch: &mut Batch, name: &str) {
    declare(batch, name);
    batch.push(message(NfTablesMessage::DeleteTable(table_message(name))), 0);
}

/// Writes the digest down.
pub(super) fn seal(batch: &mut Batch, name: &str, digest: [u8; 32]) {
    let element = Element { key: vec![0; 4], note: record::note(&digest), ..Element::default() };
    add_elements(batch, name, DIGEST, &[element]);
}

fn declare(batch: &mut Batch, name: &str) {
    batch.push(message(NfTablesMessage::NewTable(table_message(name))), NLM_F_CREATE);
}

fn table_message(name: &str) -> TableMessage {
    TableMessage { attributes: vec![TableAttribute::Name(name.to_owned())] }
}

fn set_message(table: &str, set: &Set, number: u32) -> SetMessage {
    let (key_type, key_length) = Kind::concatenated(set.key);
    let mut attributes = vec![
        SetAttribute::Table(table.to_owned()),
        SetAttribute::Name(set.name.clone()),
        SetAttribute::Id(number),
        SetAttribute::KeyType(key_type),
        SetAttribute::KeyLen(key_length),
    ];
    if set.key == [Kind::Link] {
        // For people: without a word on the order of the bytes (NFTNL_UDATA_SET_KEYBYTEORDER, 1 is the host's) nft
        // prints these names as nothing.
        attributes.push(SetAttribute::UserData([&[0, 4][..], &1u32.to_ne_bytes()].concat()));
    }
    if !set.value.is_empty() {
        let (data_type, data_length) = Kind::concatenated(set.value);
        attributes.push(SetAttribute::Flags(SetFlags::Map));
        attributes.push(SetAttribute::DataType(data_type));
        attributes.push(SetAttribute::DataLen(data_length));
    }
    SetMessage { attributes }
}

fn chain_message(table: &str, chain: &Chain) -> ChainMessage {
    let mut attributes = vec![ChainAttribute::Table(table.to_owned()), ChainAttribute::Name(chain.name.to_owned())];
    if let Some(hook) = chain.hook {
        const NF_ACCEPT: u32 = 1;
        attributes.push(ChainAttribute::Hook(vec![
            HookAttribute::Number(HookNumber::Inet(hook.place)),
            HookAttribute::Priority(hook.priority as u32),
        ]));
        attributes.push(ChainAttribute::Type(hook.kind.to_owned()));
        attributes.push(ChainAttribute::Policy(NF_ACCEPT));
    }
    ChainMessage { attributes }
}

fn add_elements(batch: &mut Batch, table: &str, set: &str, elements: &[Element]) {
    let elements = elements.iter().map(|Element { key, value, note }| {
        let mut attributes = vec![SetElementAttribute::Key(DataAttribute::Value(key.clone()))];
        if !value.is_empty() {
            attributes.push(SetElementAttribute::Data(DataAttribute::Value(value.clone())));
        }
        if !note.is_empty() {
            attributes.push(SetElementAttribute::UserData(note.clone()));
        }
        ListAttribute::Element(attributes)
    });
    let attributes = vec![
        SetElementList::Table(table.to_owned()),
        SetElementList::Set(set.to_owned()),
        SetElementList::Elements(elements.collect()),
    ];
    batch.push(message(NfTablesMessage::NewSetElement(SetElementMessage { attributes })), NLM_F_CREATE);
}

fn message(inner: NfTablesMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0), inner)
}
