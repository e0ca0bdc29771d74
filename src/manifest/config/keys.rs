//! Keys of a table that is written: what is as by default is left out.

use std::collections::BTreeMap;

use serde::Serialize;
use toml::{Table, Value};

/// A text in which no dollar is read as a variable.
pub fn text(text: &str) -> Value {
    Value::String(text.replace('$', "$$"))
}

pub fn texts<'t>(list: impl IntoIterator<Item = &'t String>) -> Vec<Value> {
    list.into_iter().map(|item| text(item)).collect()
}

/// The word of an enum: what serde calls it.
pub fn word<T: Serialize>(value: &T) -> Value {
    Value::try_from(value).unwrap_or_else(|_| Value::String(String::new()))
}

pub fn put(table: &mut Table, key: &str, value: impl Into<Value>) {
    table.insert(key.to_owned(), value.into());
}

pub fn put_option<T: Into<Value>>(table: &mut Table, key: &str, value: Option<T>) {
    if let Some(value) = value {
        put(table, key, value);
    }
}

pub fn put_flag(table: &mut Table, key: &str, flag: bool) {
    if flag {
        put(table, key, true);
    }
}

pub fn put_list(table: &mut Table, key: &str, list: Vec<Value>) {
    if !list.is_empty() {
        put(table, key, list);
    }
}

pub fn put_table(table: &mut Table, key: &str, value: Table) {
    if !value.is_empty() {
        put(table, key, value);
    }
}

pub fn put_texts(table: &mut Table, key: &str, values: &BTreeMap<String, String>) {
    put_table(table, key, values.iter().map(|(key, value)| (key.clone(), text(value))).collect());
}

pub fn put_unless<T: PartialEq, V: Into<Value>>(
    table: &mut Table,
    key: &str,
    value: &T,
    default: &T,
    written: impl FnOnce(&T) -> V,
) {
    if value != default {
        put(table, key, written(value));
    }
}
