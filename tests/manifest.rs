//! Manifests: golden problems, resolution and back, the schema, the examples, and texts that are no manifests.
//!
//! `tests/manifest/<case>/` holds the manifest (`evenkeel.toml`, or `layer-*` files and directories in the order of
//! their names) and what is expected of it: `expected.txt`, the problems as they are printed, or `expected.toml`,
//! what `evenkeel config` prints. `UPDATE=1 cargo test --test manifest` rewrites both.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use evenkeel::manifest::{self, Colour, FileKind, Loaded, Problems, Source, Surroundings};

/// What the cases see of the environment.
fn variable(name: &str) -> Option<String> {
    match name {
        "NAME" => Some("web".to_owned()),
        "EMPTY" => Some(String::new()),
        "PORT" => Some("8080".to_owned()),
        _ => None,
    }
}

/// Cases are parsed as if they were in `/project`, with the files of their own directory.
fn parse_case(case: &Path) -> Result<Loaded, Problems> {
    let own = |path: &Path| Some(case.join(path.strip_prefix("/project").ok()?));
    let file_kind = |path: &Path| match own(path) {
        Some(own) if own.is_dir() => Some(FileKind::Directory),
        Some(own) if own.exists() => Some(FileKind::File),
        _ => None,
    };
    let read_file = |path: &Path| match own(path) {
        Some(own) => fs::read_to_string(own),
        None => Err(std::io::Error::from(std::io::ErrorKind::NotFound)),
    };
    let surroundings = Surroundings {
        directory: Path::new("/project"),
        variable: &variable,
        file_kind: &file_kind,
        read_file: &read_file,
    };
    manifest::parse(layers_of(case), &surroundings)
}

fn layers_of(case: &Path) -> Vec<Vec<Source>> {
    let source = |path: &Path| Source {
        path: path.strip_prefix(case).unwrap().to_path_buf(),
        text: fs::read_to_string(path).unwrap(),
    };
    let layers = sorted(case).into_iter().filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name == "evenkeel.toml" || name.starts_with("layer-")
    });
    layers
        .map(|layer| match layer.is_dir() {
            true => sorted(&layer).iter().map(|path| source(path)).collect(),
            false => vec![source(&layer)],
        })
        .collect()
}

fn sorted(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Compares with the file, or writes it when `UPDATE` is set.
fn assert_is_file(actual: &str, path: &Path) -> Result<(), String> {
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, actual).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    match actual == expected {
        true => Ok(()),
        false => Err(format!("{} differs:\n--- expected\n{expected}\n--- actual\n{actual}", path.display())),
    }
}

#[test]
fn every_case_is_as_expected() {
    let cases = sorted(&repository("tests/manifest"));
    assert!(cases.len() >= 60, "only {} cases", cases.len());
    let mut failures = Vec::new();
    for case in cases {
        let (expected, other, actual) = match parse_case(&case) {
            Ok(loaded) => ("expected.toml", "expected.txt", manifest::to_toml(&loaded)),
            Err(problems) => ("expected.txt", "expected.toml", problems.render(Colour::Plain) + "\n"),
        };
        if case.join(other).exists() {
            failures.push(format!("{}: expected {other}, got:\n{actual}", case.display()));
        } else if let Err(difference) = assert_is_file(&actual, &case.join(expected)) {
            failures.push(difference);
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_resolved_manifest_is_a_manifest_of_the_same_project() {
    let mut seen = 0;
    for case in sorted(&repository("tests/manifest")) {
        let Ok(first) = parse_case(&case) else { continue };
        let text = manifest::to_toml(&first);
        let second = parse_again(&case, &text);
        assert_eq!(second.desired, first.desired, "{}", case.display());
        assert_eq!(manifest::to_toml(&second), text, "{}", case.display());
        seen += 1;
    }
    assert!(seen >= 8, "only {seen} cases resolve");
}

/// Parses a resolved manifest where its case was parsed: all paths in it are absolute, and no variable is left.
fn parse_again(case: &Path, text: &str) -> Loaded {
    let own = |path: &Path| Some(case.join(path.strip_prefix("/project").ok()?));
    let file_kind = |path: &Path| match own(path) {
        Some(own) if own.is_dir() => Some(FileKind::Directory),
        Some(own) if own.exists() => Some(FileKind::File),
        _ => None,
    };
    // Of the files that a manifest names only Dockerfiles and seccomp profiles are still named in a resolved one.
    let is_named = |path: &PathBuf| ["Dockerfile", ".json"].iter().any(|end| path.to_string_lossy().ends_with(end));
    let read_file = |path: &Path| match own(path).filter(is_named) {
        Some(own) => fs::read_to_string(own),
        None => Err(std::io::Error::from(std::io::ErrorKind::NotFound)),
    };
    let surroundings = Surroundings {
        directory: Path::new("/elsewhere"),
        variable: &|_| None,
        file_kind: &file_kind,
        read_file: &read_file,
    };
    let source = Source { path: PathBuf::from("config.toml"), text: text.to_owned() };
    manifest::parse(vec![vec![source]], &surroundings).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

#[test]
fn the_committed_schema_is_what_the_types_say() {
    assert_is_file(&manifest::schema_text(), &repository("schemas/manifest.schema.json")).unwrap();
}

#[test]
fn what_is_not_there_is_a_problem_without_a_place() {
    let missing = PathBuf::from("/nonexistent/evenkeel.toml");
    let problems = manifest::load(&[missing], &variable).unwrap_err();
    assert!(problems.to_string().contains("cannot read the manifest `/nonexistent/evenkeel.toml`"), "{problems}");
}

#[test]
fn a_file_that_is_not_text_is_shown_where_it_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("evenkeel.toml");
    fs::write(&file, b"project = \"p\"\n# caf\xe9\n").unwrap();
    let problems = manifest::load(&[file], &variable).unwrap_err().located();
    assert_eq!((problems[0].line, problems[0].column), (Some(2), Some(6)));
    assert_eq!(problems[0].message, "a manifest is UTF-8 text");
}

#[test]
fn a_file_without_an_end_is_not_read_to_its_end() {
    let problems = manifest::load(&[PathBuf::from("/dev/zero")], &variable).unwrap_err();
    assert!(problems.to_string().contains("it has more than 16 MiB"), "{problems}");
}

#[test]
fn the_mark_that_editors_put_before_a_text_is_no_part_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), format!("\u{feff}{text}")).unwrap();
    write("evenkeel.toml", "project = \"p\"\n[containers.web]\nimage = \"a/b\"\nenv_files = [\"web.env\"]\n");
    write("web.env", "A=1\r\n");
    let loaded = manifest::load(&[directory.path().join("evenkeel.toml")], &variable).unwrap();
    let web = loaded.desired.containers.values().next().unwrap();
    assert_eq!(web.spec.environment, BTreeMap::from([("A".to_owned(), "1".to_owned())]));

    write("evenkeel.toml", "nonsense = 1\n");
    let problems = manifest::load(&[directory.path().join("evenkeel.toml")], &variable).unwrap_err().located();
    assert!(problems.iter().any(|problem| (problem.line, problem.column) == (Some(1), Some(1))));
}

#[test]
fn a_directory_is_read_in_order_without_hidden_files() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write("10-project.toml", "project = \"p\"\n");
    write("20-web.toml", "[containers.web]\nimage = \"a/b\"\n");
    write(".hidden.toml", "this is no TOML");
    write("notes.txt", "nor is this");
    let loaded = manifest::load(&[directory.path().to_path_buf()], &variable).unwrap();
    let files: Vec<_> = loaded.files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(files, ["10-project.toml", "20-web.toml"]);
    assert_eq!(loaded.desired.containers.len(), 1);
}

#[test]
fn the_project_is_found_in_a_manifest_with_problems() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("evenkeel.toml");
    fs::write(&file, "project = \"p\"\n[containers.web]\nimge = 1\n").unwrap();
    assert!(manifest::load(std::slice::from_ref(&file), &variable).is_err());
    assert_eq!(manifest::load_project(&[file], &variable).unwrap().as_str(), "p");
}

#[test]
fn problems_for_programs_have_lines_and_columns() {
    let source = Source { path: "m.toml".into(), text: "project = \"p\"\n\n  nonsense = 1\n".to_owned() };
    let surroundings = Surroundings {
        directory: Path::new("/"),
        variable: &|_| None,
        file_kind: &|_| None,
        read_file: &|_| Err(std::io::Error::from(std::io::ErrorKind::NotFound)),
    };
    let located = manifest::parse(vec![vec![source]], &surroundings).unwrap_err().located();
    assert_eq!((located[0].line, located[0].column), (Some(3), Some(3)));
    assert_eq!(located[0].file.as_deref(), Some(Path::new("m.toml")));
}

/// Every key of every table of the schema is read, and no table takes a key that it does not know. That readers know
/// no key beside the schema's follows from their sharing one declaration.
#[test]
fn what_the_schema_has_is_read_and_nothing_else() {
    let schema: serde_json::Value = serde_json::from_str(&manifest::schema_text()).unwrap();
    let of = |definition: &str| -> Vec<String> {
        let table = match definition {
            "" => &schema,
            name => &schema["$defs"][name],
        };
        table["properties"].as_object().unwrap().keys().cloned().collect()
    };
    let tables: BTreeMap<&str, &str> = BTreeMap::from([
        ("", "KEY = 0"),
        ("Image", "images.a.KEY = 0"),
        ("BuildTable", "images.a.build.KEY = 0"),
        ("SecretTable", "images.a.build.secrets.a.KEY = 0"),
        ("Network", "networks.a.KEY = 0"),
        ("Volume", "volumes.a.KEY = 0"),
        ("Owner", "volumes.a.owner.KEY = 0"),
        ("Restart", "restart.a.KEY = 0"),
        ("Backoff", "restart.a.backoff.KEY = 0"),
        ("Container", "containers.a.KEY = 0"),
        ("Attachment", "containers.a.networks.a.KEY = 0"),
        ("Resources", "containers.a.resources.KEY = 0"),
        ("UlimitPair", "containers.a.ulimits.nofile.KEY = 0"),
        ("HealthcheckTable", "containers.a.healthcheck.KEY = 0"),
        ("HttpProbe", "containers.a.healthcheck.http.KEY = 0"),
        ("Logging", "containers.a.logging.KEY = 0"),
        ("Security", "containers.a.security.KEY = 0"),
        ("UsersTable", "containers.a.userns.KEY = 0"),
        ("Update", "containers.a.update.KEY = 0"),
        ("MountTable", "containers.a.mounts.\"/a\".KEY = 0"),
        ("DeviceTable", "containers.a.devices = [{ KEY = 0 }]"),
    ]);
    let definitions: Vec<&str> = schema["$defs"].as_object().unwrap().keys().map(String::as_str).collect();
    for definition in &definitions {
        assert!(tables.contains_key(definition), "the table `{definition}` is not covered here");
    }
    for (definition, text) in tables {
        for key in of(definition) {
            let known = problem_messages(&text.replace("KEY", &key));
            assert!(!known.contains("unknown key"), "`{definition}` does not read `{key}`: {known}");
        }
        let unknown = problem_messages(&text.replace("KEY", "qqqqqqqq"));
        assert!(unknown.contains("unknown key"), "`{definition}` takes anything: {unknown}");
    }
}

fn problem_messages(text: &str) -> String {
    let surroundings = Surroundings {
        directory: Path::new("/"),
        variable: &|_| None,
        file_kind: &|_| None,
        read_file: &|_| Err(std::io::Error::from(std::io::ErrorKind::NotFound)),
    };
    let source = Source { path: "m.toml".into(), text: text.to_owned() };
    let Err(problems) = manifest::parse(vec![vec![source]], &surroundings) else { return String::new() };
    let located = problems.located();
    let text = located.iter().map(|p| format!("{}|{}|{}", p.message, p.expected, p.help.as_deref().unwrap_or("")));
    text.collect::<Vec<_>>().join("\n")
}
