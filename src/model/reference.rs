//! Image references: the names under which registries know images.
//!
//! A reference is normalised once, where it is read: `nginx` is `docker.io/library/nginx:latest`. Everything after
//! that compares whole texts.
//!
//! # Decisions
//! The grammar is `distribution/reference`'s, written by hand: `oci_spec`'s parser compiles a large regular
//! expression at first use, which alone would take a visible share of a converged check's time. It serves as the
//! oracle of the tests instead.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::id::Digest;

const DOCKER_HUB: &str = "docker.io";
const REPOSITORY_LENGTH_MAX: usize = 255;
const TAG_LENGTH_MAX: usize = 128;

/// Why a text is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReferenceError {
    #[error("an image reference cannot be empty")]
    Empty,
    #[error("`{0}` is not a registry: expected a host name and perhaps a port, such as `registry.example.org:5000`")]
    Registry(String),
    #[error(
        "`{0}` is not a repository: names are lower case and use a-z, 0-9, `.`, `_`, `-` between letters or digits"
    )]
    Repository(String),
    #[error("a repository name has at most {REPOSITORY_LENGTH_MAX} characters")]
    TooLong,
    #[error(
        "`{0}` is not a tag: use letters, digits, `_`, `.` and `-`, at most {TAG_LENGTH_MAX}, not beginning with `.` or `-`"
    )]
    Tag(String),
    #[error("`{0}` is not a digest: expected `sha256:` and 64 lower-case hexadecimal digits")]
    Digest(String),
}

/// A normalised reference: the registry is never absent, and neither are tag and digest both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// `docker.io`, `localhost:5000`, `[::1]:5000`.
    pub registry: String,
    /// `library/nginx`.
    pub repository: String,
    pub tag: Option<String>,
    /// When present it decides, and the tag is only for people.
    pub digest: Option<Digest>,
}

impl Reference {
    /// What the registry is asked for: the digest if there is one, else the tag.
    pub fn version(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => {
                (rest, Some(digest.parse().map_err(|_| ReferenceError::Digest(digest.to_owned()))?))
            }
        };
        // A colon after the last slash begins a tag; one before it belongs to the registry's port.
        let tag_colon = rest.rfind(':').filter(|colon| !rest[*colon..].contains('/'));
        let (name, tag) = match tag_colon {
            None => (rest, None),
            Some(colon) => (&rest[..colon], Some(checked_tag(&rest[colon + 1..])?)),
        };
        let (registry, path) = split_registry(name);
        if !is_registry(registry) {
            return Err(ReferenceError::Registry(registry.to_owned()));
        }
        if !path.split('/').all(is_path_component) {
            return Err(ReferenceError::Repository(path.to_owned()));
        }
        let repository = match registry == DOCKER_HUB && !path.contains('/') {
            true => format!("library/{path}"),
            false => path.to_owned(),
        };
        if repository.len() > REPOSITORY_LENGTH_MAX {
            return Err(ReferenceError::TooLong);
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag,
        };
        Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
    }
}

/// The first component is a registry if it cannot be a repository's: it has a dot or a colon, is `localhost`, or
/// has an upper-case letter. Otherwise the registry is Docker Hub.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some(("index.docker.io", path)) => (DOCKER_HUB, path),
        Some((first, path))
            if first == "localhost"
                || first.contains(['.', ':', '['])
                || first.contains(|c: char| c.is_ascii_uppercase()) =>
        {
            (first, path)
        }
        _ => (DOCKER_HUB, name),
    }
}

/// `host`, `host:port` or `[IPv6]:port`.
fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                ("localhost", port.strip_prefix(':'))
            }
            _ => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        let plain = |b: &u8| b.is_ascii_alphanumeric();
        bytes.first().is_some_and(plain)
            && bytes.last().is_some_and(plain)
            && bytes.iter().all(|b| plain(b) || *b == b'-')
    };
    host.split('.').all(is_label) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Letters and digits, separated by one dot, one or two underscores, or any number of dashes.
fn is_path_component(text: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut separator = String::new();
    let mut seen = false;
    for c in text.chars() {
        if is_alphanumeric(c) {
            let allowed = matches!(separator.as_str(), "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-');
            if !allowed || (!seen && !separator.is_empty()) {
                return false;
            }
            separator.clear();
            seen = true;
        } else {
            separator.push(c);
        }
    }
    seen && separator.is_empty()
}

fn checked_tag(text: &str) -> Result<String, ReferenceError> {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let valid = text.len() <= TAG_LENGTH_MAX
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|b| is_word(b) || matches!(b, b'.' | b'-'));
    match valid {
        true => Ok(text.to_owned()),
        false => Err(ReferenceError::Tag(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn references_are_normalised_as_docker_does() {
        let digested = format!("nginx@{DIGEST}");
        let both = format!("localhost/nginx:1@{DIGEST}");
        for (text, whole) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("grafana/grafana", "docker.io/grafana/grafana:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("localhost/web", "localhost/web:latest"),
            ("localhost:5000/shop/web:1.4", "localhost:5000/shop/web:1.4"),
            ("127.0.0.1:5000/web", "127.0.0.1:5000/web:latest"),
            ("[::1]:5000/web", "[::1]:5000/web:latest"),
            ("registry.example.org/a/b/c:x", "registry.example.org/a/b/c:x"),
            (&digested, &format!("docker.io/library/{digested}")),
            (&both, &both),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), whole);
            assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference, "{text}");
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for text in [
            "",
            "Nginx",
            "nginx:",
            "nginx:-a",
            "a//b",
            "/a",
            "a/",
            "nginx@sha256:12",
            "nginx@md5:12",
            "a b",
            "a..b",
            "_a",
            "example.org:x/a",
            "example.org:0/a",
            "-example.org/a",
            "a___b",
            "example.org/",
            "https://example.org/a",
            // oci_spec takes it; no host has an underscore, and Docker refuses it too.
            "a_b.c/a",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_grammar_agrees_with_oci_spec() {
        let hosts = ["", "docker.io/", "localhost/", "localhost:5000/", "a.b/", "a-b.c:80/", "-a.b/"];
        let paths = ["a", "a/b", "a.b", "a..b", "a__b", "a___b", "a--b", "a-", "-a", "A", "a/B", "a_-b", "0"];
        let tags = ["", ":1", ":v1.2-x_y", ":", ":.x", ":_x"];
        for host in hosts {
            for path in paths {
                for tag in tags {
                    let text = format!("{host}{path}{tag}");
                    let oracle = oci_spec::distribution::Reference::try_from(text.as_str()).map(|r| r.whole()).ok();
                    assert_eq!(text.parse::<Reference>().map(|r| r.to_string()).ok(), oracle, "{text}");
                }
            }
        }
    }
}
