//! Docker's options of `run` and `create` that are not ours, and what to do instead. None is accepted and ignored.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue};

use crate::cli::arguments::{command_word, mistake};
use crate::cli::failure::Failure;

/// A mistake that is an option of Docker's.
pub fn explain(error: &clap::Error, words: &[OsString]) -> Option<Failure> {
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else { return None };
    let option = option.split('=').next().unwrap_or_default();
    let command = command_word(words);
    let advice = match (command.as_deref(), option) {
        (Some("create"), "--attach" | "-a") => "leave it out: `evenkeel start --attach` shows what it writes",
        (Some("logs"), "--details") => "its labels and variables are in `evenkeel inspect`; no log keeps them",
        _ => advice(option)?,
    };
    matches!(command.as_deref(), Some("run" | "create" | "logs" | "update"))
        .then(|| Failure::new(format!("there is no `{option}`")).hint(advice).exit(mistake(words)))
}

/// What to do in place of an option of Docker's, written as `--name` or `-x`. `None` for what is none of Docker's.
pub fn advice(option: &str) -> Option<&'static str> {
    let (_, advice) = ADVICE.iter().find(|(names, _)| names.contains(&option))?;
    Some(advice)
}

const BLOCK_IO: &str = "limits of block devices are not there yet; `--cpus`, `--memory` and `--pids-limit` are";
const PROCESSOR: &str = "`--cpus` is the quota divided by the period, such as 1.5; `--cpu-shares` is the weight";
const WINDOWS: &str = "it is for containers of Windows";
const NAMESPACE: &str =
    "every container has a namespace of its own of that kind; `--network`, `--pid`, `--ipc` and `--userns` choose";

const ADVICE: &[(&[&str], &str)] = &[
    (&["--annotation"], "`--label KEY=VALUE` says it, and `evenkeel inspect` shows it"),
    (
        &[
            "--blkio-weight",
            "--blkio-weight-device",
            "--device-read-bps",
            "--device-read-iops",
            "--device-write-bps",
            "--device-write-iops",
        ],
        BLOCK_IO,
    ),
    (&["--cgroup-parent"], "every container is below the cgroup of its state root; limit the service or the container"),
    (&["--cgroupns", "--uts"], NAMESPACE),
    (&["--cpu-count", "--cpu-percent", "--io-maxbandwidth", "--io-maxiops", "--isolation"], WINDOWS),
    (&["--cpu-rt-period", "--cpu-rt-runtime"], PROCESSOR),
    (&["--cpuset-mems"], "`--cpuset-cpus` chooses processors; memory comes from their nodes first"),
    (&["--device-cgroup-rule"], "`--device SOURCE:TARGET:rwm` names the device"),
    (&["--disable-content-trust"], "leave it out: images are checked against their digests, not against signatures"),
    (
        &["--dns-option", "--dns-opt"],
        "`--dns` and `--dns-search` are there; mount a file at /etc/resolv.conf for the rest",
    ),
    (&["--domainname"], "give it with the name: `--hostname host.example.org`"),
    (&["--gpus"], "name the devices: `--device /dev/dri/renderD128`"),
    (&["--kernel-memory"], "the kernel has no such limit of its own any more; `--memory` counts its memory too"),
    (&["--link"], "put both on one network, where they find each other by name: `--network`"),
    (&["--link-local-ip", "--mac-address"], "it follows from the container; `--ip` chooses an address"),
    (&["--memory-swappiness"], "`--memory-swap` bounds what may be swapped; equal to `--memory` it is none"),
    (
        &["--oom-kill-disable"],
        "`--oom-score-adj` says who is killed first; a cgroup that nobody may kill hangs the host",
    ),
    (&["--quiet", "-q"], "leave it out: progress goes to standard error and only to a terminal"),
    (&["--runtime"], "the runtime is inside; under Podman and containerd it is `evenkeel-runtime`"),
    (&["--storage-opt"], "the writable layer has no size of its own; put what grows on a volume: `-v NAME:TARGET`"),
    (
        &["--volume-driver"],
        "volumes are directories of this host; mount the filesystem and give its path: `-v /path:/target`",
    ),
    (&["--use-api-socket"], "there is no daemon whose socket could be given"),
];

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::arguments::Arguments;

    /// Of `docker run --help`, version 26 and later.
    const DOCKERS: &str = "add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent \
        cgroupns cidfile cpu-count cpu-percent cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus \
        cpuset-cpus cpuset-mems detach detach-keys device device-cgroup-rule device-read-bps device-read-iops \
        device-write-bps device-write-iops disable-content-trust dns dns-option dns-search domainname entrypoint env \
        env-file expose gpus group-add health-cmd health-interval health-retries health-start-interval \
        health-start-period health-timeout help hostname init interactive io-maxbandwidth io-maxiops ip ip6 ipc isolation \
        kernel-memory label label-file link link-local-ip log-driver log-opt mac-address memory memory-reservation \
        memory-swap memory-swappiness mount name network network-alias no-healthcheck oom-kill-disable oom-score-adj pid \
        pids-limit platform privileged publish publish-all pull quiet read-only restart rm runtime security-opt shm-size \
        sig-proxy stop-signal stop-timeout storage-opt sysctl tmpfs tty ulimit use-api-socket user userns uts volume \
        volume-driver volumes-from workdir";

    #[test]
    fn every_option_of_docker_is_there_or_says_what_to_use() {
        let mut tree = Arguments::command();
        tree.build();
        let run = tree.find_subcommand("run").unwrap();
        for name in DOCKERS.split_whitespace() {
            let is_ours = run.get_arguments().any(|argument| argument.get_long() == Some(name));
            assert_ne!(is_ours, advice(&format!("--{name}")).is_some(), "--{name}");
        }
        assert_eq!(advice("--nope"), None);
    }
}
