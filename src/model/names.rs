//! The names that containers of one network resolve.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::id::NetworkId;
use super::network::NetworkMode;
use super::record::ContainerRecord;

/// Lower-case names to addresses. One file per network in the run directory; monitors read it when it changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameTable {
    pub names: BTreeMap<String, BTreeSet<IpAddr>>,
}

impl NameTable {
    /// The names on `network`: for each container its declared name (all replicas share it), its instance's
    /// name and its aliases.
    pub fn of<'a>(
        network: &NetworkId,
        name_of: &str,
        containers: impl IntoIterator<Item = &'a ContainerRecord>,
    ) -> NameTable {
        let mut table = NameTable::default();
        for container in containers {
            let Some(addresses) = container.addresses.get(network) else { continue };
            let mut names = vec![container.instance.container.to_string(), container.instance.to_string()];
            if let NetworkMode::Networks(attachments) = &container.spec.network {
                let here = attachments.iter().find(|(name, _)| name.as_str() == name_of);
                names.extend(here.iter().flat_map(|(_, attachment)| attachment.aliases.iter().cloned()));
            }
            for name in names {
                let entry = table.names.entry(name.to_ascii_lowercase()).or_default();
                entry.insert(addresses.v4.into());
                entry.extend(addresses.v6.map(IpAddr::from));
            }
        }
        table
    }
}
