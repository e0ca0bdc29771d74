//! Examples that need no registry, run for real through the command line, from a root filesystem of busybox that an
//! overlay puts in place of their images.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

mod support;

use support::{OwnHost, eventually, on_a_host_of_its_own};

/// The command line on a host of its own, with an example and an overlay.
struct Stack<'a> {
    own: &'a OwnHost,
    example: PathBuf,
    overlay: PathBuf,
}

impl Stack<'_> {
    fn new<'a>(own: &'a OwnHost, example: &str, overlay: &str) -> Stack<'a> {
        let rootfs = own.rootfs();
        for applet in ["awk", "date", "seq", "tee", "wc"] {
            symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        let path = own.directory.path().join("overlay.toml");
        fs::write(&path, overlay).unwrap();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(example).join("evenkeel.toml");
        Stack { own, example, overlay: path }
    }

    fn try_run(&self, arguments: &[&str]) -> Output {
        let directory = self.own.directory.path();
        Command::new(env!("CARGO_BIN_EXE_evenkeel"))
            .arg("-f")
            .arg(&self.example)
            .arg("-f")
            .arg(&self.overlay)
            .args(arguments)
            .env("EVENKEEL_ROOT", directory.join("root"))
            .env("EVENKEEL_RUN", directory.join("run"))
            .output()
            .unwrap()
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.try_run(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    fn volume(&self, key: &str) -> PathBuf {
        self.own.directory.path().join("root/volumes").join(key).join("data")
    }
}

/// A test that fails leaves no container behind either.
impl Drop for Stack<'_> {
    fn drop(&mut self) {
        self.try_run(&["down", "--volumes", "--yes"]);
    }
}

#[test]
fn the_one_shot_stack_does_its_work_in_order_and_once() {
    on_a_host_of_its_own(|own| {
        let stack = Stack::new(own, "one-shot", "[images.busybox]\nrootfs = \"rootfs\"\n");
        stack.run(&["apply", "--wait", "--timeout", "60s"]);
        let report = stack.volume("reports.data").join("report");
        eventually("the report is written", || fs::read(&report).is_ok_and(|text| text == b"the sum is 5050\n"));
        assert_eq!(fs::metadata(&report).unwrap().uid(), 1000);
        assert_eq!(fs::metadata(stack.volume("reports.data")).unwrap().mode() & 0o7777, 0o750);
        eventually("the nightly job waits", || stack.run(&["logs", "nightly"]).contains("the next report is due in"));

        stack.run(&["plan", "--detailed-exitcode"]);
        stack.run(&["apply"]);
        assert_eq!(stack.run(&["logs", "prepare"]).matches("prepared 100 numbers").count(), 1);

        stack.run(&["down", "--volumes", "--yes"]);
        assert!(!stack.volume("reports.data").exists());
    });
}

#[test]
fn the_exporter_sees_the_host_and_cannot_change_it() {
    let overlay = r#"
        [images.busybox]
        rootfs = "rootfs"
        [containers.node]
        image = "busybox"
        command = ["/bin/httpd", "-f", "-p", "127.0.0.1:9100", "-h", "/host/etc"]
        init = true
        healthcheck = { tcp = 9100, interval = "1s" }
    "#;
    on_a_host_of_its_own(|own| {
        let stack = Stack::new(own, "host-exporter", overlay);
        stack.run(&["apply", "--wait", "--timeout", "60s"]);
        let mut connection = TcpStream::connect("127.0.0.1:9100").unwrap();
        connection.write_all(b"GET /os-release HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with(&fs::read_to_string("/etc/os-release").unwrap()), "{answer}");

        let written = stack.try_run(&["exec", "node", "sh", "-c", "echo x > /host/tmp/evenkeel-was-here"]);
        assert!(!written.status.success());
        assert!(!Path::new("/tmp/evenkeel-was-here").exists());
        let capabilities = stack.run(&["exec", "node", "cat", "/proc/1/status"]);
        assert!(capabilities.contains("CapBnd:\t0000000000000000"), "{capabilities}");

        stack.run(&["plan", "--detailed-exitcode"]);
        stack.run(&["down", "--yes"]);
    });
}
