//! What `image ls` and `image prune` choose images by.
//!
//! As Docker has it: filters of one kind are alternatives, except labels, all of which must be there; different kinds
//! must hold all.

use std::str::FromStr;
use std::time::SystemTime;

use super::find;
use crate::cli::failure::Failure;
use crate::cli::past;
use crate::engine::image::catalogue::Entry;
use crate::model::dockerfile::pattern;
use crate::model::image::ImageSource;

/// One `--filter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    Dangling(bool),
    /// A pattern for `REPOSITORY` or `REPOSITORY:TAG`, part by part between slashes.
    Reference(String),
    Label(String, Option<String>),
    /// Made before, or after, this image.
    Before(String),
    Since(String),
    /// Made before this moment.
    Until(SystemTime),
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Filter, String> {
        let known =
            "dangling=true|false, reference=PATTERN, label=NAME[=VALUE], before=IMAGE, since=IMAGE or until=TIME";
        let Some((kind, value)) = text.split_once('=') else { return Err(format!("expected {known}")) };
        let value = value.to_owned();
        match kind {
            "dangling" => match value.as_str() {
                "true" | "1" => Ok(Filter::Dangling(true)),
                "false" | "0" => Ok(Filter::Dangling(false)),
                _ => Err("`dangling` is true or false".to_owned()),
            },
            "reference" => Ok(Filter::Reference(value)),
            "label" => Ok(match value.split_once('=') {
                Some((name, value)) => Filter::Label(name.to_owned(), Some(value.to_owned())),
                None => Filter::Label(value, None),
            }),
            "before" => Ok(Filter::Before(value)),
            "since" => Ok(Filter::Since(value)),
            "until" => past::moment(&value).map(Filter::Until),
            _ => Err(format!("there is no filter `{kind}`; expected {known}")),
        }
    }
}

/// Filters with everything that they need looked up.
pub struct Filters {
    all: Vec<Filter>,
    before: Option<SystemTime>,
    since: Option<SystemTime>,
}

impl Filters {
    pub fn new(all: &[Filter], entries: &[Entry]) -> Result<Filters, Failure> {
        let made = |word: &String| -> Result<SystemTime, Failure> {
            let entry = find::find(entries, word)?.entry();
            entry.description.created_at().ok_or_else(|| Failure::new(format!("when `{word}` was made is not known")))
        };
        let (mut before, mut since) = (None, None);
        for filter in all {
            match filter {
                Filter::Before(word) => before = before.max(Some(made(word)?)),
                Filter::Since(word) => {
                    let made = made(word)?;
                    since = Some(since.map_or(made, |known: SystemTime| known.min(made)));
                }
                Filter::Dangling(_) | Filter::Reference(_) | Filter::Label(..) | Filter::Until(_) => {}
            }
        }
        Ok(Filters { all: all.to_vec(), before, since })
    }

    /// Whether the image is chosen, by what is not about one of its names.
    pub fn takes(&self, entry: &Entry) -> bool {
        let labels = &entry.image.config.labels;
        let created = entry.description.created_at();
        let has_label = |name: &String, value: &Option<String>| match (labels.get(name), value) {
            (Some(actual), Some(value)) => actual == value,
            (actual, None) => actual.is_some(),
            (None, Some(_)) => false,
        };
        let mut dangling = self.all.iter().filter_map(|filter| match filter {
            Filter::Dangling(wanted) => Some(*wanted == entry.is_dangling()),
            _ => None,
        });
        let is_dangling_as_wanted = match dangling.next() {
            None => true,
            Some(first) => first || dangling.any(|fits| fits),
        };
        is_dangling_as_wanted
            && self.all.iter().all(|filter| match filter {
                Filter::Label(name, value) => has_label(name, value),
                Filter::Until(moment) => created.is_some_and(|then| then <= *moment),
                Filter::Dangling(_) | Filter::Reference(_) | Filter::Before(_) | Filter::Since(_) => true,
            })
            && self.before.is_none_or(|limit| created.is_some_and(|created| created < limit))
            && self.since.is_none_or(|limit| created.is_some_and(|created| created > limit))
    }

    /// Whether this name of an image is chosen; `None` is that of a dangling one.
    pub fn takes_name(&self, source: Option<&ImageSource>) -> bool {
        let mut patterns = self.all.iter().filter_map(|filter| match filter {
            Filter::Reference(pattern) => Some(pattern.as_str()),
            _ => None,
        });
        match patterns.next() {
            None => true,
            Some(first) => std::iter::once(first)
                .chain(patterns)
                .any(|pattern| source.is_some_and(|source| matches_name(pattern, source))),
        }
    }
}

/// The whole name or what people write, with the tag or without.
fn matches_name(wanted: &str, source: &ImageSource) -> bool {
    let Some(reference) = source.reference() else { return wanted == source.to_string() };
    let whole = format!("{}/{}", reference.registry, reference.repository);
    let names = [whole.as_str(), crate::cli::ps::familiar(&whole)];
    let pattern: Vec<&str> = wanted.split('/').collect();
    let matches = |name: &str| pattern::matches_path(&pattern, &name.split('/').collect::<Vec<_>>());
    names
        .into_iter()
        .any(|name| matches(name) || reference.tag.as_ref().is_some_and(|tag| matches(&format!("{name}:{tag}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_for_the_name_with_its_tag_or_without() {
        let nginx = ImageSource::Reference("docker.io/library/nginx:1.27".to_owned());
        let shop = ImageSource::Reference("registry.example.org/shop/web:2".to_owned());
        for (pattern, source, is_match) in [
            ("nginx", &nginx, true),
            ("nginx:1.*", &nginx, true),
            ("nginx:2", &nginx, false),
            ("docker.io/library/nginx", &nginx, true),
            ("ng*", &nginx, true),
            ("*/nginx", &nginx, false),
            ("*/shop/*", &shop, true),
            ("web", &shop, false),
        ] {
            assert_eq!(matches_name(pattern, source), is_match, "{pattern} {source}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        assert_eq!("label=a=b".parse(), Ok(Filter::Label("a".to_owned(), Some("b".to_owned()))));
        assert_eq!("dangling=1".parse(), Ok(Filter::Dangling(true)));
        for text in ["dangling", "dangling=maybe", "color=red", "until=soon"] {
            assert!(text.parse::<Filter>().is_err(), "{text}");
        }
    }
}
