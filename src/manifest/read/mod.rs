//! From the tree to typed values: the trait [`Read`] and what every table is made of.
//!
//! A reader returns `None` after it has reported a problem, and reading goes on beside it, so that one run shows
//! every problem. The same declarations give the JSON Schema ([`schemars::JsonSchema`]): what a schema says and
//! what is read cannot drift apart.
//!
//! * `reading`: what readers share. `value`: texts, numbers, lists. `word`: texts with a form.
//! * `table`: tables with known keys. `entries`: tables whose keys the user chooses.

mod entries;
mod reading;
mod table;
mod value;
mod word;

pub(super) use entries::Entries;
pub(super) use reading::Reading;
pub(super) use table::{Advice, Fields, table};
pub(super) use value::{Whole, either};
pub(super) use word::{Bare, Word, choice, word, word_form, word_schema};

use super::problem::Placed;
use super::tree::Node;

/// Something that can be read from a node of the tree.
pub(super) trait Read: Sized {
    /// `None` when a problem was reported instead.
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<Self>;
}

/// Reads with the place kept.
pub(super) fn placed<T: Read>(node: &Node, reading: &mut Reading<'_>) -> Option<Placed<T>> {
    T::read(node, reading).map(|value| Placed { value, place: node.shown().clone() })
}

/// The text for a message.
pub(super) fn quoted(text: &str) -> String {
    match text {
        "" => "an empty text".to_owned(),
        text => format!("`{text}`"),
    }
}
