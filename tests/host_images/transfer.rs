//! What goes out and comes in: archives, layouts, directories; judged by skopeo, umoci, tar and Docker.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tar::EntryType;

use crate::hosts::{eventually, run};
use crate::made::{LAYER, LAYER_GZIP, MANIFEST, Made, digest, image, layer, layout};
use crate::shell::Shell;
use crate::support::{device, directory, file, gzip, hard_link, symlink, tar, zstd};

/// An image with odd layers: the lower one has what a rewriter would change, the upper one takes something away.
fn odd(kind: &'static str) -> Made {
    let members = tar(&[
        file("a", "first"),
        hard_link("b", "a"),
        file("a", "replaced").mode(0o4750).owner(7, 8).pax("SCHILY.xattr.user.note", b"kept"),
        directory("etc/old"),
        file("etc/old/x", "below"),
        device(EntryType::Char, "null", 1, 3),
        symlink("etc/link", "../a"),
    ]);
    let upper = tar(&[file("etc/.wh.old", ""), file("etc/new", "above")]);
    image(MANIFEST, "amd64", &[layer(kind, [members, b"bytes after the end".to_vec()].concat()), layer(kind, upper)])
}

fn packed(made: &Made, shell: &Shell) -> std::path::PathBuf {
    let from = layout(&shell.path("made"), &made.manifest, &made.blobs());
    let archive = shell.path("made.tar");
    run(&["tar", "-C", from.to_str().unwrap(), "-cf", archive.to_str().unwrap(), "."]);
    archive
}

fn skopeo(arguments: &[&str]) {
    run(&[&["skopeo", "--insecure-policy"], arguments].concat());
}

/// The digests of the uncompressed layers, as the configuration in an OCI layout has them.
fn diff_ids(layout: &Path) -> Value {
    let read = |path: &Path| serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap();
    let blob = |value: &Value| layout.join("blobs/sha256").join(&value["digest"].as_str().unwrap()[7..]);
    let manifest = read(&blob(&read(&layout.join("index.json"))["manifests"][0]));
    read(&blob(&manifest["config"]))["rootfs"]["diff_ids"].take()
}

#[test]
fn what_is_saved_is_the_same_every_time_and_everywhere() {
    Shell::with(|shell| {
        let made = odd(LAYER_GZIP);
        let loaded = shell.ok(&["image", "load", "-i", packed(&made, shell).to_str().unwrap()]);
        let id = made.config.digest();
        assert_eq!(loaded.stdout, format!("Loaded image ID: {id}\n"));
        assert!(loaded.stderr.contains("`latest` is no reference"), "{}", loaded.stderr);
        shell.ok(&["image", "tag", id.hex(), "localhost/web:1"]);
        shell.ok(&["image", "tag", id.hex(), "web:2"]);
        for (format, name) in [("docker", "docker.tar"), ("oci", "oci.tar")] {
            let save = |to: &str| {
                shell.ok(&["image", "save", "--format", format, "-o", to, "localhost/web:1", "web:2"]);
                fs::read(shell.path(to)).unwrap()
            };
            let first = save(name);
            assert!(save("again.tar") == first, "{format}: saved twice");
            let streamed = shell.ok(&["image", "save", "--format", format, "localhost/web:1", "web:2"]);
            assert!(streamed.bytes == first, "{format}: to standard output");
            // Into another host, by a pipe and compressed, and out again.
            let other = Shell { host: crate::support::Host::new() };
            for compressed in [first.clone(), gzip(&first), zstd(&first)] {
                let answer = other.feed(&["image", "load"], &compressed);
                assert_eq!(answer.stdout, "Loaded image: web:2\nLoaded image: localhost/web:1\n", "{answer:#?}");
            }
            other.ok(&["image", "save", "--format", format, "-o", "out.tar", "localhost/web:1", "web:2"]);
            assert!(fs::read(other.path("out.tar")).unwrap() == first, "{format}: from another host");
            assert_eq!(other.image("web:2")["names"].as_array().unwrap().len(), 2);
        }
        // Whatever other tools make of it, the layers are those that the image was made of.
        let expected = json!(made.layers.iter().map(|layer| digest(&layer.tar)).collect::<Vec<_>>());
        shell.ok(&["image", "save", "--format", "oci-dir", "-o", "oci.dir", "localhost/web:1"]);
        assert_eq!(diff_ids(&shell.path("oci.dir")), expected);
        let other = Shell { host: crate::support::Host::new() };
        let answer = other.ok(&["image", "load", "-i", &shell.word("oci.dir")]);
        assert_eq!(answer.stdout, "Loaded image: localhost/web:1\n");
        other.refused(&["image", "import", &shell.word("oci.dir")], "is a directory");
        for from in ["docker-archive:docker.tar:web:2", "oci-archive:oci.tar:1", "oci:oci.dir:1"] {
            let (kind, rest) = from.split_once(':').unwrap();
            let to = format!("oci:{}:copied", shell.word(&format!("copy-of-{kind}")));
            skopeo(&["copy", &format!("{kind}:{}", shell.word(rest)), &to]);
            assert_eq!(diff_ids(&shell.path(&format!("copy-of-{kind}"))), expected, "{from}");
        }
        run(&["umoci", "unpack", "--image", &format!("{}:1", shell.word("oci.dir")), &shell.word("bundle")]);
        assert_eq!(fs::read_to_string(shell.path("bundle/rootfs/etc/new")).unwrap(), "above");
        assert!(!shell.path("bundle/rootfs/etc/old").exists());
        shell.refused(&["image", "save", "-o", "x.tar", "localhost/none:1"], "there is no image");
        assert!(!shell.path("x.tar").exists());
    });
}

#[test]
fn an_archive_of_several_images_is_loaded_whole() {
    Shell::with(|shell| {
        let (one, two) = (odd(LAYER), image(MANIFEST, "amd64", &[layer(LAYER, tar(&[file("x", "y")]))]));
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let described = |made: &Made, tags: &[&str]| {
            let layers: Vec<_> = made.layers.iter().map(|layer| format!("{}.tar", digest(&layer.tar).hex())).collect();
            json!({ "Config": format!("{}.json", made.config.digest().hex()), "RepoTags": tags, "Layers": layers })
        };
        let manifest = json!([described(&one, &["a:1", "a:2"]), described(&two, &[])]);
        let mut members = vec![file("manifest.json", &manifest.to_string())];
        for made in [&one, &two] {
            members.push(file(&format!("{}.json", made.config.digest().hex()), &text(&made.config.bytes)));
            let layers = made.layers.iter();
            members.extend(layers.map(|layer| file(&format!("{}.tar", digest(&layer.tar).hex()), &text(&layer.tar))));
        }
        fs::write(shell.path("both.tar"), tar(&members)).unwrap();
        let first = shell.feed(&["image", "import", "-", "a:1"], &tar(&[]));
        assert!(!first.stderr.contains("warn"), "there is nothing to tidy yet: {first:#?}");
        shell.ok(&["image", "tag", &first.stdout[7..19], "old"]);
        let loaded = shell.ok(&["image", "load", "-q", "-i", "both.tar"]).stdout;
        let second = two.config.digest();
        assert_eq!(loaded, format!("Loaded image: a:1\nLoaded image: a:2\nLoaded image ID: {second}\n"));
        assert_eq!(shell.id("a:1"), one.config.digest().hex(), "the name has moved");
        assert_ne!(shell.id("old"), shell.id("a:1"));
        let dangling = shell.ok(&["image", "ls", "-q", "--no-trunc", "--filter", "dangling=true"]).stdout;
        assert_eq!(dangling.trim(), second.to_string());
        // Cut anywhere, nothing of it is there.
        let whole = fs::read(shell.path("both.tar")).unwrap();
        let other = Shell { host: crate::support::Host::new() };
        let answer = other.feed(&["image", "load"], &whole[..whole.len() - 5000]);
        assert_eq!(answer.code, 1, "{answer:#?}");
        assert_eq!((other.host.layers().len(), other.host.leftovers().len()), (0, 0));
    });
}

#[test]
fn an_image_becomes_a_plain_directory() {
    Shell::with(|shell| {
        let archive = packed(&odd(LAYER_GZIP), shell);
        let id = shell.ok(&["image", "load", "-q", "-i", archive.to_str().unwrap()]).stdout[24..36].to_owned();
        let check = |root: &Path| {
            let a = fs::metadata(root.join("a")).unwrap();
            assert_eq!((a.mode() & 0o7777, a.uid(), a.gid()), (0o4750, 7, 8));
            assert_eq!(crate::support::xattr(&root.join("a"), "user.note").as_deref(), Some(&b"kept"[..]));
            assert_eq!(fs::read_to_string(root.join("b")).unwrap(), "first");
            let null = fs::symlink_metadata(root.join("null")).unwrap();
            assert!(null.file_type().is_char_device() && null.rdev() == rustix::fs::makedev(1, 3));
            assert_eq!(fs::read_link(root.join("etc/link")).unwrap(), Path::new("../a"));
            let names: Vec<_> =
                fs::read_dir(root.join("etc")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names.len(), 2, "{names:?}");
            assert_eq!(fs::read_to_string(root.join("etc/new")).unwrap(), "above");
        };
        shell.ok(&["image", "unpack", &id, "of-image"]);
        check(&shell.path("of-image"));
        let layers = shell.count("state/layers");
        shell.ok(&["image", "unpack", archive.to_str().unwrap(), "of-archive"]);
        check(&shell.path("of-archive"));
        assert_eq!(shell.count("state/layers"), layers, "an archive that is unpacked is no image of this host");
        shell.refused(&["image", "unpack", &id, "of-image"], "is not empty");
        check(&shell.path("of-image"));
        // Hard links stay what they are.
        fs::write(shell.path("linked.tar"), tar(&[file("x", "1"), hard_link("y", "x")])).unwrap();
        let linked = shell.ok(&["image", "import", "linked.tar"]).stdout;
        shell.ok(&["image", "unpack", linked.trim(), "linked"]);
        let inode = |name: &str| fs::metadata(shell.path("linked").join(name)).unwrap().ino();
        assert_eq!(inode("x"), inode("y"));
    });
}

#[test]
fn a_root_filesystem_comes_out_as_it_goes_in() {
    Shell::with(|shell| {
        shell.ok(&["image", "load", "-q", "-i", packed(&odd(LAYER_GZIP), shell).to_str().unwrap()]);
        let id = shell.ok(&["image", "ls", "-q", "--no-trunc"]).stdout;
        shell.ok(&["image", "export", "-o", "out.tar", id.trim()]);
        let listed = run(&["tar", "-tf", &shell.word("out.tar")]);
        let mut names: Vec<&str> =
            listed.lines().map(|name| name.trim_start_matches("./").trim_end_matches('/')).collect();
        names.sort_unstable();
        assert_eq!(names, ["", "a", "b", "etc", "etc/link", "etc/new", "null"]);
        assert_eq!(run(&["tar", "-xOf", &shell.word("out.tar"), "b"]), "first");

        shell.ok(&["image", "import", "out.tar", "localhost/back:1"]);
        shell.ok(&["image", "export", "-o", "again.tar", "localhost/back:1"]);
        assert!(fs::read(shell.path("out.tar")).unwrap() == fs::read(shell.path("again.tar")).unwrap());
        shell.refused(&["image", "export", "-o", "none.tar", "nope"], "there is no image `nope`");
        assert!(!shell.path("none.tar").exists());
    });
}

#[test]
fn a_root_filesystem_is_imported_with_its_changes() {
    Shell::with(|shell| {
        let packed = gzip(&tar(&[directory("bin"), file("bin/serve", "#!").mode(0o755)]));
        let import = |changes: &[&str]| {
            let mut arguments = vec!["image", "import"];
            arguments.extend(changes.iter().flat_map(|change| ["-c", *change]));
            arguments.extend(["-", "localhost/tree:1"]);
            shell.feed(&arguments, &packed)
        };
        let changes = ["CMD [\"serve\", \"-v\"]", "ENV A=1 B=two", "WORKDIR /srv", "USER 7:8", "EXPOSE 80"];
        let id = import(&changes).stdout;
        assert_eq!(id.trim(), format!("sha256:{}", shell.id("localhost/tree:1")));
        let config = shell.image("localhost/tree:1")["config"].take();
        assert_eq!(config["Cmd"], json!(["serve", "-v"]));
        assert_eq!(config["Env"], json!(["A=1", "B=two"]));
        assert_eq!((&config["WorkingDir"], &config["User"]), (&json!("/srv"), &json!("7:8")));
        assert_eq!(config["ExposedPorts"], json!({ "80/tcp": {} }));
        assert_eq!(import(&changes).stdout, id, "the same is the same image");
        let refused = import(&["RUN true"]);
        assert!(refused.stderr.contains("is no change of a configuration"), "{refused:#?}");
        assert_eq!(shell.run(&["image", "import", "x.tar", "a@b"]).code, 64);
    });
}

/// Docker's daemon with everything of its own: directories, mounts, network, processes.
struct Docker {
    daemon: Child,
    socket: String,
}

impl Docker {
    fn start(shell: &Shell) -> Docker {
        let home = shell.path("docker");
        fs::create_dir(&home).unwrap();
        let below = |name: &str| home.join(name).to_str().unwrap().to_owned();
        let socket = format!("unix://{}", below("socket"));
        let log = fs::File::create(home.join("log")).unwrap();
        let daemon = Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--", "sh", "-c"])
            // It would write a key there.
            .args(["mount -t tmpfs tmpfs /etc/docker && exec dockerd \"$@\"", "dockerd"])
            .args(["--data-root", &below("data"), "--exec-root", &below("exec"), "--pidfile", &below("pid")])
            .args(["--host", &socket, "--bridge", "none", "--iptables=false", "--storage-driver", "vfs"])
            .env("HOME", &home)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("util-linux is installed");
        let docker = Docker { daemon, socket };
        eventually("dockerd answers", || {
            let asked = docker.command(&["version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
            asked.expect("docker.io is installed").success()
        });
        docker
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(["--host", &self.socket]).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // With the first process of its namespace all others go, and it is waited for last (pid_namespaces(7)): nobody
        // writes to the directory any more.
        let unshare = self.daemon.id();
        for first in fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap().split_whitespace()
        {
            run(&["kill", "-KILL", first]);
        }
        self.daemon.wait().unwrap();
    }
}

#[test]
fn docker_takes_what_is_saved_and_gives_it_back() {
    Shell::with(|shell| {
        // Docker refuses a layer that has a name twice, and is right.
        let members = tar(&[directory("etc/old"), file("a", "1").mode(0o4750).owner(7, 8), hard_link("b", "a")]);
        let layers = [members, tar(&[file("etc/.wh.old", ""), file("etc/new", "above")])];
        let made = image(MANIFEST, "amd64", &layers.map(|members| layer(LAYER_GZIP, members)));
        let id = made.config.digest();
        shell.ok(&["image", "load", "-q", "-i", packed(&made, shell).to_str().unwrap()]);
        shell.ok(&["image", "tag", id.hex(), "localhost/web:1"]);
        shell.ok(&["image", "save", "-o", "saved.tar", "localhost/web:1"]);
        let docker = Docker::start(shell);
        let loaded = docker.run(&["load", "-i", &shell.word("saved.tar")]);
        assert_eq!(loaded.trim(), "Loaded image: localhost/web:1");
        assert_eq!(docker.run(&["image", "inspect", "--format", "{{.Id}}", "localhost/web:1"]).trim(), id.to_string());
        docker.run(&["tag", "localhost/web:1", "web:of-docker"]);
        docker.run(&["save", "-o", &shell.word("back.tar"), "web:of-docker"]);
        shell.ok(&["image", "load", "-q", "-i", "back.tar"]);
        assert_eq!(shell.id("web:of-docker"), id.hex());
    });
}
