//! The state root over time: who serves it, what is kept, and what cannot be read.

mod support;


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
