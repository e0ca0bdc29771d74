//! What the kernel takes for a container like Docker's, whoever asks: the same objects, made and undone by one process
//! with as few calls as will do.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use evenkeel::runtime::{capabilities, cgroup, seccomp};
use evenkeel::sys::clone::{Copy, clone3, exit_now};
use evenkeel::sys::mount::{Attributes, Reach, mount_setattr};
use evenkeel::sys::{descriptors, keyring, loopback};
use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mknodat, open, symlinkat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_bind, mount_change,
    move_mount, open_tree, unmount,
};
use rustix::process::{WaitId, WaitIdOptions, fchdir, pivot_root, setsid, waitid};
use rustix::system::sethostname;

use crate::bundles::Bundle;

/// Version 1 has a directory in each of these, version 2 one.
const HIERARCHIES: [&str; 5] = ["freezer", "memory", "devices", "cpuacct", "pids"];
const LIMITS: [(&str, &str); 2] = [("memory/{}/memory.limit_in_bytes", "67108864"), ("pids/{}/pids.max", "64")];
const DEVICES: [&str; 9] = [
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 136:* rwm",
    "c *:* m",
];
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

pub fn life(bundle: &Bundle) -> bool {
    if cgroup::detect().unwrap().layout() != cgroup::Layout::V1 {
        return false;
    }
    let profile = seccomp::default_profile(&capabilities::default_set());
    let filter = seccomp::compile(&profile).unwrap();
    let name = bundle.cgroup_path();
    let hierarchies = HIERARCHIES.map(|controller| PathBuf::from(format!("/sys/fs/cgroup/{controller}{name}")));
    for directory in &hierarchies {
        fs::create_dir(directory).unwrap();
    }
    for (file, value) in LIMITS {
        fs::write(Path::new("/sys/fs/cgroup").join(file.replace("/{}", &name)), value).unwrap();
    }
    fs::write(hierarchies[2].join("devices.deny"), "a").unwrap();
    for device in DEVICES {
        fs::write(hierarchies[2].join("devices.allow"), device).unwrap();
    }
    let kinds = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    match clone3(kinds as u64, None).unwrap() {
        Copy::Child(_) => {
            for directory in &hierarchies {
                fs::write(directory.join("tasks"), "0").unwrap();
            }
            become_container(bundle, &hierarchies);
            filter.install().unwrap();
            let path = CString::from(c"/bin/true");
            let _ = nix::unistd::execv(&path, &[&path]);
            exit_now(1)
        }
        Copy::Parent { pidfd, .. } => {
            let end = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
            assert_eq!(end.and_then(|end| end.exit_status()), Some(0));
        }
    }
    hierarchies.iter().try_for_each(fs::remove_dir).is_ok()
}

fn become_container(bundle: &Bundle, cgroups: &[PathBuf]) {
    setsid().unwrap();
    keyring::join_new_session_keyring().unwrap();
    descriptors::close_on_exec_from(3).unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    let root = copy_of(&bundle.lower(""));
    let place = open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    attach(&root, &place);
    fchdir(&root).unwrap();
    let usual = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    mount("proc", "proc", "proc", usual, None).unwrap();
    mount("tmpfs", "dev", "tmpfs", MountFlags::NOSUID, Some(c"mode=755,size=65536k")).unwrap();
    for directory in ["dev/pts", "dev/shm", "dev/mqueue"] {
        fs::create_dir(directory).unwrap();
    }
    mount("devpts", "dev/pts", "devpts", MountFlags::NOSUID, Some(c"newinstance,ptmxmode=0666,mode=0620,gid=5"))
        .unwrap();
    mount("shm", "dev/shm", "tmpfs", usual, Some(c"mode=1777,size=65536k")).unwrap();
    mount("mqueue", "dev/mqueue", "mqueue", usual, None).unwrap();
    mount("sysfs", "sys", "sysfs", usual | MountFlags::RDONLY, None).unwrap();
    mount("tmpfs", "sys/fs/cgroup", "tmpfs", usual, Some(c"mode=755")).unwrap();
    for (directory, name) in cgroups.iter().zip(HIERARCHIES) {
        let target = Path::new("sys/fs/cgroup").join(name);
        fs::create_dir(&target).unwrap();
        mount_bind(directory, &target).unwrap();
    }
    for (name, major, minor) in NODES {
        let mode = Mode::from_raw_mode(0o666);
        mknodat(CWD, format!("dev/{name}"), FileType::CharacterDevice, mode, makedev(major, minor)).unwrap();
    }
    for (name, target) in [("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("ptmx", "pts/ptmx")] {
        symlinkat(target, CWD, format!("dev/{name}")).unwrap();
    }
    let words = |key: &str| bundle.config["linux"][key].as_array().cloned().unwrap_or_default();
    for path in words("readonlyPaths").iter().filter_map(|path| path.as_str()).map(|path| path.trim_start_matches('/'))
    {
        if Path::new(path).exists() {
            let copy = copy_of(Path::new(path));
            let attributes = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
            mount_setattr(copy.as_fd(), Reach::Tree, attributes).unwrap();
            attach(&copy, &open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap());
        }
    }
    for path in words("maskedPaths").iter().filter_map(|path| path.as_str()).map(|path| path.trim_start_matches('/')) {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => mount("tmpfs", path, "tmpfs", MountFlags::RDONLY, None).unwrap(),
            Ok(_) => mount_bind("/dev/null", path).unwrap(),
            Err(_) => {}
        }
    }
    loopback::raise().unwrap();
    sethostname(b"box").unwrap();
    pivot_root(".", ".").unwrap();
    unmount(".", UnmountFlags::DETACH).unwrap();
}

fn copy_of(path: &Path) -> OwnedFd {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, path, flags).unwrap()
}

fn attach(mount: &OwnedFd, place: &OwnedFd) {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", place, "", flags).unwrap();
}
