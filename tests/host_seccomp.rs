//! `linux.seccomp` in force: every action, comparison and flag as the kernel carries it out, and notifications handed to
//! an agent (runtime-spec, config-linux.md, "Seccomp"). Needs root.

mod support;

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use support::oci::{Bundle, namespace, receive_message, until};

/// With one rule beside a default that allows.
fn with_rule(line: &str, rule: Value) -> Bundle {
    let mut bundle = Bundle::of(&["sh", "-c", line]);
    bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    bundle
}

const MAKE: &str = "mkdir /tmp/made; echo $?";

#[test]
fn every_action_does_what_its_name_says() {
    let cases = [
        (json!({"action": "SCMP_ACT_ALLOW"}), "0", ""),
        (json!({"action": "SCMP_ACT_LOG"}), "0", ""),
        (json!({"action": "SCMP_ACT_ERRNO"}), "1", "Operation not permitted"),
        (json!({"action": "SCMP_ACT_ERRNO", "errnoRet": 28}), "1", "No space left on device"),
        // Nobody traces it.
        (json!({"action": "SCMP_ACT_TRACE", "errnoRet": 5}), "1", "Function not implemented"),
        // 128 and SIGSYS.
        (json!({"action": "SCMP_ACT_TRAP"}), "159", "Bad system call"),
        (json!({"action": "SCMP_ACT_KILL"}), "159", "Bad system call"),
        (json!({"action": "SCMP_ACT_KILL_THREAD"}), "159", "Bad system call"),
        (json!({"action": "SCMP_ACT_KILL_PROCESS"}), "159", "Bad system call"),
    ];
    for (mut rule, status, said) in cases {
        rule["names"] = json!(["mkdir", "mkdirat"]);
        let bundle = with_rule(MAKE, rule.clone());
        let run = bundle.call(&["run", "box"]);
        assert!(run.out.trim() == status && run.err.contains(said), "{rule}: {run:?}");
        assert_eq!(bundle.path("rootfs/tmp/made").exists(), status == "0", "{rule}");
    }
}

#[test]
fn every_comparison_decides_over_an_argument() {
    // Signals that do a sleeping process no harm.
    let line = "sleep 60 & for s in 0 17 18 23 28; do kill -$s $! 2>/dev/null || echo $s; done";
    let cases: [(&str, &[&str]); 7] = [
        ("SCMP_CMP_EQ", &["18"]),
        ("SCMP_CMP_NE", &["0", "17", "23", "28"]),
        ("SCMP_CMP_LT", &["0", "17"]),
        ("SCMP_CMP_LE", &["0", "17", "18"]),
        ("SCMP_CMP_GE", &["18", "23", "28"]),
        ("SCMP_CMP_GT", &["23", "28"]),
        ("SCMP_CMP_MASKED_EQ", &["0", "28"]),
    ];
    for (operator, refused) in cases {
        let argument = match operator {
            "SCMP_CMP_MASKED_EQ" => json!({"index": 1, "value": 3, "valueTwo": 0, "op": operator}),
            _ => json!({"index": 1, "value": 18, "op": operator}),
        };
        let bundle = with_rule(line, json!({"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [argument]}));
        let run = bundle.call(&["run", "box"]);
        assert_eq!(run.out.split_whitespace().collect::<Vec<_>>(), refused, "{operator}: {run:?}");
    }
}

#[test]
fn a_filter_is_installed_with_every_flag() {
    let rule = json!({"names": ["swapon"], "action": "SCMP_ACT_ERRNO"});
    let mut bundle = with_rule("grep Seccomp /proc/self/status", rule);
    for flags in [
        json!([]),
        json!(["SECCOMP_FILTER_FLAG_TSYNC"]),
        json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]),
        json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]),
    ] {
        bundle.config["linux"]["seccomp"]["flags"] = flags.clone();
        let said = bundle.ok(&["run", "box"]);
        assert!(said.contains("Seccomp:\t2\n") && said.contains("Seccomp_filters:\t1\n"), "{flags}: {said}");
    }
    bundle.config["linux"]["seccomp"]["flags"] = json!(["SECCOMP_FILTER_FLAG_MYSTERY"]);
    assert!(bundle.error(&["run", "box"]).contains("SECCOMP_FILTER_FLAG_MYSTERY"));
}

fn notifying(flags: Value) -> (Bundle, UnixListener) {
    let line = "mkdir /tmp/made 2>/tmp/said; echo $? >/tmp/status; exec sleep 600";
    let mut bundle = with_rule(line, json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}));
    let path = bundle.path("agent");
    bundle.config["linux"]["seccomp"]["listenerPath"] = json!(path);
    bundle.config["linux"]["seccomp"]["listenerMetadata"] = json!("opaque");
    bundle.config["linux"]["seccomp"]["flags"] = flags;
    (bundle, UnixListener::bind(path).unwrap())
}

/// Whether a call waits for an answer.
fn has_a_notification(notifications: &OwnedFd) -> bool {
    let deadline = Timespec { tv_sec: 20, tv_nsec: 0 };
    let mut polled = [PollFd::from_borrowed_fd(notifications.as_fd(), PollFlags::IN)];
    poll(&mut polled, Some(&deadline)).unwrap();
    polled[0].revents().contains(PollFlags::IN)
}

fn is_a_notification_descriptor(descriptor: &OwnedFd) -> bool {
    let link = fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd())).unwrap();
    link.to_str() == Some("anon_inode:seccomp notify")
}

#[test]
fn notifications_are_handed_to_the_agent() {
    let all = json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"]);
    for flags in [json!([]), all] {
        let (bundle, agent) = notifying(flags);
        bundle.ok(&["create", "box"]);
        let pid = bundle.pid();
        bundle.ok(&["start", "box"]);
        let (message, notifications) = receive_message(&agent);
        let path = bundle.directory.path().canonicalize().unwrap();
        let expected = json!({
            "ociVersion": "1.3.0", "fds": ["seccompFd"], "pid": pid, "metadata": "opaque",
            "state": {
                "ociVersion": "1.3.0", "id": "box", "status": "created", "pid": pid, "bundle": path,
                "annotations": {"org.example.colour": "blue"},
            },
        });
        assert_eq!(serde_json::from_slice::<Value>(&message).unwrap(), expected);
        assert!(is_a_notification_descriptor(&notifications));
        assert!(has_a_notification(&notifications));
        assert_eq!(bundle.text("rootfs/tmp/status"), "", "the call must wait for its answer");
        // Without an agent the kernel answers ENOSYS: it was really this one that was waited for.
        drop(notifications);
        until("the answer", || bundle.text("rootfs/tmp/status") == "1\n");
        assert!(bundle.text("rootfs/tmp/said").contains("Function not implemented"));
    }
}

#[test]
fn a_filter_before_new_privileges_is_handed_over_at_creation_and_one_of_exec_too() {
    let (mut bundle, agent) = notifying(json!([]));
    bundle.config["process"]["noNewPrivileges"] = json!(false);
    bundle.ok(&["create", "box"]);
    let (message, notifications) = receive_message(&agent);
    let message: Value = serde_json::from_slice(&message).unwrap();
    assert_eq!((&message["pid"], &message["state"]["status"]), (&json!(bundle.pid()), &json!("creating")));
    drop(notifications);
    bundle.ok(&["start", "box"]);
    until("the answer", || bundle.text("rootfs/tmp/status") == "1\n");
    let mut exec = bundle.command(&["exec", "box", "mkdir", "/tmp/other"]);
    let mut exec = exec.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (message, notifications) = receive_message(&agent);
    let message: Value = serde_json::from_slice(&message).unwrap();
    assert_eq!(message["state"]["status"], "running");
    let pid = message["pid"].to_string();
    assert_eq!(namespace(&pid, "pid"), namespace(&bundle.pid().to_string(), "pid"));
    assert!(has_a_notification(&notifications));
    drop(notifications);
    assert_eq!(exec.wait().unwrap().code(), Some(1));
}

#[test]
fn a_profile_that_cannot_be_carried_out_is_refused_before_anything_is_made() {
    let socket = json!("/nowhere/agent");
    let notify = |names: Value| json!([{"names": names, "action": "SCMP_ACT_NOTIFY"}]);
    let cases = [
        (json!({"syscalls": notify(json!(["mkdir"]))}), "listenerPath"),
        (json!({"syscalls": notify(json!(["mkdir"])), "listenerPath": socket}), "/nowhere/agent"),
        (json!({"syscalls": notify(json!(["mkdir", "sendmsg"])), "listenerPath": socket}), "`sendmsg`"),
        (json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": socket}), "`sendmsg`"),
        (json!({"listenerMetadata": "x"}), "listenerMetadata"),
        (json!({"defaultErrnoRet": 1}), "has no errno"),
        (json!({"syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_KILL", "errnoRet": 1}]}), "has no errno"),
        (json!({"syscalls": [{"names": [], "action": "SCMP_ACT_KILL"}]}), "without names"),
        (json!({"syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_FROWN"}]}), "SCMP_ACT_FROWN"),
        (json!({"defaultAction": "SCMP_ACT_KILL_BRANCH"}), "SCMP_ACT_KILL_BRANCH"),
    ];
    for (profile, reason) in cases {
        let mut bundle = Bundle::of(&["true"]);
        let mut filter = json!({"defaultAction": "SCMP_ACT_ALLOW"});
        filter.as_object_mut().unwrap().extend(profile.as_object().unwrap().clone());
        bundle.config["linux"]["seccomp"] = filter;
        let error = bundle.error(&["create", "box"]);
        assert!(error.contains(reason), "{profile}: {error}");
        assert!(!bundle.has_cgroup());
    }
    // Where nothing is notified, nobody needs to listen.
    let mut bundle = Bundle::of(&["true"]);
    bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket});
    bundle.ok(&["run", "box"]);
}
