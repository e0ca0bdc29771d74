//! What `image prune` and `watch` remove, and what a kill in the middle leaves.

use std::fs;
use std::process::Child;

use evenkeel::model::image::ImageSource;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::hosts::eventually;
use crate::local::make;
use crate::shell::Shell;

/// A project with one container, which never runs, of this archive.
fn declare(shell: &Shell, archive: &str) {
    let manifest = format!(
        "project = \"shop\"\n[images.it]\narchive = \"{archive}\"\n\
         [containers.web]\nimage = \"it\"\ncommand = [\"/bin/serve\"]\nnetwork_mode = \"none\"\nstate = \"stopped\"\n"
    );
    fs::write(shell.path("evenkeel.toml"), manifest).unwrap();
}

fn is_here(shell: &Shell, archive: &str) -> bool {
    shell.host.store.find(&ImageSource::Archive(shell.path(archive).into())).unwrap().is_some()
}

#[test]
fn what_is_declared_or_was_before_it_stays_and_all_else_goes() {
    Shell::with(|shell| {
        for top in ["one", "two", "three"] {
            make(shell, top);
        }
        declare(shell, "one.tar");
        let kept = || ["one.tar", "two.tar", "three.tar"].map(|archive| is_here(shell, archive));
        shell.ok(&["image", "prune", "-a", "--until", "1h"]);
        assert_eq!(kept(), [true; 3], "nothing is so old");
        let would = shell.ok(&["image", "prune", "-a", "--dry-run"]).stdout;
        assert!(would.contains("two.tar): nothing needs it"), "{would}");
        assert_eq!(kept(), [true; 3], "nothing was done");
        // Declared, though nothing was made of it.
        shell.ok(&["image", "prune", "-a"]);
        assert_eq!(kept(), [true, false, false]);

        shell.ok(&["apply"]);
        make(shell, "two");
        make(shell, "three");
        declare(shell, "two.tar");
        shell.ok(&["apply"]);
        shell.ok(&["image", "prune", "-a"]);
        assert_eq!(kept(), [true, true, false], "the way back stays");
        declare(shell, "one.tar");
        fs::remove_file(shell.path("two.tar")).unwrap();
        shell.ok(&["apply"]);
        shell.ok(&["image", "prune", "-a"]);
        assert_eq!(kept(), [true, true, false]);

        // Of a project that is gone nothing is needed.
        shell.ok(&["down", "--yes"]);
        fs::remove_file(shell.path("evenkeel.toml")).unwrap();
        let lines = shell.ok(&["--json", "image", "prune", "-a"]).stdout;
        assert_eq!(kept(), [false; 3]);
        let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let images = lines.iter().filter(|line| line["kind"] == "image");
        assert!(images.clone().all(|line| line["why"].as_str().unwrap().starts_with("nothing needs it")), "{lines:?}");
        assert_eq!(images.count(), 2);
        assert!(lines.last().unwrap()["reclaimed"].as_u64().unwrap() > 0);
        assert_eq!((shell.count("state/layers"), shell.host.leftovers().len()), (0, 0));
    });
}

#[test]
fn a_broken_manifest_and_a_record_that_cannot_be_read_keep_everything() {
    Shell::with(|shell| {
        let one = make(shell, "one");
        fs::write(shell.path("evenkeel.toml"), "project = ").unwrap();
        assert_ne!(shell.run(&["image", "prune", "-a"]).code, 0);
        fs::remove_file(shell.path("evenkeel.toml")).unwrap();
        shell.ok(&["image", "tag", &one, "localhost/web:1"]);
        shell.ok(&["create", "--name", "web", "--network", "none", "localhost/web:1"]);
        make(shell, "two");
        let containers = shell.path("state/containers");
        let id = fs::read_dir(&containers).unwrap().flatten().next().unwrap().path();
        let (record, aside) = (id.join("record.json"), shell.path("record.json"));
        fs::copy(&record, &aside).unwrap();
        fs::write(&record, "{").unwrap();
        shell.refused(&["image", "prune", "-a"], "it is not known who uses it");
        fs::copy(&aside, &record).unwrap();
        // An image that cannot be read: its layers are nobody's, and a container has them.
        for directory in ["ids", "sources"] {
            for entry in fs::read_dir(shell.path("state/images").join(directory)).unwrap() {
                fs::rename(entry.unwrap().path(), shell.path("away.json")).unwrap();
            }
        }
        shell.refused(&["image", "prune", "-a"], "cannot be read");
        assert_eq!(shell.count("state/layers"), 3);
    });
}

/// Runs this and kills whoever of its processes makes the `when`th of these calls, before it takes effect. Whether there
/// was one so late.
fn killed_at(shell: &Shell, arguments: &[&str], calls: &str, when: usize) -> bool {
    let (trace, inject) = (shell.word("trace"), format!("inject={calls}:signal=KILL:when={when}"));
    let traced = format!("trace={calls}");
    let command = shell.command(&[]);
    let mut strace = std::process::Command::new("strace");
    strace.args(["-f", "-q", "-o", &trace, "-e", &traced, "-e", &inject]).arg(command.get_program());
    strace.args(arguments).current_dir(shell.host.directory.path());
    for (name, value) in command.get_envs() {
        strace.env(name, value.unwrap());
    }
    let output = strace.output().unwrap();
    let killed = fs::read_to_string(shell.path("trace")).unwrap().contains("killed by SIGKILL");
    assert!(killed || output.status.success(), "{output:?}");
    killed
}

#[test]
fn what_an_image_that_was_cut_off_has_on_the_disk_goes() {
    Shell::with(|shell| {
        let two = make(shell, "two");
        shell.ok(&["image", "rm", "-f", &two]);
        eventually("it is removed", || shell.host.leftovers().is_empty());
        for calls in ["syncfs", "renameat2"] {
            assert!(killed_at(shell, &["image", "load", "-i", "two.tar"], calls, 1));
            assert!(!shell.host.leftovers().is_empty(), "{calls}");
            shell.ok(&["image", "prune"]);
            assert_eq!((shell.count("state/layers"), shell.host.leftovers().len()), (0, 0), "{calls}");
        }
        // One layer is in its place already, and no image has it.
        assert!(killed_at(shell, &["image", "load", "-i", "two.tar"], "renameat2", 2));
        assert_eq!(shell.count("state/layers"), 1);
        let told = shell.ok(&["image", "prune"]).stdout;
        assert!(told.contains(": nothing that stays has it\n"), "{told}");
        assert_eq!((shell.count("state/layers"), shell.host.leftovers().len()), (0, 0));
    });
}

#[test]
fn by_hand_the_disk_is_judged_as_the_service_judges_it() {
    Shell::with(|shell| {
        make(shell, "one");
        make(shell, "two");
        declare(shell, "one.tar");
        let prune = |gc: &str, more: &[&str]| {
            fs::write(shell.path("host.toml"), format!("[gc]\n{gc}\n")).unwrap();
            let file = shell.word("host.toml");
            let arguments = ["--host-config", &file, "image", "prune", "--when-full"];
            shell.ok(&[&arguments[..], more].concat());
            is_here(shell, "two.tar")
        };
        let full = "high = 1\nlow = 0";
        assert!(prune("high = 100\nmin_age = \"0s\"", &[]), "the disk is not full");
        assert!(prune(full, &[]), "it was used a moment ago");
        assert!(prune(&format!("{full}\nmin_age = \"0s\""), &["--until", "1h"]), "so somebody says");
        assert!(!prune(&format!("{full}\nmin_age = \"0s\""), &[]));
        assert!(is_here(shell, "one.tar"), "it is declared");
        shell.refused(&["image", "prune", "--when-full", "--all"], "cannot be used with");
    });
}

#[test]
fn prune_killed_at_any_step_leaves_no_dangling_record() {
    Shell::with(|shell| {
        for calls in ["unlink,unlinkat,rmdir", "rename,renameat,renameat2", "fsync"] {
            for when in 1.. {
                // A container has one of them, whose lower layer the others have, too.
                let one = make(shell, "one");
                if when == 1 {
                    shell.ok(&["image", "tag", &one, "localhost/web:1"]);
                    shell.ok(&["create", "--name", "web", "--network", "none", "localhost/web:1"]);
                }
                let two = make(shell, "two");
                shell.ok(&["image", "tag", &two, "localhost/two:1"]);
                let killed = killed_at(shell, &["image", "prune", "-a"], calls, when);
                let place = format!("{calls} {when}");
                for row in shell.json(&["image", "ls"]).as_array().unwrap() {
                    assert_eq!(row["missing_layers"], serde_json::json!([]), "{place}: {row}");
                }
                for entry in shell.host.store.catalogue().unwrap() {
                    for source in &entry.sources {
                        let found = shell.host.store.find(source).unwrap();
                        assert_eq!(found.as_ref(), Some(&entry.image), "{place}");
                    }
                    assert!(shell.host.store.blob(&entry.image.id).unwrap().is_some(), "{place}");
                }
                shell.ok(&["image", "prune", "-a"]);
                assert_eq!(shell.host.leftovers(), Vec::<std::path::PathBuf>::new(), "{place}");
                assert_eq!(shell.count("state/layers"), 2, "{place}");
                assert_eq!((shell.count("state/images/ids"), shell.count("state/images/blobs/sha256")), (1, 2));
                if !killed {
                    assert!(when > 2, "{calls} were seen");
                    break;
                }
            }
            shell.ok(&["rm", "web"]);
            shell.ok(&["image", "prune", "-a"]);
        }
    });
}

struct Watch(Child);

impl Drop for Watch {
    fn drop(&mut self) {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM).unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn watch_frees_a_disk_that_is_too_full_and_leaves_what_is_needed() {
    Shell::with(|shell| {
        make(shell, "one");
        make(shell, "two");
        declare(shell, "one.tar");
        // Every disk is too full for this.
        let config = |age: &str| format!("[gc]\nhigh = 1\nlow = 0\nmin_age = \"{age}\"\n");
        fs::write(shell.path("host.toml"), config("0s")).unwrap();
        let log = fs::File::create(shell.path("log")).unwrap();
        let mut command = shell.command(&["--host-config", &shell.word("host.toml"), "watch"]);
        let watch = Watch(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        eventually("the other image is gone", || !is_here(shell, "two.tar") && shell.host.leftovers().is_empty());
        let told = || fs::read_to_string(shell.path("log")).unwrap();
        eventually("it is told", || told().contains("free again") && told().contains("the disk is"));
        assert!(is_here(shell, "one.tar"), "{}", told());
        assert_eq!(shell.count("state/layers"), 2);
        drop(watch);
        shell.ok(&["down", "--yes"]);
    });
}
