//! The examples, run for real through the command line. Those of official images run as they are written, from a
//! registry on loopback that has images of these names, made of Debian's packages (`tests/stacks/images.sh`). In the
//! others an overlay puts a root filesystem of busybox in place of the image.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[path = "support/debian_registry.rs"]
mod debian_registry;
mod support;

use debian_registry::DebianRegistry;
use support::{OwnHost, eventually, on_a_host_of_its_own};

/// The command line on a host of its own, with an example, perhaps with overlays.
struct Stack<'a> {
    own: &'a OwnHost,
    manifests: Vec<PathBuf>,
    registry: Option<DebianRegistry>,
}

impl Stack<'_> {
    fn new<'a>(own: &'a OwnHost, example: &str) -> Stack<'a> {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(example).join("evenkeel.toml");
        Stack { own, manifests: vec![example], registry: None }
    }

    fn of_busybox<'a>(own: &'a OwnHost, example: &str, overlay: &str) -> Stack<'a> {
        let rootfs = own.rootfs();
        for applet in ["awk", "date", "seq", "tee", "wc"] {
            symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        let mut stack = Stack::new(own, example);
        stack.lay_on_top(overlay);
        stack
    }

    /// `names` are images of the registry that `$REGISTRY` stands for, such as `redis:8.0`.
    fn of_registry<'a>(own: &'a OwnHost, images: &Path, example: &str, names: &[&str]) -> Stack<'a> {
        let registry = DebianRegistry::open();
        for name in names {
            let (image, _) = name.split_once(':').unwrap();
            registry.push(&images.join(image), "latest", &format!("library/{name}"), None);
        }
        let mut stack = Stack::new(own, example);
        stack.registry = Some(registry);
        stack
    }

    fn lay_on_top(&mut self, overlay: &str) {
        let path = self.own.directory.path().join(format!("overlay-{}.toml", self.manifests.len()));
        fs::write(&path, overlay).unwrap();
        self.manifests.push(path);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let directory = self.own.directory.path();
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        command
            .args(self.manifests.iter().flat_map(|manifest| ["-f".as_ref(), manifest.as_os_str()]))
            .args(arguments)
            .env("EVENKEEL_ROOT", directory.join("root"))
            .env("EVENKEEL_RUN", directory.join("run"));
        if let Some(registry) = &self.registry {
            command.env("REGISTRY", format!("{}/library", registry.address));
        }
        command
    }

    fn try_run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
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

/// The images of the examples, made where cargo lets tests keep files.
fn images() -> PathBuf {
    let at = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stacks");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stacks/images.sh");
    let made = Command::new(script).arg(&at).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    at
}

/// What 127.0.0.1 answers: head and body.
fn get(port: u16, path: &str) -> String {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(connection, "GET {path} HTTP/1.0\r\nhost: 127.0.0.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

/// What a container is known by for as long as it is the same one.
fn id(stack: &Stack, name: &str) -> String {
    let document: serde_json::Value = serde_json::from_str(&stack.run(&["--json", "inspect", name])).unwrap();
    document.pointer("/0/id").or(document.get("id")).and_then(|id| id.as_str()).expect("an id").to_owned()
}

#[test]
fn a_page_comes_through_the_proxy_while_all_replicas_are_replaced() {
    let images = images();
    on_a_host_of_its_own(|own| {
        let mut stack = Stack::of_registry(own, &images, "reverse-proxy", &["caddy:2.10", "nginx:1.29"]);
        stack.run(&["apply", "--wait", "--timeout", "120s"]);
        let page = fs::read_to_string(stack.manifests[0].with_file_name("site").join("index.html")).unwrap();
        assert!(get(80, "/").ends_with(&page));
        let mut replicas = BTreeSet::new();
        eventually("every replica answers", || {
            let answer = get(80, "/whoami");
            assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
            replicas.insert(answer.lines().last().unwrap().to_owned());
            replicas.len() == 3
        });

        let before = ["whoami", "whoami.2", "whoami.3"].map(|name| id(&stack, name));
        stack.lay_on_top("[containers.whoami]\nenvironment = { VERSION = \"2\" }\n");
        let mut apply = stack.command(&["apply", "--wait", "--timeout", "120s"]).spawn().unwrap();
        let mut asked = 0;
        while apply.try_wait().unwrap().is_none() {
            let answer = get(80, "/whoami");
            assert!(answer.starts_with("HTTP/1.0 200"), "after {asked} good answers: {answer}");
            asked += 1;
        }
        assert!(apply.wait().unwrap().success());
        assert!(asked > 10, "only {asked} pages were asked for");
        let after = ["whoami", "whoami.2", "whoami.3"].map(|name| id(&stack, name));
        assert!(before.iter().zip(&after).all(|(before, after)| before != after), "{before:?} {after:?}");

        stack.run(&["plan", "--detailed-exitcode"]);
        stack.run(&["down", "--volumes", "--yes"]);
    });
}

#[test]
fn the_queue_outlives_its_replacement_and_the_workers_go_on() {
    let images = images();
    on_a_host_of_its_own(|own| {
        let mut stack = Stack::of_registry(own, &images, "worker-queue", &["redis:8.0"]);
        stack.run(&["apply", "--wait", "--timeout", "120s"]);
        eventually("a job is done", || stack.run(&["logs", "worker"]).contains("does job 1"));
        stack.run(&["exec", "queue", "redis-cli", "SET", "kept", "for ever"]);

        let before = id(&stack, "queue");
        stack.lay_on_top("[containers.queue]\nsysctls = { \"net.core.somaxconn\" = 2048 }\n");
        stack.run(&["apply", "--wait", "--timeout", "120s"]);
        assert_ne!(id(&stack, "queue"), before);
        assert_eq!(stack.run(&["exec", "queue", "cat", "/proc/sys/net/core/somaxconn"]).trim(), "2048");
        assert_eq!(stack.run(&["exec", "queue", "redis-cli", "GET", "kept"]).trim(), "for ever");
        // Clients of the old one end with an error; their restart policy brings them back.
        let done = stack.run(&["logs", "worker"]).matches("does job").count();
        eventually("further jobs are done", || stack.run(&["logs", "worker"]).matches("does job").count() > done + 1);

        stack.run(&["plan", "--detailed-exitcode"]);
        stack.run(&["down", "--volumes", "--yes"]);
    });
}

#[test]
fn the_web_application_shows_what_its_database_kept_through_a_replacement() {
    let images = images();
    on_a_host_of_its_own(|own| {
        let mut stack = Stack::of_registry(own, &images, "web-database", &["adminer:5.3", "postgres:17.5"]);
        stack.run(&["apply", "--wait", "--timeout", "120s"]);
        let sql = |stack: &Stack, line: &str| stack.run(&["exec", "database", "psql", "-U", "notes", "-Atc", line]);
        sql(&stack, "INSERT INTO notes (note) VALUES ('written by hand')");
        assert!(page_of_notes(own).contains("written by hand"));
        let routes = stack.run(&["exec", "database", "cat", "/proc/net/route"]);
        let destinations: Vec<&str> =
            routes.lines().skip(1).filter_map(|route| route.split_whitespace().nth(1)).collect();
        assert!(!destinations.is_empty() && !destinations.contains(&"00000000"), "a way out:\n{routes}");

        let before = id(&stack, "database");
        stack.lay_on_top("[containers.database]\nshm_size = \"256MiB\"\n");
        stack.run(&["apply", "--wait", "--timeout", "120s"]);
        assert_ne!(id(&stack, "database"), before);
        assert_eq!(sql(&stack, "SELECT note FROM notes ORDER BY written"), "the first note\nwritten by hand\n");
        assert!(page_of_notes(own).contains("written by hand"));
        let log = stack.run(&["logs", "database"]);
        assert!(!log.contains("was not properly shut down"), "{log}");

        stack.run(&["plan", "--detailed-exitcode"]);
        stack.run(&["down", "--volumes", "--yes"]);
    });
}

/// Logs in as a browser does, and gives the page of the table.
fn page_of_notes(own: &OwnHost) -> String {
    let jar = own.directory.path().join("cookies");
    let jar = jar.to_str().unwrap();
    let login = ["driver=pgsql", "server=database", "username=notes", "password=only-for-trying-out", "db=notes"];
    let mut arguments = vec!["-sSL", "--noproxy", "*", "--max-time", "20", "-c", jar, "-b", jar];
    let login: Vec<String> = login.iter().map(|field| format!("auth[{}", field.replacen('=', "]=", 1))).collect();
    let mut command = vec!["curl"];
    command.append(&mut arguments);
    command.extend(login.iter().flat_map(|field| ["--data-urlencode", field]));
    command.push("http://127.0.0.1:8081/");
    support::run(&command);
    let table = "http://127.0.0.1:8081/?pgsql=database&username=notes&db=notes&ns=public&select=notes";
    support::run(&["curl", "-sSL", "--noproxy", "*", "--max-time", "20", "-c", jar, "-b", jar, table])
}

#[test]
fn the_one_shot_stack_does_its_work_in_order_and_once() {
    on_a_host_of_its_own(|own| {
        let stack = Stack::of_busybox(own, "one-shot", "[images.busybox]\nrootfs = \"rootfs\"\n");
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
fn the_built_pages_are_served_and_built_again_when_they_change() {
    on_a_host_of_its_own(|own| {
        let rootfs = own.rootfs();
        for applet in ["httpd", "mkdir", "sed", "wget"] {
            if fs::symlink_metadata(rootfs.join("bin").join(applet)).is_err() {
                symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
            }
        }
        let layout = own.directory.path().join("layout");
        let umoci = |arguments: &[&str]| {
            let done = Command::new("umoci").args(arguments).current_dir(own.directory.path()).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        umoci(&["init", "--layout", "layout"]);
        umoci(&["new", "--image", "layout:latest"]);
        umoci(&["insert", "--image", "layout:latest", "rootfs", "/"]);
        let registry = DebianRegistry::open();
        registry.push(&layout, "latest", "library/busybox:1.37", None);

        let example = own.directory.path().join("build");
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/build");
        let copied = Command::new("cp").arg("-r").args([&from, &example]).status().unwrap();
        assert!(copied.success());
        let stack = Stack { own, manifests: vec![example.join("evenkeel.toml")], registry: Some(registry) };
        stack.run(&["apply", "--wait", "--timeout", "120s"]);
        assert!(get(8089, "/").contains("<h1>Pages</h1>"));
        stack.run(&["plan", "--detailed-exitcode"]);

        fs::write(example.join("site/index.html"), "<h1>@TITLE@, again</h1>\n").unwrap();
        let plan = stack.run(&["plan"]);
        assert!(plan.contains("files of its context changed") && plan.contains("container pages"), "{plan}");
        stack.run(&["apply", "--wait", "--timeout", "120s"]);
        assert!(get(8089, "/").contains("<h1>Pages, again</h1>"));
        stack.run(&["plan", "--detailed-exitcode"]);
        stack.run(&["down", "--volumes", "--yes"]);
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
        let stack = Stack::of_busybox(own, "host-exporter", overlay);
        stack.run(&["apply", "--wait", "--timeout", "60s"]);
        let answer = get(9100, "/os-release");
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
