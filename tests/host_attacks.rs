//! Attacks on the host from inside a container or from an image, each by the CVE that it is known by elsewhere. Needs
//! root. Copying through links is `engine::storage::copy`'s and `host_security`'s.

#[macro_use]
#[allow(dead_code)]
mod bundles;

use std::fs::{self, read_link};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use bundles::{Bundle, Running, chain, until};
use evenkeel::runtime::{RuntimeError, binary, capabilities, seccomp};
use serde_json::json;

/// Names every call that does not fail with EPERM.
const PROBE: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TRY(call, ...) if (syscall(SYS_##call, __VA_ARGS__) != -1 || errno != EPERM) puts(#call)

int main(void) {
    TRY(keyctl, 0, -3, 0);
    TRY(add_key, "user", "name", "x", 1, -2);
    TRY(request_key, "user", "name", 0, 0);
    TRY(userfaultfd, 1);
    TRY(io_uring_setup, 1, 0);
    TRY(kexec_load, 0, 0, 0, 0);
    if (socket(38, SOCK_SEQPACKET, 0) != -1 || errno != EPERM) puts("AF_ALG");
    if (syscall(SYS_socket, 1L << 32 | 38, SOCK_SEQPACKET, 0) != -1 || errno != EPERM) puts("AF_ALG");
    if (syscall(SYS_socket, 1L << 32 | 40, SOCK_SEQPACKET, 0) != -1 || errno != EPERM) puts("AF_VSOCK");
    return 0;
}
"#;

/// Looks through whatever process of the container appears for a file of the host: by its root, by its working
/// directory, and by the directories that it holds open. Says what it found, and ends when it sees a `sleep`.
const PEEPER: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char path[8192];

static int is_there(void) { return faccessat(AT_FDCWD, path, F_OK, AT_EACCESS) == 0; }

static void say(const char *what) {
    static const char *last;
    if (what != last) { puts(what); fflush(stdout); }
    last = what;
}

int main(int count, char **arguments) {
    const char *secret = arguments[1];
    say("begun");
    for (;;) {
        for (int pid = 2; pid < 400; pid++) {
            snprintf(path, sizeof path, "/proc/%d/root%s", pid, secret);
            if (is_there()) say("the host by a root");
            snprintf(path, sizeof path, "/proc/%d/cwd/../../../../../../../..%s", pid, secret);
            if (is_there()) say("the host by a working directory");
            snprintf(path, sizeof path, "/proc/%d/fd", pid);
            if (!is_there()) continue;
            for (int fd = 0; fd < 24; fd++) {
                snprintf(path, sizeof path, "/proc/%d/fd/%d/../../../../../../../..%s", pid, fd, secret);
                if (is_there()) say("the host by a descriptor");
            }
            char name[16] = "";
            snprintf(path, sizeof path, "/proc/%d/comm", pid);
            FILE *file = fopen(path, "r");
            if (file && fgets(name, sizeof name, file) && strcmp(name, "sleep\n") == 0) { say("saw sleep"); return 0; }
            if (file) fclose(file);
        }
    }
}
"#;

/// Stops the first process that appears beside it, and ends it after a while.
const STOPPER: &str = r#"
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

int main(void) {
    puts("begun");
    fflush(stdout);
    while (kill(-1, SIGSTOP) != 0);
    sleep(8);
    kill(-1, SIGKILL);
    for (;;) pause();
}
"#;

/// Stops the first process that appears beside it, and if that one has a filter, puts clone3 in the place of its next
/// call.
const FORKER: &str = r#"
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static int is_filtered(int pid) {
    char line[256];
    snprintf(line, sizeof line, "/proc/%d/status", pid);
    FILE *file = fopen(line, "r");
    int found = 0;
    while (file && fgets(line, sizeof line, file)) found |= strcmp(line, "Seccomp:\t2\n") == 0;
    if (file) fclose(file);
    return found;
}

int main(void) {
    struct user_regs_struct registers;
    puts("begun");
    fflush(stdout);
    while (kill(-1, SIGSTOP) != 0);
    int pid = 2;
    while (pid < 40000 && kill(pid, 0) != 0) pid++;
    if (!is_filtered(pid)) puts("another");
    else if (ptrace(PTRACE_SEIZE, pid, 0, 0) != 0 || ptrace(PTRACE_INTERRUPT, pid, 0, 0) != 0) puts("untraceable");
    else {
        waitpid(pid, 0, __WALL);
        kill(pid, SIGCONT);
        // Where a call begins, it has failed so far.
        do {
            ptrace(PTRACE_SYSCALL, pid, 0, 0);
            waitpid(pid, 0, __WALL);
            if (ptrace(PTRACE_GETREGS, pid, 0, &registers) != 0) break;
        } while ((long) registers.rax != -38);
        long arguments = registers.rsp - 4096;
        for (int at = 0; at < 88; at += 8) ptrace(PTRACE_POKEDATA, pid, arguments + at, 0);
        registers.orig_rax = SYS_clone3;
        registers.rdi = arguments;
        registers.rsi = 64;
        ptrace(PTRACE_SETREGS, pid, 0, &registers);
        ptrace(PTRACE_SYSCALL, pid, 0, 0);
        waitpid(pid, 0, __WALL);
        if (ptrace(PTRACE_GETREGS, pid, 0, &registers) != 0) puts("gone");
        else if ((long) registers.rax > 0) puts("a copy");
        else printf("clone3: %s\n", strerror(-(long) registers.rax));
    }
    fflush(stdout);
    kill(-1, SIGKILL);
    for (;;) pause();
}
"#;

/// A bundle as a container without any declaration gets it: the default filter on the default capabilities.
fn locked() -> Bundle {
    let mut bundle = Bundle::new();
    let filter = seccomp::default_profile(&capabilities::default_set());
    bundle.config["linux"]["seccomp"] = serde_json::to_value(filter).unwrap();
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]);
    bundle
}

/// Compiles a program of C that needs nothing of an image.
fn build(source: &str, program: &Path) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("program.c");
    fs::write(&file, source).unwrap();
    assert!(Command::new("gcc").args(["-static", "-O1", "-o"]).args([program, &file]).status().unwrap().success());
}

/// A container at work that may trace whom it sees, and does.
fn peeper() -> (Bundle, Running) {
    let bundle = peeping();
    let peeper = peek(&bundle);
    (bundle, peeper)
}

fn peek(bundle: &Bundle) -> Running {
    let mut peeper = bundle.start(&["/peeper", bundle.directory.path().join("secret").to_str().unwrap()]);
    peeper.wait_for("begun\n");
    peeper
}

fn peeping() -> Bundle {
    let mut bundle = Bundle::new();
    fs::write(bundle.directory.path().join("secret"), "host").unwrap();
    build(PEEPER, &bundle.lower("peeper"));
    for set in ["bounding", "effective", "permitted"] {
        bundle.config["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_SYS_PTRACE"));
    }
    bundle
}

host_tests! {
    the_runtimes_own_binary_cannot_be_written => || {
        // CVE-2019-5736: with every capability, and the runtime's binary executed inside by the image's wish.
        let copy = tempfile::tempdir().unwrap();
        let program = copy.path().join("program");
        fs::copy("/bin/busybox", &program).unwrap();
        let view = binary::read_only(&program).unwrap();
        let through = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&view));
        let mut child = std::process::Command::new(through).arg0("sleep").arg("60").spawn().unwrap();
        drop(view);
        let exe = format!("/proc/{}/exe", child.id());
        until("it has executed", || fs::read(format!("/proc/{}/comm", child.id())).is_ok_and(|_| fs::metadata(&exe).unwrap().len() == fs::metadata(&program).unwrap().len()));
        let kept = fs::File::open(&exe).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&kept));
        let error = fs::File::options().write(true).open(again).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
        // The file itself is as writable as it was.
        fs::File::options().write(true).open(&program).unwrap();
    };

    nothing_of_the_host_leaks_in => || {
        // CVE-2024-21626: neither an open directory of the host's, nor its working directory.
        let bundle = Bundle::new();
        let leak = rustix::fs::open("/etc", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
        let outcome = bundle.run(&["sh", "-c", "ls /proc/self/fd | tr '\\n' ' '; pwd"]);
        // 3 is the directory that ls itself reads.
        assert_eq!(outcome, ("0 1 2 3 /\n", 0));
        let number = std::os::fd::AsRawFd::as_raw_fd(&leak);
        for fd in [number, 3, 4, 5, 6, 7, 8, 9] {
            let mut bundle = Bundle::new();
            bundle.config["process"]["cwd"] = json!(format!("/proc/self/fd/{fd}"));
            assert!(matches!(bundle.error(&["/bin/true"]), RuntimeError::WorkingDirectory { .. }));
        }
        let mut process = bundle.start(&["sleep", "60"]);
        let mut open: Vec<_> = fs::read_dir(format!("/proc/{}/fd", process.pid())).unwrap().map(|fd| fd.unwrap().file_name()).collect();
        open.sort();
        assert_eq!(open, ["0", "1", "2"]);
        process.kill();
        // Nor is it open while the first process waits for its start, when others of the container can see it.
        let created = bundle.create(&["/bin/true"]);
        let links = fs::read_dir(format!("/proc/{}/fd", created.pid())).unwrap();
        let links: Vec<_> = links.map(|fd| fs::read_link(fd.unwrap().path()).unwrap()).collect();
        assert!(!links.is_empty() && links.iter().all(|link| link != Path::new("/etc")), "{links:?}");
        drop(leak);
    };

    a_further_process_begins_in_no_directory_of_the_hosts => || {
        // CVE-2024-21626, by exec.
        let _leak = rustix::fs::open("/etc", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
        let mut bundle = locked();
        let first = bundle.start(&["sleep", "60"]);
        for fd in 3..12 {
            bundle.config["process"]["cwd"] = json!(format!("/proc/self/fd/{fd}"));
            let error = bundle.exec(&first, &["ls"]).err();
            assert!(matches!(error, Some(RuntimeError::WorkingDirectory { .. })), "{fd}");
        }
    };

    a_further_process_in_the_making_is_no_way_to_the_host => || {
        // CVE-2016-9962, by a container that may trace whom it sees (ptrace(2), "Ptrace access mode checking"): being
        // undumpable is no defence against it.
        let (bundle, mut peeper) = peeper();
        for _ in 0..100 {
            assert_eq!(bundle.exec(&peeper, &["true"]).unwrap().finish(), ("", 0));
        }
        // It can look, or its silence is worth nothing.
        let patient = bundle.exec(&peeper, &["sleep", "60"]).unwrap();
        let mut said = String::new();
        peeper.output.read_to_string(&mut said).unwrap();
        assert_eq!(said, "saw sleep\n");
        // Process 1 of the namespace ends after all others.
        drop(patient);
        assert_eq!(peeper.wait(), 0);
    };

    a_container_in_the_making_is_no_way_to_the_host_for_one_whose_processes_it_joins => || {
        // As above, by a container that shares its pid namespace with one that starts: a debugger of a pod's.
        let (_bundle, mut peeper) = peeper();
        let mut joining = Bundle::new();
        let namespaces = joining.config["linux"]["namespaces"].as_array_mut().unwrap();
        let pid = namespaces.iter_mut().find(|namespace| namespace["type"] == "pid").unwrap();
        pid["path"] = json!(format!("/proc/{}/ns/pid", peeper.pid()));
        let own = fs::read_link(format!("/proc/{}/ns/pid", peeper.pid())).unwrap();
        for _ in 0..60 {
            let outcome = joining.run(&["sh", "-c", "readlink /proc/self/ns/pid; cat /proc/1/comm"]);
            assert_eq!(outcome, (format!("{}\npeeper\n", own.display()).as_str(), 0));
        }
        let patient = joining.start(&["sleep", "60"]);
        let mut said = String::new();
        peeper.output.read_to_string(&mut said).unwrap();
        assert_eq!(said, "saw sleep\n");
        drop(patient);
        assert_eq!(peeper.wait(), 0);
    };

    a_hook_of_creation_is_not_seen_by_those_whose_processes_are_joined => || {
        // As above, with users of the pod's own: a hook runs while the container still has the host's tree.
        let first = 0x7000_0000;
        let mut bundle = peeping();
        let mapping = json!([{"containerID": 0, "hostID": first, "size": 65536}]);
        bundle.config["linux"]["uidMappings"] = mapping.clone();
        bundle.config["linux"]["gidMappings"] = mapping;
        bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        let own = |bundle: &Bundle| {
            for part in ["upper", "work"] {
                chown(bundle.directory.path().join(part), Some(first), Some(first)).unwrap();
            }
        };
        own(&bundle);
        // The host's tree is all that keeps it from the secret.
        fs::set_permissions(bundle.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut peeper = peek(&bundle);
        let mut joining = Bundle::new();
        own(&joining);
        for namespace in joining.config["linux"]["namespaces"].as_array_mut().unwrap() {
            if namespace["type"] == "pid" {
                namespace["path"] = json!(format!("/proc/{}/ns/pid", peeper.pid()));
            }
        }
        let users = json!({"type": "user", "path": format!("/proc/{}/ns/user", peeper.pid())});
        joining.config["linux"]["namespaces"].as_array_mut().unwrap().push(users);
        let hook = json!({"path": "/bin/busybox", "args": ["usleep", "100000"]});
        joining.config["hooks"] = json!({"createContainer": [hook]});
        let state = json!({"ociVersion": "1.2.0", "id": "box", "status": "creating", "bundle": "/"});
        joining.state = Some(serde_json::from_value(state).unwrap());
        for _ in 0..5 {
            assert_eq!(joining.run(&["cat", "/proc/1/comm"]), ("peeper\n", 0));
        }
        joining.config.as_object_mut().unwrap().remove("hooks");
        let patient = joining.start(&["sleep", "60"]);
        let mut said = String::new();
        peeper.output.read_to_string(&mut said).unwrap();
        assert_eq!(said, "saw sleep\n");
        drop(patient);
        assert_eq!(peeper.wait(), 0);
    };

    who_stops_what_comes_into_his_namespace_holds_nobody_up => || {
        // What comes first is there for a fraction of a millisecond: it may be over before it is stopped, and then it is
        // the container's own process that is.
        let has_been_told = (0..20).any(|_| {
            let bundle = Bundle::new();
            build(STOPPER, &bundle.lower("stopper"));
            let mut stopper = bundle.start(&["/stopper"]);
            stopper.wait_for("begun\n");
            let mut joining = Bundle::new();
            for namespace in joining.config["linux"]["namespaces"].as_array_mut().unwrap() {
                if namespace["type"] == "pid" {
                    namespace["path"] = json!(format!("/proc/{}/ns/pid", stopper.pid()));
                }
            }
            let error = joining.try_start(&["true"]).err();
            let has_been_told = error.is_some_and(|error| chain(&error).contains("has stopped the one"));
            if has_been_told {
                let inside = read_link(format!("/proc/{}/ns/pid", stopper.pid())).unwrap();
                let lives_there = |pid: &PathBuf| read_link(pid.join("ns/pid")).is_ok_and(|found| found == inside);
                let alone = [PathBuf::from(format!("/proc/{}", stopper.pid()))];
                until("nothing that came stays", || {
                    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
                    processes.filter(lives_there).collect::<Vec<_>>() == alone
                });
            }
            has_been_told
        });
        assert!(has_been_told);
    };

    who_traces_what_comes_into_his_namespace_makes_no_copies_of_it => || {
        // In version 1 they would be in no cgroup of his, nor end with it.
        let found = (0..100).find_map(|_| {
            let mut bundle = peeping();
            build(FORKER, &bundle.lower("forker"));
            bundle.config["linux"]["maskedPaths"] = json!([]);
            let mut forker = bundle.start(&["/forker"]);
            forker.wait_for("begun\n");
            let mut joining = Bundle::new();
            for namespace in joining.config["linux"]["namespaces"].as_array_mut().unwrap() {
                if namespace["type"] == "pid" {
                    namespace["path"] = json!(format!("/proc/{}/ns/pid", forker.pid()));
                }
            }
            // It fails, or what has it is ended.
            drop(joining.try_start(&["true"]));
            let mut said = [0; 64];
            let length = forker.output.read(&mut said).unwrap();
            let said = String::from_utf8_lossy(&said[..length]).into_owned();
            // It may have been too late for it.
            (said == "a copy\n" || said.starts_with("clone3")).then_some(said)
        });
        assert_eq!(found.as_deref(), Some("clone3: Function not implemented\n"));
    };

    who_stops_a_process_that_is_born_beside_him_holds_nobody_up => || {
        let bundle = Bundle::new();
        build(STOPPER, &bundle.lower("stopper"));
        // Where it comes too late, the command runs.
        let error = (0..10).find_map(|_| {
            let mut stopper = bundle.start(&["/stopper"]);
            stopper.wait_for("begun\n");
            bundle.exec(&stopper, &["true"]).err()
        });
        assert!(error.is_some_and(|error| chain(&error).contains("another process has stopped process")));
    };

    a_link_in_the_place_of_proc_sys_or_dev_is_refused => || {
        // CVE-2019-19921, CVE-2023-27561, and Podman's /dev.
        for name in ["proc", "sys", "dev"] {
            let bundle = Bundle::new();
            fs::remove_dir(bundle.lower(name)).unwrap();
            symlink("/etc", bundle.lower(name)).unwrap();
            let error = bundle.error(&["/bin/true"]);
            assert!(chain(&error).contains(&format!("`/{name}`")), "{}", chain(&error));
        }
        // Nor does another spelling of the destination let the image move it.
        for (name, spelling) in [("proc", "/proc/"), ("sys", "//sys"), ("dev", "/./dev")] {
            let mut bundle = Bundle::new();
            fs::remove_dir(bundle.lower(name)).unwrap();
            symlink("/etc", bundle.lower(name)).unwrap();
            let mounts = bundle.config["mounts"].as_array_mut().unwrap();
            let mount = mounts.iter_mut().find(|mount| mount["destination"] == format!("/{name}")).unwrap();
            mount["destination"] = json!(spelling);
            let error = bundle.error(&["/bin/true"]);
            assert!(chain(&error).contains(&format!("`{spelling}`")), "{}", chain(&error));
        }
    };

    mount_targets_stay_inside_the_root => || {
        // CVE-2021-30465: links in the image lead nowhere but into the image. What they name is there on the host, so that
        // a walk that went astray would find it.
        let outside = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            fs::write(outside.path().join(name), "host").unwrap();
        }
        fs::create_dir(outside.path().join("c")).unwrap();
        let mut bundle = Bundle::new();
        symlink(outside.path(), bundle.lower("absolute")).unwrap();
        symlink(format!("../../../../../../..{}", outside.path().display()), bundle.lower("relative")).unwrap();
        fs::write(bundle.directory.path().join("data"), "data").unwrap();
        for target in ["/absolute/a", "/relative/b", "/../../d", "/new/directory/e"] {
            let source = bundle.directory.path().join("data");
            bundle.mount(target, "bind", source.to_str().unwrap(), &["bind", "ro"]);
        }
        let inside = outside.path().display();
        let script = format!("cat {inside}/a {inside}/b /d /new/directory/e");
        assert_eq!(bundle.run(&["sh", "-c", &script]), ("datadatadatadata", 0));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 3);
        assert_eq!(fs::read_to_string(outside.path().join("a")).unwrap(), "host");
        // Before pivot_root(2) the root of process 1 is still the host's.
        symlink(format!("/proc/1/root{inside}"), bundle.lower("magic")).unwrap();
        bundle.mount("/magic/c", "tmpfs", "tmpfs", &[]);
        assert!(chain(&bundle.error(&["/bin/true"])).contains("/magic/c"));
    };

    a_null_device_that_the_image_replaced_masks_nothing_less => || {
        // CVE-2025-31133: the mask is the host's null device, whatever the image has in its place.
        let mut bundle = Bundle::new();
        bundle.config["mounts"].as_array_mut().unwrap().retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        fs::write(bundle.lower("secret"), "secret").unwrap();
        symlink("/secret", bundle.lower("dev/null")).unwrap();
        bundle.config["linux"]["maskedPaths"] = json!(["/proc/keys", "/etc/passwd"]);
        let error = bundle.error(&["/bin/true"]);
        assert!(chain(&error).contains("/dev/null"), "{}", chain(&error));
        fs::remove_file(bundle.lower("dev/null")).unwrap();
        assert_eq!(bundle.run(&["sh", "-c", "cat /proc/keys /etc/passwd | wc -c"]), ("0\n", 0));
    };

    a_console_that_the_image_made_a_link_covers_nothing => || {
        // CVE-2025-52565: the terminal would be mounted where the link leads.
        let mut bundle = Bundle::new();
        bundle.terminal = true;
        bundle.config["process"]["terminal"] = json!(true);
        bundle.config["mounts"].as_array_mut().unwrap().retain(|mount| {
            !["/dev", "/dev/shm", "/dev/mqueue"].contains(&mount["destination"].as_str().unwrap())
        });
        for target in ["/proc/sysrq-trigger", "/etc/passwd"] {
            symlink(target, bundle.lower("dev/console")).unwrap();
            let error = chain(&bundle.error(&["/bin/true"]));
            assert!(error.contains("/dev/console"), "{error}");
            fs::remove_file(bundle.lower("dev/console")).unwrap();
        }
    };

    a_parameter_is_written_where_it_belongs_whatever_covers_it => || {
        // CVE-2025-52881: what is mounted over a file of procfs gets none of the runtime's writes.
        let mut bundle = Bundle::new();
        let trap = bundle.directory.path().join("trap");
        fs::create_dir(&trap).unwrap();
        fs::write(trap.join("shmmni"), "untouched").unwrap();
        bundle.mount("/proc/sys/kernel", "bind", trap.to_str().unwrap(), &["bind"]);
        bundle.config["linux"]["sysctl"] = json!({"kernel.shmmni": "1234"});
        let process = bundle.start(&["sleep", "60"]);
        assert_eq!(fs::read_to_string(trap.join("shmmni")).unwrap(), "untouched");
        let namespace = format!("--ipc=/proc/{}/ns/ipc", process.pid());
        let real = Command::new("nsenter").args([&namespace, "cat", "/proc/sys/kernel/shmmni"]).output().unwrap();
        assert_eq!(String::from_utf8(real.stdout).unwrap(), "1234\n");
    };

    no_file_of_a_cgroup_can_be_written => || {
        // CVE-2022-0492: a release agent runs as the host's root.
        let bundle = locked();
        let script = "find /sys/fs/cgroup -name cgroup.procs -o -name release_agent -o -name notify_on_release | \
            while read file; do echo 1 2>/dev/null > $file && echo written $file; done; \
            mkdir /sys/fs/cgroup/x 2>/dev/null && echo made; for path in /sys/fs/cgroup/*/; do mkdir $path/x 2>/dev/null && echo made; done; \
            mount -t cgroup -o memory cgroup /tmp 2>/dev/null && echo mounted; echo done";
        assert_eq!(bundle.run(&["sh", "-c", script]), ("done\n", 0));
    };

    users_of_its_own_are_not_for_a_container_to_make => || {
        // The way to most holes of the last years (CVE-2022-0185, CVE-2023-0386): a root of one's own.
        let bundle = locked();
        for kinds in ["-U", "-Ur", "-m", "-n", "-p", "-i", "-u"] {
            let outcome = bundle.run(&["unshare", kinds, "true"]);
            assert!(outcome.status != 0 && outcome.text.contains("not permitted"), "{kinds}: {}", outcome.text);
        }
        let own = bundle.start(&["sleep", "60"]);
        let joined = bundle.exec(&own, &["nsenter", "-t", "1", "-n", "true"]).unwrap().finish();
        assert!(joined.status != 0, "{}", joined.text);
    };

    what_the_kernel_tells_of_the_host_is_masked_and_cannot_be_unmasked => || {
        // CVE-2019-16884 and its like: a mask is worth nothing if a container may take it off or mount beside it.
        let bundle = locked();
        let script = "for path in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts /sys/firmware; do \
            umount $path 2>/dev/null && echo unmasked $path; done; mount -t proc proc /tmp 2>/dev/null && echo mounted; \
            cat /proc/kcore /proc/keys /proc/timer_list /proc/interrupts 2>/dev/null | wc -c; ls /sys/firmware | wc -l; \
            for path in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/irq/default_smp_affinity; do \
            echo x 2>/dev/null > $path && echo written $path; done; echo done";
        assert_eq!(bundle.run(&["sh", "-c", script]), ("0\n0\ndone\n", 0));
    };

    the_hosts_keys_and_log_are_out_of_reach => || {
        // CVE-2016-0728 among others came by keyctl(2), CVE-2022-29582 by io_uring(7), CVE-2019-8912 by AF_ALG. Without the
        // filter each of these calls gets as far as to look at its arguments.
        let bundle = locked();
        let probe = bundle.lower("probe");
        build(PROBE, &probe);
        assert_eq!(bundle.run(&["/probe"]), ("", 0));
        // With a filter that allows all, it has something to say.
        let open = Bundle::new();
        fs::copy(&probe, open.lower("probe")).unwrap();
        let said = open.run(&["/probe"]).text;
        for call in ["keyctl", "add_key", "userfaultfd", "AF_ALG"] {
            assert!(said.contains(call), "{call}: {said}");
        }
        let outcome = bundle.run(&["sh", "-c", "dmesg | wc -c; cat /proc/kmsg 2>&1 | wc -l; chroot / true && echo chroot"]);
        assert!(outcome.text.contains("ermi"), "{}", outcome.text);
        assert!(outcome.text.contains("chroot\n"), "{}", outcome.text);
    };
}
