//! Builds: real commands in real containers on root filesystems of busybox. What is looked at is what is on disk.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use evenkeel::engine::image::progress::Event;
use evenkeel::engine::image::push::{Push, push};
use evenkeel::engine::image::{self, ImageError, Progress, Silent};
use evenkeel::model::build::{BuildNetwork, BuildSpec};
use evenkeel::model::image::{Image, ImageSource, Pull};

use crate::debian_registry::DebianRegistry;
use crate::support::*;

/// Everything a command needs.
const BASE: &str =
    "FROM scratch AS base\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n";

struct Build {
    host: Host,
    spec: RefCell<BuildSpec>,
}

/// What a build said: its steps with `+` where they ran, and the output of commands.
#[derive(Default)]
struct Said(Mutex<Vec<String>>);

impl Progress for Said {
    fn report(&self, event: Event<'_>) {
        let line = match event {
            Event::Step { instruction, cached, .. } => format!("{}{instruction}", if cached { "=" } else { "+" }),
            Event::Output { line } => format!("|{line}"),
            _ => return,
        };
        self.0.lock().unwrap().push(line);
    }
}

impl Build {
    /// A context with a Dockerfile that begins with [`BASE`].
    fn new(dockerfile: &str) -> Build {
        let host = Host::new();
        let context = host.path("context");
        fs::create_dir(&context).unwrap();
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        fs::copy(busybox.expect("busybox-static is installed"), context.join("busybox")).unwrap();
        let build = Build { spec: RefCell::new(BuildSpec::of(context)), host };
        build.rewrite(dockerfile);
        build
    }

    fn rewrite(&self, dockerfile: &str) {
        self.write("Dockerfile", &format!("{BASE}{dockerfile}"));
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.host.path("context").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn source(&self) -> ImageSource {
        ImageSource::Build(Box::new(self.spec.borrow().clone()))
    }

    fn told(&self) -> (Result<Image, ImageError>, Vec<String>) {
        let said = Said::default();
        let made = image::ensure(&self.host.store, &self.source(), &self.host.options, &said);
        (made, said.0.into_inner().unwrap())
    }

    fn made(&self) -> (Image, Vec<String>) {
        let (made, said) = self.told();
        (made.unwrap_or_else(|error| panic!("{}\n{}", chain(&error), said.join("\n"))), said)
    }

    fn moved(&self) -> Option<String> {
        image::observe(&self.host.store, &self.source(), Pull::Missing, &self.host.options).unwrap().moved
    }

    /// The uppermost layer that has this path, the path in it.
    fn find(&self, image: &Image, path: &str) -> PathBuf {
        let trees = image.layers.iter().rev().map(|layer| self.host.tree(layer).join(path));
        let mut there = trees.filter(|path| path.symlink_metadata().is_ok());
        there.next().unwrap_or_else(|| panic!("`{path}` is in no layer"))
    }

    fn text(&self, image: &Image, path: &str) -> String {
        fs::read_to_string(self.find(image, path)).unwrap()
    }

    fn failure(&self) -> String {
        let (made, _) = self.told();
        let error = chain(&made.expect_err("it fails"));
        assert_eq!(self.host.leftovers(), Vec::<PathBuf>::new());
        error
    }
}

fn chain(error: &ImageError) -> String {
    let mut causes = vec![error.to_string()];
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    causes.join(": ")
}

fn ran(said: &[String]) -> Vec<&str> {
    said.iter().filter_map(|line| line.strip_prefix('+')).collect()
}

#[test]
fn stages_share_layers_and_take_files_of_each_other() {
    let build = Build::new(
        "FROM base AS builder\nARG WHAT=nothing\nWORKDIR /src\nCOPY --chown=7:8 in/ .\n\
         RUN test \"$(stat -c %u:%g a)\" = 7:8 && cat a b > out && echo $WHAT >> out && echo \"$PWD:$HOME\"\n\
         FROM base AS unused\nRUN exit 1\n\
         FROM base\nENV A=1 B=\"${A:-none} $A\"\nCOPY --from=builder --chmod=0400 /src/out /data/\n\
         USER 5\nENTRYPOINT [\"cat\"]\nCMD [\"/data/out\"]\nEXPOSE 80\nLABEL x=\"y z\"\nVOLUME /v\nSTOPSIGNAL INT\n",
    );
    build.write("in/a", "1\n");
    build.write("in/b", "2\n");
    build.spec.borrow_mut().args.insert("WHAT".into(), "given".into());
    let (image, said) = build.made();
    assert_eq!(build.text(&image, "data/out"), "1\n2\ngiven\n");
    assert_eq!(build.find(&image, "data/out").metadata().unwrap().mode() & 0o7777, 0o400);
    assert!(said.contains(&"|/src:/".to_owned()) || said.contains(&"|/src:/root".to_owned()), "{said:?}");
    let config = &image.config;
    assert_eq!(
        (config.entrypoint.as_slice(), config.command.as_slice()),
        (&["cat".to_owned()][..], &["/data/out".to_owned()][..])
    );
    assert_eq!(config.environment, [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "none ".to_owned())]);
    assert_eq!((config.user.as_deref(), config.exposed_ports.as_slice()), (Some("5"), &["80/tcp".to_owned()][..]));
    assert_eq!((config.labels["x"].as_str(), config.volumes.as_slice()), ("y z", &["/v".to_owned()][..]));
    assert_eq!(build.host.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn what_was_built_before_is_not_run_again() {
    let build =
        Build::new("COPY a /a\nRUN cat /proc/sys/kernel/random/uuid > /first\nCOPY b /b\nRUN cat /b > /second\n");
    build.write("a", "a");
    build.write("b", "b");
    build.write("c", "not copied");
    let (first, said) = build.made();
    assert_eq!(ran(&said).len(), 6, "{said:?}");
    assert_eq!((build.moved(), build.made()), (None, (first.clone(), vec![])));

    // Touched, but the same.
    fs::File::open(build.host.path("context/b")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(build.moved(), None);

    build.write("b", "changed");
    assert_eq!(build.moved().unwrap(), "files of its context changed");
    let (second, said) = build.made();
    assert_eq!(ran(&said), ["COPY b /b", "RUN cat /b > /second"]);
    assert_eq!(build.text(&second, "second"), "changed");
    assert_eq!(build.text(&second, "first"), build.text(&first, "first"), "a command that was not run again");
    assert_eq!(build.moved(), None);

    // A file that nothing copies: all is known, and the image is the same.
    build.write("c", "still not copied");
    assert!(build.moved().is_some());
    let (third, said) = build.made();
    assert_eq!((ran(&said), &third.id), (vec![], &second.id));

    build.spec.borrow_mut().no_cache = true;
    let (fresh, said) = build.made();
    assert_eq!(ran(&said).len(), 6);
    assert_ne!(build.text(&fresh, "first"), build.text(&first, "first"));
}

#[test]
fn a_failing_command_is_named_with_its_place_and_its_last_words() {
    let build = Build::new("RUN echo kept > /kept\nRUN echo before; \\\n  echo words >&2; exit 7\n");
    let failure = build.failure();
    let place = format!("({}/Dockerfile:5)", build.host.path("context").display());
    for part in [&place, "cannot do `RUN echo before;", "the command exited with 7", "| before\n", "| words"] {
        assert!(failure.contains(part), "`{part}` is not in {failure}");
    }
    assert!(build.host.store.find(&build.source()).unwrap().is_none());
    build.rewrite("RUN echo kept > /kept\nRUN echo better\n");
    let (_, said) = build.made();
    assert_eq!(ran(&said), ["RUN echo better"], "the next build goes on where this one failed");
}

#[test]
fn a_command_is_confined_like_a_container() {
    let build = Build::new(
        "RUN mknod /disk b 259 0; ! cat /disk; rm /disk; grep -q 'Seccomp:.*2' /proc/self/status; \
         echo pids $(ls -d /proc/[0-9]* | wc -l); hostname; ! ls /proc/1/root/work; test -e /etc/resolv.conf; \
         grep NoNewPrivs /proc/self/status; grep CapEff /proc/self/status\n\
         RUN --network=none test \"$(ls /sys/class/net)\" = lo\n",
    );
    let (image, said) = build.made();
    assert!(said.contains(&"|build".to_owned()) && said.contains(&"|NoNewPrivs:\t1".to_owned()), "{said:?}");
    let pids: u32 = said.iter().find_map(|line| line.strip_prefix("|pids ")?.parse().ok()).unwrap();
    assert!(pids < 10, "{said:?}");
    assert!(!said.iter().any(|line| line.contains("CapEff:\t000001ffffffffff")), "{said:?}");
    // Nothing of what a container is given to mount on is in the image.
    let top = build.host.tree(&image.layers[image.layers.len() - 2]);
    assert_eq!(fs::read_dir(top).unwrap().count(), 0);

    build.spec.borrow_mut().network = BuildNetwork::None;
    build.rewrite("RUN ls /sys/class/net\n");
    assert!(build.made().1.contains(&"|lo".to_owned()));
}

#[test]
fn removed_files_are_whiteouts_and_replaced_directories_opaque() {
    let build = Build::new(
        "RUN mkdir -p /d/e && echo 1 > /d/e/x && echo 2 > /gone && ln /gone /also && chown 3:4 /d/e && chmod 2750 /d/e\n\
         RUN rm /gone && rm -r /d/e && mkdir /d/e && echo new > /d/e/y\nRUN test ! -e /gone -a ! -e /d/e/x -a -e /d/e/y\n",
    );
    let (image, _) = build.made();
    let count = image.layers.len();
    let tree = |at: usize| build.host.tree(&image.layers[at]);
    let (first, second) = (tree(count - 3), tree(count - 2));
    let (one, other) = (first.join("gone").metadata().unwrap(), first.join("also").metadata().unwrap());
    assert_eq!((one.ino(), one.nlink()), (other.ino(), 2));
    let directory = first.join("d/e").metadata().unwrap();
    assert_eq!((directory.uid(), directory.gid(), directory.mode() & 0o7777), (3, 4, 0o2750));
    let whiteout = second.join("gone").symlink_metadata().unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    assert_eq!(xattr(&second.join("d/e"), "trusted.overlay.opaque").as_deref(), Some(&b"y"[..]));
    assert_eq!(xattr(&second.join("d"), "trusted.overlay.origin"), None);
}

/// Overlayfs refuses to have one directory twice.
#[test]
fn a_layer_may_come_twice() {
    let same = "RUN echo same > /a && touch -d @1 /a /\n";
    let build = Build::new(&format!("{same}COPY b /b\n{same}RUN cat /a /b > /c\n"));
    build.write("b", "other");
    let (image, _) = build.made();
    let twice = image.layers.iter().any(|layer| image.layers.iter().filter(|other| *other == layer).count() == 2);
    assert!(twice, "{:?}", image.layers);
    assert_eq!(build.text(&image, "c"), "same\nother");
}

/// A layer has the digest that anybody else would find: written by tar from the tree and unpacked again, it is the same.
#[test]
fn a_built_layer_is_the_one_that_its_stream_unpacks_to() {
    let build = Build::new(
        "RUN mkdir /d && echo x > /d/x && ln /d/x /d/y && ln -s x /d/z && mkfifo /d/p && touch -d '1970-01-02 00:00:05' /d/p\n",
    );
    let (image, _) = build.made();
    let diff_id = image.layers.last().unwrap();
    let tree = build.host.tree(diff_id);
    let again = build.host.ensure(&ImageSource::Rootfs(tree)).unwrap();
    assert_eq!(again.layers, std::slice::from_ref(diff_id));
}

#[test]
fn hostile_links_of_the_context_lead_nowhere() {
    let build = Build::new("");
    let secret = build.host.path("secret");
    fs::write(&secret, "secret").unwrap();
    build.write("sub/file", "in");
    let context = build.host.path("context");
    symlink(&secret, context.join("absolute")).unwrap();
    symlink("../../../../../../../../etc", context.join("up")).unwrap();
    symlink("../..", context.join("sub/loop")).unwrap();
    for source in ["absolute", "up/passwd", "../secret", "sub/../../secret", "sub/loop/../secret", "a*te"] {
        build.rewrite(&format!("COPY {source} /x\n"));
        let failure = build.failure();
        assert!(failure.contains("is not there"), "{source}: {failure}");
        build.rewrite(&format!("RUN --mount=target=/m,source={source} cat /m\n"));
        assert!(build.told().0.is_err(), "{source} as a mount");
    }
    // Within a directory links are copied as they are.
    build.rewrite("COPY sub /x/\n");
    let (image, _) = build.made();
    assert_eq!(fs::read_link(build.find(&image, "x/loop")).unwrap(), Path::new("../.."));
    fs::create_dir(context.join("odd")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, context.join("odd/pipe"), rustix::fs::FileType::Fifo, 0o644.into(), 0)
        .unwrap();
    build.rewrite("COPY odd /x/\n");
    assert!(build.failure().contains("is a device or a pipe"));
}

#[test]
fn links_of_the_image_lead_into_the_image() {
    let build = Build::new("");
    let outside = build.host.path("outside");
    fs::create_dir(&outside).unwrap();
    build.rewrite(&format!(
        "RUN mkdir -p /real {0} && ln -s {0} /out && ln -s ../../../../../../real /up && ln -s /real/new /file\n\
         COPY a /out/\nCOPY a /up/\nCOPY a /file\nWORKDIR /out/made\nADD a.tar /up/\n",
        outside.display()
    ));
    build.write("a", "copied");
    fs::write(build.host.path("context/a.tar"), gzip(&tar(&[directory("t"), file("t/f", "unpacked").owner(9, 9)])))
        .unwrap();
    let (image, _) = build.made();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "nothing reached the host");
    let inside = outside.strip_prefix("/").unwrap().to_str().unwrap();
    assert_eq!(build.text(&image, &format!("{inside}/a")), "copied");
    assert!(build.find(&image, &format!("{inside}/made")).is_dir());
    assert_eq!((build.text(&image, "real/a"), build.text(&image, "real/new")), ("copied".into(), "copied".into()));
    assert_eq!(build.find(&image, "real/t/f").metadata().unwrap().uid(), 9);
    for target in ["/real", "/nowhere"] {
        build.rewrite(&format!("RUN ln -s /dangling /nowhere; mkdir -p /real/a\nCOPY sub {target}/a\n"));
        build.write("sub", "a file");
        let (made, _) = build.told();
        assert_eq!(made.is_ok(), target == "/real", "{made:?}");
    }
}

#[test]
fn what_is_ignored_is_not_there() {
    let build = Build::new("COPY . /all/\nRUN --mount=target=/ctx ls /ctx > /seen\n");
    for name in ["keep", "a.log", "docs/a", "docs/keep.txt", "deep/er/b.log"] {
        build.write(name, name);
    }
    build.write(".dockerignore", "**/*.log\ndocs\n!docs/keep.txt\nbusybox-not\n");
    let (image, _) = build.made();
    let all = build.find(&image, "all");
    let there = |name: &str| all.join(name).symlink_metadata().is_ok();
    assert!(there("keep") && there("docs/keep.txt") && there("deep/er") && there("busybox"));
    assert!(!there("a.log") && !there("docs/a") && !there("deep/er/b.log"));
    assert!(!build.text(&image, "seen").contains("a.log"));
    build.write("a.log", "changed");
    assert_eq!(build.moved(), None, "what is ignored changes nothing");
    build.rewrite("COPY a.log /\n");
    assert!(build.failure().contains("left out by `.dockerignore`"));
    build.rewrite("COPY --exclude=*/a --exclude=keep d* /all/\n");
    build.write("Dockerfile.dockerignore", "nothing");
    let (image, _) = build.made();
    let all = build.find(&image, "all");
    assert!(all.join("keep.txt").exists() && all.join("a").exists() && all.join("er/b.log").exists());
}

#[test]
fn here_documents_mounts_and_triggers_do_what_they_say() {
    let build = Build::new(
        "FROM base AS work\nARG NAME=web\nRUN <<EOF\nset -e\necho one > /one\nfalse || echo \"$NAME\" >> /one\nEOF\n\
         RUN <<PY\n#!/bin/busybox sh\necho $0 > /two\nPY\n\
         COPY <<a.conf <<\"b.conf\" /etc/\nname=$NAME\na.conf\nname=$NAME\nb.conf\n\
         RUN --mount=type=cache,target=/cache --mount=type=tmpfs,target=/mem,size=1m \
         --mount=from=base,source=/bin/busybox,target=/tools/busybox echo x >> /cache/n && cp /cache/n /n && /tools/busybox df /mem > /m\n\
         RUN ls /cache /tools /mem > /left 2>&1 || true\n\
         ONBUILD COPY a /from-trigger\nONBUILD RUN cat /from-trigger > /ran\n\
         FROM work\n",
    );
    build.write("a", "triggered");
    let (image, _) = build.made();
    assert_eq!(build.text(&image, "one"), "one\nweb\n");
    assert_eq!(build.text(&image, "two"), "/dev/pipes/PY\n");
    assert_eq!(build.text(&image, "etc/a.conf"), "name=web\n");
    assert_eq!(build.text(&image, "etc/b.conf"), "name=$NAME\n");
    assert_eq!((build.text(&image, "n"), build.text(&image, "m").contains("/mem")), ("x\n".into(), true));
    assert!(!build.text(&image, "left").contains("busybox"));
    for path in ["cache", "tools", "mem", "proc", "etc/hosts"] {
        let trees = || image.layers.iter().map(|layer| build.host.tree(layer));
        assert!(trees().all(|tree| tree.join(path).symlink_metadata().is_err()), "`{path}` is in the image");
    }
    build.spec.borrow_mut().no_cache = true;
    assert_eq!(build.text(&build.made().0, "n"), "x\nx\n", "the cache outlives the build");
    build.host.keep_only(&[&image]).unwrap();
    assert_eq!(build.text(&build.made().0, "n"), "x\n", "it went with what nothing needs");
}

#[test]
fn a_command_ends_with_whoever_wants_it() {
    let build = Build::new("RUN sleep 98761 & echo left behind\nRUN echo $$ && exec sleep 98762\n");
    let context = build.host.path("context");
    fs::write(build.host.path("evenkeel.toml"), "project = \"p\"\n[images.a]\nbuild = \"context\"\n").unwrap();
    let state = build.host.path("state");
    let mut engine = std::process::Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .args(["--root", state.to_str().unwrap(), "--run", build.host.path("run").to_str().unwrap(), "apply"])
        .current_dir(context.parent().unwrap())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let sleeping = || processes().into_iter().any(|command| command == "sleep\x0098762\x00");
    wait_until("the command runs", sleeping);
    engine.kill().unwrap();
    engine.wait().unwrap();
    wait_until("the command is gone", || !sleeping());
    assert!(!processes().contains(&"sleep\x0098761\x00".to_owned()), "what a command leaves behind ends with it");
    let (_, said) = {
        build.rewrite("RUN echo next\n");
        build.made()
    };
    assert_eq!(ran(&said), ["RUN echo next"]);
    assert_eq!(build.host.leftovers(), Vec::<PathBuf>::new(), "swept");
}

fn processes() -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok()).collect()
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// What an instruction wrote has no recipe: its stream is written as it was for its digest.
#[test]
fn what_was_built_can_be_given_away() {
    let build = Build::new(
        "RUN [\"/bin/sh\", \"-c\", \"rm /bin/ls; mkdir -p /x/y; echo hi > /x/y/z; ln /x/y/z /x/w\"]\n\
         RUN [\"/bin/sh\", \"-c\", \"rm -r /x; mkdir /x; chmod 1777 /x\"]\n",
    );
    let image = build.told().0.unwrap();
    let registry = DebianRegistry::open();
    let reference = format!("{}/built:1", registry.address);
    let destination = reference.parse().unwrap();
    let source = build.source();
    let what = Push { names: std::slice::from_ref(&source), image: &image, destination: &destination };
    push(&build.host.store, &what, &build.host.options, &Silent).unwrap();
    let pulled = Host::new().ensure(&ImageSource::Reference(reference)).unwrap();
    assert_eq!((pulled.id, pulled.config), (image.id, image.config));
}

/// The Dockerfile may be edited after the lock file was compared with it.
#[test]
fn a_base_that_is_not_locked_is_not_taken() {
    let mut build = Build::new("FROM base\nRUN echo locked\n");
    build.host.options.bases = Some(std::collections::BTreeMap::new());
    build.made();
    build.rewrite("FROM base\nCOPY --from=localhost:1/shop/tools:1 /a /a\n");
    assert!(build.moved().is_some());
    let failure = build.failure();
    assert!(failure.contains("`localhost:1/shop/tools:1`") && failure.contains("lock file"), "{failure}");
    build.host.options.bases = None;
    assert!(!build.failure().contains("lock file"), "only where there is one");
}

/// The state root changes while something is built, and is no part of it.
#[test]
fn a_state_root_within_the_context_is_left_out() {
    let host = Host::new();
    fs::write(host.path("Dockerfile"), "FROM scratch\nCOPY . /all\n").unwrap();
    fs::write(host.path("file"), "contents").unwrap();
    let source = ImageSource::Build(Box::new(BuildSpec::of(host.path(""))));
    let image = host.ensure(&source).unwrap();
    let tree = host.tree(&image.layers[0]).join("all");
    let mut names: Vec<_> = fs::read_dir(tree).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["Dockerfile", "file"]);
    assert_eq!(host.ensure(&source).unwrap(), image, "and so it is not built again");
}
