//! What to do with a packet: answer it here, forward it, or drop it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::message::{
    self, CLASS_IN, Code, Malformed, Query, Record, TYPE_A, TYPE_AAAA, TYPE_ANY, TYPE_DNSKEY, TYPE_DS, TYPE_NS,
    TYPE_PTR, TYPE_SOA, Transport,
};
use super::tables::Tables;

/// The decision.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    Answer(Vec<u8>),
    /// Ask an upstream server.
    Forward,
    Drop,
}

/// Decides about a packet that came over `transport`. Addresses are given from the `turn`th on, so that replicas take
/// turns at being the first.
pub fn decide(packet: &[u8], transport: Transport, tables: &Tables, turn: usize) -> Decision {
    let query = match message::read(packet) {
        Ok(query) => query,
        Err(Malformed::Drop) => return Decision::Drop,
        Err(Malformed::Refuse(code)) => {
            return message::refuse(packet, code).map_or(Decision::Drop, Decision::Answer);
        }
    };
    match known(&query, tables, turn) {
        Some(records) => Decision::Answer(query.answer(Code::NoError, &records, transport)),
        None if is_local(&query) => Decision::Answer(query.answer(Code::NoSuchName, &[], transport)),
        None => Decision::Forward,
    }
}

/// What is said where no upstream is: there is no such name.
pub fn nowhere(packet: &[u8], transport: Transport) -> Option<Vec<u8>> {
    message::read(packet).ok().map(|query| query.answer(Code::NoSuchName, &[], transport))
}

/// What is said when no upstream answered.
pub fn unanswered(packet: &[u8], transport: Transport) -> Option<Vec<u8>> {
    message::read(packet).ok().map(|query| query.answer(Code::ServerFailure, &[], transport))
}

/// A name that only this host could know: one label, as containers have, or a last label of digits, as replicas and
/// addresses have. No domain of the outside is so (RFC 3696, section 2); what it has to say about its top level itself
/// is asked with types of their own.
fn is_local(query: &Query<'_>) -> bool {
    let last = query.name.rsplit('.').next().unwrap_or_default();
    let is_single = last.len() == query.name.len() && !matches!(query.kind, TYPE_NS | TYPE_SOA | TYPE_DS | TYPE_DNSKEY);
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    query.class == CLASS_IN && !last.is_empty() && (is_single || is_number)
}

/// The records for a name of ours: none of the kind asked for is an answer too.
fn known(query: &Query<'_>, tables: &Tables, turn: usize) -> Option<Vec<Record>> {
    if query.class != CLASS_IN {
        return None;
    }
    if let Some(address) = reverse(&query.name)
        && let Some(name) = tables.name(address)
    {
        let wanted = matches!(query.kind, TYPE_PTR | TYPE_ANY);
        return Some(wanted.then(|| Record::Name(name.to_owned())).into_iter().collect());
    }
    // RFC 6761, section 6.3.
    let is_loopback = query.name == "localhost" || query.name.ends_with(".localhost");
    let loopback = || BTreeSet::from([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    let addresses = tables.addresses(&query.name).cloned().or_else(|| is_loopback.then(loopback))?;
    let mut records: Vec<Record> = addresses
        .iter()
        .filter(|address| match query.kind {
            TYPE_A => address.is_ipv4(),
            TYPE_AAAA => address.is_ipv6(),
            TYPE_ANY => true,
            _ => false,
        })
        .map(|address| Record::Address(*address))
        .collect();
    if !records.is_empty() {
        let first = turn % records.len();
        records.rotate_left(first);
    }
    Some(records)
}

/// The address in a name such as `2.0.89.10.in-addr.arpa` (RFC 1035, section 3.5) or one of 32 nibbles under
/// `ip6.arpa` (RFC 3596, section 2.5).
fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let octets: Vec<u8> = labels.split('.').map(|label| label.parse().ok()).collect::<Option<_>>()?;
        let [d, c, b, a] = octets.try_into().ok()?;
        return Some(Ipv4Addr::new(a, b, c, d).into());
    }
    let labels = name.strip_suffix(".ip6.arpa")?;
    let mut bits = 0_u128;
    let mut count = 0;
    for label in labels.split('.').rev() {
        let nibble = u128::from_str_radix(label, 16).ok().filter(|_| label.len() == 1)?;
        bits = bits << 4 | nibble;
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from(bits).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::names::NameTable;
    use crate::monitor::names::message::tests::query;

    const TYPE_MX: u16 = 15;

    fn tables() -> (tempfile::TempDir, Tables) {
        let mut front = NameTable::default();
        for (name, address) in [("web", "10.0.0.2"), ("web", "10.0.0.3"), ("web.2", "10.0.0.3"), ("db", "fd00::5")] {
            front.names.entry(name.into()).or_default().insert(address.parse().unwrap());
        }
        let mut back = NameTable::default();
        back.names.entry("web".into()).or_default().insert("10.1.0.9".parse().unwrap());
        let directory = tempfile::tempdir().unwrap();
        let paths = ["front", "back"].map(|name| directory.path().join(name));
        for (path, table) in paths.iter().zip([front, back]) {
            std::fs::write(path, serde_json::to_vec(&table).unwrap()).unwrap();
        }
        let mut tables = Tables::new(&paths);
        tables.refresh();
        (directory, tables)
    }

    /// Code and number of answers; `None` for a forwarded query.
    fn outcome(name: &str, kind: u16) -> Option<(u8, u8)> {
        match decide(&query(name, kind, None), Transport::Udp, &tables().1, 0) {
            Decision::Answer(answer) => Some((answer[3] & 15, answer[7])),
            Decision::Forward => None,
            Decision::Drop => panic!("dropped"),
        }
    }

    #[test]
    fn names_of_ours_are_answered_and_others_forwarded() {
        let cases = [
            ("web", TYPE_A, Some((0, 2))),
            ("WEB", TYPE_A, Some((0, 2))),
            ("web", TYPE_AAAA, Some((0, 0))),
            ("web", TYPE_MX, Some((0, 0))),
            ("db", TYPE_AAAA, Some((0, 1))),
            ("db", TYPE_A, Some((0, 0))),
            ("db", TYPE_ANY, Some((0, 1))),
            ("web.2", TYPE_A, Some((0, 1))),
            ("example.org", TYPE_A, None),
            ("", TYPE_A, None),
            ("", TYPE_NS, None),
            ("org", TYPE_NS, None),
            ("org", TYPE_DS, None),
            ("stopped", TYPE_A, Some((3, 0))),
            ("stopped", TYPE_MX, Some((3, 0))),
            ("web.3", TYPE_A, Some((3, 0))),
            ("web.3", TYPE_NS, Some((3, 0))),
            ("192.0.2.7", TYPE_A, Some((3, 0))),
            ("localhost", TYPE_A, Some((0, 1))),
            ("app.localhost", TYPE_AAAA, Some((0, 1))),
            ("3.0.0.10.in-addr.arpa", TYPE_PTR, Some((0, 1))),
            ("3.0.0.10.in-addr.arpa", TYPE_A, Some((0, 0))),
            ("4.0.0.10.in-addr.arpa", TYPE_PTR, None),
            ("5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa", TYPE_PTR, Some((0, 1))),
            ("5.d.f.ip6.arpa", TYPE_PTR, None),
        ];
        for (name, kind, expected) in cases {
            assert_eq!(outcome(name, kind), expected, "{name} {kind}");
        }
    }

    #[test]
    fn replicas_take_turns() {
        let (_directory, tables) = tables();
        let packet = query("web", TYPE_A, None);
        let first = |turn| match decide(&packet, Transport::Udp, &tables, turn) {
            Decision::Answer(answer) => answer[packet.len() + 15],
            other => panic!("{other:?}"),
        };
        assert_eq!([first(0), first(1), first(2)], [2, 3, 2]);
    }

    #[test]
    fn without_an_answer_from_outside_something_is_said() {
        let packet = query("example.org", TYPE_A, None);
        assert_eq!(nowhere(&packet, Transport::Udp).unwrap()[3] & 15, 3);
        assert_eq!(unanswered(&packet, Transport::Udp).unwrap()[3] & 15, 2);
    }
}
