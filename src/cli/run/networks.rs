//! Networks that are there already, and another container's, as the network of a new one.

use std::collections::BTreeMap;

use super::declaration::Network;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::{network, select};
use crate::model::actual::Actual;
use crate::model::desired::Desired;
use crate::model::id::{ResourceName, Whose};
use crate::model::network::{Attachment, DEFAULT, NetworkMode};
use crate::model::record::NetworkRecord;

/// Makes `network` that of the container `name` of `desired`.
pub fn lend(
    network: &Network,
    actual: &Actual,
    name: &ResourceName,
    desired: &mut Desired,
    context: &Context,
) -> Result<(), Failure> {
    let mode = match network {
        Network::Declared => return Ok(()),
        Network::Container(word) => {
            let records: Vec<_> = actual.containers.values().map(|container| container.record.clone()).collect();
            let lender = select::one(&records, word, &|| context.tie_break())?;
            if lender.spec.network == NetworkMode::Host {
                return Err(Failure::usage(format!(
                    "container `{}` has no network of its own to share",
                    lender.full_name()
                ))
                .hint("it uses the host's: so does this one with `--network host`"));
            }
            if let NetworkMode::Container(owner) = &lender.spec.network {
                let shares = format!("container `{}` shares the network of `{owner}`", lender.full_name());
                return Err(Failure::usage(shares).hint(format!("so does this one with `--network container:{owner}`")));
            }
            let shared = lender.instance.container.clone();
            desired.borrowed.containers.insert(shared.clone(), lender.id.clone());
            desired.networks.clear();
            NetworkMode::Container(shared)
        }
        Network::Named { words, attachment } => NetworkMode::Networks(attach(words, attachment, actual, desired)?),
    };
    if let Some(container) = desired.containers.get_mut(name) {
        if matches!(mode, NetworkMode::Container(_)) && !container.spec.ports.is_empty() {
            return Err(Failure::usage("a container that shares another's network publishes no ports"));
        }
        container.spec.network = mode;
    }
    Ok(())
}

fn attach(
    words: &[String],
    attachment: &Attachment,
    actual: &Actual,
    desired: &mut Desired,
) -> Result<BTreeMap<ResourceName, Attachment>, Failure> {
    let records: Vec<&NetworkRecord> = actual.networks.values().map(|network| &network.record).collect();
    let (mut attachments, mut own) = (BTreeMap::new(), BTreeMap::new());
    for word in words {
        let name = match word.as_str() {
            DEFAULT | "bridge" => {
                let default = desired.networks.iter().find(|(name, _)| name.as_str() == DEFAULT);
                own.extend(default.map(|(name, spec)| (name.clone(), spec.clone())));
                default.map(|(name, _)| name.clone())
            }
            word => {
                let record = network::one(&records, word)?;
                ensure_fits(attachment, record)?;
                match record.project {
                    Whose::Nobody => drop(own.insert(record.name.clone(), record.spec.clone())),
                    Whose::Project(_) => {
                        desired.borrowed.networks.insert(record.name.clone(), record.id.clone());
                    }
                }
                Some(record.name.clone())
            }
        };
        let Some(name) = name else { continue };
        if attachments.insert(name.clone(), attachment.clone()).is_some() {
            return Err(Failure::usage(format!("two of the networks are called {name}"))
                .hint("a container is on one network of a name"));
        }
    }
    desired.networks = own;
    Ok(attachments)
}

/// The manifest's parser sees to that for what is declared.
fn ensure_fits(attachment: &Attachment, record: &NetworkRecord) -> Result<(), Failure> {
    let Attachment { aliases, address, address6 } = attachment;
    if !aliases.is_empty() && matches!(record.project, Whose::Project(_)) {
        return Err(Failure::usage(format!("`--network-alias` is not for the network of project {}", record.project))
            .hint("there the container has its own name: `--name`"));
    }
    let is_there = |address: std::net::IpAddr, subnet| subnet == Some(true) && address != record.subnet.gateway();
    let fits = address.is_none_or(|a| is_there(a.into(), Some(record.subnet.contains(a.into()))))
        && address6.is_none_or(|a| is_there(a.into(), record.subnet6.map(|subnet| subnet.contains(a.into()))));
    match fits {
        true => Ok(()),
        false => {
            let six = record.subnet6.map_or_else(|| " and no IPv6".to_owned(), |subnet| format!(" and {subnet}"));
            Err(Failure::usage(format!(
                "the address is not one of network {}, which has {}{six}",
                record.name, record.subnet
            )))
        }
    }
}
