//! Builds: the context, and the Dockerfile, whose own errors are problems like all others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::value_of;
use crate::manifest::FileKind;
use crate::manifest::problem::{Place, Placed, Problem, Source};
use crate::manifest::read::Reading;
use crate::manifest::shape::build::{Build, BuildTable, Secret};
use crate::manifest::suggest::nearest;
use crate::model::build::{BuildSpec, SecretSource};
use crate::model::dockerfile::pattern::Ignore;
use crate::model::dockerfile::{self, Dockerfile, Step};
use crate::model::image::Pull;

/// `ARG`s that need no declaration (Dockerfile reference, "Predefined ARGs").
const PREDEFINED: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// The build, or `None` after a problem.
pub(super) fn declared(written: &Placed<Build>, reading: &mut Reading<'_>) -> Option<BuildSpec> {
    let nothing = BuildTable::default();
    let (context, table) = match &written.value {
        Build::Context(context) => (context, &nothing),
        Build::Table(table) => (table.context.as_ref()?, &**table),
    };
    let directory = directory(context, reading)?;
    let named = table.dockerfile.as_ref();
    let file = directory.join(named.map_or("Dockerfile", |name| name.value.as_str()));
    let spec = BuildSpec {
        dockerfile: reading.absolute(&context.place, &file.to_string_lossy()),
        context: directory,
        target: value_of(&table.target),
        args: table.arguments().map(|(name, value)| (name.value.0.clone(), value.0.clone())).collect(),
        labels: table.labels().map(|(name, value)| (name.value.0.clone(), value.0.clone())).collect(),
        secrets: secrets(table, reading),
        network: value_of(&table.network).unwrap_or_default(),
        no_cache: value_of(&table.no_cache).unwrap_or_default(),
        pull: if value_of(&table.pull) == Some(true) { Pull::Always } else { Pull::Missing },
    };
    let parsed = read_dockerfile(&spec.dockerfile, named.map_or(&context.place, |name| &name.place), reading);
    let ignored = check_ignore_file(&spec, &context.place, reading);
    let parsed = parsed?;
    let fits = check_table(table, &parsed, reading);
    (ignored && fits).then_some(spec)
}

/// Whether they can be read is found out by the build that needs one: here may be another host than where that runs.
fn secrets(table: &BuildTable, reading: &mut Reading<'_>) -> BTreeMap<String, SecretSource> {
    let mut all = BTreeMap::new();
    for (id, secret) in table.secrets() {
        let source = match secret {
            Secret::File(path) => SecretSource::File(reading.absolute(&path.place, &path.value)),
            Secret::Table(Placed { value: table, place }) => match (&table.file, &table.environment) {
                (Some(path), None) => SecretSource::File(reading.absolute(&path.place, &path.value)),
                (None, Some(name)) => SecretSource::Environment(name.value.0.clone()),
                (Some(_), Some(name)) => {
                    let problem = Problem::at(&name.place, format!("the secret `{}` has two sources", id.value.0));
                    reading.report(problem.label("`environment` excludes `file`"));
                    continue;
                }
                (None, None) if table.unread.is_empty() => {
                    let problem = Problem::at(place, format!("the secret `{}` has no source", id.value.0));
                    reading.report(problem.label("expected `file` or `environment`"));
                    continue;
                }
                (None, None) => continue,
            },
        };
        all.insert(id.value.0.clone(), source);
    }
    all
}

fn directory(context: &Placed<String>, reading: &mut Reading<'_>) -> Option<PathBuf> {
    if context.value.contains("://") || context.value.starts_with("git@") {
        reading.report(
            Problem::at(&context.place, "a context is a directory of this host").label("contexts are not fetched"),
        );
        return None;
    }
    let path = reading.absolute(&context.place, &context.value);
    let label = match reading.file_kind(&path) {
        Some(FileKind::Directory) => return Some(path),
        Some(_) => "expected a directory",
        None => "no such directory",
    };
    let message = format!("the build context `{}` is not there", path.display());
    reading.report(Problem::at(&context.place, message).label(label));
    None
}

/// The Dockerfile as one of the texts of this run: problems point into it, and `watch` looks at it.
fn read_dockerfile(path: &Path, place: &Place, reading: &mut Reading<'_>) -> Option<Dockerfile> {
    let text = match (reading.file_kind(path), (reading.surroundings.read_file)(path)) {
        (Some(FileKind::File), Ok(text)) => text,
        (kind, read) => {
            let problem = Problem::at(place, format!("the Dockerfile `{}` cannot be read", path.display()));
            let why = match (kind, read) {
                (None, _) => "no such file".to_owned(),
                (Some(FileKind::File), Err(error)) => error.to_string(),
                (Some(_), _) => "expected a file".to_owned(),
            };
            reading.report(problem.label(why));
            return None;
        }
    };
    let shown = path.strip_prefix(reading.surroundings.directory).unwrap_or(path).to_path_buf();
    // Two images may be built from one file; its problems are told once.
    let known = reading.sources.iter().position(|source| source.path == shown);
    let number = known.unwrap_or(reading.sources.len());
    let parsed = dockerfile::parse(&text);
    if known.is_none() {
        reading.sources.push(Source { path: shown, text });
    }
    match parsed {
        Ok(parsed) => Some(parsed),
        Err(errors) => {
            for error in errors {
                reading.report(Problem::at(&Place::new(number, error.place), error.message).label(error.expected));
            }
            None
        }
    }
}

/// Whether the patterns of the `.dockerignore` that the build would use can be read.
fn check_ignore_file(spec: &BuildSpec, place: &Place, reading: &mut Reading<'_>) -> bool {
    for path in ignore_files(spec) {
        if reading.file_kind(&path) != Some(FileKind::File) {
            continue;
        }
        let read = (reading.surroundings.read_file)(&path).map_err(|error| error.to_string());
        if let Err(why) = read.and_then(|text| Ignore::parse(&text)) {
            reading.report(Problem::at(place, format!("cannot use `{}`", path.display())).label(why));
            return false;
        }
        break;
    }
    true
}

/// Where patterns are looked for; the first that is there counts.
fn ignore_files(spec: &BuildSpec) -> [PathBuf; 2] {
    let mut beside = spec.dockerfile.clone().into_os_string();
    beside.push(".dockerignore");
    [PathBuf::from(beside), spec.context.join(".dockerignore")]
}

fn check_table(table: &BuildTable, parsed: &Dockerfile, reading: &mut Reading<'_>) -> bool {
    let mut fits = true;
    if let Some(target) = table.target.as_ref().filter(|target| parsed.stage(&target.value).is_none()) {
        let names = || parsed.stages.iter().filter_map(|stage| stage.name.as_deref());
        let problem = Problem::at(&target.place, format!("the Dockerfile has no stage `{}`", target.value));
        let near = nearest(&target.value, names()).map(|near| format!("did you mean `{near}`?"));
        let all: Vec<&str> = names().collect();
        let listed = (!all.is_empty()).then(|| format!("its stages are {}", all.join(", ")));
        reading.report(problem.label("no such stage").maybe_help(near.or(listed)));
        fits = false;
    }
    let taken = arguments(parsed);
    for (name, _) in table.arguments() {
        let text = name.value.0.as_str();
        if taken.contains(text) || PREDEFINED.contains(&text) {
            continue;
        }
        let problem = Problem::at(&name.place, format!("no `ARG` of the Dockerfile takes `{text}`"));
        let near = nearest(text, taken.iter().copied()).map(|near| format!("did you mean `{near}`?"));
        reading.report(problem.label("it would have no effect").maybe_help(near));
        fits = false;
    }
    let asked = parsed.secret_ids();
    for (id, _) in table.secrets() {
        let text = id.value.0.as_str();
        if asked.contains(text) || asked.iter().any(|asked| asked.contains('$')) {
            continue;
        }
        let near = nearest(text, asked.iter().map(String::as_str)).map(|near| format!("did you mean `{near}`?"));
        // A trigger of a base may ask for it. The build says so if none has.
        if near.is_none() && parsed.has_bases() {
            continue;
        }
        let message = format!("no `RUN --mount=type=secret` of the Dockerfile asks for `{text}`");
        reading.report(Problem::at(&id.place, message).label("it would have no effect").maybe_help(near));
        fits = false;
    }
    fits
}

/// The names of all `ARG`s.
fn arguments(parsed: &Dockerfile) -> BTreeSet<&str> {
    let steps = parsed.stages.iter().flat_map(|stage| &stage.instructions);
    let inside = steps.filter_map(|instruction| match &instruction.step {
        Step::Arg(arguments) => Some(arguments),
        _ => None,
    });
    std::iter::once(&parsed.arguments).chain(inside).flatten().map(|argument| argument.name.as_str()).collect()
}
