//! The keys by which somebody leaves a container's terminal and lets its process go on.

use std::str::FromStr;

/// Bytes as a terminal in raw mode sends them; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys(Vec<u8>);

/// What `--detach-keys` is when it is not given: Docker's.
pub const DEFAULT: &str = "ctrl-p,ctrl-q";

impl FromStr for DetachKeys {
    type Err = String;

    /// `ctrl-p,ctrl-q`, `ctrl-x,d`: single characters, or `ctrl-` with a letter or one of `@[\]^_`.
    fn from_str(text: &str) -> Result<DetachKeys, String> {
        let keys = text.split(',').map(key).collect::<Option<Vec<u8>>>();
        keys.map(DetachKeys).ok_or_else(|| {
            "expected keys with commas between them, such as `ctrl-p,ctrl-q`: a character, or ctrl- with a letter or one \
             of @[\\]^_"
                .to_owned()
        })
    }
}

/// The control characters are the letters' codes without their upper bits (ascii(7)).
fn key(word: &str) -> Option<u8> {
    match (word.as_bytes(), word.strip_prefix("ctrl-").map(str::as_bytes)) {
        ([key], _) if key.is_ascii() => Some(*key),
        (_, Some([key @ (b'a'..=b'z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_')])) => Some(key & 0x1f),
        _ => None,
    }
}

/// Listens for the keys among what is typed.
#[derive(Debug)]
pub struct Listener {
    keys: DetachKeys,
    /// The beginning of the keys that was typed and not passed on yet.
    held: Vec<u8>,
}

/// What was meant by what was typed.
#[derive(Debug, PartialEq, Eq)]
pub enum Meant {
    ForTheProcess,
    Leave,
}

impl Listener {
    pub fn new(keys: DetachKeys) -> Listener {
        Listener { keys, held: Vec::new() }
    }

    /// Adds to `typed` what is the process's. Once the keys were all typed, nothing more is.
    pub fn hear(&mut self, bytes: &[u8], typed: &mut Vec<u8>) -> Meant {
        for byte in bytes {
            self.held.push(*byte);
            while !self.keys.0.starts_with(&self.held) {
                typed.push(self.held.remove(0));
            }
            if self.held.len() == self.keys.0.len() {
                return Meant::Leave;
            }
        }
        Meant::ForTheProcess
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_docker_s_forms() {
        for (text, bytes) in
            [(DEFAULT, &[0x10, 0x11][..]), ("ctrl-x,d", &[0x18, b'd']), ("ctrl-@", &[0]), ("ctrl-\\", &[0x1c])]
        {
            assert_eq!(text.parse(), Ok(DetachKeys(bytes.to_vec())), "{text}");
        }
        for wrong in ["", "ctrl-", "ctrl-P", "ctrl-p,", "ab", "é", "ctrl-1"] {
            assert!(wrong.parse::<DetachKeys>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_the_whole_sequence_leaves_and_the_rest_is_passed_on() {
        let hear = |pieces: &[&[u8]]| {
            let mut listener = Listener::new("a,a,b".parse().unwrap());
            let mut typed = Vec::new();
            let meant = pieces.iter().map(|piece| listener.hear(piece, &mut typed)).last().unwrap();
            (meant, String::from_utf8(typed).unwrap())
        };
        assert_eq!(hear(&[b"xaab"]), (Meant::Leave, "x".into()));
        assert_eq!(hear(&[b"a", b"a", b"b"]), (Meant::Leave, String::new()));
        // The third `a` makes the first one the process's; the keys go on with the second.
        assert_eq!(hear(&[b"aaab"]), (Meant::Leave, "a".into()));
        assert_eq!(hear(&[b"aacab"]), (Meant::ForTheProcess, "aacab".into()));
    }
}
