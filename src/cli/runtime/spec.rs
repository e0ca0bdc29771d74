//! `spec`: a config.json to begin with.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::arguments::Rootless;
use crate::cli::failure::{Exit, Failure};
use crate::runtime::cgroup::{self, Layout};

#[derive(Debug, Args)]
pub struct SpecArguments {
    /// The directory that it is written to
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,

    /// With a user namespace whose root is the caller
    #[arg(long, value_enum, num_args = 0, default_value = "false", default_missing_value = "true")]
    rootless: Rootless,
}

/// A shell in a root filesystem at `rootfs`, with what Docker's containers have around it and three capabilities.
const EXAMPLE: &str = include_str!("config.json");

pub fn run(arguments: &SpecArguments) -> Result<Exit, Failure> {
    let path = arguments.bundle.join("config.json");
    let rootless = arguments.rootless == Rootless::True;
    let unified = cgroup::detect()?.layout() == Layout::V2;
    let text = match (rootless, unified) {
        (false, true) => EXAMPLE.to_owned(),
        _ => {
            let mut config = serde_json::from_str(EXAMPLE)?;
            if rootless {
                config = without_privileges(config);
            }
            if !unified {
                keep_cgroup_namespace(&mut config);
            }
            serde_json::to_string_pretty(&config)? + "\n"
        }
    };
    File::create_new(&path).and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| {
        let failure = Failure::from(error).context(format!("cannot write `{}`", path.display()));
        failure.hint("a file that is there is not replaced")
    })?;
    Ok(Exit::Done)
}

/// With version 1 the caller's, as runc and crun have it: hierarchies that a container has not joined would show it
/// whatever the caller is in.
fn keep_cgroup_namespace(config: &mut Value) {
    if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
    }
}

/// What a user without privileges can have: himself for root, the host's network, no limits, and no owners but himself.
fn without_privileges(mut config: Value) -> Value {
    let own = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
    let linux = &mut config["linux"];
    linux["uidMappings"] = own(rustix::process::geteuid().as_raw());
    linux["gidMappings"] = own(rustix::process::getegid().as_raw());
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({"type": "user"}));
    }
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.retain(|mount| mount["type"] != "cgroup");
        for mount in mounts {
            if mount["type"] == "sysfs" {
                // Who does not own the network may not mount one that shows it.
                *mount = json!({"destination": "/sys", "type": "none", "source": "/sys",
                    "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
            }
            if let Some(options) = mount["options"].as_array_mut() {
                options.retain(|option| option.as_str().is_none_or(|option| !option.starts_with("gid=")));
            }
        }
    }
    config
}
