//! The runtime against the real kernel: containers from a busybox root filesystem, looked at through /proc, /sys and
//! cgroup files. Needs root.
//!
//! The runtime forks, so it refuses to run beside other threads; each test is a process of its own (see
//! `bundles::main`).

#[macro_use]
mod bundles;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use bundles::{Bundle, chain, mounts_of_host, until};
use evenkeel::model::launch::{Identity, RootFilesystem};
use evenkeel::model::resources::Resources;
use evenkeel::model::security::Capability;
use evenkeel::model::units::{ByteSize, Cpus};
use evenkeel::runtime::launch::FirstProcess;
use evenkeel::runtime::{RuntimeError, capabilities, seccomp};
use serde_json::json;

host_tests! {
    a_command_runs_and_its_status_comes_back => || {
        let bundle = Bundle::new();
        assert_eq!(bundle.run(&["/bin/true"]).status, 0);
        assert_eq!(bundle.run(&["sh", "-c", "echo hello; echo oops >&2; exit 7"]), ("hello\noops\n", 7));
    };

    every_namespace_is_the_containers_own => || {
        let bundle = Bundle::new();
        for kind in ["pid", "net", "ipc", "uts", "mnt", "cgroup"] {
            let inside = bundle.run(&["readlink", &format!("/proc/self/ns/{kind}")]);
            let outside = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
            assert_ne!(inside.text.trim(), outside.to_str().unwrap(), "{kind}");
        }
        assert_eq!(bundle.run(&["sh", "-c", "echo $$; hostname"]), ("1\nbox\n", 0));
    };

    a_new_network_has_only_its_loopback_up => || {
        let outcome = Bundle::new().run(&["sh", "-c", "ip -o link | grep -vc 'lo:'; ip -o addr show lo | grep -c 127.0.0.1"]);
        assert_eq!(outcome, ("0\n1\n", 0));
    };

    the_hosts_mount_table_stays_as_it_is => || {
        let bundle = Bundle::new();
        let before = mounts_of_host();
        let mut process = bundle.start(&["sleep", "60"]);
        assert_eq!(mounts_of_host(), before);
        process.kill();
        assert_eq!(mounts_of_host(), before);
    };

    the_container_sees_only_its_own_mounts => || {
        let bundle = Bundle::new();
        let table = bundle.run(&["cat", "/proc/self/mountinfo"]).text;
        let points: Vec<&str> = table.lines().map(|line| line.split(' ').nth(4).unwrap()).collect();
        assert_eq!(&points[..6], ["/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"], "{table}");
        assert!(!table.contains(" shared:") && !table.contains(" master:"), "{table}");
    };

    what_is_masked_cannot_be_read_or_written => || {
        let bundle = Bundle::new();
        let outcome = bundle.run(&["sh", "-c", "cat /proc/keys /proc/interrupts /proc/timer_list | wc -c; ls /sys/firmware | wc -l"]);
        assert_eq!(outcome, ("0\n0\n", 0));
        for path in ["/proc/sys/kernel/panic", "/proc/irq/default_smp_affinity", "/sys/kernel/mm/transparent_hugepage/enabled"] {
            let outcome = bundle.run(&["sh", "-c", &format!(": >> {path}")]);
            assert!(outcome.status != 0 && outcome.text.contains("Read-only file system"), "{path}: {}", outcome.text);
        }
    };

    bind_mounts_are_read_only_all_the_way_down => || {
        let mut bundle = Bundle::new();
        let source = bundle.directory.path().join("source");
        fs::create_dir_all(source.join("below")).unwrap();
        // A mount below the source, in a mount namespace of this test's own.
        evenkeel::sys::namespace::unshare(libc::CLONE_NEWNS).unwrap();
        rustix::mount::mount_change("/", rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC).unwrap();
        rustix::mount::mount("tmpfs", source.join("below"), "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
        bundle.mount("/ro", "bind", source.to_str().unwrap(), &["rbind", "ro"]);
        bundle.mount("/rw", "bind", source.to_str().unwrap(), &["rbind"]);
        for path in ["/ro/x", "/ro/below/x"] {
            let outcome = bundle.run(&["touch", path]);
            assert!(outcome.text.contains("Read-only file system"), "{}", outcome.text);
        }
        assert_eq!(bundle.run(&["touch", "/rw/below/x"]), ("", 0));
        assert!(source.join("below/x").exists());
    };

    a_tmpfs_has_its_size_and_mode => || {
        let mut bundle = Bundle::new();
        bundle.mount("/scratch", "tmpfs", "tmpfs", &["size=1048576", "mode=1750", "nosuid", "noexec"]);
        let outcome = bundle.run(&["sh", "-c", "stat -c %a /scratch; df -k /scratch | tail -1 | awk '{print $2}'; dd if=/dev/zero of=/scratch/x bs=1M count=2"]);
        assert!(outcome.text.starts_with("1750\n1024\n"), "{}", outcome.text);
        assert!(outcome.text.contains("No space left"), "{}", outcome.text);
    };

    a_mount_option_that_the_filesystem_does_not_know_is_an_error => || {
        let mut bundle = Bundle::new();
        bundle.mount("/scratch", "tmpfs", "tmpfs", &["sise=1"]);
        let error = bundle.error(&["/bin/true"]);
        assert!(chain(&error).contains("/scratch (the option sise)"), "{}", chain(&error));
    };

    a_read_only_root_is_read_only => || {
        let mut bundle = Bundle::new();
        bundle.config["root"]["readonly"] = json!(true);
        let outcome = bundle.run(&["sh", "-c", "touch /x; touch /dev/shm/y && echo fine"]);
        assert!(outcome.text.contains("Read-only file system") && outcome.text.ends_with("fine\n"), "{}", outcome.text);
    };

    layers_lie_on_top_of_each_other => || {
        let bundle = Bundle::new();
        let layers: Vec<_> = (0..60).map(|n| bundle.directory.path().join(format!("layer{n}"))).collect();
        for (n, layer) in layers.iter().enumerate() {
            fs::create_dir(layer).unwrap();
            fs::write(layer.join("top"), n.to_string()).unwrap();
            fs::write(layer.join(format!("file{n}")), "").unwrap();
        }
        let RootFilesystem::Overlay { mut lower, upper, work } = bundle.root() else { panic!() };
        lower.extend(layers);
        let root = RootFilesystem::Overlay { lower, upper, work };
        let outcome = bundle.start_on(&root, &["sh", "-c", "cat /top; echo; ls / | grep -c file"]).unwrap().finish();
        assert_eq!(outcome, ("59\n60\n", 0));
    };

    a_directory_can_be_the_root => || {
        let bundle = Bundle::new();
        let root = RootFilesystem::Directory(bundle.lower(""));
        let before = mounts_of_host();
        assert_eq!(bundle.start_on(&root, &["sh", "-c", "echo x > /made; cat /made"]).unwrap().finish(), ("x\n", 0));
        assert!(bundle.lower("made").exists());
        assert_eq!(mounts_of_host(), before);
    };

    capabilities_are_exactly_those_asked_for => || {
        let mut bundle = Bundle::new();
        let process = bundle.start(&["sleep", "60"]);
        let status = process.proc("status");
        let mask: u64 = capabilities::default_set().iter().map(|capability| 1_u64 << capability.number()).sum();
        for (name, expected) in [("CapInh", 0), ("CapPrm", mask), ("CapEff", mask), ("CapBnd", mask), ("CapAmb", 0)] {
            assert!(status.contains(&format!("{name}:\t{expected:016x}")), "{name} {expected:x}: {status}");
        }
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [7, 8]});
        let ambient = json!(["CAP_NET_BIND_SERVICE"]);
        for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
            bundle.config["process"]["capabilities"][set] = ambient.clone();
        }
        let status = bundle.start(&["sleep", "60"]).proc("status");
        for line in ["CapEff:\t0000000000000400", "CapAmb:\t0000000000000400", "Uid:\t1000\t1000\t1000\t1000", "Groups:\t7 8 "] {
            assert!(status.contains(line), "{line}: {status}");
        }
    };

    a_capability_that_the_host_lacks_falls_away_with_a_warning_that_names_it => || {
        let Some(missing) = Capability::all().find(|capability| !capabilities::host_bounding().contains(capability)) else { return };
        let mut bundle = Bundle::new();
        bundle.config["process"]["capabilities"]["bounding"] = json!([format!("CAP_{missing}"), "CAP_CHOWN"]);
        let process = bundle.start(&["sleep", "60"]);
        let warnings: Vec<String> = process.process.warnings.iter().map(ToString::to_string).collect();
        assert!(matches!(warnings.as_slice(), [one] if one.contains(&format!("`{missing}`"))), "{warnings:?}");
        assert!(process.proc("status").contains("CapBnd:\t0000000000000001\n"), "{}", process.proc("status"));
    };

    the_default_filter_refuses_what_reaches_the_host => || {
        let mut bundle = Bundle::new();
        let all: Vec<String> = capabilities::host_bounding().iter().map(|capability| format!("CAP_{capability}")).collect();
        for set in ["bounding", "effective", "permitted"] {
            // The filter must refuse by itself, not the lack of capabilities.
            bundle.config["process"]["capabilities"][set] = json!(all);
        }
        let try_all = ["sh", "-c", "mount -t tmpfs x /tmp; unshare -m true; unshare -U true; umount /proc; hostname y"];
        let free = bundle.run(&try_all);
        assert!(!free.text.contains("mount: permission denied"), "{}", free.text);
        bundle.config["linux"]["seccomp"] = serde_json::to_value(seccomp::default_profile(&capabilities::default_set())).unwrap();
        let outcome = bundle.run(&try_all);
        let refused = outcome.text.lines().filter(|line| line.contains("ermi") || line.contains("ermitted")).count();
        assert_eq!(refused, 5, "{}", outcome.text);
        let status = bundle.start(&["sleep", "60"]).proc("status");
        assert!(status.contains("Seccomp:\t2"), "{status}");
        // Threads, processes and pipes work as ever.
        assert_eq!(bundle.run(&["sh", "-c", "echo x | cat | cat; (sleep 0) & wait; ls / > /dev/null"]), ("x\n", 0));
    };

    limits_are_in_the_cgroup_files => || {
        let mut bundle = Bundle::new();
        bundle.config["linux"]["resources"] = json!({
            "memory": {"limit": 64 << 20, "reservation": 32 << 20},
            "cpu": {"quota": 50_000, "period": 100_000, "shares": 512, "cpus": "0"},
            "pids": {"limit": 50},
        });
        let mut process = bundle.start(&["sh", "-c", "while :; do :; done"]);
        let cgroup = bundle.cgroup();
        let observed = cgroup.observe().unwrap();
        assert_eq!(observed.memory, Some(ByteSize(64 << 20)));
        assert_eq!(observed.memory_reservation, Some(ByteSize(32 << 20)));
        assert_eq!(observed.cpus, Some(Cpus::from_millis(500)));
        assert!(observed.cpu_shares.is_some());
        assert_eq!((observed.cpuset.as_deref(), observed.pids), (Some("0"), Some(50)));
        let table = process.proc("cgroup");
        let name = bundle.cgroup_path();
        assert!(table.lines().filter(|line| line.ends_with(&name)).count() >= 1, "{table}");
        until("processor time is counted", || cgroup.cpu_nanoseconds().unwrap() > Some(0));
        let stats = cgroup.stats().unwrap();
        assert_eq!((stats.memory_limit, stats.pids, stats.pids_limit), (Some(64 << 20), 1, Some(50)));
        let pid = process.pid();
        cgroup.update(&serde_json::from_value(json!({
            "memory": {"limit": 128 << 20, "reservation": -1},
            "cpu": {"quota": -1, "period": 100_000, "shares": 1024, "cpus": ""},
            "pids": {"limit": -1},
        })).unwrap()).unwrap();
        let observed = cgroup.observe().unwrap();
        assert_eq!(observed, Resources { memory: Some(ByteSize(128 << 20)), ..Resources::default() });
        assert_eq!((process.pid(), cgroup.processes().unwrap().len()), (pid, 1));
        process.kill();
    };

    a_limit_that_comes_later_takes_the_processes_along => || {
        let bundle = Bundle::new();
        let _process = bundle.start(&["sh", "-c", "sleep 60 & sleep 60"]);
        let cgroup = bundle.cgroup();
        until("both run", || cgroup.processes().unwrap().len() == 3 || cgroup.processes().unwrap().len() == 2);
        cgroup.update(&serde_json::from_value(json!({"cpu": {"quota": 20_000, "period": 100_000, "cpus": "0"}})).unwrap()).unwrap();
        assert_eq!(cgroup.observe().unwrap().cpus, Some(Cpus::from_millis(200)));
        for pid in cgroup.processes().unwrap() {
            let table = fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).unwrap();
            let name = bundle.cgroup_path();
            for controller in ["cpu", "cpuset", "memory"] {
                let is_in = table.lines().any(|line| {
                    let mut parts = line.splitn(3, ':').skip(1);
                    parts.next().unwrap().split(',').any(|part| part == controller || part.is_empty()) && parts.next() == Some(name.as_str())
                });
                assert!(is_in, "{controller}: {table}");
            }
        }
    };

    running_out_of_memory_is_counted => || {
        let mut bundle = Bundle::new();
        bundle.config["linux"]["resources"] = json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}});
        let outcome = bundle.run(&["sh", "-c", "x=$(head -c 60000000 /dev/zero | tr '\\0' x); echo survived"]);
        assert!(!outcome.text.contains("survived"), "{}", outcome.text);
        assert!(bundle.cgroup().oom_kills().unwrap() >= 1);
    };

    a_frozen_container_does_not_go_on => || {
        let bundle = Bundle::new();
        let mut process = bundle.start(&["sh", "-c", "while :; do echo x; sleep 0.01; done"]);
        process.wait_for("x");
        let cgroup = bundle.cgroup();
        cgroup.freeze().unwrap();
        let time = |cgroup: &evenkeel::runtime::cgroup::Cgroup| cgroup.cpu_nanoseconds().unwrap();
        let before = time(&cgroup);
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert_eq!(time(&cgroup), before);
        cgroup.thaw().unwrap();
        until("it goes on", || time(&cgroup) > before);
        cgroup.freeze().unwrap();
        cgroup.kill().unwrap();
        assert_eq!(process.wait(), 128 + 9);
    };

    killing_a_cgroup_leaves_nobody => || {
        let mut bundle = Bundle::new();
        // In the host's pid namespace nothing dies along with the first process.
        bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
        let mut process = bundle.start(&["sh", "-c", "for i in 1 2 3 4 5; do (while :; do sleep 0.01; done) & done; echo go; wait"]);
        process.wait_for("go");
        let cgroup = bundle.cgroup();
        assert!(cgroup.processes().unwrap().len() > 5);
        cgroup.kill().unwrap();
        process.wait();
        until("all are gone", || cgroup.processes().unwrap().is_empty());
        cgroup.remove().unwrap();
        assert!(!cgroup.exists());
    };

    the_container_sees_its_own_cgroup_read_only => || {
        let mut bundle = Bundle::new();
        bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]);
        bundle.config["linux"]["resources"] = json!({"pids": {"limit": 33}});
        let outcome = bundle.run(&["sh", "-c", "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; grep -v ':/$' /proc/self/cgroup | grep evenkeel; touch /sys/fs/cgroup/x"]);
        assert!(outcome.text.starts_with("33\n") && outcome.text.contains("Read-only"), "{}", outcome.text);
        assert!(!outcome.text.contains("evenkeel-test"), "{}", outcome.text);
        let outcome = bundle.run(&["sh", "-c", "for f in $(find /sys/fs/cgroup -name pids.max); do echo max > $f; done"]);
        assert!(outcome.text.contains("Read-only file system"), "{}", outcome.text);
    };

    devices_that_are_not_allowed_cannot_be_opened => || {
        let mut bundle = Bundle::new();
        for set in ["bounding", "effective", "permitted"] {
            bundle.config["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_MKNOD"));
        }
        bundle.config["mounts"][1]["options"] = json!(["nosuid", "mode=755"]);
        // The host's first virtual console, and a memory device.
        let script = "mknod /dev/mine c 4 1 && cat /dev/mine; mknod /dev/m c 1 1 && cat /dev/m; echo > /dev/null && head -c 3 /dev/zero | wc -c";
        let outcome = bundle.run(&["sh", "-c", script]);
        assert_eq!(outcome.text.matches("Operation not permitted").count(), 2, "{}", outcome.text);
        assert!(outcome.text.ends_with("3\n"), "{}", outcome.text);
        bundle.config["linux"]["resources"] = json!({"devices": [{"allow": true, "type": "c", "major": 1, "minor": 11, "access": "w"}]});
        bundle.config["linux"]["devices"] = json!([{"path": "/dev/log/kernel", "type": "c", "major": 1, "minor": 11, "fileMode": 0o620, "uid": 3, "gid": 4}]);
        let outcome = bundle.run(&["sh", "-c", "stat -c '%a %u %g %t %T' /dev/log/kernel; cat /dev/log/kernel"]);
        assert!(outcome.text.starts_with("620 3 4 1 b\n") && outcome.text.contains("not permitted"), "{}", outcome.text);
    };

    the_default_devices_and_links_are_there => || {
        let bundle = Bundle::new();
        let outcome = bundle.run(&["sh", "-c", "cd /dev && stat -c '%n %a %F %t:%T' null zero full random urandom tty && for link in fd stdin stdout stderr ptmx; do readlink $link; done"]);
        let expected = "null 666 character special file 1:3\nzero 666 character special file 1:5\nfull 666 character special file 1:7\n\
random 666 character special file 1:8\nurandom 666 character special file 1:9\ntty 666 character special file 5:0\n\
/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n";
        assert_eq!(outcome, (expected, 0));
    };

    what_is_missing_is_named => || {
        let mut bundle = Bundle::new();
        assert!(matches!(bundle.error(&["nothing"]), RuntimeError::CommandNotFound { command } if command == "nothing"));
        assert!(matches!(bundle.error(&["/no/thing"]), RuntimeError::CommandNotFound { command } if command == "/no/thing"));
        assert!(matches!(bundle.error(&["/etc/passwd"]), RuntimeError::CommandNotExecutable { .. }));
        assert!(matches!(bundle.error(&["/etc"]), RuntimeError::CommandNotExecutable { .. }));
        fs::write(bundle.lower("bin/script"), "#!/no/interpreter\n").unwrap();
        fs::write(bundle.lower("bin/text"), "no program\n").unwrap();
        for name in ["script", "text"] {
            fs::set_permissions(bundle.lower("bin").join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        assert!(matches!(bundle.error(&["script"]), RuntimeError::InterpreterNotFound { .. }));
        assert!(matches!(bundle.error(&["text"]), RuntimeError::CommandNotExecutable { .. }));
        bundle.config["process"]["cwd"] = json!("/etc/passwd");
        assert!(matches!(bundle.error(&["/bin/true"]), RuntimeError::WorkingDirectory { path, .. } if path.ends_with("passwd")));
        bundle.config["process"]["cwd"] = json!("/");
        bundle.identity = Some(Identity { user: "nobody".into(), groups: vec![] });
        assert!(matches!(bundle.error(&["/bin/true"]), RuntimeError::UserNotFound { name } if name == "nobody"));
        assert!(bundle.cgroup().processes().unwrap().is_empty());
    };

    directories_that_the_image_only_names_are_made => || {
        let mut bundle = Bundle::new();
        std::os::unix::fs::symlink("/srv", bundle.lower("link")).unwrap();
        bundle.config["root"]["readonly"] = json!(true);
        bundle.config["process"]["cwd"] = json!("/link/app/work");
        bundle.config["process"]["user"] = json!({"uid": 33, "gid": 44});
        // What is there already, and what cannot be a directory, does no harm.
        bundle.directories = ["/data/deep", "/bin", "/etc/passwd/x"].map(Into::into).to_vec();
        let outcome = bundle.run(&["sh", "-c", "pwd; stat -c '%a %u %F' . /data /data/deep; touch x || echo closed"]);
        let made = "755 0 directory\n".repeat(3);
        assert!(outcome.text.starts_with(&format!("/srv/app/work\n{made}")), "{}", outcome.text);
        assert!(outcome.text.ends_with("closed\n"), "{}", outcome.text);
        assert!(bundle.lower("../upper/srv/app/work").is_dir() && !bundle.lower("srv").exists());
    };

    users_are_looked_up_in_the_image => || {
        let mut bundle = Bundle::new();
        bundle.identity = Some(Identity { user: "web".into(), groups: vec!["50".into()] });
        let script = "id -u; id -g; grep Groups: /proc/self/status; echo $HOME; umask";
        // The group of its own is among them: CVE-2022-36109.
        assert_eq!(bundle.run(&["sh", "-c", script]), ("33\n44\nGroups:\t27 44 50 \n/tmp\n0022\n", 0));
        bundle.identity = None;
        bundle.config["process"]["user"]["umask"] = json!(0o77);
        assert_eq!(bundle.run(&["sh", "-c", "umask; echo $HOME"]), ("0077\n/root\n", 0));
    };

    limits_of_the_process_are_set => || {
        let mut bundle = Bundle::new();
        bundle.config["process"]["rlimits"] = json!([
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        ]);
        bundle.config["process"]["oomScoreAdj"] = json!(500);
        let process = bundle.start(&["sleep", "60"]);
        let limits = process.proc("limits");
        assert!(limits.lines().any(|line| line.split_whitespace().collect::<Vec<_>>()[..5] == ["Max", "open", "files", "100", "200"]), "{limits}");
        assert_eq!(process.proc("oom_score_adj"), "500\n");
        drop(process);
        bundle.config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 1_u64 << 40}]);
        let error = chain(&bundle.error(&["/bin/true"]));
        assert!(error.contains("nofile"), "{error}");
    };

    a_process_runs_when_it_is_asked_to => || {
        let mut bundle = Bundle::new();
        bundle.config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 7});
        bundle.config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
        let process = bundle.start(&["sleep", "60"]);
        let stat = process.proc("stat");
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        // proc(5): nice is field 19, the policy 41; the first two are cut off here. SCHED_BATCH is 3.
        assert_eq!((fields[16], fields[38]), ("7", "3"), "{stat}");
        let output = std::process::Command::new("ionice").args(["-p", &process.pid().to_string()]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "best-effort: prio 6");
        bundle.config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 8});
        assert!(matches!(bundle.error(&["/bin/true"]), RuntimeError::Invalid { field, .. } if field == "process.ioPriority.priority"));
        bundle.config["process"].as_object_mut().unwrap().remove("ioPriority");
        bundle.config["process"]["scheduler"] = json!({"policy": "SCHED_ISO"});
        assert!(matches!(bundle.error(&["/bin/true"]), RuntimeError::Unsupported { field, .. } if field == "process.scheduler.policy"));
    };

    kernel_parameters_are_set_in_the_containers_namespaces => || {
        let mut bundle = Bundle::new();
        let host = fs::read_to_string("/proc/sys/kernel/shmmni").unwrap();
        bundle.config["linux"]["sysctl"] = json!({"kernel.shmmni": "1234", "net.ipv4.ip_unprivileged_port_start": "80"});
        bundle.config["domainname"] = json!("example.org");
        assert_eq!(bundle.run(&["cat", "/proc/sys/kernel/shmmni", "/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/sys/kernel/domainname"]), ("1234\n80\nexample.org\n", 0));
        assert_eq!(fs::read_to_string("/proc/sys/kernel/shmmni").unwrap(), host);
        bundle.config["linux"]["sysctl"] = json!({"vm.swappiness": "1"});
        assert!(matches!(bundle.error(&["/bin/true"]), RuntimeError::Invalid { .. }));
    };

    a_terminal_is_the_containers_own => || {
        let mut bundle = Bundle::new();
        bundle.terminal = true;
        bundle.config["process"]["terminal"] = json!(true);
        bundle.config["process"]["consoleSize"] = json!({"height": 33, "width": 99});
        let mut process = bundle.start(&["sh", "-c", "tty; stty size; echo x > /dev/tty; readlink /proc/self/fd/0; ls -l /dev/console | cut -c1-4; read line; echo got $line"]);
        process.wait_for("crw-");
        process.say("hello\n");
        let outcome = process.finish();
        assert!(outcome.text.contains("got hello"), "{}", outcome.text);
        let outcome = bundle.run(&["sh", "-c", "tty; stty size; echo x > /dev/tty"]);
        assert_eq!(outcome, ("/dev/pts/0\r\n33 99\r\nx\r\n", 0));
    };

    an_init_reaps_and_hands_signals_on => || {
        let mut bundle = Bundle::new();
        bundle.first = FirstProcess::Init;
        let script = "echo $$; (sleep 0.05 & ) ; trap 'echo term; exit 3' TERM; echo ready; while :; do sleep 0.02; done";
        let mut process = bundle.start(&["sh", "-c", script]);
        process.wait_for("ready\n");
        assert_eq!(process.proc("comm"), "evenkeel-init\n");
        assert_eq!(process.proc("cmdline").trim_end_matches('\0'), "evenkeel-init", "no word of the host");
        until("orphans are reaped", || {
            let children = process.proc(&format!("task/{}/children", process.pid()));
            children.split_whitespace().count() == 1
        });
        evenkeel::sys::kill::kill(process.process.pid, libc::SIGTERM).unwrap();
        let outcome = process.finish();
        assert_eq!((outcome.text.as_str(), outcome.status), ("term\n", 3));
        assert_eq!(bundle.run(&["sh", "-c", "echo $$; kill -9 $$"]), ("2\n", 137));
        assert!(matches!(bundle.error(&["nothing"]), RuntimeError::CommandNotFound { .. }));
        fs::write(bundle.lower("bin/text"), "no program\n").unwrap();
        fs::set_permissions(bundle.lower("bin/text"), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(bundle.error(&["text"]), RuntimeError::CommandNotExecutable { .. }));
        bundle.config["linux"]["seccomp"] = serde_json::to_value(seccomp::default_profile(&capabilities::default_set())).unwrap();
        assert_eq!(bundle.run(&["sh", "-c", "exit 5"]).status, 5);
    };

    a_further_process_joins_everything => || {
        let bundle = Bundle::new();
        let first = bundle.start(&["sleep", "60"]);
        for kind in ["pid", "net", "ipc", "uts", "mnt", "cgroup"] {
            let inside = bundle.exec(&first, &["readlink", &format!("/proc/self/ns/{kind}")]).unwrap().finish();
            let expected = fs::read_link(format!("/proc/{}/ns/{kind}", first.pid())).unwrap();
            assert_eq!(inside.text.trim(), expected.to_str().unwrap());
        }
        let mut second = bundle.exec(&first, &["sleep", "60"]).unwrap();
        assert_eq!(second.proc("cgroup"), first.proc("cgroup"));
        let mut open: Vec<_> = fs::read_dir(format!("/proc/{}/fd", second.pid())).unwrap().map(|fd| fd.unwrap().file_name()).collect();
        open.sort();
        assert_eq!(open, ["0", "1", "2"]);
        second.kill();
        assert!(matches!(bundle.exec(&first, &["nothing"]).err(), Some(RuntimeError::CommandNotFound { .. })));
        // This process makes its next children where it is itself.
        assert_eq!(fs::read_link("/proc/self/ns/pid_for_children").unwrap(), fs::read_link("/proc/self/ns/pid").unwrap());
        assert_eq!(bundle.exec(&first, &["sh", "-c", "exit 9"]).unwrap().finish().status, 9);
    };

    a_further_process_has_a_terminal_and_the_filter => || {
        let mut bundle = Bundle::new();
        bundle.config["linux"]["seccomp"] = serde_json::to_value(seccomp::default_profile(&capabilities::default_set())).unwrap();
        let first = bundle.start(&["sleep", "60"]);
        bundle.terminal = true;
        let outcome = bundle.exec(&first, &["sh", "-c", "tty; grep -E 'Seccomp:|NoNewPrivs' /proc/self/status"]).unwrap().finish();
        assert_eq!(outcome, ("/dev/pts/0\r\nNoNewPrivs:\t1\r\nSeccomp:\t2\r\n", 0));
    };

    a_namespace_can_be_joined_by_its_path => || {
        let bundle = Bundle::new();
        let first = bundle.start(&["sleep", "60"]);
        let mut other = Bundle::new();
        other.config.as_object_mut().unwrap().remove("hostname");
        let path = |kind: &str| format!("/proc/{}/ns/{kind}", first.pid());
        other.config["linux"]["namespaces"] = json!([
            {"type": "mount"}, {"type": "network", "path": path("net")}, {"type": "pid", "path": path("pid")},
            {"type": "uts", "path": path("uts")}, {"type": "ipc", "path": path("ipc")},
        ]);
        let outcome = other.run(&["sh", "-c", "readlink /proc/self/ns/net; readlink /proc/self/ns/pid; hostname"]);
        let link = |kind| fs::read_link(path(kind)).unwrap().display().to_string();
        assert_eq!(outcome.text, format!("{}\n{}\nbox\n", link("net"), link("pid")));
        assert_eq!(fs::read_link("/proc/self/ns/pid_for_children").unwrap(), fs::read_link("/proc/self/ns/pid").unwrap());
    };

    a_created_container_waits_and_vanishes_when_dropped => || {
        let bundle = Bundle::new();
        let created = bundle.create(&["sh", "-c", "echo started"]);
        let pid = created.pid();
        assert!(fs::read_to_string(format!("/proc/{}/mountinfo", pid.as_raw_nonzero())).unwrap().contains("/dev/pts"));
        assert_eq!(bundle.cgroup().processes().unwrap(), [pid]);
        drop(created);
        assert!(bundle.cgroup().processes().unwrap().is_empty());
        let process = bundle.create(&["/bin/true"]).start().unwrap();
        assert_eq!(bundles::wait(&process), 0);
    };

    what_is_not_supported_is_an_error_that_names_the_field => || {
        type Change = fn(&mut serde_json::Value);
        let change: [(&str, Change); 8] = [
            ("process.apparmorProfile", |config| config["process"]["apparmorProfile"] = json!("x")),
            ("process.selinuxLabel", |config| config["process"]["selinuxLabel"] = json!("x")),
            ("linux.mountLabel", |config| config["linux"]["mountLabel"] = json!("x")),
            ("linux.intelRdt", |config| config["linux"]["intelRdt"] = json!({"closID": "x"})),
            ("hooks.poststop[0]", |config| config["hooks"] = json!({"poststop": [{"path": "/bin/true"}]})),
            ("linux.resources.memory.kernel", |config| config["linux"]["resources"] = json!({"memory": {"kernel": 4096}})),
            ("linux.seccomp.listenerPath", |config| {
                let rule = json!({"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"});
                config["linux"]["seccomp"] =
                    json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x", "syscalls": [rule]});
            }),
            ("ociVersion", |config| config["ociVersion"] = json!("2.0.0")),
        ];
        // A kernel that has it knows no such profile.
        let has_apparmor = fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"));
        for (field, change) in change {
            let mut bundle = Bundle::new();
            change(&mut bundle.config);
            if has_apparmor && field == "process.apparmorProfile" {
                assert!(chain(&bundle.error(&["/bin/true"])).contains("AppArmor profile `x`"));
                continue;
            }
            match bundle.error(&["/bin/true"]) {
                RuntimeError::Unsupported { field: got, .. } => assert_eq!(got, field),
                other => panic!("{field}: {other:?}"),
            }
        }
    };

    signals_are_as_new => || {
        // Rust's start-up ignores SIGPIPE; a pipeline would never end.
        let bundle = Bundle::new();
        let process = bundle.start(&["sleep", "60"]);
        let status = process.proc("status");
        for line in ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"] {
            assert!(status.contains(line), "{status}");
        }
    };
}
