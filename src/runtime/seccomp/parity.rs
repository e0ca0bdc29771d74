//! That the profile of containers which declare none refuses what Docker's refuses, and allows what that allows.
//!
//! Both are stated by name for every system call there is, so a call that is new in `table` has to be decided upon here.
//! Docker's side is that of github.com/moby/profiles as of June 2026, on Linux 4.8 and later.

use std::collections::BTreeSet;

use oci_spec::runtime::Arch;

use super::compile::{AARCH64, Abi, I386, X32, X86_64, compile_for};
use super::{Filter, bpf, default_profile, table};
use crate::model::security::Capability;
use crate::runtime::capabilities;

/// Refused to everybody, whatever they may do otherwise.
const REFUSED: &str = "_sysctl add_key afs_syscall bdflush break create_module file_getattr file_setattr ftime get_kernel_syms getpmsg \
    gtty idle io_uring_enter io_uring_register io_uring_setup kexec_file_load kexec_load keyctl lock migrate_pages \
    move_pages mpx nfsservctl nice oldfstat oldlstat oldolduname oldstat olduname pivot_root prof profil putpmsg \
    query_module readdir request_key security sgetmask sigaction signal sigpending sigsuspend ssetmask stty swapoff \
    swapon sysfs tuxcall ulimit uselib userfaultfd ustat vm86 vm86old vserver";

/// Allowed to who has one of these capabilities.
const OPENED: [(&[&str], &str); 15] = [
    (&["SYS_PACCT"], "acct"),
    (&["BPF", "SYS_ADMIN"], "bpf"),
    (&["SYS_CHROOT"], "chroot"),
    (&["SYS_TIME"], "clock_settime clock_settime64 settimeofday stime"),
    (
        &["SYS_ADMIN"],
        "clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules \
         lsm_set_self_attr mount mount_setattr move_mount open_tree quotactl quotactl_fd setdomainname sethostname \
         setns umount umount2 unshare",
    ),
    // Not in Docker's profile, which is older than the call: `open_tree` with attributes, and no more than that.
    (&["SYS_ADMIN"], "open_tree_attr"),
    (&["SYS_MODULE"], "delete_module finit_module init_module"),
    (&["SYS_NICE"], "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (&["SYS_RAWIO"], "ioperm iopl"),
    (&["SYS_PTRACE"], "kcmp pidfd_getfd process_madvise"),
    (&["DAC_READ_SEARCH"], "open_by_handle_at"),
    (&["PERFMON", "SYS_ADMIN"], "perf_event_open"),
    (&["SYS_BOOT"], "reboot"),
    (&["SYSLOG", "SYS_ADMIN"], "syslog"),
    (&["SYS_TTY_CONFIG"], "vhangup"),
];

/// Decided by their arguments.
const BY_ARGUMENT: [&str; 3] = ["clone", "personality", "socket"];

/// The default filter for each processor that Evenkeel is built for, and what programs run there.
fn filters(set: &BTreeSet<Capability>) -> [(Filter, Vec<Abi>); 2] {
    let mut profile = default_profile(set);
    profile.set_architectures(Some(vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]));
    let x86 = compile_for(X86_64, &profile).unwrap();
    // Of Docker's, 32-bit ARM is left out: its numbers are not known here, and who calls by them is killed.
    profile.set_architectures(Some(vec![Arch::ScmpArchAarch64]));
    [(x86, vec![X86_64, I386, X32]), (compile_for(AARCH64, &profile).unwrap(), vec![AARCH64])]
}

fn is_allowed(filter: &Filter, abi: Abi, name: &str, first: u64) -> Option<bool> {
    let number = u32::try_from(table::numbers(name)?[abi.column]).ok()?;
    let verdict = bpf::evaluate(&filter.program, abi.audit, abi.first + number, [first, 0, 0, 0, 0, 0]);
    Some(verdict == libc::SECCOMP_RET_ALLOW)
}

/// None, the default ones, each alone, and all.
fn sets() -> Vec<BTreeSet<Capability>> {
    let all: BTreeSet<Capability> = Capability::all().collect();
    let alone = all.iter().map(|capability| BTreeSet::from([*capability]));
    [BTreeSet::new(), capabilities::default_set(), all.clone()].into_iter().chain(alone).collect()
}

fn has(set: &BTreeSet<Capability>, name: &str) -> bool {
    set.contains(&name.parse().unwrap())
}

#[test]
fn what_docker_refuses_is_refused_and_what_it_allows_allowed() {
    let refused: BTreeSet<&str> = REFUSED.split_whitespace().collect();
    for set in sets() {
        let filters = filters(&set);
        for name in table::names().filter(|name| !BY_ARGUMENT.contains(name)) {
            let opened = OPENED.iter().find(|(_, names)| names.split_whitespace().any(|opened| opened == name));
            let expected = match opened {
                Some((openers, _)) => openers.iter().any(|capability| has(&set, capability)),
                None => !refused.contains(name),
            };
            for (filter, abis) in &filters {
                for abi in abis {
                    let found = is_allowed(filter, *abi, name, 0).unwrap_or(expected);
                    assert_eq!(found, expected, "{name} for {:#x} with {set:?}", abi.audit);
                }
            }
        }
    }
}

#[test]
fn what_arguments_decide_is_decided_as_docker_does() {
    let admin = BTreeSet::from(["SYS_ADMIN".parse().unwrap()]);
    let personas = (0..32).map(|bit| 1_u64 << bit).flat_map(|bit| (0..16).map(move |low| bit | low)).chain([0]);
    let personas: Vec<u64> = personas.chain([0x2_0008]).collect();
    for set in [BTreeSet::new(), capabilities::default_set(), admin, Capability::all().collect()] {
        let is_admin = has(&set, "SYS_ADMIN");
        let filters = filters(&set);
        for (filter, abi) in filters.iter().flat_map(|(filter, abis)| abis.iter().map(move |abi| (filter, *abi))) {
            // CLONE_NEWNS and the like, each alone and beside the flags of a thread (clone(2)).
            for kind in [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000_u64] {
                for others in [0, 0x003d_0f00] {
                    assert_eq!(is_allowed(filter, abi, "clone", kind | others), Some(is_admin), "{kind:#x}");
                }
            }
            assert_eq!(is_allowed(filter, abi, "clone", 0x003d_0f00), Some(true));
            for persona in &personas {
                let is_usual = [0, 8, 0x2_0000, 0x2_0008].contains(persona);
                assert_eq!(is_allowed(filter, abi, "personality", *persona), Some(is_usual), "{persona:#x}");
            }
            assert_eq!(is_allowed(filter, abi, "personality", 0xffff_ffff), Some(true));
            // AF_ALG reaches code of the kernel that has had holes enough (CVE-2019-8912), AF_VSOCK the hypervisor.
            for family in 0..64 {
                let expected = Some(![38, 40].contains(&family));
                assert_eq!(is_allowed(filter, abi, "socket", family), expected, "{family}");
                // Stricter than Docker's: the kernel takes the lower half alone.
                assert_eq!(is_allowed(filter, abi, "socket", 1 << 32 | family), expected, "{family}");
            }
        }
    }
}
