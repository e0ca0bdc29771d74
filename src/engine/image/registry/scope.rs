//! What a token is to allow (distribution, "Docker Registry Token Authentication Specification", scope).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What we want to do, each with the repository: `repository:shop/web:pull,push`. Always in one order, so that equal
/// wishes are equal texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes {
    /// By kind and name.
    all: BTreeMap<(String, String), BTreeSet<String>>,
}

impl Scopes {
    /// To read a repository.
    pub fn pull(repository: &str) -> Scopes {
        Scopes::default().with(&format!("repository:{repository}:pull"))
    }

    /// To read and write a repository.
    pub fn push(repository: &str) -> Scopes {
        Scopes::default().with(&format!("repository:{repository}:pull,push"))
    }

    /// These, and what a challenge asks for: scopes with blanks between them. The actions of one are put together.
    pub fn with(&self, asked: &str) -> Scopes {
        let mut all = self.all.clone();
        for scope in asked.split_whitespace() {
            // A name may hold colons, since it may begin with a host and its port; kind and actions hold none.
            let Some((kind, rest)) = scope.split_once(':') else { continue };
            let Some((name, actions)) = rest.rsplit_once(':') else { continue };
            let known = all.entry((kind.to_owned(), name.to_owned())).or_default();
            known.extend(actions.split(',').map(str::trim).filter(|action| !action.is_empty()).map(str::to_owned));
        }
        Scopes { all }
    }

    pub fn iter(&self) -> impl Iterator<Item = Scope<'_>> {
        self.all.iter().map(|((kind, name), actions)| Scope { kind, name, actions })
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.iter().map(|scope| scope.to_string()).collect();
        f.write_str(&all.join(" "))
    }
}

pub struct Scope<'a> {
    kind: &'a str,
    name: &'a str,
    actions: &'a BTreeSet<String>,
}

impl fmt::Display for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let actions: Vec<&str> = self.actions.iter().map(String::as_str).collect();
        write!(f, "{}:{}:{}", self.kind, self.name, actions.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_added_to_what_is_wanted() {
        let push = Scopes::push("shop/web");
        assert_eq!(push.to_string(), "repository:shop/web:pull,push");
        assert_eq!(push.with("repository:shop/web:push,pull").to_string(), "repository:shop/web:pull,push");
        let more = push.with("repository:base:pull  registry:catalog:* nonsense");
        assert_eq!(more.to_string(), "registry:catalog:* repository:base:pull repository:shop/web:pull,push");
        let port = Scopes::default().with("repository:localhost:5000/a:pull");
        assert_eq!(port.to_string(), "repository:localhost:5000/a:pull");
    }
}
