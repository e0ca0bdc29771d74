//! Users, clocks and mounts of a container's own: user namespaces, mapped owners, time namespaces, propagation. Needs
//! root.

#[macro_use]
#[allow(dead_code)]
mod bundles;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use bundles::{Bundle, chain, mounts_of_host};
use evenkeel::model::launch::{Identity, RootFilesystem};
use evenkeel::runtime::RuntimeError;
use evenkeel::runtime::launch::FirstProcess;
use serde_json::json;

const FIRST: u32 = 0x7000_0000;

/// A bundle whose container has users of its own: 0 is the host's [`FIRST`].
fn with_users() -> Bundle {
    let mut bundle = Bundle::new();
    let mapping = json!([{"containerID": 0, "hostID": FIRST, "size": 65536}]);
    bundle.config["linux"]["uidMappings"] = mapping.clone();
    bundle.config["linux"]["gidMappings"] = mapping;
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    for part in ["upper", "work"] {
        chown(bundle.directory.path().join(part), Some(FIRST), Some(FIRST)).unwrap();
    }
    bundle
}

fn namespace(pid: i32, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().display().to_string()
}

fn own(kind: &str) -> String {
    namespace(std::process::id() as i32, kind)
}

host_tests! {
    root_of_the_container_is_nobody_on_the_host => || {
        let bundle = with_users();
        let before = mounts_of_host();
        let process = bundle.start(&["sleep", "60"]);
        let status = process.proc("status");
        assert!(status.contains(&format!("Uid:\t{FIRST}\t{FIRST}\t{FIRST}\t{FIRST}")), "{status}");
        assert_ne!(namespace(process.pid(), "user"), own("user"));
        assert_eq!(process.proc("uid_map").split_whitespace().collect::<Vec<_>>(), ["0", &FIRST.to_string(), "65536"]);
        let inside = bundle.exec(&process, &["sh", "-c", "id -u; id -g; cat /proc/self/setgroups"]).unwrap().finish();
        assert_eq!(inside, ("0\n0\nallow\n", 0));
        assert_eq!(mounts_of_host(), before);
    };

    layers_belong_to_the_containers_root_and_stay_as_they_are_on_disk => || {
        let bundle = with_users();
        chown(bundle.lower("etc/passwd"), Some(33), Some(44)).unwrap();
        let script = "stat -c '%u:%g' /bin/busybox /etc/passwd /; echo x >> /etc/passwd; echo y > /made; stat -c '%u:%g' /etc/passwd /made";
        assert_eq!(bundle.run(&["sh", "-c", script]), ("0:0\n33:44\n0:0\n33:44\n0:0\n", 0));
        let owner = |path: &str| {
            let found = fs::metadata(bundle.directory.path().join(path)).unwrap();
            (found.uid(), found.gid())
        };
        assert_eq!([owner("lower/etc/passwd"), owner("lower/bin/busybox")], [(33, 44), (0, 0)]);
        assert_eq!([owner("upper/etc/passwd"), owner("upper/made")], [(FIRST + 33, FIRST + 44), (FIRST, FIRST)]);
    };

    everything_of_a_usual_container_works_with_users_of_its_own => || {
        let mut bundle = with_users();
        bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]);
        bundle.config["linux"]["resources"] = json!({"pids": {"limit": 33}});
        bundle.config["linux"]["sysctl"] = json!({"kernel.shmmni": "1234", "net.ipv4.ip_unprivileged_port_start": "80"});
        bundle.config["linux"]["devices"] = json!([{"path": "/dev/deep/kernel", "type": "c", "major": 1, "minor": 11, "fileMode": 0o620, "uid": 3, "gid": 4}]);
        let script = "cat /proc/sys/kernel/shmmni /proc/sys/net/ipv4/ip_unprivileged_port_start; hostname; \
            stat -c '%a %u %g %t %T' /dev/deep/kernel; echo x > /dev/null && head -c 1 /dev/zero | wc -c; \
            echo y > /dev/shm/y; cat /dev/shm/y; find /sys/fs/cgroup -name pids.max | xargs cat; \
            cat /proc/keys /proc/interrupts | wc -c; ls /sys/firmware | wc -l; ip -o addr show lo | grep -c 127.0.0.1";
        let outcome = bundle.run(&["sh", "-c", script]);
        assert_eq!(outcome, ("1234\n80\nbox\n620 3 4 1 b\n1\ny\n33\n0\n0\n1\n", 0));
        for path in ["/proc/sys/kernel/panic", "/sys/kernel/mm/transparent_hugepage/enabled"] {
            assert_ne!(bundle.run(&["sh", "-c", &format!(": >> {path}")]).status, 0, "{path}");
        }
    };

    a_terminal_and_an_init_work_with_users_of_ones_own => || {
        let mut bundle = with_users();
        bundle.terminal = true;
        bundle.config["process"]["terminal"] = json!(true);
        bundle.identity = Some(Identity { user: "web".into(), groups: vec![] });
        let outcome = bundle.run(&["sh", "-c", "tty; id -u; stat -c %u $(tty); echo x > /dev/tty"]);
        assert_eq!(outcome, ("/dev/pts/0\r\n33\r\n33\r\nx\r\n", 0));
        let mut bundle = with_users();
        bundle.first = FirstProcess::Init;
        assert_eq!(bundle.run(&["sh", "-c", "echo $$; exit 5"]), ("2\n", 5));
    };

    capabilities_of_a_user_namespace_reach_no_further_than_it => || {
        let mut bundle = with_users();
        let all: Vec<String> = evenkeel::model::security::Capability::all().map(|name| format!("CAP_{name}")).collect();
        for set in ["bounding", "effective", "permitted"] {
            bundle.config["process"]["capabilities"][set] = json!(all);
        }
        bundle.config["process"]["noNewPrivileges"] = json!(false);
        let process = bundle.start(&["sleep", "60"]);
        assert!(process.process.warnings.is_empty(), "{:?}", process.process.warnings);
        assert!(process.proc("status").contains("CapEff:\t000001ffffffffff"), "{}", process.proc("status"));
        let script = "mount -t tmpfs x /tmp && echo mounted; mknod /tmp/disk b 8 0 || echo no node; \
            cat /dev/kmsg 2>/dev/null || echo no log; chroot / true && echo chroot; \
            ip link set lo down && echo link; hostname other && hostname";
        let outcome = bundle.exec(&process, &["sh", "-c", script]).unwrap().finish();
        for line in ["mounted", "no node", "no log", "chroot", "link", "other"] {
            assert!(outcome.text.contains(line), "{line}: {}", outcome.text);
        }
    };

    the_hosts_files_are_out_of_reach_even_where_they_are_seen => || {
        let mut bundle = with_users();
        let source = bundle.directory.path().join("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("secret"), "secret").unwrap();
        fs::set_permissions(source.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        bundle.mount("/data", "bind", source.to_str().unwrap(), &["rbind"]);
        let outcome = bundle.run(&["sh", "-c", "stat -c %u /data/secret; cat /data/secret; touch /data/x"]);
        assert!(outcome.text.starts_with("65534\n") && outcome.text.matches("Permission denied").count() == 2, "{}", outcome.text);
    };

    owners_of_a_mount_are_mapped => || {
        let mut bundle = with_users();
        let source = bundle.directory.path().join("source");
        fs::create_dir(&source).unwrap();
        chown(&source, Some(33), Some(44)).unwrap();
        bundle.mount("/data", "bind", source.to_str().unwrap(), &["rbind", "ridmap"]);
        assert_eq!(bundle.run(&["sh", "-c", "stat -c '%u:%g' /data; echo x > /data/x"]), ("33:44\n", 0));
        let made = fs::metadata(source.join("x")).unwrap();
        assert_eq!((made.uid(), made.gid()), (0, 0));
        // A mapping of the mount's own, without any user namespace.
        let mut bundle = Bundle::new();
        let mapping = json!([{"containerID": 33, "hostID": 5000, "size": 10}, {"containerID": 0, "hostID": 0, "size": 1}]);
        let groups = json!([{"containerID": 0, "hostID": 0, "size": 100}]);
        bundle.config["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/data", "source": source, "options": ["bind"], "uidMappings": mapping, "gidMappings": groups,
        }));
        assert_eq!(bundle.run(&["sh", "-c", "stat -c '%u:%g' /data /data/x"]), ("5000:44\n0:0\n", 0));
        bundle.config["mounts"].as_array_mut().unwrap().last_mut().unwrap().as_object_mut().unwrap().remove("gidMappings");
        assert!(matches!(bundle.error(&["/bin/true"]), RuntimeError::Invalid { field, .. } if field == "mounts[6].gidMappings"));
        let mut bundle = Bundle::new();
        bundle.mount("/data", "bind", source.to_str().unwrap(), &["bind", "idmap"]);
        assert!(matches!(bundle.error(&["/bin/true"]), RuntimeError::Invalid { field, .. } if field == "mounts[6]"));
    };

    users_are_joined_by_path_with_what_belongs_to_them => || {
        let first = with_users();
        let process = first.start(&["sleep", "60"]);
        let mut bundle = Bundle::new();
        for part in ["upper", "work"] {
            chown(bundle.directory.path().join(part), Some(FIRST), Some(FIRST)).unwrap();
        }
        bundle.config.as_object_mut().unwrap().remove("hostname");
        let path = |kind: &str| format!("/proc/{}/ns/{kind}", process.pid());
        bundle.config["linux"]["namespaces"] = json!([
            {"type": "mount"}, {"type": "user", "path": path("user")}, {"type": "network", "path": path("net")},
            {"type": "pid", "path": path("pid")}, {"type": "ipc", "path": path("ipc")}, {"type": "uts", "path": path("uts")},
            {"type": "cgroup"},
        ]);
        bundle.config["linux"]["sysctl"] = json!({"kernel.shmmni": "77"});
        let script = "readlink /proc/self/ns/user; readlink /proc/self/ns/pid; readlink /proc/self/ns/net; hostname; stat -c %u /bin/busybox; cat /proc/sys/kernel/shmmni";
        let expected = format!("{}\n{}\n{}\nbox\n0\n77\n", namespace(process.pid(), "user"), namespace(process.pid(), "pid"), namespace(process.pid(), "net"));
        assert_eq!(bundle.run(&["sh", "-c", script]), (expected.as_str(), 0));
        assert_eq!(own("pid_for_children"), own("pid"));
        bundle.config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
        bundle.config["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
        assert!(matches!(bundle.error(&["/bin/true"]), RuntimeError::Invalid { field, .. } if field == "linux.uidMappings"));
    };

    a_network_of_the_hosts_is_joined_by_users_of_ones_own => || {
        let other = Bundle::new();
        let process = other.start(&["sleep", "60"]);
        let mut bundle = with_users();
        bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "network");
        bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "network", "path": format!("/proc/{}/ns/net", process.pid())}));
        bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "0"});
        let outcome = bundle.run(&["sh", "-c", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ls /sys/class/net; ip link set lo down; nc -l -p 80 & sleep 0.1; kill $!"]);
        assert!(outcome.text.starts_with("0\nlo\n") && outcome.text.contains("not permitted"), "{}", outcome.text);
        assert!(!outcome.text.contains("bind"), "{}", outcome.text);
    };

    mappings_that_cannot_hold_are_refused => || {
        let mut bundle = Bundle::new();
        bundle.config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
        bundle.config["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
        assert!(chain(&bundle.error(&["/bin/true"])).contains("`user`"));
        let mut bundle = with_users();
        bundle.config["linux"]["uidMappings"] = json!([{"containerID": 5, "hostID": 1, "size": 1}]);
        assert!(chain(&bundle.error(&["/bin/true"])).contains("user 0"));
        bundle.config["linux"].as_object_mut().unwrap().remove("uidMappings");
        assert!(matches!(bundle.error(&["/bin/true"]), RuntimeError::Invalid { field, .. } if field == "linux.uidMappings"));
    };

    a_directory_that_belongs_to_them_is_the_root_of_mapped_users => || {
        let bundle = with_users();
        std::process::Command::new("chown").args(["-R", &format!("{FIRST}:{FIRST}")]).arg(bundle.lower("")).status().unwrap();
        let root = RootFilesystem::Directory(bundle.lower(""));
        assert_eq!(bundle.start_on(&root, &["sh", "-c", "echo x > /made; stat -c %u /made"]).unwrap().finish(), ("0\n", 0));
        assert_eq!(fs::metadata(bundle.lower("made")).unwrap().uid(), FIRST);
    };

    what_is_printed_can_be_opened_anew_by_its_writer => || {
        for mut bundle in [Bundle::new(), with_users()] {
            bundle.identity = Some(Identity { user: "web".into(), groups: vec![] });
            assert_eq!(bundle.run(&["sh", "-c", "echo hello > /dev/stdout"]), ("hello\n", 0));
            let owner = |path: &str| fs::metadata(path).unwrap().uid();
            assert_eq!(owner("/dev/null"), 0);
        }
    };

    clocks_have_their_offsets => || {
        let days = |text: &str| text.split('.').next().unwrap().parse::<u64>().unwrap() / 86_400;
        for mut bundle in [Bundle::new(), with_users()] {
            bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
            bundle.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 86_400 * 100}, "monotonic": {"secs": 5, "nanosecs": 7}});
            let mut process = bundle.start(&["sh", "-c", "cat /proc/uptime; echo; cat /proc/self/timens_offsets; sleep 60"]);
            process.wait_for("boottime");
            assert_ne!(namespace(process.pid(), "time"), own("time"));
            let uptime = bundle.exec(&process, &["cat", "/proc/uptime"]).unwrap().finish().text;
            assert_eq!(days(&uptime), days(&fs::read_to_string("/proc/uptime").unwrap()) + 100);
            let mut other = Bundle::new();
            other.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time", "path": format!("/proc/{}/ns/time", process.pid())}));
            assert_eq!(days(&other.run(&["cat", "/proc/uptime"]).text), days(&uptime));
        }
        let mut bundle = Bundle::new();
        bundle.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1}});
        assert!(matches!(bundle.error(&["/bin/true"]), RuntimeError::Invalid { field, .. } if field == "linux.timeOffsets"));
        bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        bundle.config["linux"]["timeOffsets"] = json!({"realtime": {"secs": 1}});
        assert!(matches!(bundle.error(&["/bin/true"]), RuntimeError::Invalid { field, .. } if field == "linux.timeOffsets.realtime"));
    };
}
