//! The profile of containers that declare none.
//!
//! What a program on a usual distribution calls is allowed; what reaches the host's kernel beyond a container's
//! needs, or has a history of holes, is not: keyrings, mounting, joining or making namespaces, bpf, perf, kexec,
//! modules, the clock, swap, quotas, userfaultfd, io_uring. A capability that makes such a call its holder's business
//! opens it again. Coverage follows Docker's default profile.

use std::collections::BTreeSet;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompOperator, LinuxSyscall,
};

use crate::model::security::Capability;

/// Allowed to everybody, whatever the arguments.
const ALLOWED: &str = "
    accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown chown32
    clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
    clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
    epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
    exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2
    fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat
    fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait
    futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid
    getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid
    getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname
    getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1
    inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl
    ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32
    lgetxattr link linkat listen listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat
    lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock
    mlock2 mlockall mmap mmap2 modify_ldt mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
    mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync
    munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64
    preadv preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace
    pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg recvmmsg_time64 recvmsg
    remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq
    rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity
    sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop
    semtimedop semtimedop_time64 sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area
    set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid
    setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid
    setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4
    sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statmount statx symlink symlinkat
    sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime
    timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
    timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat
    utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev";

/// Opened by a capability.
const PRIVILEGED: [(&str, &str); 13] = [
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree open_tree_attr perf_event_open
         quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module finit_module init_module"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("SYS_RAWIO", "ioperm iopl"),
    ("SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYSLOG", "syslog"),
    ("BPF", "bpf"),
];

/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID`, `NEWNET` (clone(2)).
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// A profile with the coverage of Docker's default one, opened where `capabilities` allow it.
pub fn default_profile(capabilities: &BTreeSet<Capability>) -> LinuxSeccomp {
    let has = |name: &str| capabilities.iter().any(|capability| capability.to_string() == name);
    let mut rules = vec![rule(ALLOWED, LinuxSeccompAction::ScmpActAllow)];
    for (capability, names) in PRIVILEGED {
        if has(capability) {
            rules.push(rule(names, LinuxSeccompAction::ScmpActAllow));
        }
    }
    if has("PERFMON") {
        rules.push(rule("perf_event_open", LinuxSeccompAction::ScmpActAllow));
    }
    // Linux, Linux32 and the flags that programs ask for; 0xffffffff only asks (personality(2)).
    for value in [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        rules.push(with_argument(rule("personality", LinuxSeccompAction::ScmpActAllow), equal(value)));
    }
    // Not AF_ALG, 38: it reaches much code of the kernel that nobody in a container needs (CVE-2019-8912). Not AF_VSOCK,
    // 40, which reaches the hypervisor past every network namespace. The family is an int, of which the kernel drops the
    // upper half after the filter, so the filter does as well. 32-bit programs open both by socketcall(2) all the same: its
    // arguments lie in memory, and old programs have no other call.
    rules.push(rule("socket", LinuxSeccompAction::ScmpActAllow));
    for family in [38, 40] {
        let is_it = condition(LinuxSeccompOperator::ScmpCmpMaskedEq, 0xffff_ffff, Some(family));
        rules.push(with_argument(rule("socket", LinuxSeccompAction::ScmpActErrno), is_it));
    }
    if !has("SYS_ADMIN") {
        let no_namespaces = condition(LinuxSeccompOperator::ScmpCmpMaskedEq, NAMESPACE_FLAGS, Some(0));
        rules.push(with_argument(rule("clone", LinuxSeccompAction::ScmpActAllow), no_namespaces));
        // Its flags lie in memory, which a filter cannot read. ENOSYS makes C libraries fall back to clone.
        let mut clone3 = rule("clone3", LinuxSeccompAction::ScmpActErrno);
        clone3.set_errno_ret(Some(libc::ENOSYS as u32));
        rules.push(clone3);
    }
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(libc::EPERM as u32))
        .set_architectures(Some(architectures()))
        .set_syscalls(Some(rules));
    profile
}

/// The processor's own, and those whose programs it executes too.
fn architectures() -> Vec<Arch> {
    match cfg!(target_arch = "aarch64") {
        true => vec![Arch::ScmpArchAarch64],
        false => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
    }
}

fn rule(names: &str, action: LinuxSeccompAction) -> LinuxSyscall {
    let names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
    let mut rule = LinuxSyscall::default();
    rule.set_names(names).set_action(action);
    rule
}

fn with_argument(mut rule: LinuxSyscall, argument: LinuxSeccompArg) -> LinuxSyscall {
    rule.set_args(Some(vec![argument]));
    rule
}

fn equal(value: u64) -> LinuxSeccompArg {
    condition(LinuxSeccompOperator::ScmpCmpEq, value, None)
}

/// A condition on the first argument.
fn condition(op: LinuxSeccompOperator, value: u64, value_two: Option<u64>) -> LinuxSeccompArg {
    let builder = LinuxSeccompArgBuilder::default().index(0_usize).value(value).op(op);
    let builder = match value_two {
        Some(value) => builder.value_two(value),
        None => builder,
    };
    // Every field has a value or a default: there is nothing left to fail.
    builder.build().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::seccomp::table;

    #[test]
    fn every_name_is_a_system_call() {
        let names = PRIVILEGED.iter().map(|(_, names)| *names).chain([ALLOWED]);
        for name in names.flat_map(str::split_whitespace).filter(|name| *name != "riscv_hwprobe") {
            assert!(table::numbers(name).is_some(), "{name}");
        }
    }

    #[test]
    fn what_reaches_the_host_is_not_allowed_to_everybody() {
        let allowed: BTreeSet<&str> = ALLOWED.split_whitespace().collect();
        let refused = "add_key keyctl request_key mount umount umount2 setns unshare open_tree move_mount fsopen bpf \
            perf_event_open kexec_load kexec_file_load init_module finit_module delete_module clock_settime \
            settimeofday swapon swapoff reboot acct quotactl userfaultfd io_uring_setup io_uring_enter \
            io_uring_register clone clone3 personality chroot pivot_root open_by_handle_at vhangup syslog";
        for name in refused.split_whitespace() {
            assert!(!allowed.contains(name), "{name}");
        }
    }
}
