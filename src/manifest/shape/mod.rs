//! What a manifest may say: one declaration per table, with the words and forms in it.
//!
//! These types hold what was written, with its places, values parsed one by one. What the parts mean together
//! (names that refer to each other, defaults, conflicts) is [`super::resolve`]'s.

pub(super) mod advice;
pub(super) mod build;
pub(super) mod container;
pub(super) mod form;
pub(super) mod mount;
pub(super) mod name;
pub(super) mod project;
pub(super) mod quantity;
pub(super) mod security;
