//! Names and removal.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use evenkeel::engine::image::store::session::Form;
use evenkeel::engine::image::{Options, Silent, ensure};
use evenkeel::model::image::ImageSource;

use crate::hosts::{eventually, run};
use crate::made::{LAYER, MANIFEST, image, layer, layout};
use crate::shell::Shell;
use crate::support::{directory, file, tar};

/// An image of two layers, the lower one the same for each; its identifier.
pub fn make(shell: &Shell, top: &str) -> String {
    let base = layer(LAYER, tar(&[directory("bin"), file("bin/serve", "serve")]));
    let made = image(MANIFEST, "amd64", &[base, layer(LAYER, tar(&[file("top", top)]))]);
    let from = layout(&shell.path(&format!("layout-{top}")), &made.manifest, &made.blobs());
    let archive = shell.path(&format!("{top}.tar"));
    let packed = Command::new("tar").arg("-C").arg(&from).arg("-cf").arg(&archive).arg(".").status();
    assert!(packed.unwrap().success());
    shell.host.ensure(&ImageSource::Archive(archive.into())).unwrap().id.hex().to_owned()
}

#[test]
fn names_are_given_moved_and_taken_and_an_image_goes_with_its_last() {
    Shell::with(|shell| {
        let (one, two) = (make(shell, "one"), make(shell, "two"));
        shell.ok(&["image", "tag", &one[..12], "localhost/web:1"]);
        shell.ok(&["image", "tag", "localhost/web:1", "localhost/web:2"]);
        shell.ok(&["image", "rm", &shell.word("one.tar")]);
        assert_eq!(shell.image("localhost/web:2")["names"].as_array().unwrap().len(), 2);
        // A name that moves leaves the other image without one.
        shell.ok(&["image", "tag", &two, "localhost/web:1"]);
        assert_eq!(shell.id("localhost/web:1"), two);
        assert_eq!(shell.id("localhost/web:2"), one);
        let listed = shell.ok(&["image", "ls", "localhost/web"]).stdout;
        let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]);
        assert!(lines[1..].iter().any(|line| line[..3] == ["localhost/web", "1", &two[..12]]), "{listed}");
        assert!(lines[1..].iter().any(|line| line[..3] == ["localhost/web", "2", &one[..12]]), "{listed}");
        assert_eq!(lines.len(), 3);
        assert_eq!(shell.count("state/layers"), 3, "the base is there once");

        let gone = shell.ok(&["image", "rm", "localhost/web:2"]).stdout;
        assert!(gone.starts_with("Untagged: localhost/web:2\n"), "{gone}");
        assert!(gone.contains(&format!("Deleted: sha256:{one}\n")), "{gone}");
        assert_eq!(shell.count("state/layers"), 2, "the base is the other image's too");
        shell.refused(&["image", "inspect", &one], "there is no image");

        // By its identifier it goes with all its names, unless they are of several repositories.
        shell.refused(&["image", "rm", &two], "several repositories");
        shell.ok(&["image", "rm", "-f", &two]);
        assert_eq!((shell.count("state/layers"), shell.count("state/images/sources")), (0, 0));
        assert_eq!(shell.count("state/images/blobs/sha256"), 0);
        assert_eq!(shell.ok(&["image", "ls", "-q"]).stdout, "");
    });
}

#[test]
fn an_image_that_a_container_uses_stays() {
    Shell::with(|shell| {
        let one = make(shell, "one");
        shell.ok(&["image", "tag", &one, "localhost/web:1"]);
        shell.ok(&["image", "tag", &one, "localhost/web:other"]);
        shell.ok(&["image", "rm", &shell.word("one.tar")]);
        shell.ok(&["create", "--name", "web", "--network", "none", "localhost/web:1"]);
        shell.refused(&["image", "rm", "localhost/web:1"], "container `web` was made of it, by this name");
        // The other name is nobody's.
        shell.ok(&["image", "rm", "localhost/web:other"]);
        shell.refused(&["image", "rm", &one], "container `web`");
        let forced = shell.ok(&["image", "rm", "-f", &one]);
        assert_eq!(forced.stdout, "Untagged: localhost/web:1\n");
        assert!(forced.stderr.contains("stays while web uses it"), "{}", forced.stderr);
        assert_eq!(shell.count("state/layers"), 2);
        let row = shell.json(&["image", "ls", "--filter", "dangling=true"])[0].take();
        assert_eq!(row["used_by"][0], "web");
        shell.ok(&["image", "prune", "-a"]);
        assert_eq!(shell.count("state/layers"), 2, "what a container was made of is never pruned");
        shell.ok(&["rm", "web"]);
        let blobs = fs::read_dir(shell.path("state/images/blobs/sha256")).unwrap();
        let bytes: u64 = blobs.map(|blob| blob.unwrap().metadata().unwrap().len()).sum();
        let pruned = shell.ok(&["image", "prune"]).stdout;
        assert!(
            pruned.starts_with(&format!("image {}: it has no name and nothing needs it\n", &one[..12])),
            "{pruned}"
        );
        assert!(pruned.ends_with(&format!("Total reclaimed space: {}B\n", 8 + bytes)), "{pruned}");
        assert_eq!((shell.count("state/layers"), shell.host.leftovers().len()), (0, 0));
    });
}

#[test]
fn images_are_chosen_by_filters() {
    Shell::with(|shell| {
        let (one, two) = (make(shell, "one"), make(shell, "two"));
        shell.ok(&["image", "tag", &one, "nginx:1.27"]);
        shell.ok(&["image", "tag", &two, "localhost/shop/web"]);
        let chosen = |filter: &str| {
            let rows = shell.json(&["image", "ls", "--filter", filter]);
            rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()[7..].to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(chosen("reference=nginx:1.*"), [one.as_str()]);
        assert_eq!(chosen("reference=*/shop/*"), [two.as_str()]);
        assert_eq!(chosen("label=of=amd64").len(), 2);
        assert!(chosen("label=of=arm64").is_empty());
        assert!(chosen("dangling=true").is_empty());
        assert_eq!(shell.run(&["image", "ls", "--filter", "color=red"]).code, 64);
        shell.refused(&["image", "ls", "--filter", "before=nginx:1.27"], "is not known");
        // What both begin with is nobody's name; more digits decide.
        let common = one.chars().zip(two.chars()).take_while(|(a, b)| a == b).count();
        match common {
            0 => drop(shell.refused(&["image", "inspect", "g"], "there is no image `g`")),
            common => {
                let both = shell.refused(&["image", "inspect", &one[..common]], "is the beginning of 2 images").stderr;
                assert!(both.contains(&one) && both.contains(&two), "{both}");
            }
        }
        assert_eq!(shell.id(&two[..common + 1]), two);
        let history = shell.json(&["image", "history", "nginx:1.27"]);
        assert_eq!((history.as_array().unwrap().len(), history[0]["size"].as_u64()), (2, Some(3)));
    });
}

#[test]
fn what_dockers_users_type_is_answered() {
    Shell::with(|shell| {
        let id = make(shell, "one");
        shell.ok(&["image", "tag", &id, "nginx:1.27"]);
        let line = shell.ok(&["image", "ls", "--format", "{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}}", "nginx"]).stdout;
        assert_eq!(line, format!("nginx:1.27 {} 8B\n", &id[..12]));
        let table = shell.ok(&["image", "ls", "-f", "reference=nginx", "--format", "table {{.ID}}\\t{{.Tag}}"]).stdout;
        assert_eq!(table, format!("IMAGE ID       TAG\n{}   1.27\n", &id[..12]));
        shell.refused(&["image", "ls", "--format", "{{.Name}}"], "`{{.Name}}` is none of {{.Repository}}, {{.Tag}}");

        let layers = shell.image("nginx:1.27")["layers"].take();
        let newest_first: Vec<&str> =
            layers.as_array().unwrap().iter().rev().map(|layer| layer["diff_id"].as_str().unwrap()).collect();
        let history = |options: &[&str]| shell.ok(&[&["image", "history", "nginx:1.27"], options].concat()).stdout;
        assert_eq!(history(&["-q", "--no-trunc"]).lines().collect::<Vec<_>>(), newest_first);
        assert_eq!(history(&["--format", "{{.Size}}"]), "3B\n5B\n");
        assert_eq!(history(&["-H=false", "--format", "{{.Size}}"]), "3\n5\n");

        let other = shell.run(&["image", "pull", "--platform", "plan9/mips", "nginx"]);
        assert!(other.code == 64 && other.stderr.contains("this host runs images of linux/"), "{other:#?}");
        let url = shell.run(&["image", "import", "https://example.org/rootfs.tar"]);
        assert!(url.code == 64 && url.stderr.contains("curl -fsSL https://example.org/rootfs.tar |"), "{url:#?}");
        let forced = shell.ok(&["image", "rm", "-f", "nope"]);
        assert!(forced.stderr.contains("there is no image `nope`"), "{forced:#?}");
        shell.ok(&["image", "rm", "--no-prune", "-f", &id]);
        assert_eq!(shell.ok(&["image", "ls", "-q", "-f", "dangling=true"]).stdout, format!("{}\n", &id[..12]));
    });
}

#[test]
fn by_the_digest_in_a_repository_only_its_names_go() {
    Shell::with(|shell| {
        let id = make(shell, "one");
        for name in ["nginx:1", "nginx:2", "localhost/web:1"] {
            shell.ok(&["image", "tag", &id, name]);
        }
        let digests = shell.ok(&["image", "inspect", "-f", "{{json .RepoDigests}}", &id]).stdout;
        let digests: Vec<String> = serde_json::from_str(&digests).unwrap();
        let nginx = digests.iter().find(|digest| digest.starts_with("nginx@")).unwrap();
        shell.ok(&["image", "rm", nginx]);
        let names = shell.ok(&["image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "-f", "reference=*"]).stdout;
        assert_eq!(names, "");
        assert_eq!(shell.id("localhost/web:1"), id);
    });
}

#[test]
fn in_which_form_a_layer_lies_is_told() {
    Shell::with(|shell| {
        let id = make(shell, "one");
        for layer in shell.image(&id)["layers"].as_array().unwrap() {
            let path = fs::metadata(layer["path"].as_str().unwrap()).unwrap();
            let form = if path.is_dir() { "directory" } else { "EROFS file" };
            assert_eq!(layer["form"], form, "{layer}");
        }
    });
}

/// A registry that takes the question and never answers.
#[test]
fn who_waits_for_a_registry_holds_nobody_up() {
    Shell::with(|shell| {
        shell.ok(&["image", "tag", &make(shell, "one"), "localhost/one:1"]);
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        silent.set_nonblocking(true).unwrap();
        let image = format!("{}/a:1", silent.local_addr().unwrap());
        let manifest = format!("project = \"shop\"\n[containers.web]\nimage = \"{image}\"\nnetwork_mode = \"none\"\n");
        fs::write(shell.path("shop.toml"), manifest).unwrap();
        let commands = [("run", vec!["run", "--network", "none", &image]), ("watch", vec!["watch", "-f", "shop.toml"])];
        for (name, arguments) in commands {
            let mut waiting = shell.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let mut line = None;
            eventually("it asks the registry", || {
                line = line.take().or_else(|| silent.accept().ok());
                line.is_some()
            });
            shell.ok(&["create", "--name", name, "--network", "none", "localhost/one:1", "/bin/serve"]);
            assert!(waiting.try_wait().unwrap().is_none(), "{name} still waits");
            waiting.kill().unwrap();
            waiting.wait().unwrap();
        }
    });
}

#[test]
fn who_removes_an_image_does_not_wait_for_its_files() {
    Shell::with(|shell| {
        let names: Vec<String> = (0..500).map(|number| format!("etc/{number}")).collect();
        let files: Vec<_> = names.iter().map(|name| file(name, "some contents")).collect();
        fs::write(shell.path("large.tar"), tar(&files)).unwrap();
        let source = ImageSource::Rootfs(shell.path("large.tar"));
        // An image is one file, with which nobody would take long.
        let options = Options { form: Some(Form::Directory), ..shell.host.options.clone() };
        let image = ensure(&shell.host.store, &source, &options, &Silent).unwrap();
        let tree = shell.host.tree(&image.layers[0]);
        assert_eq!(fs::read_dir(tree.join("etc")).unwrap().count(), 500);
        let remove = shell.command(&["image", "rm", image.id.hex()]);
        let traced = Command::new("strace")
            .args(["-f", "-qq", "-e", "trace=execve,unlink,unlinkat", "-o", "trace"])
            .arg(remove.get_program())
            .args(remove.get_args())
            .env("EVENKEEL_ROOT", shell.path("state"))
            .env("EVENKEEL_RUN", shell.path("run"))
            .current_dir(shell.host.directory.path())
            .status();
        assert!(traced.expect("strace is installed").success());
        assert!(!tree.exists());
        // Another process than the command unlinks them.
        let trace = fs::read_to_string(shell.path("trace")).unwrap();
        let process = |line: &str| line.split_whitespace().next().map(str::to_owned);
        let command = process(&trace);
        let (own, others): (Vec<&str>, Vec<&str>) =
            trace.lines().filter(|line| line.contains("unlink")).partition(|line| process(line) == command);
        assert!(own.len() < 50, "{own:#?}");
        assert!(others.len() >= 500, "{}", others.len());
    });
}

/// Containers of one image have one file system, and so one copy in memory, of each of its layers: what the kernel has
/// mounted below them is what is attached beside the layer (proc_pid_mountinfo(5), overlayfs's `lowerdir`).
#[test]
fn containers_of_one_image_are_on_the_same_mount_of_its_layer() {
    Shell::with(|shell| {
        fs::create_dir_all(shell.path("rootfs/bin")).unwrap();
        fs::copy("/bin/busybox", shell.path("rootfs/bin/busybox")).unwrap();
        run(&["tar", "-cf", &shell.word("rootfs.tar"), "-C", &shell.word("rootfs"), "."]);
        shell.ok(&["image", "import", "rootfs.tar", "localhost/app"]);
        let start = |name: &str| {
            let options = ["run", "-d", "--network", "none", "--restart", "always", "--name", name];
            shell.ok(&[&options[..], &["localhost/app", "/bin/busybox", "sleep", "1000"]].concat());
        };
        let pid = |name: &str| shell.json(&["inspect", name])[0]["pid"].as_u64();
        let is_on_it = |name: &str| {
            let mounts = pid(name).and_then(|pid| fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok());
            mounts.is_some_and(|mounts| mounts.lines().any(|line| line.contains(" / / ") && line.contains("/mounted,")))
        };
        let attached = || -> Vec<String> {
            let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
            let ours =
                mounts.lines().filter(|line| line.contains(&shell.word("state/layers")) && line.contains(" - erofs "));
            ours.map(|line| line.split(' ').nth(2).unwrap().to_owned()).collect()
        };
        start("one");
        let first = attached();
        start("two");
        assert_eq!((first.len(), attached()), (1, first), "this kernel has layers as images");
        assert!(is_on_it("one") && is_on_it("two"));

        // One that starts again is on it too.
        let before = pid("one");
        run(&["kill", "-9", &before.unwrap().to_string()]);
        eventually("it has started again", || pid("one").is_some_and(|now| Some(now) != before) && is_on_it("one"));

        // Who is on it keeps it when it is taken off by hand; the next one attaches it again.
        let layers =
            fs::read_dir(shell.path("state/layers")).unwrap().map(|layer| layer.unwrap().path().join("mounted"));
        let attached_at = layers.into_iter().find(|place| place.is_dir()).unwrap();
        run(&["umount", "-l", attached_at.to_str().unwrap()]);
        assert_eq!(attached().len(), 0);
        shell.ok(&["exec", "two", "/bin/busybox", "true"]);
        start("three");
        assert_eq!(attached().len(), 1);
        assert!(is_on_it("three"));
    });
}
