//! What a container runs once its own declaration and its image's configuration are put together.
//!
//! Pure. The rules are Docker's: a declared entrypoint discards the image's command, environment is merged by
//! name, everything else that is declared replaces what the image says.

use std::collections::BTreeMap;

use crate::model::container::ContainerSpec;
use crate::model::health::{Healthcheck, Probe};
use crate::model::image::ImageConfig;
use crate::model::units::Signal;

/// The part of a container that its image has a say in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// Entrypoint and command, never empty.
    pub arguments: Vec<String>,
    pub environment: Vec<String>,
    pub working_dir: String,
    /// `USER[:GROUP]`; empty is root.
    pub user: String,
    pub stop_signal: Signal,
    pub healthcheck: Option<Healthcheck>,
}

/// What Docker gives a process whose image sets no `PATH`.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `None` when neither says what to run.
pub fn effective(spec: &ContainerSpec, image: &ImageConfig, hostname: &str) -> Option<Effective> {
    let arguments = image.arguments(spec.entrypoint.as_deref(), spec.command.as_deref());
    (!arguments.is_empty()).then(|| Effective {
        arguments,
        environment: environment(spec, image, hostname),
        working_dir: spec.working_dir.clone().or(image.working_dir.clone()).unwrap_or_else(|| "/".into()),
        user: spec.user.clone().or(image.user.clone()).unwrap_or_default(),
        stop_signal: stop_signal(spec, Some(image)),
        healthcheck: healthcheck(spec, image),
    })
}

/// The declared one, else the image's, where that is known.
pub fn stop_signal(spec: &ContainerSpec, image: Option<&ImageConfig>) -> Signal {
    spec.stop_signal.or(image.and_then(|image| image.stop_signal)).unwrap_or(Signal::TERM)
}

/// The check that is in force: the declared one, else the image's; none where either says so.
pub fn healthcheck(spec: &ContainerSpec, image: &ImageConfig) -> Option<Healthcheck> {
    spec.healthcheck.clone().or(image.healthcheck.clone()).filter(|check| check.probe != Probe::None)
}

fn environment(spec: &ContainerSpec, image: &ImageConfig, hostname: &str) -> Vec<String> {
    let mut variables = BTreeMap::from([("PATH", DEFAULT_PATH), ("HOSTNAME", hostname)]);
    if spec.tty {
        variables.insert("TERM", "xterm");
    }
    variables.extend(image.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    variables.extend(spec.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    variables.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::image::ImageSource;

    fn image() -> ImageConfig {
        ImageConfig {
            entrypoint: vec!["/entry".into()],
            command: vec!["serve".into()],
            environment: vec![("A".into(), "image".into()), ("B".into(), "image".into())],
            ..ImageConfig::default()
        }
    }

    fn spec() -> ContainerSpec {
        ContainerSpec::of(ImageSource::Reference("docker.io/library/x:latest".into()))
    }

    #[test]
    fn a_declared_entrypoint_discards_the_images_command() {
        let arguments = |entrypoint: Option<&str>, command: Option<&str>| {
            let list = |text: Option<&str>| text.map(|t| vec![t.to_owned()]);
            let spec = ContainerSpec { entrypoint: list(entrypoint), command: list(command), ..spec() };
            effective(&spec, &image(), "web").unwrap().arguments
        };
        assert_eq!(arguments(None, None), ["/entry", "serve"]);
        assert_eq!(arguments(None, Some("other")), ["/entry", "other"]);
        assert_eq!(arguments(Some("sh"), None), ["sh"]);
        assert_eq!(arguments(Some("sh"), Some("x")), ["sh", "x"]);
    }

    #[test]
    fn declared_environment_wins_by_name() {
        let spec = ContainerSpec { environment: [("A".into(), "mine".into())].into(), ..spec() };
        let environment = environment(&spec, &image(), "web");
        assert!(environment.contains(&"A=mine".to_owned()));
        assert!(environment.contains(&"B=image".to_owned()));
        assert!(environment.contains(&"HOSTNAME=web".to_owned()));
    }

    #[test]
    fn a_check_declared_as_none_silences_the_images() {
        let image = ImageConfig { healthcheck: Some(Healthcheck::of(Probe::Tcp { port: 80 })), ..image() };
        assert!(healthcheck(&spec(), &image).is_some());
        let spec = ContainerSpec { healthcheck: Some(Healthcheck::of(Probe::None)), ..spec() };
        assert_eq!(healthcheck(&spec, &image), None);
    }

    #[test]
    fn nothing_to_run_is_no_container() {
        assert_eq!(effective(&spec(), &ImageConfig::default(), "web"), None);
    }
}
