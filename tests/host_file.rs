//! The host file: golden problems, what is read, the schema, the example.
//!
//! `tests/host_file/<case>/` holds `host.toml`, the files that it names, and `expected.txt`: its problems as they are
//! printed, or what it says. `UPDATE=1 cargo test --test host_file` rewrites them.

use std::fs;
use std::path::{Path, PathBuf};

use evenkeel::manifest::host::{load_host, parse_host};
use evenkeel::manifest::{self, Colour, FileKind, Source, Surroundings};

fn variable(name: &str) -> Option<String> {
    (name == "NAME").then(|| "mirror".to_owned())
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Read as if it were in `/etc/evenkeel`, with the files of its own directory.
fn read(case: &Path) -> String {
    let file_kind = |path: &Path| {
        let own = case.join(path.strip_prefix("/etc/evenkeel").ok()?);
        own.exists().then_some(if own.is_dir() { FileKind::Directory } else { FileKind::File })
    };
    let surroundings = Surroundings {
        directory: Path::new("/etc/evenkeel"),
        variable: &variable,
        file_kind: &file_kind,
        read_file: &|_| Err(std::io::ErrorKind::NotFound.into()),
    };
    let source = Source { path: "host.toml".into(), text: fs::read_to_string(case.join("host.toml")).unwrap() };
    match parse_host(source, &surroundings) {
        Ok(config) => format!("{config:#?}\n"),
        Err(problems) => problems.render(Colour::Plain) + "\n",
    }
}

fn assert_is_file(actual: &str, path: &Path) {
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, actual).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert!(actual == expected, "{} differs:\n--- expected\n{expected}\n--- actual\n{actual}", path.display());
}

#[test]
fn every_case_is_as_expected() {
    let mut seen = 0;
    for case in fs::read_dir(repository("tests/host_file")).unwrap() {
        let case = case.unwrap().path();
        assert_is_file(&read(&case), &case.join("expected.txt"));
        seen += 1;
    }
    assert!(seen >= 3, "only {seen} cases");
}

#[test]
fn the_committed_schema_is_what_the_types_say() {
    assert_is_file(&manifest::host_schema_text(), &repository("schemas/host.schema.json"));
}

#[test]
fn the_example_is_one() {
    let (config, path) = load_host(Some(&repository("examples/host.toml")), &variable).unwrap();
    assert_eq!(path, Some(repository("examples/host.toml")));
    assert_eq!(config.registries.len(), 3);
}

#[test]
fn a_host_file_that_is_named_has_to_be_there() {
    let problems = load_host(Some(Path::new("/nonexistent/host.toml")), &variable).unwrap_err().to_string();
    assert!(problems.contains("cannot read the host file `/nonexistent/host.toml`"), "{problems}");
    let problems = load_host(Some(Path::new("/")), &variable).unwrap_err().to_string();
    assert!(problems.contains("is a directory"), "{problems}");
}
