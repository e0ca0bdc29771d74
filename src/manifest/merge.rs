//! Several files become one tree.
//!
//! Files of one directory lie side by side: each may declare entries of the same table, but an entry is declared
//! once, since no order would tell which one counts. A later `-f` lies on top of the earlier ones, as Compose
//! merges: tables entry by entry, everything else is replaced.

use super::problem::Problem;
use super::tree::{Key, Node, Value};

/// Tables in which one of several keys says what the table is. A layer that says otherwise replaces that key
/// instead of contradicting it. `*` is any name.
const ALTERNATIVES: [(&[&str], &[&str]); 4] = [
    (&["images", "*"], &["reference", "archive", "rootfs", "build"]),
    // `image` chooses from an archive, be it another one.
    (&["images", "*"], &["reference", "image", "rootfs", "build"]),
    (&["containers", "*", "healthcheck"], &["command", "http", "tcp"]),
    (&["containers", "*", "mounts", "*"], &["volume", "bind", "tmpfs"]),
];

/// The files of one directory as one tree.
pub(super) fn side_by_side(files: Vec<Node>, problems: &mut Vec<Problem>) -> Option<Node> {
    files.into_iter().reduce(|first, second| join(first, second, Depth::Top, problems))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// The keys of the manifest.
    Top,
    /// The entries of `images`, `containers` and so on.
    Entries,
}

fn join(first: Node, second: Node, depth: Depth, problems: &mut Vec<Problem>) -> Node {
    let (Value::Table(mut entries), Value::Table(others)) = (first.value, second.value) else {
        return Node { value: Value::Table(Vec::new()), ..second };
    };
    for (key, node) in others {
        match entries.iter_mut().find(|(known, _)| known.text == key.text) {
            None => entries.push((key, node)),
            Some((known, there)) => match (depth, &there.value, &node.value) {
                (Depth::Top, Value::Table(_), Value::Table(_)) => {
                    *there = join(there.clone(), node, Depth::Entries, problems);
                }
                _ => problems.push(declared_twice(known, &key)),
            },
        }
    }
    Node { place: first.place, name: first.name, value: Value::Table(entries) }
}

fn declared_twice(first: &Key, second: &Key) -> Problem {
    Problem::at(&second.place, format!("`{}` is defined in two files of one directory", second.text))
        .label("defined again here")
        .related(&first.place, "first defined here")
        .help("keep one of them; to change some keys of an entry, pass a second file with a later `-f`")
}

/// `layer` on top of `base`.
pub(super) fn overlay(base: Node, layer: Node) -> Node {
    overlay_at(base, layer, &mut Vec::new())
}

fn overlay_at(base: Node, layer: Node, path: &mut Vec<String>) -> Node {
    match (base.value, layer.value) {
        (Value::Table(mut entries), Value::Table(others)) => {
            for alternatives in alternatives_at(path) {
                if others.iter().any(|(key, _)| alternatives.contains(&key.text.as_str())) {
                    entries.retain(|(key, _)| !alternatives.contains(&key.text.as_str()));
                }
            }
            for (key, node) in others {
                match entries.iter_mut().find(|(known, _)| known.text == key.text) {
                    None => entries.push((key, node)),
                    Some((known, there)) => {
                        path.push(key.text.clone());
                        *there = overlay_at(there.clone(), node, path);
                        path.pop();
                        *known = key;
                    }
                }
            }
            Node { place: layer.place, name: layer.name, value: Value::Table(entries) }
        }
        (_, value) => Node { place: layer.place, name: layer.name, value },
    }
}

fn alternatives_at(path: &[String]) -> impl Iterator<Item = &'static [&'static str]> {
    ALTERNATIVES
        .iter()
        .filter(move |(pattern, _)| {
            pattern.len() == path.len() && pattern.iter().zip(path).all(|(p, name)| *p == "*" || p == name)
        })
        .map(|(_, keys)| *keys)
}
