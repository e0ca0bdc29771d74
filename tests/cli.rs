//! The command line where it needs neither root nor an engine: usage, answers, errors and exit codes.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

const VALID: &str = r#"
project = "shop"
[containers.web]
image = "nginx:1.27"
"#;

fn evenkeel(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.current_dir(directory).env_clear();
    command.env("EVENKEEL_ROOT", directory.join("root")).env("EVENKEEL_RUN", directory.join("run"));
    command
}

/// Runs it in an empty directory with these manifests.
fn run(manifests: &[(&str, &str)], arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in manifests {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    evenkeel(directory.path()).args(arguments).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn mistakes_of_usage_exit_with_64_and_help_with_0() {
    for arguments in [&["pln"][..], &["ps", "--nope"], &["logs", "--tail", "some"], &[]] {
        let output = run(&[], arguments);
        assert_eq!((code(&output), stdout(&output)), (64, String::new()), "{arguments:?}: {}", stderr(&output));
    }
    for arguments in [&["--help"][..], &["help", "exec"], &["ps", "--help"], &["--version"]] {
        let output = run(&[], arguments);
        assert_eq!((code(&output), stderr(&output)), (0, String::new()), "{arguments:?}");
        assert!(!output.stdout.is_empty());
    }
}

#[test]
fn the_examples_of_every_help_are_read() {
    let commands = [
        "validate",
        "config",
        "plan",
        "apply",
        "watch",
        "down",
        "status",
        "logs",
        "exec",
        "stats",
        "completions",
        "cp",
        "ps",
    ];
    for command in commands {
        let help = stdout(&run(&[], &[command, "--help"]));
        let examples: Vec<&str> = help.lines().filter_map(|line| line.strip_prefix("  evenkeel ")).collect();
        assert!(!examples.is_empty(), "{help}");
        for example in examples {
            // Its meaning stands apart; `--help` keeps it from being done.
            let line = example.split("  ").next().unwrap().split(['<', '>']).next().unwrap();
            let arguments: Vec<&str> = line.split_whitespace().chain(["--help"]).collect();
            let output = run(&[], &arguments);
            assert_ne!(code(&output), 64, "{example}: {}", stderr(&output));
        }
    }
}

#[test]
fn a_misspelt_command_gets_the_nearest() {
    assert!(stderr(&run(&[], &["valdate"])).contains("'validate'"));
    assert!(stderr(&run(&[], &["validate", "--fil", "x"])).contains("'--file'"));
}

#[test]
fn the_default_manifest_is_evenkeel_toml_in_this_directory() {
    let output = run(&[("evenkeel.toml", VALID)], &["validate"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(stdout(&output), "project shop is valid: 1 container, 1 network, 0 volumes, 1 image\n");
}

#[test]
fn a_manifest_may_come_by_standard_input() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("web.env"), "A=1\n").unwrap();
    let text = format!("{VALID}env_files = [\"web.env\"]\nmounts = {{ \"/here\" = {{ bind = \".\" }} }}\n");
    let mut child = evenkeel(directory.path())
        .args(["config", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 0);
    let here = fs::canonicalize(directory.path()).unwrap();
    assert!(stdout(&output).contains("A = \"1\""), "{}", stdout(&output));
    assert!(stdout(&output).contains(&format!("bind = \"{}\"", here.display())), "{}", stdout(&output));
}

#[test]
fn every_problem_is_shown_with_its_place_and_exits_with_1() {
    let text = "project = \"shop\"\n[containers.web]\nimage = \"nginx\"\nrestrat = \"always\"\nport = 80\n";
    let output = run(&[("a.toml", text)], &["validate", "-f", "a.toml"]);
    assert_eq!((code(&output), stdout(&output)), (1, String::new()));
    let said = stderr(&output);
    for part in ["a.toml:4:1", "a.toml:5:1", "restart", "error: 2 problems in the manifest"] {
        assert!(said.contains(part), "`{part}` is missing in:\n{said}");
    }
    assert!(!said.contains('\x1b'), "colour goes to terminals only");

    let output = run(&[("a.toml", text)], &["validate", "-f", "a.toml", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&stderr(&output)).unwrap();
    assert_eq!(said["problems"][0]["line"], 4);
    assert_eq!(said["problems"].as_array().unwrap().len(), 2);
}

#[test]
fn files_may_be_named_before_and_behind_the_command() {
    for arguments in [["-f", "a.toml", "validate"], ["validate", "-f", "a.toml"]] {
        assert_eq!(code(&run(&[("a.toml", VALID)], &arguments)), 0);
    }
    let overlay = "[containers.db]\nimage = \"postgres:17\"\n";
    let output =
        run(&[("a.toml", VALID), ("b.toml", overlay)], &["validate", "-f", "a.toml", "-f", "b.toml", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(said["containers"], 2);
}

#[test]
fn the_resolved_manifest_is_a_manifest() {
    let text = r#"
        project = "shop"
        [containers.web]
        image = "nginx"
        environment = { HOME = "${NOWHERE:-/srv}" }
        ports = { 8080 = 80 }
    "#;
    let resolved = run(&[("evenkeel.toml", text)], &["config"]);
    assert_eq!(code(&resolved), 0, "{}", stderr(&resolved));
    assert!(stdout(&resolved).contains("/srv"));
    let again = run(&[("evenkeel.toml", &stdout(&resolved))], &["config"]);
    assert_eq!(stdout(&again), stdout(&resolved));
}

#[test]
fn every_manifest_of_the_readme_is_valid() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let blocks: Vec<&str> = readme.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 2);
    for block in blocks {
        let project = if block.contains("project =") { "" } else { "project = \"readme\"\n" };
        let built = "FROM scratch AS release\nARG VERSION\n";
        let named = [("conf/worker.conf", ""), ("images/tools.tar.zst", ""), ("app/Dockerfile", built)];
        let manifest = format!("{project}{block}");
        let output = run(&[&named[..], &[("evenkeel.toml", manifest.as_str())]].concat(), &["validate"]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
    }
}

#[test]
fn validate_checks_the_host_file_beside_the_manifest() {
    let host_file = "[registries.\"docker.io\"]\nmirors = []\n";
    let files = [("evenkeel.toml", VALID), ("wrong.toml", "projct = 1\n"), ("host.toml", host_file), ("good.toml", "")];
    let good = run(&files, &["validate", "--host-config", "good.toml"]);
    assert_eq!(code(&good), 0, "{}", stderr(&good));
    assert!(stdout(&good).ends_with("host file good.toml is valid\n"), "{}", stdout(&good));
    let both = run(&files, &["validate", "-f", "wrong.toml", "--host-config", "host.toml"]);
    let told = stderr(&both);
    assert_eq!(code(&both), 1);
    for part in ["host.toml:2:1", "did you mean `mirrors`?", "wrong.toml:1:1", "1 problem in the host file, "] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let json = run(&files, &["validate", "-f", "wrong.toml", "--host-config", "host.toml", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&stderr(&json)).unwrap();
    let files: Vec<_> = document["problems"].as_array().unwrap().iter().map(|problem| &problem["file"]).collect();
    assert!(files.contains(&&"host.toml".into()) && files.contains(&&"wrong.toml".into()), "{document}");
}

#[test]
fn the_schema_is_the_one_that_is_kept() {
    let kept = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/manifest.schema.json")).unwrap();
    assert_eq!(stdout(&run(&[], &["schema"])), kept);
    let kept = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/host.schema.json")).unwrap();
    assert_eq!(stdout(&run(&[], &["schema", "--host"])), kept);
}

#[test]
fn a_root_without_containers_has_none_to_list() {
    let output = run(&[], &["ps"]);
    assert_eq!((code(&output), stdout(&output).as_str()), (0, "NAME   IMAGE   STATUS   PORTS   ID\n"));
    assert_eq!(stdout(&run(&[], &["ps", "--json"])), "[]\n");
    let output = run(&[], &["logs", "web"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("error: there is no container `web`\nhint: "), "{}", stderr(&output));
}

#[test]
fn a_reader_who_left_is_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = evenkeel(directory.path())
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""));
}

#[test]
fn every_shell_gets_completions_and_every_command_a_page() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = run(&[], &["completions", shell]);
        assert_eq!(code(&output), 0);
        assert!(stdout(&output).contains("validate"), "{shell}");
    }
    let directory = tempfile::tempdir().unwrap();
    let output = evenkeel(directory.path()).args(["man", "pages"]).output().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let help = stdout(&run(&[], &["--help"]));
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<&str> = listed.filter_map(|line| line.split_ascii_whitespace().next()).collect();
    assert!(commands.len() > 5, "{commands:?}");
    for command in commands.into_iter().filter(|command| *command != "help") {
        let page = directory.path().join(format!("pages/evenkeel-{command}.1"));
        assert!(page.is_file(), "{}", page.display());
    }
}

#[test]
fn the_version_is_the_package_s() {
    assert_eq!(stdout(&run(&[], &["version"])), format!("evenkeel {}\n", env!("CARGO_PKG_VERSION")));
    let said: serde_json::Value = serde_json::from_str(&stdout(&run(&[], &["version", "--json"]))).unwrap();
    assert_eq!(said["version"], env!("CARGO_PKG_VERSION"));
}
