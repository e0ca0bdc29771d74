//! What callers of runc and crun rely on beyond the words of the specification: `evenkeel-runtime` on real bundles with a
//! busybox root filesystem. Needs root.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use evenkeel::runtime::cgroup::{self, Layout};
use serde_json::json;
use support::oci::{Bundle, until};

/// What the container's process says that it is in, one hierarchy a line (cgroups(7), /proc/pid/cgroup).
fn cgroups_of(pid: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let fields = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        (fields.next().unwrap().to_owned(), fields.next().unwrap().to_owned())
    };
    text.lines().map(fields).collect()
}

/// The hierarchies of version 1 that a container is in, by its cgroup there.
fn directories(bundle: &Bundle) -> Vec<(String, PathBuf)> {
    let own = |(names, path): (String, String)| {
        (path == bundle.cgroup).then(|| (names.clone(), Path::new("/sys/fs/cgroup").join(names).join(&path[1..])))
    };
    cgroups_of(&bundle.pid().to_string()).into_iter().filter_map(own).collect()
}

#[test]
fn what_ends_a_process_ends_a_container_that_is_not_started() {
    for signal in ["TERM", "INT", "USR1", "KILL", "RTMIN+1"] {
        let bundle = Bundle::of(&["sleep", "600"]);
        bundle.ok(&["create", "box"]);
        for harmless in ["0", "CHLD", "WINCH", "CONT", "URG"] {
            bundle.ok(&["kill", "box", harmless]);
        }
        assert_eq!(bundle.status(), "created");
        bundle.ok(&["kill", "box", signal]);
        until(signal, || bundle.status() == "stopped");
        assert!(bundle.error(&["start", "box"]).contains("it is stopped, not created"));
        bundle.ok(&["delete", "box"]);
    }
}

#[test]
fn a_signal_to_all_of_a_container_that_has_ended_is_no_error() {
    let bundle = Bundle::of(&["true"]);
    bundle.ok(&["create", "box"]);
    bundle.ok(&["start", "box"]);
    until("the end", || bundle.status() == "stopped");
    for signal in ["0", "TERM", "KILL"] {
        bundle.ok(&["kill", "--all", "box", signal]);
        assert!(bundle.error(&["kill", "box", signal]).contains("container not running"));
    }
}

#[test]
fn what_a_process_on_a_terminal_writes_comes_out_as_it_is() {
    let mut bundle = Bundle::of(&["sh", "-c", "echo one; echo two"]);
    bundle.config["process"]["terminal"] = json!(true);
    assert_eq!(bundle.ok(&["run", "box"]), "one\ntwo\n");
    bundle.config["process"]["terminal"] = json!(false);
    bundle.config["process"]["args"] = json!(["sleep", "600"]);
    bundle.ok(&["create", "box"]);
    bundle.ok(&["start", "box"]);
    assert_eq!(bundle.ok(&["exec", "--tty", "box", "sh", "-c", "echo one; echo two"]), "one\ntwo\n");
}

#[test]
fn a_configuration_to_begin_with_has_a_cgroup_namespace_where_that_shows_the_container_alone() {
    let bundle = Bundle::new();
    let namespaces = bundle.config["linux"]["namespaces"].as_array().unwrap();
    let has_one = namespaces.iter().any(|namespace| namespace["type"] == "cgroup");
    assert_eq!(has_one, cgroup::detect().unwrap().layout() == Layout::V2);
}

#[test]
fn a_further_process_goes_below_the_containers_cgroup() {
    let bundle = Bundle::of(&["sleep", "600"]);
    bundle.ok(&["create", "box"]);
    bundle.ok(&["start", "box"]);
    let exec = |places: &[&str], line: &str| {
        let options: Vec<&str> = places.iter().flat_map(|place| ["--cgroup", place]).collect();
        bundle.call(&[&["exec"], &options[..], &["box", "sh", "-c", line]].concat())
    };
    let missing = exec(&["below"], "true");
    assert!(missing.code == 255 && missing.err.contains("below"), "{missing:?}");
    for wrong in [&["../other"][..], &["a", "b"], &[":a"], &["memory,:a"], &["memory:a", "pids,memory:b"], &["nope:a"]]
    {
        let refused = exec(wrong, "true");
        assert!(refused.code == 255 && refused.err.contains("--cgroup"), "{refused:?}");
    }
    if cgroup::detect().unwrap().layout() == Layout::V2 {
        fs::create_dir(Path::new("/sys/fs/cgroup").join(&bundle.cgroup[1..]).join("below")).unwrap();
        let refused = exec(&["memory:below"], "true");
        assert!(refused.code == 255 && refused.err.contains("version 2"), "{refused:?}");
        let found = exec(&["/below"], "cat /proc/self/cgroup");
        assert!(found.code == 0 && found.out.trim_end().ends_with("/below"), "{found:?}");
        return;
    }
    let own = directories(&bundle);
    let is_in = |(names, place): &(String, PathBuf), wanted: &str| {
        let found = exec(&["memory,pids:below", "freezer:/other"], "cat /proc/self/cgroup");
        assert_eq!(found.code, 0, "{found:?}");
        let line = found.out.lines().find(|line| line.split(':').nth(1) == Some(names)).unwrap().to_owned();
        assert!(place.is_dir() && line.ends_with(&format!("{}{wanted}", bundle.cgroup)), "{line}");
    };
    for (names, directory) in &own {
        if ["memory", "pids"].contains(&names.as_str()) {
            fs::create_dir(directory.join("below")).unwrap();
        } else if names == "freezer" {
            fs::create_dir(directory.join("other")).unwrap();
        }
    }
    for hierarchy in &own {
        is_in(
            hierarchy,
            match hierarchy.0.as_str() {
                "memory" | "pids" => "/below",
                "freezer" => "/other",
                _ => "",
            },
        );
    }
    // One path for all must be there in all: a process that is in no cgroup of the container's has no limit of its.
    assert_eq!(exec(&["below"], "true").code, 255);
    own.iter().for_each(|(_, directory)| fs::create_dir_all(directory.join("below")).unwrap());
    let found = exec(&["below"], "cat /proc/self/cgroup");
    assert_eq!(found.out.matches(&format!("{}/below", bundle.cgroup)).count(), own.len(), "{found:?}");
}

#[test]
fn a_tmpfs_has_the_mode_of_what_it_covers() {
    let mut bundle = Bundle::of(&["stat", "-c", "%a", "/covered", "/explicit", "/new"]);
    for name in ["covered", "explicit"] {
        let place = bundle.path("rootfs").join(name);
        fs::create_dir(&place).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o2710)).unwrap();
    }
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"destination": "/covered", "type": "tmpfs", "source": "tmpfs"}));
    mounts.push(json!({"destination": "/explicit", "type": "tmpfs", "source": "tmpfs", "options": ["mode=700"]}));
    mounts.push(json!({"destination": "/new", "type": "tmpfs", "source": "tmpfs"}));
    assert_eq!(bundle.ok(&["run", "box"]), "2710\n700\n1777\n");
}

#[test]
fn the_source_of_a_bind_mount_may_be_what_an_earlier_mount_shows() {
    for users in [false, true] {
        let mut bundle = Bundle::of(&["cat", "/final/file"]);
        let shared = bundle.path("shared");
        fs::create_dir_all(shared.join("inner")).unwrap();
        fs::write(shared.join("inner/file"), "found\n").unwrap();
        std::os::unix::fs::symlink("/proc", shared.join("link")).unwrap();
        for name in ["mnt", "final"] {
            fs::create_dir(bundle.path("rootfs").join(name)).unwrap();
        }
        if users {
            let mapping = json!([{"containerID": 0, "hostID": 0x7000_0000, "size": 65536}]);
            bundle.config["linux"]["uidMappings"] = mapping.clone();
            bundle.config["linux"]["gidMappings"] = mapping;
            bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
            fs::set_permissions(bundle.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let root = bundle.path("rootfs");
        let mounts = bundle.config["mounts"].as_array_mut().unwrap();
        let mut bind = |source: &Path, target: &str, options: &[&str]| {
            mounts.push(json!({"destination": target, "type": "bind", "source": source, "options": options}));
        };
        bind(&shared, "/mnt", &["rbind"]);
        bind(&root.join("mnt/inner"), "/final", &["bind", "ro"]);
        assert_eq!(bundle.ok(&["run", "box"]), "found\n");
        bundle.config["process"]["args"] = json!(["touch", "/final/file"]);
        assert!(bundle.error(&["run", "box"]).contains("Read-only file system"));
        // Others may have a hand in it: a link would lead to what is yet to be masked.
        let source = |bundle: &mut Bundle, name: &str| {
            let mounts = bundle.config["mounts"].as_array_mut().unwrap();
            mounts.last_mut().unwrap()["source"] = json!(root.join(name));
        };
        source(&mut bundle, "mnt/link/sys");
        assert!(bundle.error(&["run", "box"]).contains("symbolic link"));
        source(&mut bundle, "mnt/inner");
        // What no mount of the container shows is the host's.
        bundle.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/mnt");
        assert!(bundle.error(&["run", "box"]).contains("mnt/inner"));
    }
}

#[test]
fn what_a_container_has_frozen_of_itself_ends_with_it() {
    let bundle = Bundle::of(&["sh", "-c", "sleep 600 & exec sleep 600"]);
    bundle.ok(&["create", "box"]);
    bundle.ok(&["start", "box"]);
    let processes = || -> Vec<i32> { serde_json::from_str(&bundle.ok(&["ps", "--format", "json", "box"])).unwrap() };
    until("both", || processes().len() == 2);
    let (own, state, frozen) = match cgroup::detect().unwrap().layout() {
        Layout::V1 => ("/sys/fs/cgroup/freezer", "freezer.state", "FROZEN"),
        Layout::V2 => ("/sys/fs/cgroup", "cgroup.freeze", "1"),
    };
    let below = Path::new(own).join(&bundle.cgroup[1..]).join("below");
    fs::create_dir(&below).unwrap();
    let inner = processes().into_iter().find(|pid| i64::from(*pid) != bundle.pid()).unwrap();
    fs::write(below.join("cgroup.procs"), inner.to_string()).unwrap();
    fs::write(below.join(state), frozen).unwrap();
    bundle.ok(&["delete", "--force", "box"]);
    assert!(!Path::new(&format!("/proc/{inner}")).exists());
}

#[test]
fn a_hook_without_a_word_about_its_environment_has_the_callers() {
    let mut bundle = Bundle::of(&["true"]);
    let line = |place: &Path| format!("echo \"$COLOUR\" >> {}", place.display());
    let said = bundle.path("said");
    for moment in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        bundle.hook(moment, json!({"path": "/bin/sh", "args": ["sh", "-c", line(&said)]}));
        bundle.hook(moment, json!({"path": "/bin/sh", "args": ["sh", "-c", line(&said)], "env": []}));
    }
    let mut command = bundle.command(&["run", "box"]);
    command.env("COLOUR", "blue");
    let outcome = bundle.finish(command);
    assert_eq!((outcome.code, bundle.text("said").as_str()), (0, "blue\n\n".repeat(5).as_str()), "{outcome:?}");
}

#[test]
fn a_host_has_one_name() {
    let mut bundle = Bundle::of(&["sh", "-c", "hostname; cat /proc/sys/kernel/domainname"]);
    bundle.config["hostname"] = json!("inside");
    bundle.config["domainname"] = json!("example.org");
    bundle.config["linux"]["sysctl"] = json!({"kernel.hostname": "inside", "kernel.domainname": "example.org"});
    assert_eq!(bundle.ok(&["run", "box"]), "inside\nexample.org\n");
    for name in ["hostname", "domainname"] {
        bundle.config["linux"]["sysctl"] = json!({format!("kernel.{name}"): "other"});
        assert!(bundle.error(&["run", "box"]).contains("`linux.sysctl` says otherwise"));
    }
    bundle.config.as_object_mut().unwrap().remove("hostname");
    bundle.config["linux"]["sysctl"] = json!({"kernel.hostname": "other"});
    assert_eq!(bundle.ok(&["run", "box"]), "other\nexample.org\n");
}

#[test]
fn what_is_mounted_is_mounted_again_with_other_options() {
    let line = "for at in / /made /shown; do grep \" $at \" /proc/mounts | tail -n 1 | cut -d ' ' -f 4; done; df -k /made | tail -n 1";
    let mut bundle = Bundle::of(&["sh", "-c", line]);
    fs::create_dir(bundle.path("source")).unwrap();
    let source = bundle.path("source");
    let plain = bundle.config["mounts"].clone();
    let add = |bundle: &mut Bundle, target: &str, kind: &str, options: &[&str]| {
        let mount = json!({"destination": target, "type": kind, "source": source, "options": options});
        bundle.config["mounts"].as_array_mut().unwrap().push(mount);
    };
    add(&mut bundle, "/made", "tmpfs", &["size=1m", "nosuid", "noexec"]);
    add(&mut bundle, "/shown", "bind", &["bind"]);
    add(&mut bundle, "/made", "", &["remount", "size=2m", "nodev", "exec"]);
    add(&mut bundle, "/shown", "bind", &["remount", "bind", "ro", "silent"]);
    add(&mut bundle, "/", "", &["remount", "ro"]);
    let said = bundle.ok(&["run", "box"]);
    let lines: Vec<Vec<&str>> = said.lines().map(|line| line.split([',', ' ']).collect()).collect();
    assert!(lines[0].contains(&"ro"), "{said}");
    assert!(lines[1].contains(&"nosuid") && lines[1].contains(&"nodev") && !lines[1].contains(&"noexec"), "{said}");
    assert!(lines[2].contains(&"ro") && lines[3].contains(&"2048"), "{said}");
    let host = fs::read_to_string("/proc/mounts").unwrap();
    assert!(host.lines().any(|line| line.contains(" / ") && line.contains(" rw,")));
    // An image's link would choose what it is.
    std::os::unix::fs::symlink("/sys", bundle.path("rootfs/led")).unwrap();
    add(&mut bundle, "/led", "", &["remount", "rw"]);
    assert!(bundle.error(&["run", "box"]).contains("cannot mount again `/led`"));
    // What a bind mount shows is the host's filesystem.
    for (target, options, reason) in [
        ("/shown", &["remount", "errors=continue"][..], "not the container's own"),
        ("/sys/fs/cgroup", &["remount", "nsdelegate"], "not the container's own"),
        ("/nothing", &["remount", "ro"], "cannot mount again `/nothing`"),
        ("/tmp", &["remount", "ro"], "nothing is mounted at `/tmp`"),
    ] {
        bundle.config["mounts"] = plain.clone();
        add(&mut bundle, "/shown", "bind", &["bind"]);
        add(&mut bundle, target, "", options);
        let error = bundle.error(&["run", "box"]);
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn a_limit_is_named_once() {
    let mut bundle = Bundle::of(&["true"]);
    let limit = |soft: u64| json!({"type": "RLIMIT_NOFILE", "soft": soft, "hard": 200});
    bundle.config["process"]["rlimits"] = json!([limit(100), limit(200)]);
    assert!(bundle.error(&["run", "box"]).contains("a second `RLIMIT_NOFILE`"));
}

#[test]
fn a_further_process_goes_beside_the_first_where_the_containers_cgroup_takes_none() {
    // Version 2, if need be in a mount namespace that has nothing else.
    let bundle = Bundle::of(&["sleep", "600"]);
    let place = match cgroup::detect().unwrap().layout() {
        Layout::V2 => "/sys/fs/cgroup",
        Layout::V1 => "/sys/fs/cgroup/unified",
    };
    let own = Path::new(place).join(&bundle.cgroup[1..]);
    let unified = |arguments: &[&str]| {
        let plain = bundle.command(arguments);
        let mut command = std::process::Command::new("unshare");
        let line =
            "[ -e /sys/fs/cgroup/cgroup.procs ] || mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup; exec \"$@\"";
        command.args(["--mount", "--", "sh", "-c", line, "sh"]).arg(plain.get_program()).args(plain.get_args());
        command.current_dir(bundle.directory.path()).stdin(std::process::Stdio::null());
        bundle.finish(command)
    };
    assert_eq!((unified(&["create", "box"]).code, unified(&["start", "box"]).code), (0, 0));
    let inside = || {
        let said = unified(&["exec", "box", "cat", "/proc/self/cgroup"]);
        said.out.lines().find_map(|line| line.strip_prefix("0::").map(str::to_owned)).ok_or(said.err)
    };
    assert_eq!(inside(), Ok(bundle.cgroup.clone()));
    let controllers = fs::read_to_string(own.parent().unwrap().join("cgroup.controllers")).unwrap();
    let controller = controllers.split_whitespace().find(|name| ["hugetlb", "memory"].contains(name)).unwrap();
    let above = own.parent().unwrap().join("cgroup.subtree_control");
    let before = fs::read_to_string(&above).unwrap();
    if !before.split_whitespace().any(|name| name == controller) {
        fs::write(&above, format!("+{controller}")).unwrap();
    }
    fs::create_dir(own.join("init")).unwrap();
    fs::write(own.join("init/cgroup.procs"), bundle.pid().to_string()).unwrap();
    fs::write(own.join("cgroup.subtree_control"), format!("+{controller}")).unwrap();
    let found = inside();
    let deleted = unified(&["delete", "--force", "box"]);
    if !before.split_whitespace().any(|name| name == controller) {
        fs::write(&above, format!("-{controller}")).unwrap();
    }
    assert_eq!(found, Ok(format!("{}/init", bundle.cgroup)));
    assert!(deleted.code == 0 && !own.exists(), "{deleted:?}");
}
