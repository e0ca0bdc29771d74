//! What is wrong with options, told of the options: nobody who writes `--memory 1x` has a manifest to look into.
//!
//! The parser's problems point into the text that [`super::declaration`] made. Which key stands there says which option
//! it was.

use std::path::Path;

use crate::cli::failure::Failure;
use crate::manifest::{Located, Problems};

/// Each key of a container's table, its section before it, and the option that becomes it.
const OPTIONS: [(&str, &str); 64] = [
    ("archive", "the image"),
    ("build.args", "--build-arg"),
    ("build.context", "the context"),
    ("build.dockerfile", "--file"),
    ("build.labels", "--label"),
    ("build.network", "--network"),
    ("build.pull", "--pull"),
    ("build.secrets", "--secret"),
    ("build.target", "--target"),
    ("cap_add", "--cap-add"),
    ("cap_drop", "--cap-drop"),
    ("command", "the command"),
    ("devices", "--device"),
    ("dns", "--dns"),
    ("dns_search", "--dns-search"),
    ("entrypoint", "--entrypoint"),
    ("env_files", "--env-file"),
    ("environment", "--env"),
    ("extra_hosts", "--add-host"),
    ("group_add", "--group-add"),
    ("healthcheck", "--health-cmd"),
    ("healthcheck.command", "--health-cmd"),
    ("healthcheck.interval", "--health-interval"),
    ("healthcheck.retries", "--health-retries"),
    ("healthcheck.start_interval", "--health-start-interval"),
    ("healthcheck.start_period", "--health-start-period"),
    ("healthcheck.timeout", "--health-timeout"),
    ("hostname", "--hostname"),
    ("image", "the image"),
    ("init", "--init"),
    ("labels", "--label"),
    ("ipc", "--ipc"),
    ("logging", "--log-opt"),
    ("mounts", "--volume, --mount or --tmpfs"),
    ("network_mode", "--network"),
    ("networks", "--network"),
    ("networks.default.address", "--ip"),
    ("networks.default.address6", "--ip6"),
    ("networks.default.aliases", "--network-alias"),
    ("oom_score_adj", "--oom-score-adj"),
    ("pid", "--pid"),
    ("ports", "--publish"),
    ("privileged", "--privileged"),
    ("pull", "--pull"),
    ("read_only", "--read-only"),
    ("reference", "the image"),
    ("resources", "the limits"),
    ("resources.cpu_shares", "--cpu-shares"),
    ("resources.cpus", "--cpus"),
    ("resources.cpuset", "--cpuset-cpus"),
    ("resources.memory", "--memory"),
    ("resources.memory_reservation", "--memory-reservation"),
    ("resources.memory_swap", "--memory-swap"),
    ("resources.pids", "--pids-limit"),
    ("restart", "--restart"),
    ("rootfs", "the image"),
    ("security", "--security-opt"),
    ("shm_size", "--shm-size"),
    ("stop_grace_period", "--stop-timeout"),
    ("stop_signal", "--stop-signal"),
    ("sysctls", "--sysctl"),
    ("ulimits", "--ulimit"),
    ("user", "--user"),
    ("userns", "--userns"),
];

/// The problems of `text`, a manifest that was made of options and read under the name `path`.
pub fn explain(problems: &Problems, path: &Path, text: &str) -> Failure {
    let located = problems.located();
    let mut told: Vec<String> = located.iter().map(|problem| tell(problem, path, text)).collect();
    let failure = match told.len() {
        1 => Failure::usage(told.remove(0)),
        _ => Failure::list("several options cannot be taken", told).exit(crate::cli::failure::Exit::Usage),
    };
    // What helps with a key of a manifest is seldom what helps with an option.
    let is_no_key = |help: &&String| !help.contains(" = ");
    located.iter().filter_map(|problem| problem.help.as_ref()).filter(is_no_key).fold(failure, Failure::hint)
}

fn tell(problem: &Located, path: &Path, text: &str) -> String {
    let what = match problem.expected.as_str() {
        "" => problem.message.clone(),
        expected => format!("{}: {expected}", problem.message),
    };
    match (&problem.file, problem.line) {
        (Some(file), Some(line)) if file == path => match option_at(text, line) {
            Some(option) => format!("{option}: {what}"),
            None => what,
        },
        // An environment file.
        (Some(file), Some(line)) => format!("{}:{line}: {what}", file.display()),
        _ => what,
    }
}

/// What was written to become this line, counted from 1.
fn option_at(text: &str, line: usize) -> Option<&'static str> {
    let mut section = "";
    let mut key = "";
    for written in text.lines().take(line) {
        match written.strip_prefix('[').and_then(|header| header.strip_suffix(']')) {
            Some(header) => (section, key) = (header, ""),
            // The items of a list stand on lines of their own.
            None if written.starts_with([' ', ']']) => {}
            None => key = written.split_once(" = ").map_or("", |(key, _)| key),
        }
    }
    // `containers.NAME.resources`, `images.image`: the first two are not of the container's own table.
    let mut parts = section.splitn(3, '.').skip(2);
    let inside = parts.next().map_or_else(|| key.to_owned(), |section| format!("{section}.{key}"));
    let known = |key: &str| OPTIONS.iter().find(|(known, _)| *known == key).map(|(_, option)| *option);
    // A key of a table within, such as one label, is the option that makes the table.
    let longer = inside.match_indices('.').rev().map(|(end, _)| &inside[..end]);
    std::iter::once(inside.as_str()).chain(longer).find_map(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_some_option_s() {
        let text = "project = \"run\"\n\n[images.image]\npull = \"x\"\n\n[containers.job]\nimage = \"image\"\ncommand = [\n    \
                    \"a\",\n]\nshm_size = \"x\"\n\n[containers.job.resources]\nmemory = \"1x\"\n\n\
                    [containers.job.mounts.\"/a.b\"]\nbind = \"/x\"\n";
        let options: Vec<_> = (1..=17).map(|line| option_at(text, line).unwrap_or_default()).collect();
        assert_eq!(options[3], "--pull");
        assert_eq!(options[8], "the command");
        assert_eq!(options[10], "--shm-size");
        assert_eq!(options[13], "--memory");
        assert_eq!((options[15], options[16]), ("--volume, --mount or --tmpfs", "--volume, --mount or --tmpfs"));
        assert_eq!(options[0], "");
    }
}
