//! Containers as images and as archives.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::hosts::busybox_rootfs;
use crate::shell::Shell;

const CHANGES: &str = "echo new >/etc/new; rm /etc/group; rm -r /var/www; mkdir /var/www; echo page >/var/www/page; \
    chown 7:8 /etc/new; ln /etc/new /etc/other; echo kept >/volume/data; touch /changed; sleep 1000";

/// A container that has changed something and runs on.
fn changed(shell: &Shell, options: &[&str]) {
    busybox_rootfs(&shell.path("rootfs"));
    let mut arguments = vec!["run", "-d", "--name", "web", "--network", "none", "-v", "data:/volume", "-e", "A=1"];
    arguments.extend(options);
    arguments.extend(["rootfs:./rootfs", "sh", "-c", CHANGES]);
    shell.ok(&arguments);
    crate::hosts::eventually("it has changed its files", || shell.ok(&["diff", "web"]).stdout.contains("/changed"));
}

/// The root filesystem of an image as a directory.
fn unpacked(shell: &Shell, image: &str) -> PathBuf {
    shell.ok(&["image", "unpack", image, "unpacked"]);
    shell.path("unpacked")
}

#[test]
fn a_container_becomes_an_image_of_what_it_changed() {
    for options in [&["--user", "0"][..], &["--userns", "auto"]] {
        Shell::with(|shell| {
            changed(shell, options);
            let arguments = ["-a", "me", "-m", "why", "-c", "CMD [\"serve\"]", "web", "localhost/made:1"];
            let id = shell.ok(&[&["container", "commit"], &arguments[..]].concat()).stdout;
            assert_eq!(id.trim(), format!("sha256:{}", shell.id("localhost/made:1")));
            let image = shell.image("localhost/made:1");
            assert_eq!((&image["config"]["Cmd"], &image["author"]), (&json!(["serve"]), &json!("me")));
            assert!(image["config"]["Env"].as_array().unwrap().contains(&json!("A=1")), "{image:#}");
            assert_eq!(image["history"].as_array().unwrap().last().unwrap()["comment"], "why");
            let layers = image["layers"].as_array().unwrap();
            // The whole layer is what changed: whiteouts, an opaque directory, and nothing that was mounted.
            let tar = shell.ok(&["image", "save", "localhost/made:1"]).bytes;
            fs::write(shell.path("saved.tar"), tar).unwrap();
            let top = layers.last().unwrap()["diff_id"].as_str().unwrap()[7..].to_owned();
            let listed = Command::new("sh")
                .args(["-c", &format!("tar -xOf saved.tar {top}.tar | tar -tf - | sort")])
                .current_dir(shell.host.directory.path())
                .output()
                .unwrap();
            let listed = String::from_utf8(listed.stdout).unwrap();
            let names: Vec<&str> = listed.lines().collect();
            let expected = [
                "./",
                "changed",
                "etc/",
                "etc/.wh.group",
                "etc/new",
                "etc/other",
                "var/",
                "var/www/",
                "var/www/.wh..wh..opq",
                "var/www/page",
            ];
            let names: Vec<&str> =
                names.into_iter().map(|name| if name == "./" { name } else { name.trim_start_matches("./") }).collect();
            for name in expected {
                assert!(
                    names.iter().any(|known| known.trim_end_matches('/') == name.trim_end_matches('/')),
                    "{name}: {names:?}"
                );
            }
            assert_eq!(names.len(), expected.len(), "{names:?}");
            let root = unpacked(shell, "localhost/made:1");
            let new = fs::metadata(root.join("etc/new")).unwrap();
            assert_eq!((new.uid(), new.gid(), new.nlink()), (7, 8, 2), "{options:?}");
            assert_eq!(fs::metadata(root.join("changed")).unwrap().uid(), 0, "{options:?}");
            assert!(!root.join("etc/group").exists() && !root.join("var/www/index.html").exists());
            assert!(!root.join("volume/data").exists(), "a volume is no part of it");
            // It runs on, and a container of the new image has all of it.
            assert!(shell.ok(&["ps", "web"]).stdout.contains("Up"));
            let seen = shell.ok(&["run", "--rm", "--network", "none", "localhost/made:1", "cat", "/var/www/page"]);
            assert_eq!(seen.stdout, "page\n");
        });
    }
}

#[test]
fn a_container_is_exported_as_it_is() {
    for options in [&["--user", "0"][..], &["--userns", "auto"]] {
        Shell::with(|shell| {
            changed(shell, options);
            for state in ["running", "stopped"] {
                shell.ok(&["container", "export", "-o", "out.tar", "web"]);
                let listed = Command::new("tar").arg("--numeric-owner").arg("-tvf").arg(shell.path("out.tar")).output();
                let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
                let line = |name: &str| listed.lines().find(|line| line.split_whitespace().nth(5) == Some(name));
                assert!(line("etc/new").is_some_and(|line| line.contains(" 7/8 ")), "{state} {options:?}: {listed}");
                assert!(line("bin/busybox").is_some_and(|line| line.contains(" 0/0 ")), "{state}: {listed}");
                assert!(line("etc/group").is_none() && line("var/www/index.html").is_none(), "{state}");
                assert!(line("volume/data").is_none() && line("proc/1").is_none(), "{state}");
                shell.ok(&["stop", "-t", "0", "web"]);
            }
            let imported =
                shell.feed(&["image", "import", "-", "localhost/flat"], &fs::read(shell.path("out.tar")).unwrap());
            assert_eq!(imported.code, 0, "{imported:#?}");
            let seen = shell.ok(&["run", "--rm", "--network", "none", "localhost/flat", "/bin/cat", "/etc/other"]);
            assert_eq!(seen.stdout, "new\n");
        });
    }
}
