//! Words of rules: what nft(8) writes as `ip daddr`, `ct status dnat`, `masquerade`, as expressions of nf_tables.
//!
//! An expression loads something into a register, compares a register, or acts. Registers are four bytes wide; a
//! concatenation is loaded into neighbours, each part padded to four bytes. The first register is used for
//! everything, since no rule keeps a value for later.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Lookup, Meta, MetaKey,
    Operator, Payload, Register, Verdict, VerdictAttribute,
};

pub(super) type Expression = ListAttribute<ExpressionAttribute>;

/// The first four-byte register, and how many registers a rule has (NFT_REG32_00, NFT_REG32_15).
const FIRST: u32 = 8;

/// The `n`-th four-byte register.
fn register(n: u32) -> Register {
    Register::Other(FIRST + n)
}

/// An address family that rules tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// NFPROTO_IPV4, NFPROTO_IPV6.
    fn number(self) -> u8 {
        match self {
            Family::V4 => 2,
            Family::V6 => 10,
        }
    }

    /// How many bytes an address has.
    pub fn width(self) -> u32 {
        match self {
            Family::V4 => 4,
            Family::V6 => 16,
        }
    }

    /// Where the source address is in the header; the destination follows it.
    fn source(self) -> u32 {
        match self {
            Family::V4 => 12,
            Family::V6 => 8,
        }
    }

    /// How many registers an address fills.
    pub fn registers(self) -> u32 {
        self.width() / 4
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Destination,
}

fn equals(operator: Operator, bytes: &[u8]) -> Expression {
    let data = DataAttribute::Value(bytes.to_vec());
    Expressions::Cmp(vec![Cmp::SourceRegister(register(0)), Cmp::Op(operator), Cmp::Data(data)]).into()
}

fn and(mask: &[u8]) -> Expression {
    let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(register(0)),
        Bitwise::DestinationRegister(register(0)),
        Bitwise::Length(length),
        Bitwise::Mask(DataAttribute::Value(mask.to_vec())),
        Bitwise::Xor(DataAttribute::Value(vec![0; mask.len()])),
    ])
    .into()
}

fn meta(key: MetaKey, into: u32) -> Expression {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(register(into))]).into()
}

fn payload(base: u32, offset: u32, length: u32, into: u32) -> Expression {
    Expressions::Payload(vec![
        Payload::DestinationRegister(register(into)),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
    .into()
}

fn be(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

/// Expressions that packet-netfilter has no type for.
fn other(name: &str, attributes: Vec<DefaultNla>) -> Expression {
    Expressions::Other { expression_type: name.to_owned(), attributes }.into()
}

/// NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

/// Loads `ip saddr` or `ip daddr` into the registers from `into` on.
pub(super) fn load_address(family: Family, side: Side, into: u32) -> Expression {
    let offset = match side {
        Side::Source => family.source(),
        Side::Destination => family.source() + family.width(),
    };
    payload(NETWORK, offset, family.width(), into)
}

/// Loads `meta l4proto . th dport` into two registers.
pub(super) fn load_protocol_and_port(into: u32) -> [Expression; 2] {
    [meta(MetaKey::L4Proto, into), payload(TRANSPORT, 2, 2, into + 1)]
}

/// Loads `numgen random mod MODULUS`.
pub(super) fn load_random(modulus: u32, into: u32) -> Expression {
    const RANDOM: u32 = 1;
    other("numgen", vec![be(1, FIRST + into), be(2, modulus), be(3, RANDOM), be(4, 0)])
}

/// `meta nfproto ipv4`.
pub(super) fn is_family(family: Family) -> [Expression; 2] {
    [meta(MetaKey::Nfproto, 0), equals(Operator::Equal, &[family.number()])]
}

/// `ip saddr 10.89.0.0/24`, the family being known.
pub(super) fn is_within(family: Family, side: Side, network: &[u8], prefix: u8) -> Vec<Expression> {
    let mask: Vec<u8> = (0..network.len())
        .map(|byte| match usize::from(prefix).saturating_sub(8 * byte) {
            0 => 0,
            bits => 0xff_u8.checked_shl(8 - bits.min(8) as u32).unwrap_or(0),
        })
        .collect();
    vec![load_address(family, side, 0), and(&mask), equals(Operator::Equal, network)]
}

/// A link's name as the kernel compares it: IFNAMSIZ bytes, zero behind the name.
pub(super) fn link_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(libc::IFNAMSIZ, 0);
    bytes
}

/// `oifname NAME`.
pub(super) fn leaves_by(name: &str) -> [Expression; 2] {
    [meta(MetaKey::Oifname, 0), equals(Operator::Equal, &link_name(name))]
}

/// `oifname != NAME`.
pub(super) fn leaves_not_by(name: &str) -> [Expression; 2] {
    [meta(MetaKey::Oifname, 0), equals(Operator::NotEqual, &link_name(name))]
}

/// `iifname @SET`.
pub(super) fn came_by(set: &str) -> [Expression; 2] {
    [meta(MetaKey::Iifname, 0), lookup(set)]
}

/// `oifname @SET`.
pub(super) fn leaves_by_one_of(set: &str) -> [Expression; 2] {
    [meta(MetaKey::Oifname, 0), lookup(set)]
}

/// `iifname . oifname @SET`.
pub(super) fn passes_by(set: &str) -> [Expression; 3] {
    [meta(MetaKey::Iifname, 0), meta(MetaKey::Oifname, 4), lookup(set)]
}

/// The value in the first registers is in the set.
fn lookup(set: &str) -> Expression {
    Expressions::Lookup(vec![Lookup::Set(set.to_owned()), Lookup::SourceRegister(register(0))]).into()
}

/// The value in the first registers is a key of the map; what it stands for takes its place.
pub(super) fn look_up(map: &str) -> Expression {
    let (source, destination) = (Lookup::SourceRegister(register(0)), Lookup::DestinationRegister(register(0)));
    Expressions::Lookup(vec![Lookup::Set(map.to_owned()), source, destination]).into()
}

/// `meta l4proto PROTOCOL`.
pub(super) fn is_protocol(protocol: i32) -> [Expression; 2] {
    [meta(MetaKey::L4Proto, 0), equals(Operator::Equal, &[u8::try_from(protocol).unwrap_or(u8::MAX)])]
}

/// `fib daddr type local`: the packet is meant for this host.
pub(super) fn is_for_this_host() -> [Expression; 2] {
    const ADDRESS_TYPE: u32 = 3;
    const OF_DESTINATION: u32 = 2;
    let fib = other("fib", vec![be(1, FIRST), be(2, ADDRESS_TYPE), be(3, OF_DESTINATION)]);
    [fib, equals(Operator::Equal, &u32::from(libc::RTN_LOCAL).to_ne_bytes())]
}

/// `ct state established,related`.
pub(super) fn is_known_connection() -> [Expression; 3] {
    const STATE: u32 = 0;
    const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
    has_connection_bits(STATE, ESTABLISHED_OR_RELATED)
}

/// `ct status dnat`: the destination was rewritten, by us or by another table.
pub(super) fn was_redirected() -> [Expression; 3] {
    const STATUS: u32 = 2;
    const IPS_DST_NAT: u32 = 1 << 5;
    has_connection_bits(STATUS, IPS_DST_NAT)
}

fn has_connection_bits(key: u32, bits: u32) -> [Expression; 3] {
    let load = other("ct", vec![be(1, FIRST), be(2, key)]);
    [load, and(&bits.to_ne_bytes()), equals(Operator::NotEqual, &[0; 4])]
}

/// `dnat to` the address and port in the first registers.
pub(super) fn redirect(family: Family) -> Expression {
    const DNAT: u32 = 1;
    let port = FIRST + family.registers();
    other("nat", vec![be(1, DNAT), be(2, u32::from(family.number())), be(3, FIRST), be(5, port)])
}

/// `masquerade`: the source becomes the address of the link by which the packet leaves.
pub(super) fn masquerade() -> Expression {
    other("masq", Vec::new())
}

pub(super) fn accept() -> Expression {
    const NF_ACCEPT: u32 = 1;
    verdict(vec![VerdictAttribute::Code(Verdict::Other(NF_ACCEPT))])
}

pub(super) fn drop() -> Expression {
    const NF_DROP: u32 = 0;
    verdict(vec![VerdictAttribute::Code(Verdict::Other(NF_DROP))])
}

pub(super) fn leave_chain() -> Expression {
    verdict(vec![VerdictAttribute::Code(Verdict::Return)])
}

pub(super) fn jump(chain: &str) -> Expression {
    verdict(vec![VerdictAttribute::Code(Verdict::Jump), VerdictAttribute::Chain(chain.to_owned())])
}

fn verdict(attributes: Vec<VerdictAttribute>) -> Expression {
    let data = Immediate::Data(DataAttribute::Verdict(attributes));
    Expressions::Immediate(vec![Immediate::DestinationRegister(Register::Verdict), data]).into()
}
