//! The runtime against the real kernel: containers from a busybox root filesystem, looked at through /proc, /sys and
//! cgroup files. Needs root.
//!
//! The runtime forks, so it refuses to run beside other threads; each test is a process of its own (see
//! `bundles::main`).

mod bundles;

use std::fs;

use bundles::{Bundle, mounts_of_host};

macro_rules! host_tests {
    ($($name:ident => $body:expr;)*) => {
        fn main() -> std::process::ExitCode {
            bundles::main(&[$((stringify!($name), $body)),*])
        }
    };
}

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
}
