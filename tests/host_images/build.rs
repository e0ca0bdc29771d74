//! `evenkeel image build`: what was asked for is in the image, and nobody's commands end one that runs.

use std::fs;
use std::process::Stdio;

use crate::hosts::eventually;
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
