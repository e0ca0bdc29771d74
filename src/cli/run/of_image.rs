//! What options leave to the image of a container: the ports that it exposes, and its health check.

use super::arguments::{LifeArguments, NetworkArguments};
use super::ports::{self, Taken};
use crate::cli::apply::Session;
use crate::cli::failure::Failure;
use crate::engine::image::store::Store;
use crate::model::desired::Desired;
use crate::model::health::{Healthcheck, Probe};
use crate::model::id::ResourceName;
use crate::model::image::{Image, ImageSource};

/// Every port that the image exposes, and those that the options add, at free ports of the host. What `-p` published
/// stays where it is.
pub fn publish_all(
    arguments: &NetworkArguments,
    name: &ResourceName,
    desired: &mut Desired,
    session: &Session,
    taken: &mut Taken,
) -> Result<(), Failure> {
    if !arguments.publish_all {
        return match arguments.expose.as_slice() {
            [] => Ok(()),
            _ => Err(Failure::usage("`--expose` is for `--publish-all`, and nothing without it")
                .hint("leave it out: on its networks every port of a container is reached; `-P` or `-p` publish one")),
        };
    }
    let Some(source) = desired.containers.get(name).map(|container| container.spec.image.clone()) else {
        return Ok(());
    };
    let image = image(&source, session)?;
    let Some(container) = desired.containers.get_mut(name) else { return Ok(()) };
    let exposed = image.iter().flat_map(|image| &image.config.exposed_ports).chain(&arguments.expose);
    for written in exposed {
        for (host, inside) in ports::exposed(written, taken)? {
            let ports = &mut container.spec.ports;
            let is_published = ports.iter().any(|(h, port)| h.protocol == host.protocol && *port == inside);
            if !is_published {
                ports.insert(host, inside);
            }
        }
    }
    Ok(())
}

/// Times and retries without a check of their own are about that of the image, whose others stay as they are.
pub fn inherit_check(
    arguments: &LifeArguments,
    name: &ResourceName,
    desired: &mut Desired,
    session: &Session,
) -> Result<(), Failure> {
    let declared = desired.containers.get(name).map(|container| &container.spec);
    let Some((source, said)) = declared.and_then(|spec| Some((spec.image.clone(), spec.healthcheck.clone()?))) else {
        return Ok(());
    };
    if arguments.health_cmd.is_some() || arguments.no_healthcheck {
        return Ok(());
    }
    let Some(image) = image(&source, session)? else { return Ok(()) };
    let Some(of_image) = image.config.healthcheck.filter(|check| check.probe != Probe::None) else {
        return Err(Failure::usage(
            "the image has no health check that `--health-interval` and its like could be about",
        )
        .hint("say how its health is found out: `--health-cmd LINE`"));
    };
    let check = Healthcheck {
        probe: of_image.probe,
        interval: arguments.health_interval.as_ref().map_or(of_image.interval, |_| said.interval),
        timeout: arguments.health_timeout.as_ref().map_or(of_image.timeout, |_| said.timeout),
        retries: arguments.health_retries.map_or(of_image.retries, |_| said.retries),
        start_period: arguments.health_start_period.as_ref().map_or(of_image.start_period, |_| said.start_period),
        start_interval: arguments
            .health_start_interval
            .as_ref()
            .map_or(of_image.start_interval, |_| said.start_interval),
    };
    if let Some(container) = desired.containers.get_mut(name) {
        container.spec.healthcheck = Some(check);
    }
    Ok(())
}

/// One that is not there yet is fetched by the plan, and then this is asked again; one that must not be is refused.
fn image(source: &ImageSource, session: &Session) -> Result<Option<Image>, Failure> {
    Ok(Store::new(&session.host.paths().root).find(source)?)
}
