//! Reading config.json (OCI runtime-spec, config.md), as far as Linux goes.
//!
//! # Decisions
//! * `oci_spec`'s own reader of a whole `Spec` checks `execCPUAffinity` with a regular expression. That one field links
//!   the `regex` crate with its Unicode tables: 220 KiB of pointers that the dynamic loader relocates, so that every
//!   monitor would hold a private copy of them. Its readers of the parts are used, and the whole is put together here.
//!   The engine writes no such field, nor those of other systems: they are unknown here, and unknown is an error.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Hooks, Linux, LinuxCapabilities, LinuxIOPriority, Mount, PosixRlimit, Process, Root, Scheduler, Spec, User,
};
use serde::Deserialize;

use super::error::MonitorError;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Config {
    #[serde(default)]
    oci_version: String,
    root: Option<Root>,
    mounts: Option<Vec<Mount>>,
    process: Option<ConfigProcess>,
    hostname: Option<String>,
    domainname: Option<String>,
    hooks: Option<Hooks>,
    annotations: Option<HashMap<String, String>>,
    linux: Option<Linux>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConfigProcess {
    terminal: Option<bool>,
    console_size: Option<oci_spec::runtime::Box>,
    #[serde(default)]
    user: User,
    args: Option<Vec<String>>,
    env: Option<Vec<String>>,
    cwd: PathBuf,
    capabilities: Option<LinuxCapabilities>,
    rlimits: Option<Vec<PosixRlimit>>,
    no_new_privileges: Option<bool>,
    apparmor_profile: Option<String>,
    oom_score_adj: Option<i32>,
    selinux_label: Option<String>,
    io_priority: Option<LinuxIOPriority>,
    scheduler: Option<Scheduler>,
}

/// The configuration of a container.
pub fn read(path: &Path) -> Result<Spec, MonitorError> {
    let text = std::fs::read(path).map_err(|source| MonitorError::file("read", path, source))?;
    let config: Config =
        serde_json::from_slice(&text).map_err(|source| MonitorError::Content { path: path.to_owned(), source })?;
    Ok(config.into())
}

impl From<Config> for Spec {
    fn from(config: Config) -> Spec {
        let Config { oci_version, root, mounts, process, hostname, domainname, hooks, annotations, linux } = config;
        let mut spec = Spec::default();
        spec.set_version(oci_version).set_root(root).set_mounts(mounts).set_process(process.map(Process::from));
        spec.set_hostname(hostname).set_domainname(domainname).set_hooks(hooks);
        spec.set_annotations(annotations).set_linux(linux);
        spec
    }
}

impl From<ConfigProcess> for Process {
    fn from(config: ConfigProcess) -> Process {
        let ConfigProcess {
            terminal,
            console_size,
            user,
            args,
            env,
            cwd,
            capabilities,
            rlimits,
            no_new_privileges,
            apparmor_profile,
            oom_score_adj,
            selinux_label,
            io_priority,
            scheduler,
        } = config;
        let mut process = Process::default();
        process.set_terminal(terminal).set_console_size(console_size).set_user(user).set_args(args).set_env(env);
        process.set_cwd(cwd).set_capabilities(capabilities).set_rlimits(rlimits);
        process.set_no_new_privileges(no_new_privileges).set_apparmor_profile(apparmor_profile);
        process.set_oom_score_adj(oom_score_adj).set_selinux_label(selinux_label);
        process.set_io_priority(io_priority).set_scheduler(scheduler);
        process
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Spec, MonitorError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path())
    }

    #[test]
    fn it_reads_what_oci_spec_writes() {
        let mut spec = Spec::default();
        spec.set_hostname(Some("web".into())).set_annotations(Some(HashMap::from([("a".into(), "b".into())])));
        spec.set_domainname(Some("example".into())).set_hooks(Some(Hooks::default()));
        let read = read_text(&serde_json::to_string(&spec).unwrap()).unwrap();
        assert_eq!(read, spec);
    }

    #[test]
    fn what_is_left_out_stays_out() {
        let spec = read_text(r#"{"ociVersion":"1.2.0","process":{"cwd":"/","args":["x"]}}"#).unwrap();
        assert!(spec.linux().is_none() && spec.mounts().is_none() && spec.root().is_none());
        let process = spec.process().as_ref().unwrap();
        assert!(process.capabilities().is_none() && process.rlimits().is_none() && process.env().is_none());
    }

    #[test]
    fn what_it_does_not_know_is_an_error() {
        assert!(read_text(r#"{"ociVersion":"1.2.0","windows":{}}"#).is_err());
        assert!(read_text(r#"{"process":{"cwd":"/","execCPUAffinity":{}}}"#).is_err());
    }
}
