//! The DNS message format (RFC 1035, section 4; EDNS0: RFC 6891), as far as a responder needs it: one question is read,
//! an answer with addresses or names is written.
//!
//! A query's name may not be compressed (there is nothing before it to point to), so no pointer is ever followed.

use std::net::IpAddr;

pub const HEADER: usize = 12;

pub const TYPE_A: u16 = 1;
pub const TYPE_NS: u16 = 2;
pub const TYPE_SOA: u16 = 6;
pub const TYPE_PTR: u16 = 12;
pub const TYPE_AAAA: u16 = 28;
pub const TYPE_DS: u16 = 43;
pub const TYPE_DNSKEY: u16 = 48;
const TYPE_OPT: u16 = 41;
pub const TYPE_ANY: u16 = 255;
pub const CLASS_IN: u16 = 1;

/// Names change whenever a container is replaced: nobody is to keep an answer.
const TIME_TO_LIVE: u32 = 0;

/// What an answer over UDP may have where the query says nothing (RFC 1035, section 2.3.4).
const PLAIN_SIZE: usize = 512;

/// What we take over UDP ourselves, and the most that an answer of our own has (the DNS flag day's value).
pub const UDP_SIZE: u16 = 1232;

const QR: u8 = 0x80;
const OPCODE: u8 = 0x78;
const AUTHORITATIVE: u8 = 0x04;
const TRUNCATED: u8 = 0x02;
const RECURSION_DESIRED: u8 = 0x01;
const RECURSION_AVAILABLE: u8 = 0x80;

/// RFC 1035, section 4.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    NoError = 0,
    FormatError = 1,
    ServerFailure = 2,
    NoSuchName = 3,
    NotImplemented = 4,
}

/// A query with one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query<'a> {
    bytes: &'a [u8],
    /// Where the question ends.
    question_end: usize,
    /// In lower case, without the last dot. Bytes that are not ASCII stay as they are.
    pub name: String,
    pub kind: u16,
    pub class: u16,
    /// The sender's EDNS payload size, where there is one.
    edns: Option<u16>,
}

/// Why a packet is no query that can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// No answer is due: it is too short for a header, or itself an answer.
    Drop,
    /// An answer with this code says so.
    Refuse(Code),
}

/// Reads a query.
pub fn read(bytes: &[u8]) -> Result<Query<'_>, Malformed> {
    let header: &[u8; HEADER] = bytes.first_chunk().ok_or(Malformed::Drop)?;
    if header[2] & QR != 0 {
        return Err(Malformed::Drop);
    }
    if header[2] & OPCODE != 0 {
        return Err(Malformed::Refuse(Code::NotImplemented));
    }
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let unreadable = Malformed::Refuse(Code::FormatError);
    if count(4) != 1 || count(6) != 0 || count(8) != 0 {
        return Err(unreadable);
    }
    let (name, end) = read_name(bytes, HEADER).ok_or(unreadable)?;
    let rest = bytes.get(end..end + 4).ok_or(unreadable)?;
    let kind = u16::from_be_bytes([rest[0], rest[1]]);
    let class = u16::from_be_bytes([rest[2], rest[3]]);
    let question_end = end + 4;
    let edns = read_edns(bytes.get(question_end..).unwrap_or_default(), count(10));
    Ok(Query { bytes, question_end, name, kind, class, edns })
}

/// A name of plain labels, and where it ends.
fn read_name(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let start = at;
    let mut name = Vec::new();
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        match length {
            0 => break,
            1..=63 => {
                if !name.is_empty() {
                    name.push(b'.');
                }
                name.extend(bytes.get(at..at + length)?.iter().map(u8::to_ascii_lowercase));
                at += length;
            }
            // A pointer (192 and above), or a kind of label that was never standardised.
            _ => return None,
        }
    }
    // RFC 1035, section 2.3.4.
    (at - start <= 255).then(|| (String::from_utf8_lossy(&name).into_owned(), at))
}

/// The payload size of an OPT record that comes first in the additional section, as every resolver sends it.
fn read_edns(additional: &[u8], count: u16) -> Option<u16> {
    let fixed: &[u8; 11] = additional.first_chunk()?;
    let is_opt = count > 0 && fixed[0] == 0 && u16::from_be_bytes([fixed[1], fixed[2]]) == TYPE_OPT;
    is_opt.then(|| u16::from_be_bytes([fixed[3], fixed[4]]))
}

/// What is said about the name asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    Address(IpAddr),
    /// For a question of type PTR.
    Name(String),
}

/// How the answer travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

impl Query<'_> {
    /// The longest answer over UDP that the client takes.
    pub fn longest_datagram(&self) -> usize {
        usize::from(self.edns.unwrap_or(0)).max(PLAIN_SIZE)
    }

    /// An answer of our own. When not all records fit, it has those that do and says "ask over TCP": a resolver that
    /// cannot (musl before 1.2.4) still gets some.
    pub fn answer(&self, code: Code, records: &[Record], transport: Transport) -> Vec<u8> {
        let limit = match transport {
            Transport::Tcp => usize::from(u16::MAX),
            Transport::Udp => self.longest_datagram().min(usize::from(UDP_SIZE)),
        };
        let mut answer = self.begin(code);
        let mut count = 0_u16;
        for record in records {
            let end = answer.len();
            write_record(&mut answer, record);
            if answer.len() + self.edns_length() > limit {
                answer.truncate(end);
                answer[2] |= TRUNCATED;
                break;
            }
            count += 1;
        }
        answer[6..8].copy_from_slice(&count.to_be_bytes());
        self.end(answer)
    }

    /// In place of an upstream's `answer` that is longer than the client takes: its code, no records, and the word to
    /// ask over TCP.
    pub fn truncated(&self, answer: &[u8]) -> Vec<u8> {
        let mut short = self.begin(Code::NoError);
        if let Some(flags) = answer.get(2..4) {
            short[2..4].copy_from_slice(flags);
        }
        short[2] |= TRUNCATED;
        self.end(short)
    }

    /// With the additional section.
    fn end(&self, mut answer: Vec<u8>) -> Vec<u8> {
        if self.edns.is_some() {
            // The root name, OPT, our payload size; extended code, version and flags zero; no options.
            answer.push(0);
            answer.extend(TYPE_OPT.to_be_bytes());
            answer.extend(UDP_SIZE.to_be_bytes());
            answer.extend([0; 6]);
            answer[11] = 1;
        }
        answer
    }

    fn edns_length(&self) -> usize {
        if self.edns.is_some() { 11 } else { 0 }
    }

    /// Header and question of an answer.
    fn begin(&self, code: Code) -> Vec<u8> {
        let mut answer = Vec::with_capacity(PLAIN_SIZE);
        answer.extend_from_slice(&self.bytes[..self.question_end]);
        answer[2] = QR | AUTHORITATIVE | (self.bytes[2] & RECURSION_DESIRED);
        answer[3] = RECURSION_AVAILABLE | code as u8;
        answer[4..12].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        answer
    }

    /// The question as it was asked, for comparison with an upstream's answer.
    pub fn question(&self) -> &[u8] {
        &self.bytes[HEADER..self.question_end]
    }
}

/// A header alone that says why a packet is not answered.
pub fn refuse(bytes: &[u8], code: Code) -> Option<Vec<u8>> {
    let header: &[u8; HEADER] = bytes.first_chunk()?;
    let mut answer = header.to_vec();
    answer[2] = QR | (header[2] & (OPCODE | RECURSION_DESIRED));
    answer[3] = RECURSION_AVAILABLE | code as u8;
    answer[4..].fill(0);
    Some(answer)
}

fn write_record(answer: &mut Vec<u8>, record: &Record) {
    // The owner is the name of the question, by a pointer to it (RFC 1035, section 4.1.4).
    let pointer = [0xc0, HEADER as u8];
    let (kind, data) = match record {
        Record::Address(IpAddr::V4(address)) => (TYPE_A, address.octets().to_vec()),
        Record::Address(IpAddr::V6(address)) => (TYPE_AAAA, address.octets().to_vec()),
        Record::Name(name) => (TYPE_PTR, encode_name(name)),
    };
    answer.extend(pointer);
    answer.extend(kind.to_be_bytes());
    answer.extend(CLASS_IN.to_be_bytes());
    answer.extend(TIME_TO_LIVE.to_be_bytes());
    answer.extend((data.len() as u16).to_be_bytes());
    answer.extend(data);
}

/// A name as labels. Labels of more than 63 bytes cannot be said and are cut.
fn encode_name(name: &str) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(63)];
        encoded.push(label.len() as u8);
        encoded.extend_from_slice(label);
    }
    encoded.push(0);
    encoded
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A query as a resolver sends it.
    pub fn query(name: &str, kind: u16, edns: Option<u16>) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34, RECURSION_DESIRED, 0, 0, 1, 0, 0, 0, 0, 0, edns.is_some() as u8];
        bytes.extend(encode_name(name));
        bytes.extend(kind.to_be_bytes());
        bytes.extend(CLASS_IN.to_be_bytes());
        if let Some(size) = edns {
            bytes.push(0);
            bytes.extend(TYPE_OPT.to_be_bytes());
            bytes.extend(size.to_be_bytes());
            bytes.extend([0; 6]);
        }
        bytes
    }

    #[test]
    fn a_query_is_read_in_lower_case() {
        let bytes = query("Web.Example", TYPE_AAAA, Some(4096));
        let query = read(&bytes).unwrap();
        assert_eq!((query.name.as_str(), query.kind, query.class, query.edns), ("web.example", 28, 1, Some(4096)));
    }

    #[test]
    fn an_answer_repeats_the_question_and_points_to_it() {
        let bytes = query("Web", TYPE_A, Some(1400));
        let address = Record::Address("10.89.0.2".parse().unwrap());
        let answer = read(&bytes).unwrap().answer(Code::NoError, &[address], Transport::Udp);
        assert_eq!(&answer[..12], [0x12, 0x34, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 1]);
        assert_eq!(&answer[12..21], b"\x03Web\0\0\x01\0\x01");
        assert_eq!(&answer[21..37], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 10, 89, 0, 2]);
        assert_eq!(&answer[37..], [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_does_not_fit_is_left_to_tcp() {
        let bytes = query("web", TYPE_A, None);
        let many: Vec<Record> = (0..100).map(|n| Record::Address([10, 0, 0, n].into())).collect();
        let query = read(&bytes).unwrap();
        let udp = query.answer(Code::NoError, &many, Transport::Udp);
        // 16 bytes a record: as many as 512 bytes hold.
        assert_eq!((udp[2] & TRUNCATED, udp[7], udp.len()), (TRUNCATED, 30, bytes.len() + 30 * 16));
        let tcp = query.answer(Code::NoError, &many, Transport::Tcp);
        assert_eq!((tcp[2] & TRUNCATED, tcp[7]), (0, 100));
    }

    #[test]
    fn what_is_no_query_is_dropped_or_refused() {
        let good = query("web", TYPE_A, None);
        let changed = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            read(&bytes).map(|_| ()).unwrap_err()
        };
        assert_eq!(read(&good[..11]).unwrap_err(), Malformed::Drop);
        assert_eq!(changed(2, QR), Malformed::Drop);
        assert_eq!(changed(2, 0x28), Malformed::Refuse(Code::NotImplemented));
        assert_eq!(changed(5, 2), Malformed::Refuse(Code::FormatError));
        assert_eq!(changed(12, 0xc0), Malformed::Refuse(Code::FormatError));
        assert_eq!(read(&good[..good.len() - 1]).unwrap_err(), Malformed::Refuse(Code::FormatError));
        assert_eq!(refuse(&good, Code::FormatError).unwrap(), [0x12, 0x34, 0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn no_packet_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = read(&bytes);
            let _ = refuse(&bytes, Code::FormatError);
        }

        #[test]
        fn a_damaged_query_is_read_or_refused(at in 0_usize..60, value in any::<u8>()) {
            let mut bytes = query("some.name.example", TYPE_A, Some(1232));
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            if let Ok(query) = read(&bytes) {
                let answer = query.answer(Code::NoSuchName, &[], Transport::Udp);
                prop_assert_eq!(&answer[..2], &bytes[..2]);
            }
        }
    }
}
