//! Which variables a line of a Dockerfile knows, and what they are.

use std::collections::BTreeMap;

use crate::engine::image::options::Platform;
use crate::model::dockerfile::Argument;
use crate::model::dockerfile::expand::{Lookup, expand};

/// Names by value.
pub type Variables = BTreeMap<String, String>;

/// `ARG`s that a `RUN` sees without a declaration, and that nothing is made again for (Dockerfile reference,
/// "Predefined ARGs").
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// What every stage may ask for.
pub struct Scope<'a> {
    escape: char,
    /// What the manifest gives.
    given: &'a Variables,
    /// Declared before the first `FROM`.
    global: Variables,
    /// `TARGETARCH` and the like.
    platform: Variables,
}

impl<'a> Scope<'a> {
    pub fn new(
        escape: char,
        declared: &[Argument],
        given: &'a Variables,
        platform: &Platform,
    ) -> Result<Scope<'a>, String> {
        let mut scope = Scope { escape, given, global: Variables::new(), platform: of_platform(platform) };
        for argument in declared {
            let value = scope.value(argument, &|name| scope.of_from(name))?;
            scope.global.extend(value.map(|value| (argument.name.clone(), value)));
        }
        Ok(scope)
    }

    /// A variable in a `FROM`.
    fn of_from(&self, name: &str) -> Option<String> {
        self.global.get(name).or_else(|| self.platform.get(name)).cloned()
    }

    pub fn expand_from(&self, text: &str) -> Result<String, String> {
        self.expand(text, &|name| self.of_from(name))
    }

    pub fn expand(&self, text: &str, lookup: &Lookup<'_>) -> Result<String, String> {
        expand(text, self.escape, lookup)
    }

    /// What an `ARG` stands for; `None` where nothing gives it a value.
    pub fn argument(&self, argument: &Argument, lookup: &Lookup<'_>) -> Result<Option<String>, String> {
        match self.value(argument, lookup)? {
            Some(value) => Ok(Some(value)),
            None => Ok(self.of_from(&argument.name)),
        }
    }

    fn value(&self, argument: &Argument, lookup: &Lookup<'_>) -> Result<Option<String>, String> {
        match (self.given.get(&argument.name), &argument.default) {
            (Some(given), _) => Ok(Some(given.clone())),
            (None, Some(default)) => self.expand(default, lookup).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// Given proxies, in either case.
    pub fn proxies(&self) -> impl Iterator<Item = (&String, &String)> {
        self.given.iter().filter(|(name, _)| PROXIES.contains(&name.to_ascii_uppercase().as_str()))
    }
}

/// Builds are for the platform that they run on.
fn of_platform(platform: &Platform) -> Variables {
    let parts = [
        ("PLATFORM", platform.to_string()),
        ("OS", platform.os.clone()),
        ("ARCH", platform.architecture.clone()),
        ("VARIANT", platform.variant.clone().unwrap_or_default()),
    ];
    let both =
        |(part, value): (&str, String)| [(format!("TARGET{part}"), value.clone()), (format!("BUILD{part}"), value)];
    parts.into_iter().flat_map(both).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_value_wins_over_a_default_and_that_over_a_global_one() {
        let argument =
            |name: &str, default: Option<&str>| Argument { name: name.to_owned(), default: default.map(str::to_owned) };
        let given = Variables::from([("A".to_owned(), "given".to_owned())]);
        let platform = Platform { os: "linux".into(), architecture: "arm64".into(), variant: Some("v8".into()) };
        let declared = [argument("A", Some("1")), argument("B", Some("$A-2")), argument("C", None)];
        let scope = Scope::new('\\', &declared, &given, &platform).unwrap();
        assert_eq!(scope.expand_from("x:$A/$B/$C/$TARGETPLATFORM").unwrap(), "x:given/given-2//linux/arm64/v8");
        let in_stage = |name, default| scope.argument(&argument(name, default), &|_| None).unwrap();
        assert_eq!(in_stage("A", Some("3")).as_deref(), Some("given"));
        assert_eq!(in_stage("B", Some("3")).as_deref(), Some("3"));
        assert_eq!(in_stage("B", None).as_deref(), Some("given-2"));
        assert_eq!((in_stage("C", None), in_stage("TARGETARCH", None).as_deref()), (None, Some("arm64")));
    }
}
