//! Layers that are damaged: what is seen of that, and that they are made again while containers keep what they wrote.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use evenkeel::engine::image::store::session::Form;
use evenkeel::engine::image::{Options, Silent, ensure};
use evenkeel::model::image::ImageSource;

use crate::shell::Shell;
use crate::support::{directory, file, symlink, tar};

/// A root filesystem with a program, and some more files.
fn root_filesystem(shell: &Shell) -> PathBuf {
    let mut serve = file("bin/serve", "").mode(0o755);
    serve.body = fs::read("/bin/busybox").expect("the package busybox-static is installed");
    serve.header.set_size(serve.body.len() as u64);
    let mut members = vec![directory("bin"), serve, directory("usr")];
    members.extend(["true", "sh", "cat", "sleep"].map(|name| symlink(&format!("bin/{name}"), "serve")));
    members.extend((0..300).map(|n| file(&format!("usr/a-name-of-some-length-{n}"), &format!("contents {n}"))));
    members.push(file("usr/large", &"a line of a large file\n".repeat(1000)));
    fs::write(shell.path("one.tar"), tar(&members)).unwrap();
    shell.path("one.tar")
}

fn overwrite(file: &Path, bytes: &[u8], at: u64) {
    fs::OpenOptions::new().write(true).open(file).unwrap().write_all_at(bytes, at).unwrap();
}

/// The file of the only layer of an image of this root filesystem.
fn only_layer(shell: &Shell, from: &Path) -> PathBuf {
    let image = shell.host.ensure(&ImageSource::Rootfs(from.into())).unwrap();
    let [layer] = &shell.host.store.layer_paths(&image)[..] else { panic!("{:?}", image.layers) };
    layer.clone()
}

/// Of one that only the kernel finds fault with the user is told what to do, and that helps.
#[test]
fn advice_about_a_layer_that_is_not_mounted_helps() {
    Shell::with(|shell| {
        let from = root_filesystem(shell);
        let layer = only_layer(shell, &from);
        // The root's inode is of a kind that there is not (erofs_fs.h, `i_format`).
        overwrite(&layer, &[0x1f], 4096);
        let source = format!("rootfs:{}", from.display());
        let run = || shell.run(&["run", "--rm", "--network", "none", &source, "/bin/true"]);
        let refused = run();
        assert_ne!(refused.code, 0);
        let advice = refused.stderr.split_once("hint: if the file is damaged, `rm ").map(|(_, rest)| rest);
        let path = advice.and_then(|rest| rest.split_once('`')).expect(&refused.stderr).0;
        fs::remove_file(path).unwrap();
        let helped = run();
        assert_eq!(helped.code, 0, "{}", helped.stderr);
    });
}

/// Every byte counts: those of contents, names, inodes and of the superblock; and what is made again is the same.
#[test]
fn a_check_sees_one_byte_and_repairs_it() {
    Shell::with(|shell| {
        let from = root_filesystem(shell);
        let layer = only_layer(shell, &from);
        let sound = fs::read(&layer).unwrap();
        assert_eq!(shell.ok(&["image", "check"]).stdout.lines().last(), Some("1 looked at, 0 damaged"));
        let find = |word: &[u8]| sound.windows(word.len()).position(|window| window == word).unwrap() as u64;
        let places = [1024, 1024 + 48, 4096 + 4, find(b"a line of a large"), find(b"contents 7"), find(b"length-123")];
        for at in places {
            overwrite(&layer, &[!sound[at as usize]], at);
            let found = shell.run(&["image", "check"]);
            assert_eq!(found.code, 1, "byte {at}: {found:#?}");
            assert!(found.stdout.starts_with("damaged"), "byte {at}: {found:#?}");
            assert_eq!(shell.json(&["image", "check", "--repair"])[0]["state"], "repaired", "byte {at}");
            assert!(fs::read(&layer).unwrap() == sound, "byte {at}");
        }
        // Where there is nothing to take it from it is left, and that is said.
        fs::remove_file(&from).unwrap();
        overwrite(&layer, b"?", find(b"contents 7"));
        let found = shell.run(&["image", "check", "--repair"]);
        assert_eq!(found.code, 1, "{found:#?}");
        assert!(found.stdout.contains("cannot be made again"), "{found:#?}");
        assert!(layer.exists());
    });
}

/// A container that runs goes on, one that is stopped starts again, and both keep what they wrote.
#[test]
fn apply_makes_damaged_layers_again_below_containers() {
    Shell::with(|shell| {
        let from = root_filesystem(shell);
        let manifest = "project = \"damage\"\n[images.one]\nrootfs = \"one.tar\"\n[containers.web]\nimage = \"one\"\n\
                        command = [\"/bin/sleep\", \"1000\"]\nnetwork_mode = \"none\"\nstop_signal = \"SIGKILL\"\n";
        fs::write(shell.path("evenkeel.toml"), manifest).unwrap();
        shell.ok(&["apply"]);
        let layer = only_layer(shell, &from);
        let pid = || shell.json(&["inspect", "web"])[0]["pid"].clone();
        let before = pid();
        assert!(before.is_number(), "{before}");
        shell.ok(&["exec", "web", "/bin/sh", "-c", "echo kept > /written"]);
        let written = || shell.ok(&["exec", "web", "/bin/cat", "/written"]).stdout;
        let damages: [fn(&Path); 4] = [
            |layer| overwrite(layer, &[0; 128], 1024),
            |layer| fs::OpenOptions::new().write(true).open(layer).unwrap().set_len(300_000).unwrap(),
            |layer| fs::remove_file(layer).unwrap(),
            |layer| fs::remove_dir_all(layer.parent().unwrap()).unwrap(),
        ];
        for damage in damages {
            damage(&layer);
            shell.ok(&["apply"]);
            assert_eq!((pid(), written().as_str()), (before.clone(), "kept\n"));
            shell.ok(&["image", "check"]);
            assert_eq!(shell.run(&["plan", "--detailed-exitcode"]).code, 0, "nothing is left to do");
        }
        shell.ok(&["stop", "web"]);
        damages[0](&layer);
        shell.refused(&["start", "web"], "damaged or gone");
        shell.ok(&["apply"]);
        assert_eq!(written(), "kept\n");
    });
}

/// An image that was loaded, under a name that no registry has, can come from its archive alone; and the user is told so.
#[test]
fn a_loaded_image_is_repaired_from_its_archive() {
    Shell::with(|shell| {
        let from = root_filesystem(shell);
        shell.ok(&["image", "import", &shell.word("one.tar"), "localhost/one:1"]);
        shell.ok(&["image", "save", "-o", "saved.tar", "localhost/one:1"]);
        shell.ok(&["image", "rm", "localhost/one:1"]);
        shell.ok(&["image", "prune", "--all", "--force"]);
        fs::remove_file(&from).unwrap();
        shell.ok(&["image", "load", "-i", "saved.tar"]);
        let options = ["run", "-d", "--network", "none", "--name", "web", "localhost/one:1", "/bin/sleep", "1000"];
        shell.ok(&options);
        let layers = fs::read_dir(shell.path("state/layers")).unwrap().map(|layer| layer.unwrap().path());
        let layer = layers.map(|layer| layer.join("layer.erofs")).find(|layer| layer.is_file()).unwrap();
        let sound = fs::read(&layer).unwrap();
        let at = sound.windows(10).position(|window| window == b"contents 7").unwrap() as u64;
        overwrite(&layer, b"?", at);
        let found = shell.run(&["image", "check", "--repair"]);
        assert_eq!(found.code, 1, "{found:#?}");
        assert!(found.stdout.contains("image load --repair"), "{found:#?}");
        shell.ok(&["image", "load", "-i", "saved.tar"]);
        assert_eq!(shell.run(&["image", "check"]).code, 1, "what is here is not unpacked without a word");
        shell.ok(&["image", "load", "--repair", "-i", "saved.tar"]);
        shell.ok(&["image", "check"]);
        assert!(fs::read(&layer).unwrap() == sound);
        shell.ok(&["exec", "web", "/bin/true"]);
    });
}

/// Whoever runs on a directory keeps its files until it is stopped, and the user is told why nothing was repaired.
#[test]
fn a_layer_that_is_a_directory_is_loaded_again_when_nothing_runs_on_it() {
    Shell::with(|shell| {
        let from = root_filesystem(shell);
        let options = Options { form: Some(Form::Directory), ..shell.host.options.clone() };
        let image = ensure(&shell.host.store, &ImageSource::Rootfs(from.clone()), &options, &Silent).unwrap();
        shell.ok(&["image", "tag", image.id.hex(), "localhost/one:1"]);
        shell.ok(&["image", "save", "-o", "saved.tar", "localhost/one:1"]);
        fs::remove_file(&from).unwrap();
        let damaged = shell.host.tree(&image.layers[0]).join("usr/large");
        overwrite(&damaged, b"?", 0);
        let options = ["run", "-d", "--network", "none", "--name", "web", "localhost/one:1", "/bin/sleep", "1000"];
        shell.ok(&options);
        let load = || shell.ok(&["image", "load", "--repair", "-i", "saved.tar"]).stderr;
        let held = load();
        assert!(held.contains("stays as it is") && held.contains("web"), "{held}");
        assert!(fs::read(&damaged).unwrap().starts_with(b"?"));
        assert_eq!(shell.run(&["image", "check"]).code, 1);
        shell.ok(&["stop", "--timeout", "0", "web"]);
        assert!(!load().contains("stays as it is"));
        shell.ok(&["image", "check"]);
        shell.ok(&["start", "web"]);
    });
}
