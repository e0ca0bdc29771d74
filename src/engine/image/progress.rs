//! How a pull or an import tells how far it is.

/// What happens to one layer. Layers are named by the short form of the digest that the source gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// The layer is on this host already.
    Present { layer: &'a str },
    /// So many bytes of the layer have been read; `total` where the source tells it.
    Read { layer: &'a str, bytes: u64, total: Option<u64> },
    /// The layer is unpacked.
    Unpacked { layer: &'a str },
    /// An instruction of a build begins, or is known from an earlier one.
    Step { line: usize, instruction: &'a str, cached: bool },
    /// A line that the command of a build wrote.
    Output { line: &'a str },
    /// So many bytes of the layer have been given to a registry.
    Sent { layer: &'a str, bytes: u64, total: u64 },
    /// The registry has the layer: `already there`, `mounted` from another repository, or `sent`.
    Stored { layer: &'a str, how: &'a str },
    /// The connection broke; reading goes on after a pause.
    Retrying { layer: &'a str, reason: &'a str },
}

/// Receives events, from several threads at once.
pub trait Progress: Sync {
    fn report(&self, event: Event<'_>);
}

/// Tells nobody.
pub struct Silent;

impl Progress for Silent {
    fn report(&self, _: Event<'_>) {}
}
