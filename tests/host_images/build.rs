//! `evenkeel image build`: what was asked for is in the image, and nobody's commands end one that runs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::hosts::{eventually, run};
use crate::shell::Shell;

const DOCKERFILE: &str = "FROM scratch AS base\nCOPY busybox /bin/busybox\n\
                          RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nARG VERSION=1\n\
                          LABEL kept=yes replaced=no\nRUN echo $VERSION > /version\n\
                          FROM base AS last\nCMD [\"cat\", \"/version\"]\n";

fn context(shell: &Shell, dockerfile: &str) {
    fs::create_dir_all(shell.path("context")).unwrap();
    fs::copy("/bin/busybox", shell.path("context/busybox")).unwrap();
    fs::write(shell.path("context/Dockerfile"), dockerfile).unwrap();
}

#[test]
fn a_dockerfile_becomes_an_image_with_the_names_labels_and_arguments_that_are_given() {
    Shell::with(|shell| {
        context(shell, DOCKERFILE);
        let build = ["image", "build", "-q", "-t", "localhost/app:1", "-t", "localhost/other", "context"];
        let more = ["--build-arg", "VERSION=7", "--label", "replaced=a=b$", "--iidfile", "id"];
        let built = shell.ok(&[build.as_slice(), &more].concat());
        assert_eq!(built.stderr, "", "it is quiet");
        let id = built.stdout.trim().to_owned();
        assert_eq!(fs::read_to_string(shell.path("id")).unwrap(), id);
        assert_eq!(shell.ok(&["run", "--rm", "localhost/app:1"]).stdout, "7\n");
        let image = shell.image("localhost/other");
        assert_eq!(image["id"], id.as_str());
        assert_eq!(image["config"]["Labels"]["replaced"], "a=b$");
        assert_eq!(image["config"]["Labels"]["kept"], "yes");

        // By its identifier, as `image ls -q` has it.
        assert_eq!(shell.ok(&["run", "--rm", &id]).stdout, "7\n");
        assert_eq!(shell.ok(&["run", "--rm", &id["sha256:".len()..][..12]]).stdout, "7\n");
        let nameless = shell.ok(&["image", "build", "-q", "--target", "base", "context"]).stdout;
        shell.refused(&["run", "--rm", &nameless.trim()["sha256:".len()..], "true"], "has no name");

        // What was run for the same is not run again, and the image is the same.
        let again = shell.ok(&["image", "build", "context", "--build-arg", "VERSION=7", "--label", "replaced=a=b$"]);
        assert_eq!((again.stdout.trim(), again.stderr.contains("RUN")), (id.as_str(), true));
        assert!(
            again.stderr.lines().all(|line| !line.contains("RUN") || line.contains("(built before)")),
            "{}",
            again.stderr
        );

        // A name that moves leaves the other image dangling, and there to be pruned.
        let other = shell.ok(&["image", "build", "-t", "localhost/app:1", "--target", "base", "context"]).stdout;
        assert_ne!(other.trim(), id);
        assert_eq!(shell.image("localhost/app:1")["id"], other.trim());
    });
}

#[test]
fn a_dockerfile_comes_from_elsewhere_too_and_what_is_none_is_refused_at_its_place() {
    Shell::with(|shell| {
        context(shell, DOCKERFILE);
        shell.ok(&["image", "build", "-t", "localhost/app", "context"]);
        let typed = b"FROM localhost/app\nRUN echo typed > /version\n";
        assert_eq!(shell.feed(&["image", "build", "-t", "localhost/typed", "-"], typed).code, 0);
        assert_eq!(shell.ok(&["run", "--rm", "localhost/typed"]).stdout, "typed\n");
        let typed = b"FROM localhost/app\nCOPY Dockerfile /version\n";
        assert_eq!(shell.feed(&["image", "build", "-t", "localhost/typed", "-f", "-", "context"], typed).code, 0);
        assert_eq!(shell.ok(&["run", "--rm", "localhost/typed"]).stdout, DOCKERFILE);

        let wrong = shell.feed(&["image", "build", "-"], b"FROM localhost/app\nRUNN x\n");
        assert_eq!(wrong.code, 1);
        assert!(wrong.stderr.contains("Dockerfile:2:1"), "{}", wrong.stderr);
        let archive = shell.feed(&["image", "build", "-"], b"\x1f\x8b\x08\0");
        assert!((archive.code, archive.stderr.contains("archive")) == (64, true), "{}", archive.stderr);
        for (option, value) in [("--build-arg", "VERSON=1"), ("--target", "lats"), ("--network", "bridge")] {
            let refused = shell.refused(&["image", "build", option, value, "context"], &format!("error: {option}: "));
            assert_eq!(refused.code, 64);
        }
        shell.refused(&["image", "build", "https://example.org/app.git"], "contexts are not fetched");
        shell.refused(&["image", "build", "nowhere"], "no such directory");
    });
}

/// Whoever takes the lock of the root clears away what dead builds left; this one lives, and does not hold it.
#[test]
fn other_commands_go_on_beside_a_build_and_do_not_end_it() {
    Shell::with(|shell| {
        context(shell, DOCKERFILE);
        shell.ok(&["image", "build", "-t", "localhost/app", "context"]);
        let slow = "FROM localhost/app\nRUN echo begun && while [ ! -e /context/go ]; do sleep 0.05; done; echo ended > /version\n";
        let slow = slow.replace("RUN ", "RUN --mount=type=cache,id=go,target=/context ");
        fs::write(shell.path("context/Dockerfile"), slow).unwrap();
        let mut command = shell.command(&["image", "build", "-t", "localhost/slow", "context"]);
        let mut build = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        eventually("the command of the build runs", || shell.count("state/build-cache") == 1);
        for _ in 0..3 {
            assert_eq!(shell.ok(&["run", "--rm", "localhost/app"]).stdout, "1\n");
        }
        assert!(build.try_wait().unwrap().is_none(), "it still runs");
        let cache = fs::read_dir(shell.path("state/build-cache")).unwrap().next().unwrap().unwrap().path();
        fs::write(cache.join("go"), "").unwrap();
        let ended = build.wait_with_output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        assert_eq!(shell.ok(&["run", "--rm", "localhost/slow"]).stdout, "ended\n");
    });
}

/// Every file below that has these bytes.
fn files_with(root: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => found.extend(files_with(&entry.path(), bytes)),
            kind if kind.is_file() => {
                let all = fs::read(entry.path()).unwrap();
                found.extend(all.windows(bytes.len()).any(|part| part == bytes).then(|| entry.path()));
            }
            _ => {}
        }
    }
    found
}

/// Waits in a command of a build until the test has looked; the cache directory is where they meet.
const WAIT: &str = "RUN --mount=type=cache,id=meet,target=/meet MORE touch /meet/NAME && \
                    while [ ! -e /meet/go-NAME ]; do sleep 0.05; done";

fn meet(shell: &Shell, name: &str, look: impl FnOnce()) {
    let place = || fs::read_dir(shell.path("state/build-cache")).ok()?.next()?.ok();
    eventually("the command runs", || place().is_some_and(|cache| cache.path().join(name).exists()));
    look();
    fs::write(place().unwrap().path().join(format!("go-{name}")), "").unwrap();
}

#[test]
fn secrets_are_in_memory_for_one_command_and_nowhere_afterwards() {
    const FILE: &str = "xyzzy-of-a-file-4711";
    const VARIABLE: &str = "xyzzy-of-a-variable-4712";
    Shell::with(|shell| {
        let dockerfile = format!(
            "{DOCKERFILE}{}\n\
             RUN --mount=type=secret,id=token --mount=type=secret,id=key,target=/etc/key,mode=0440,uid=7,gid=8 \
             stat -c '%a %u:%g %s' /run/secrets/token /etc/key > /looks\n\
             RUN --mount=type=secret,id=key,env=KEY echo -n \"$KEY\" | md5sum > /sum; ls -d /run/secrets/* /etc/key; true\n\
             RUN --mount=type=secret,id=absent,env=NONE echo \"${{NONE-none}} $(ls /run/secrets 2>&1)\" > /absent\n",
            WAIT.replace("NAME", "first").replace("MORE", "--mount=type=secret,id=token")
        );
        context(shell, &dockerfile);
        fs::write(shell.path("token"), FILE).unwrap();
        let build = |more: &[&str]| {
            let given = ["--secret", "id=token,src=token", "--secret", "id=key,env=KEY"];
            let mut command =
                shell.command(&[&["image", "build", "-t", "localhost/app", "context"], &given[..], more].concat());
            command.env("KEY", VARIABLE).stdout(Stdio::piped()).stderr(Stdio::piped());
            command
        };
        let running = build(&[]).spawn().unwrap();
        let root = shell.host.directory.path();
        let on_disk = || {
            [files_with(&shell.path("state"), FILE.as_bytes()), files_with(&shell.path("state"), VARIABLE.as_bytes())]
                .concat()
        };
        meet(shell, "first", || assert_eq!(on_disk(), Vec::<PathBuf>::new(), "while it runs"));
        let built = running.wait_with_output().unwrap();
        let said = String::from_utf8([built.stdout, built.stderr].concat()).unwrap();
        assert!(built.status.success(), "{said}");
        assert!(!said.contains("xyzzy"), "{said}");
        assert_eq!(files_with(root, FILE.as_bytes()), [shell.path("token")]);
        assert_eq!(files_with(root, VARIABLE.as_bytes()), Vec::<PathBuf>::new());
        let cat = |path: &str| shell.ok(&["run", "--rm", "localhost/app", "cat", path]).stdout;
        let sizes = [FILE.len(), VARIABLE.len()];
        assert_eq!(cat("/looks"), format!("400 0:0 {}\n440 7:8 {}\n", sizes[0], sizes[1]));
        let sum = run(&["sh", "-c", &format!("printf %s {VARIABLE} | md5sum")]);
        assert_eq!(cat("/sum"), sum);
        assert!(cat("/absent").starts_with("none"), "{}", cat("/absent"));
        let left = shell.ok(&["run", "--rm", "localhost/app", "sh", "-c", "ls -d /etc/key /run/secrets; env"]);
        assert!(
            left.stdout.is_empty() || !left.stdout.contains("/run/secrets") && !left.stdout.contains("KEY"),
            "{left:#?}"
        );

        // Another secret is no reason to run a command again.
        fs::write(shell.path("token"), "another").unwrap();
        let again = build(&["--json"]).output().unwrap();
        assert_eq!(again.status.code(), Some(0));
        assert!(
            said.contains(serde_json::from_slice::<serde_json::Value>(&again.stdout).unwrap()["id"].as_str().unwrap())
        );

        for (secret, words) in [
            ("id=token,src=nowhere", "cannot be read"),
            ("id=token,env=NOWHERE", "is not set"),
            ("id=tokn,src=token", "did you mean `token`?"),
            ("src=token", "it has no id"),
            ("id=token,src=/dev/null", "no regular file"),
        ] {
            shell.refused(&["image", "build", "context", "--secret", secret], words);
        }
        // Nobody knows beforehand what the triggers of a base ask for.
        let asks =
            "FROM localhost/app\nONBUILD RUN --mount=type=secret,id=npmrc cat /run/secrets/npmrc | wc -c > /size\n";
        fs::write(shell.path("context/Dockerfile"), asks).unwrap();
        shell.ok(&["image", "build", "-t", "localhost/base", "context"]);
        fs::write(shell.path("context/Dockerfile"), "FROM localhost/base\nCMD cat /size\n").unwrap();
        let given = ["--secret", "id=npmrc,src=token", "--secret", "id=unwanted,src=token"];
        let built = shell.ok(&[&["image", "build", "-t", "localhost/child", "context"], &given[..]].concat());
        assert_eq!(shell.ok(&["run", "--rm", "localhost/child"]).stdout, "7\n");
        let warned = |id: &str| built.stderr.contains(&format!("asks for the secret `{id}`"));
        assert!(warned("unwanted") && !warned("npmrc"), "{}", built.stderr);

        fs::write(shell.path("context/Dockerfile"), "FROM localhost/app\nRUN --mount=type=secret,id=a,required true\n")
            .unwrap();
        shell.refused(&["image", "build", "context"], "requires the secret `a`");
    });
}

#[test]
fn a_manifest_names_secrets_and_their_values_are_no_part_of_what_is_declared() {
    Shell::with(|shell| {
        let secret = "RUN --mount=type=secret,id=a,env=A --mount=type=secret,id=b cat /run/secrets/b | wc -c >/b; echo ${#A} > /a\n";
        context(shell, &format!("{DOCKERFILE}{secret}"));
        fs::write(
            shell.path("evenkeel.toml"),
            "project = \"p\"\n[images.app.build]\ncontext = \"context\"\n\
            secrets = { a = { environment = \"TOKEN\" }, b = \"token\" }\n\
            [containers.app]\nimage = \"app\"\ncommand = [\"sh\", \"-c\", \"cat /a /b; sleep 1000\"]\n",
        )
        .unwrap();
        fs::write(shell.path("token"), "xyzzy").unwrap();
        let apply =
            |token: Option<&str>| shell.command(&["apply"]).envs(token.map(|token| ("TOKEN", token))).output().unwrap();
        let without = apply(None);
        let said = String::from_utf8([without.stdout, without.stderr].concat()).unwrap();
        assert!(!without.status.success() && said.contains("the environment variable `TOKEN`"), "{said}");
        assert!(apply(Some("plugh-plugh")).status.success());
        eventually("it has told", || shell.ok(&["logs", "app"]).stdout.contains("11\n5\n"));
        assert_eq!(files_with(&shell.path("state"), b"plugh-plugh"), Vec::<PathBuf>::new());
        fs::write(shell.path("token"), "other").unwrap();
        let plan = shell.json(&["plan"]);
        assert_eq!(plan["steps"].as_array().map(Vec::len), Some(0), "{plan:#}");
        shell.ok(&["down"]);
    });
}

/// A layer is one file system to the kernel for as long as the build lasts, and none of the host's.
#[test]
fn the_layers_of_a_build_are_mounted_once() {
    Shell::with(|shell| {
        context(shell, DOCKERFILE);
        shell.ok(&["image", "build", "-t", "localhost/made", "context"]);
        shell.ok(&["image", "save", "-o", "made.tar", "localhost/made"]);
        shell.ok(&["image", "rm", "localhost/made"]);
        shell.ok(&["image", "prune", "--all", "--force"]);
        shell.ok(&["image", "load", "-i", "made.tar"]);
        let layers = fs::read_dir(shell.path("state/layers")).unwrap();
        let images = layers.filter(|layer| layer.as_ref().unwrap().path().join("layer.erofs").is_file()).count();
        assert!(images > 1, "this kernel has layers as images");
        let wait = |name: &str| WAIT.replace("NAME", name).replace("MORE", "");
        let steps = format!("FROM localhost/made\n{}\nCOPY busybox /b\n{}\n", wait("first"), wait("second"));
        fs::write(shell.path("context/Dockerfile"), steps).unwrap();
        let mut build =
            shell.command(&["image", "build", "context"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // The devices of the layers, as some thread of the build sees them (proc_pid_mountinfo(5)).
        let devices = || -> BTreeSet<String> {
            let threads = fs::read_dir(format!("/proc/{}/task", build.id())).unwrap();
            let mounts = threads.filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("mountinfo")).ok());
            let all: Vec<String> = mounts.collect();
            let lines = all.iter().flat_map(|mounts| mounts.lines());
            let ours =
                lines.filter(|line| line.contains(" - erofs ") && line.contains(shell.word("state/layers").as_str()));
            ours.filter_map(|line| line.split(' ').nth(2).map(str::to_owned)).collect()
        };
        let (mut first, mut second) = (BTreeSet::new(), BTreeSet::new());
        meet(shell, "first", || first = devices());
        meet(shell, "second", || second = devices());
        assert!(build.wait().unwrap().success());
        assert_eq!((first.len(), &first), (images, &second));
        assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&shell.word("state/layers")));
    });
}
