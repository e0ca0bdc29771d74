//! The state root over time: who serves it, what is kept, and what cannot be read.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use serde_json::json;
use support::eventually;
use support::shell::Shell;

const WEB: &str = "[containers.web]\nimage = \"box\"\ncommand = [\"sleep\", \"1000\"]\nstop_signal = \"SIGKILL\"\n";

#[test]
fn a_second_run_directory_starts_nothing_twice() {
    Shell::with(|shell| {
        shell.manifest(WEB);
        shell.ok(&["apply", "--wait"]);
        let pid = shell.pid("web");
        for command in [&["apply"][..], &["plan"], &["run", "--rm", "rootfs:./rootfs", "true"]] {
            let refused = shell.run(&[&["--run", "other"], command].concat());
            assert_ne!(refused.code, 0, "{refused:?}");
            let names_the_other = refused.stderr.contains(shell.path("run").canonicalize().unwrap().to_str().unwrap());
            assert!(names_the_other && refused.stderr.contains("--run"), "{refused:?}");
        }
        assert_eq!(shell.pid("web"), pid);
        shell.ok(&["down"]);
        shell.ok(&["--run", "other", "apply", "--wait"]);
        let refused = shell.run(&["apply"]);
        assert!(refused.code == 1 && refused.stderr.contains("other"), "{refused:?}");
        shell.ok(&["--run", "other", "down"]);
    });
}

#[test]
fn a_status_of_a_newer_version_hides_its_container_and_no_other() {
    Shell::with(|shell| {
        shell.manifest(WEB);
        shell.ok(&["apply", "--wait"]);
        shell.ok(&["run", "-d", "--name", "solo", "rootfs:./rootfs", "sleep", "1000"]);
        let id = shell.inspect("web")["id"].as_str().unwrap().to_owned();
        let status = shell.path(&format!("run/containers/{id}/status.json"));
        let text = fs::read_to_string(&status).unwrap();
        let mut newer: serde_json::Value = serde_json::from_str(&text).unwrap();
        newer["version"] = json!(99);
        fs::write(&status, newer.to_string()).unwrap();

        let seen = shell.run(&["ps", "-q"]);
        assert_eq!((seen.code, seen.stdout.lines().count()), (0, 1), "{seen:?}");
        assert!(seen.stderr.contains("status.json") && seen.stderr.contains("99"), "{seen:?}");
        let refused = shell.run(&["plan"]);
        assert!(refused.code != 0 && refused.stdout.contains("newer version"), "{refused:?}");
        // What is not of that project goes on.
        shell.ok(&["stop", "-t", "0", "solo"]);
        shell.ok(&["start", "solo"]);
        shell.ok(&["rm", "-f", "solo"]);

        fs::write(&status, text).unwrap();
        assert!(shell.plan_is_empty(), "{:?}", shell.run(&["plan"]));
    });
}

#[test]
fn files_that_an_image_calls_data_go_to_the_trash_and_others_do_not() {
    Shell::with(|shell| {
        shell.ok(&["run", "--name", "seed", "rootfs:./rootfs", "mkdir", "/data"]);
        shell.ok(&["container", "commit", "--change", "VOLUME /data", "seed", "keeper:1"]);
        shell.ok(&["rm", "seed"]);
        let keeper = |name: &str| {
            format!(
                "[containers.{name}]\nimage = \"keeper:1\"\ncommand = [\"sleep\", \"1000\"]\nstop_signal = \"SIGKILL\"\n"
            )
        };
        let both = keeper("full") + &keeper("empty");
        shell.manifest(&both);
        shell.ok(&["apply", "--wait"]);
        shell.ok(&["exec", "full", "sh", "-c", "echo precious > /data/file"]);
        shell.ok(&["exec", "empty", "sh", "-c", "echo scratch > /tmp/file"]);
        let id = shell.inspect("full")["id"].as_str().unwrap().to_owned();
        shell.manifest(WEB);
        assert_eq!(shell.run(&["apply"]).code, 4);
        shell.ok(&["apply", "--discard-data", "full", "--discard-data", "empty"]);
        let trash = shell.entries("root/trash");
        assert!(trash.len() == 1 && trash[0].starts_with(&format!("container.{id}.")), "{trash:?}");
        let kept = shell.path(&format!("root/trash/{}/upper/data/file", trash[0]));
        assert_eq!(fs::read_to_string(&kept).unwrap(), "precious\n");

        // The wall clock is not asked how old it is.
        let ancient = shell.path(&format!("root/trash/container.{id}.1000000000"));
        fs::rename(kept.ancestors().nth(3).unwrap(), &ancient).unwrap();
        shell.ok(&["apply"]);
        assert!(ancient.exists());
        shell.ok(&["--keep-removed", "0s", "apply"]);
        assert!(!ancient.exists());
    });
}

/// The layers that are attached where containers share them.
fn attached(shell: &Shell) -> Vec<String> {
    let layers = shell.path("root/layers").canonicalize().unwrap();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1)?.strip_prefix(layers.to_str()?));
    places.map(|place| place.trim_start_matches('/').split('/').next().unwrap().to_owned()).collect()
}

#[test]
fn a_layer_is_mounted_as_long_as_a_container_is_made_of_it() {
    Shell::with(|shell| {
        let copied = Command::new("cp").args(["-a", "rootfs", "other"]).current_dir(shell.path(".")).status().unwrap();
        assert!(copied.success());
        shell.write("other/name", "other");
        shell.manifest(WEB);
        shell.ok(&["apply", "--wait"]);
        let before = attached(shell);
        shell.manifest(&(WEB.replace("\"box\"", "\"other\"") + "[images.other]\nrootfs = \"other\"\n"));
        shell.ok(&["apply", "--wait"]);
        let after = attached(shell);
        // Where the kernel mounts no layer from its file there is none.
        let images = shell.entries("root/layers").into_iter();
        let images = images.filter(|layer| shell.path(&format!("root/layers/{layer}/layer.erofs")).exists()).count();
        assert!((before.len(), after.len(), images) == (1, 1, 2) || images == 0, "{before:?} {after:?} {images}");
        assert!(before != after || images == 0, "{before:?}");
        shell.ok(&["down"]);
        assert_eq!(attached(shell), [""; 0]);
    });
}

#[test]
fn a_plan_is_kept_for_its_owner_alone_and_written_through_to_what_is_no_file() {
    Shell::with(|shell| {
        shell.manifest(WEB);
        shell.write("there.plan", "of somebody else");
        fs::set_permissions(shell.path("there.plan"), fs::Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink("there.plan", shell.path("link.plan")).unwrap();
        let before = fs::metadata(shell.path("there.plan")).unwrap().ino();
        shell.ok(&["plan", "-o", "link.plan"]);
        let after = fs::metadata(shell.path("there.plan")).unwrap();
        assert!(after.ino() != before && after.permissions().mode() & 0o777 == 0o600, "{after:?}");
        assert!(fs::symlink_metadata(shell.path("link.plan")).unwrap().is_symlink());

        let piped = shell.ok(&["plan", "-o", "/dev/stdout"]).stdout;
        assert!(piped.contains("\"desired\""), "{piped}");
        let into = fs::File::create(shell.path("captured")).unwrap();
        let refused = shell.command(&["plan", "-o", "/dev/stdout"]).stdout(into).output().unwrap();
        assert!(refused.status.code() == Some(1) && refused.stderr.ends_with(b"`-o FILE`\n"), "{refused:?}");
        assert!(fs::symlink_metadata("/dev/stdout").unwrap().is_symlink());
        let refused = shell.run(&["plan", "-o", "rootfs"]);
        assert!(refused.code == 1 && refused.stderr.contains("cannot write the plan to `rootfs`"), "{refused:?}");
        let left = shell.entries(".").into_iter().filter(|name| name.starts_with('.')).count();
        assert_eq!(left, 0, "nothing is left beside it");
        shell.ok(&["apply", "there.plan"]);
    });
}

#[test]
fn what_down_would_remove_is_shown_and_stays() {
    Shell::with(|shell| {
        shell.manifest(&format!("{WEB}mounts = {{ \"/data\" = \"data\" }}\n[volumes.data]\n"));
        shell.ok(&["apply", "--wait"]);
        let pid = shell.pid("web");
        let shown = shell.run(&["down", "--volumes", "--dry-run", "--detailed-exitcode"]);
        assert_eq!(shown.code, 2, "{shown:?}");
        assert!(shown.stdout.contains("-   container web") && shown.stdout.contains("-   volume data"), "{shown:?}");
        assert!(!shell.ok(&["down", "--dry-run"]).stdout.contains("-   volume data"));
        assert_eq!(shell.pid("web"), pid);
        assert_eq!(shell.run(&["down", "--dry-run", "--yes"]).code, 64);

        let asked = shell.run(&["down", "--volumes"]);
        assert_eq!(asked.code, 4, "{asked:?}");
        assert!(asked.stderr.contains("volume `data`") && asked.stderr.contains("--yes"), "{asked:?}");
        assert_eq!(shell.pid("web"), pid);
        shell.ok(&["down", "--volumes", "--yes"]);
        assert_eq!(shell.run(&["down", "--volumes", "--dry-run", "--detailed-exitcode"]).code, 0);
    });
}

/// Ten million files take hours, and the lock of the state root is for everybody.
#[test]
fn what_expires_is_taken_out_of_sight_and_deleted_by_another_process() {
    Shell::with(|shell| {
        shell.manifest(&format!("{WEB}mounts = {{ \"/data\" = \"data\" }}\n[volumes.data]\n"));
        shell.ok(&["apply", "--wait"]);
        for number in 0..100 {
            shell.write(&format!("root/volumes/shop.data/data/{number}"), "x");
        }
        shell.ok(&["down", "--volumes", "--yes"]);
        let in_sight = || shell.entries("root/trash").iter().filter(|name| !name.starts_with('.')).count();
        assert_eq!(in_sight(), 1);
        shell.ok(&["apply"]);
        assert_eq!(in_sight(), 1, "it is kept for a week");
        let said = shell.ok(&["--keep-removed", "0s", "apply"]);
        assert_eq!((in_sight(), said.stderr.as_str()), (0, ""));
        eventually("it is deleted", || shell.entries("root/trash").is_empty());
    });
}

#[test]
fn a_network_is_shared_with_the_container_that_has_it() {
    Shell::with(|shell| {
        let box_of = "rootfs:./rootfs";
        shell.ok(&["run", "-d", "--name", "outside", "--network", "host", box_of, "sleep", "1000"]);
        let refused = shell.run(&["run", "--rm", "--network", "container:outside", box_of, "true"]);
        assert!(refused.code != 0 && refused.stderr.contains("`--network host`"), "{refused:?}");
        shell.ok(&["run", "-d", "--name", "owner", box_of, "sleep", "1000"]);
        shell.ok(&["run", "-d", "--name", "guest", "--network", "container:owner", box_of, "sleep", "1000"]);
        let refused = shell.run(&["run", "--rm", "--network", "container:guest", box_of, "true"]);
        assert!(refused.code != 0 && refused.stderr.contains("`--network container:owner`"), "{refused:?}");
        assert_eq!(shell.json(&["ps", "-a"]).as_array().unwrap().len(), 3, "what was refused left nothing");
    });
}
