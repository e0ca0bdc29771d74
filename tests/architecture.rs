//! The rules of the source tree that a compiler does not check, as tables: who may import whom, what pure modules never
//! name, where `unsafe`, `async`, clocks and output belong, and a few points of style.
//!
//! The sources are read as text. Comments and literals are blanked first, so that prose and data break no rule; what
//! stands below `#[cfg(test)]` at the beginning of a line is a test.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Lower layers know nothing of higher ones, and modules of one layer nothing of each other.
const LAYERS: [&[&str]; 7] = [
    &["sys"],
    &["model"],
    &["manifest", "plan", "runtime", "journal"],
    &["monitor"],
    &["engine"],
    &["reconcile"],
    &["cli", "api"],
];

/// What these places never name, and why.
const NEVER: [(&str, &[&str], &str); 7] = [
    (
        "src/model/",
        &["std::fs", "std::env", "std::process", "std::net::Tcp", "std::thread", "tracing", "nix", "rustix", "libc"],
        "the vocabulary has no I/O",
    ),
    (
        "src/plan/",
        &["std::fs", "std::env", "std::process", "std::thread", "std::time", "tracing", "nix", "rustix", "libc"],
        "planning is pure",
    ),
    ("src/monitor/", &["tokio", "clap", "toml", "rtnetlink", "ureq", "rustls", "tracing"], "a monitor is small"),
    ("src/journal/", &["tokio", "clap", "toml", "rtnetlink", "ureq", "rustls", "tracing"], "a monitor contains it"),
    ("src/runtime/", &["tokio", "clap", "toml", "rtnetlink", "ureq", "rustls", "tracing"], "a monitor contains it"),
    ("src/bin/evenkeel-monitor.rs", &["tokio", "clap", "toml", "rtnetlink", "ureq", "tracing"], "a monitor is small"),
    ("src/manifest/", &["tracing", "nix", "rustix", "libc", "std::process"], "manifests are text"),
];

/// Where else than anywhere these may stand.
const ONLY: [(&[&str], &[&str], &str); 5] = [
    (&["unsafe"], &["src/sys/"], "`unsafe` lives in sys"),
    (&["async", "await", "tokio"], &["src/engine/network/link"], "`async` stays where a library forces it"),
    (
        &["SystemTime::now", "Instant::now"],
        &["src/sys/", "src/runtime/", "src/monitor/", "src/engine/", "src/reconcile/", "src/cli/", "src/main.rs"],
        "time is an argument",
    ),
    (
        &["println", "print", "eprintln", "eprint"],
        // A monitor says what it must in a way that a full disk does not end (`monitor::complaint`).
        &["src/cli/", "src/main.rs"],
        "only the command line prints",
    ),
    // What commands keep of their own has no volume in it.
    (&["remove_dir_all"], &["src/cli/"], "`engine::removal` crosses no mount point"),
];

/// Files that are longer than 400 lines of code and why they stay whole.
const LONG: [(&str, &str); 3] = [
    ("src/monitor/machine/mod.rs", "one transition table"),
    ("src/runtime/seccomp/table.rs", "one table of system calls"),
    ("src/manifest/read.rs", "one reader for each kind of value"),
];

const LONGEST: usize = 400;

struct File {
    /// From the root of the repository.
    path: String,
    text: String,
    /// The text with comments and literals blanked, up to its tests.
    code: String,
}

impl File {
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(at, line)| (at + 1, line))
    }

    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        let (module, _) = inside.split_once('/').or_else(|| inside.split_once('.'))?;
        LAYERS.iter().any(|layer| layer.contains(&module)).then_some(module)
    }
}

fn sources() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut files, mut open) = (Vec::new(), vec![root.join("src")]);
    while let Some(directory) = open.pop() {
        let entries: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        open.extend(entries.iter().filter(|path| path.is_dir()).cloned());
        for path in entries.iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs")) {
            let text = fs::read_to_string(path).unwrap();
            let path = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            let code = without_tests(&blanked(&text));
            files.push(File { path, text, code });
        }
    }
    let tests: Vec<String> = files.iter().flat_map(test_modules).collect();
    files.retain(|file| !tests.contains(&file.path));
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(files.len() > 50, "the sources are found");
    files
}

/// The code without what is compiled for tests: from an inline module on nothing is left, a declared one is a file.
fn without_tests(code: &str) -> String {
    let lines: Vec<&str> = code.lines().collect();
    let is_test = |at: usize| lines[at] == "#[cfg(test)]";
    let inline = (0..lines.len()).find(|at| is_test(*at) && lines.get(at + 1).is_some_and(|next| next.ends_with('{')));
    let kept = lines[..inline.unwrap_or(lines.len())].iter();
    kept.fold(String::new(), |code, line| code + line + "\n")
}

/// The files of modules that a file declares for tests alone.
fn test_modules(file: &File) -> Vec<String> {
    let directory = match file.path.strip_suffix("/mod.rs") {
        Some(directory) => directory,
        None => file.path.trim_end_matches(".rs"),
    };
    let lines: Vec<&str> = file.code.lines().collect();
    let declared = lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]");
    let names = declared.filter_map(|pair| pair[1].strip_prefix("mod ")?.strip_suffix(';'));
    names.map(|name| format!("{directory}/{name}.rs")).collect()
}

/// The text with comments and the insides of literals as blanks; lines stay where they are.
fn blanked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = literal(rest, out.chars().next_back());
        match length {
            0 => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
            length => {
                out.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
                rest = &rest[length..];
            }
        }
    }
    out
}

/// The length of the comment or literal at the beginning of `rest`; 0 when there is none.
fn literal(rest: &str, before: Option<char>) -> usize {
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |end| end + 2);
    }
    let raw = rest.strip_prefix('b').unwrap_or(rest).strip_prefix('r').filter(|_| !in_word);
    if let Some(raw) = raw {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let begin = rest.len() - raw.len() + hashes + 1;
            return rest[begin..].find(&end).map_or(rest.len(), |at| begin + at + end.len());
        }
    }
    match rest.as_bytes() {
        [b'"', ..] => {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |end| end + 2)
        }
        [b'\'', b'\\', ..] => rest[3..].find('\'').map_or(rest.len(), |end| end + 4),
        // A lifetime has no quote behind its first character.
        [b'\'', ..] => {
            let mut chars = rest.char_indices().skip(2);
            chars.next().filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1)
        }
        _ => 0,
    }
}

/// Whether `line` holds `word` as a word of its own.
fn names(line: &str, word: &str) -> bool {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word)
        .any(|(at, _)| !is_word(line[..at].chars().next_back()) && !is_word(line[at + word.len()..].chars().next()))
}

fn assert_none(wrong: &str) {
    assert!(wrong.is_empty(), "\n{wrong}");
}

fn layer(module: &str) -> usize {
    LAYERS.iter().position(|layer| layer.contains(&module)).unwrap()
}

#[test]
fn imports_point_one_way() {
    let mut wrong = String::new();
    for file in sources() {
        let Some(module) = file.module() else { continue };
        for (at, line) in file.lines() {
            for (begin, _) in line.match_indices("crate::") {
                let path = &line[begin + "crate::".len()..];
                let end = path.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(path.len());
                let imported = &path[..end];
                let is_known = LAYERS.iter().any(|layer| layer.contains(&imported));
                if is_known && imported != module && layer(imported) >= layer(module) {
                    writeln!(wrong, "{}:{at}: `{module}` imports `{imported}`", file.path).unwrap();
                }
                if path.starts_with('{') {
                    writeln!(wrong, "{}:{at}: one `use` per module, so that this test can read it", file.path).unwrap();
                }
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn pure_and_small_modules_name_nothing_that_is_not() {
    let mut wrong = String::new();
    for file in sources() {
        for (place, words, why) in NEVER.iter().filter(|(place, _, _)| file.path.starts_with(place)) {
            for (at, line) in file.lines() {
                for word in words.iter().filter(|word| names(line, word)) {
                    writeln!(wrong, "{}:{at}: `{word}` in {place}: {why}", file.path).unwrap();
                }
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn unsafe_async_clocks_and_output_stay_where_they_belong() {
    let mut wrong = String::new();
    for file in sources() {
        for (words, places, why) in &ONLY {
            if places.iter().any(|place| file.path.starts_with(place)) {
                continue;
            }
            for (at, line) in file.lines() {
                for word in words.iter().filter(|word| names(line, word)) {
                    writeln!(wrong, "{}:{at}: `{word}`: {why}", file.path).unwrap();
                }
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    let mut wrong = String::new();
    for file in sources() {
        let text: Vec<&str> = file.text.lines().collect();
        for (at, line) in file.lines().filter(|(_, line)| names(line, "unsafe")) {
            let is_block = line.contains("unsafe {") || line.contains("unsafe impl");
            let above = text[at.saturating_sub(9)..at].iter();
            if is_block && !above.clone().any(|line| line.contains("SAFETY:")) {
                writeln!(wrong, "{}:{at}: `unsafe` without `SAFETY:`", file.path).unwrap();
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn every_file_says_what_it_is() {
    let silent: Vec<String> =
        sources().into_iter().filter(|file| !file.text.starts_with("//! ")).map(|file| file.path).collect();
    assert!(silent.is_empty(), "no `//!` on the first line: {silent:?}");
}

#[test]
fn files_stay_readable_at_one_sitting() {
    let mut wrong = String::new();
    for file in sources() {
        let lines = file.lines().filter(|(_, line)| !line.trim().is_empty()).count();
        let is_known = LONG.iter().any(|(path, _)| *path == file.path);
        if lines > LONGEST && !is_known {
            writeln!(wrong, "{}: {lines} lines of code, at most {LONGEST}: split it along a noun", file.path).unwrap();
        }
    }
    assert_none(&wrong);
}

#[test]
fn nothing_panics_without_a_reason_and_no_error_is_lost_in_silence() {
    let mut wrong = String::new();
    for file in sources() {
        let text: Vec<&str> = file.text.lines().collect();
        for (at, line) in file.lines() {
            for word in [".unwrap()", "todo!", "unimplemented!", "dbg!", ".expect(\"\")"] {
                if line.contains(word) {
                    writeln!(wrong, "{}:{at}: `{word}`", file.path).unwrap();
                }
            }
            // The message of `expect` is its reason; one on the next line is one too.
            let said = text[at - 1].split_once(".expect(\"").filter(|_| line.contains(".expect("));
            if said.is_some_and(|(_, said)| said.split_whitespace().count() < 3) {
                writeln!(wrong, "{}:{at}: `expect` says why it holds", file.path).unwrap();
            }
            let above = &text[at.saturating_sub(6)..at - 1];
            let is_explained =
                text[at - 1].contains("//") || above.iter().any(|line| line.trim_start().starts_with("//"));
            if loses_a_result(line) && !is_explained {
                writeln!(wrong, "{}:{at}: `let _ =` says why in a comment", file.path).unwrap();
            }
        }
    }
    assert_none(&wrong);
}

/// Whether the line calls something and drops what it answers.
fn loses_a_result(line: &str) -> bool {
    let is_call = |rest: &str, at: usize| rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    line.split_once("let _ =").is_some_and(|(_, rest)| rest.match_indices('(').any(|(at, _)| is_call(rest, at)))
}

#[test]
fn comments_and_literals_are_no_code() {
    let text = "let a = \"unsafe \\\" x\"; // unsafe\nlet b = r#\"unsafe\"#; let c = 'x'; fn d<'a>(e: &'a str) {}";
    let code = blanked(text);
    assert!(!names(&code, "unsafe"), "{code}");
    assert!(names(&code, "fn") && names(&code, "str"), "{code}");
    assert_eq!(code.lines().count(), 2);
}
