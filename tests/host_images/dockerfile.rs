//! What `COPY` and `ADD` are told to do, by what is in the image afterwards.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::shell::Shell;

const BASE: &str = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
                    RUN mkdir -m 1777 /tmp && mkdir /real && ln -s real /link && echo 'u:x:5:6::/:/bin/sh' > /etc/passwd\n";

fn base(shell: &Shell) {
    fs::create_dir_all(shell.path("context")).unwrap();
    fs::copy("/bin/busybox", shell.path("context/busybox")).unwrap();
    build(shell, BASE, "localhost/base");
}

/// Builds it; which instructions were run.
fn build(shell: &Shell, dockerfile: &str, name: &str) -> Vec<String> {
    fs::write(shell.path("context/Dockerfile"), dockerfile).unwrap();
    let said = shell.ok(&["image", "build", "-t", name, "context"]).stderr;
    said.lines().filter(|line| !line.contains("(built before)")).map(str::to_owned).collect()
}

fn refused(shell: &Shell, line: &str, words: &str) {
    fs::write(shell.path("context/Dockerfile"), format!("FROM localhost/base\n{line}\n")).unwrap();
    shell.refused(&["image", "build", "context"], words);
}

/// Mode, owner and name of everything below, links with where they lead.
fn tree(shell: &Shell, name: &str, below: &str) -> Vec<String> {
    let script = format!("cd {below} && find . ! -path ./bin/\\* -exec stat -c '%a %u:%g %N' {{}} + | sort -k3");
    let listed = shell.ok(&["run", "--rm", name, "sh", "-c", &script]).stdout;
    listed.lines().map(|line| line.replace("'", "")).collect()
}

fn make(shell: &Shell, path: &str, mode: u32) {
    let path = shell.path("context").join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, path.to_str().unwrap()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn parents_are_kept_from_the_pivot_on() {
    Shell::with(|shell| {
        base(shell);
        for file in ["src/a/one.c", "src/b/two.c", "src/b/deep/three.c", "src/b/two.h", "top.c"] {
            make(shell, file, 0o644);
        }
        fs::set_permissions(shell.path("context/src/b"), fs::Permissions::from_mode(0o750)).unwrap();
        let dockerfile = "FROM localhost/base\nWORKDIR /out\nCOPY --parents --chown=u src/*/*.c top.c whole/\n\
                          COPY --parents ./src/./**/*.c pivot\nCOPY --parents src/./b directory\n";
        build(shell, dockerfile, "localhost/app");
        let expected = [
            "755 0:0 .",
            "755 0:0 ./directory",
            "750 0:0 ./directory/b",
            "755 0:0 ./directory/b/deep",
            "644 0:0 ./directory/b/deep/three.c",
            "644 0:0 ./directory/b/two.c",
            "644 0:0 ./directory/b/two.h",
            "755 0:0 ./pivot",
            "755 0:0 ./pivot/a",
            "644 0:0 ./pivot/a/one.c",
            "750 0:0 ./pivot/b",
            "755 0:0 ./pivot/b/deep",
            "644 0:0 ./pivot/b/deep/three.c",
            "644 0:0 ./pivot/b/two.c",
            "755 5:6 ./whole",
            "755 5:6 ./whole/src",
            "755 5:6 ./whole/src/a",
            "644 5:6 ./whole/src/a/one.c",
            "750 5:6 ./whole/src/b",
            "644 5:6 ./whole/src/b/two.c",
            "644 5:6 ./whole/top.c",
        ];
        assert_eq!(tree(shell, "localhost/app", "/out"), expected);
        // The mode of a directory that is kept is part of what was copied.
        assert_eq!(build(shell, dockerfile, "localhost/app").len(), 0);
        fs::set_permissions(shell.path("context/src/a"), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(build(shell, dockerfile, "localhost/app").len(), 2 + 1, "both that keep it, and what is on them");
        refused(shell, "COPY --parents src/../top.c /", "which directories are kept");
    });
}

#[test]
fn a_linked_layer_is_the_same_on_every_base() {
    Shell::with(|shell| {
        base(shell);
        make(shell, "file", 0o644);
        let linked = "COPY --link file /link/file\nCOPY --link --chown=u --chmod=0600 file /own\n";
        build(shell, &format!("FROM localhost/base\n{linked}"), "localhost/one");
        let seen = |name: &str| tree(shell, name, "/");
        assert!(seen("localhost/one").contains(&"644 0:0 ./link/file".to_owned()), "{:#?}", seen("localhost/one"));
        assert!(seen("localhost/one").contains(&"600 5:6 ./own".to_owned()));
        assert!(!seen("localhost/one").contains(&"644 0:0 ./real/file".to_owned()), "no link of the base is followed");
        let ran = build(shell, &format!("FROM localhost/base\nRUN echo x > /x\n{linked}"), "localhost/two");
        assert_eq!(ran.iter().filter(|line| line.contains("COPY")).count(), 0, "{ran:#?}");
        assert_eq!(ran.iter().filter(|line| line.contains("RUN")).count(), 1, "{ran:#?}");
        assert!(seen("localhost/two").contains(&"600 5:6 ./own".to_owned()));
        // Without it links are followed, and a layer is for what is below.
        build(shell, "FROM localhost/base\nCOPY file /link/file\n", "localhost/three");
        assert!(seen("localhost/three").contains(&"644 0:0 ./real/file".to_owned()));
    });
}

#[test]
fn modes_are_changed_as_chmod_does() {
    Shell::with(|shell| {
        base(shell);
        make(shell, "d/plain", 0o600);
        make(shell, "d/program", 0o700);
        symlink("plain", shell.path("context/d/link")).unwrap();
        build(
            shell,
            "FROM localhost/base\nARG MODE=go=rX\nCOPY --chmod=u=rwX,$MODE d /d/\nCOPY --chmod=+t <<f /f\nx\nf\n",
            "localhost/app",
        );
        let expected = ["777 0:0 ./link -> plain", "755 0:0 .", "644 0:0 ./plain", "755 0:0 ./program"];
        assert_eq!(tree(shell, "localhost/app", "/d"), expected);
        assert!(tree(shell, "localhost/app", "/").contains(&"1644 0:0 ./f".to_owned()));
        refused(shell, "COPY --chmod=rw d /d/", "is not a mode");
    });
}

/// Answers `/NAME` with the file of that name, and counts.
fn serve(directory: std::path::PathBuf) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut request, mut buffer) = (Vec::new(), [0; 1024]);
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                let count = stream.read(&mut buffer).unwrap();
                request.extend(&buffer[..count]);
            }
            count.fetch_add(1, Ordering::SeqCst);
            let request = String::from_utf8(request).unwrap();
            let path = request.split(' ').nth(1).unwrap().split('?').next().unwrap();
            let (status, body) = match fs::read(directory.join(path.trim_start_matches('/'))) {
                Ok(body) => ("200 OK", body),
                Err(_) => ("404 Not Found", Vec::new()),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nLast-Modified: Tue, 15 Nov 1994 12:45:26 GMT\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
        }
    });
    (format!("http://{address}"), asked)
}

#[test]
fn what_is_fetched_is_what_its_checksum_says_and_fetched_once() {
    Shell::with(|shell| {
        base(shell);
        fs::create_dir(shell.path("www")).unwrap();
        fs::write(shell.path("www/tool"), "#!/bin/sh\necho it works\n").unwrap();
        fs::create_dir(shell.path("packed")).unwrap();
        fs::write(shell.path("packed/inside"), "x").unwrap();
        crate::hosts::run(&["tar", "-czf", &shell.word("www/files.tar.gz"), "-C", &shell.word("packed"), "inside"]);
        let sum = |name: &str| {
            let line = crate::hosts::run(&["sha256sum", &shell.word(&format!("www/{name}"))]);
            format!("sha256:{}", &line[..64])
        };
        let (host, asked) = serve(shell.path("www"));
        let (tool, files) = (sum("tool"), sum("files.tar.gz"));
        let dockerfile = format!(
            "FROM localhost/base\nARG SUM={tool}\nADD --checksum=$SUM --chmod=755 {host}/tool?v=1 /usr/bin/\n\
             ADD --checksum={tool} {host}/tool /plain\nADD --checksum={files} {host}/files.tar.gz /packed/\n\
             ADD --checksum={files} --unpack {host}/files.tar.gz /unpacked/\n"
        );
        build(shell, &dockerfile, "localhost/app");
        assert_eq!(asked.load(Ordering::SeqCst), 4);
        assert_eq!(shell.ok(&["run", "--rm", "localhost/app", "/usr/bin/tool"]).stdout, "it works\n");
        let times = ["run", "--rm", "localhost/app", "stat", "-c", "%Y %a", "/plain"];
        assert_eq!(shell.ok(&times).stdout, "784903526 600\n");
        assert_eq!(tree(shell, "localhost/app", "/packed"), ["755 0:0 .", "600 0:0 ./files.tar.gz"]);
        assert!(tree(shell, "localhost/app", "/unpacked").contains(&"644 0:0 ./inside".to_owned()));
        build(shell, &dockerfile, "localhost/app");
        assert_eq!(asked.load(Ordering::SeqCst), 4, "what is here is not fetched again");

        refused(shell, &format!("ADD --checksum={files} {host}/tool /x"), "has the digest");
        refused(shell, &format!("ADD --checksum={tool} {host}/nothing /x"), "the server answered 404");
        refused(shell, &format!("ADD --checksum={tool} http://127.0.0.1:1/x /x"), "cannot fetch");
        refused(shell, &format!("ADD {host}/tool /x"), "has no checksum");
        refused(shell, &format!("ADD --checksum={tool} {host}/tool Dockerfile /x/"), "a checksum is of one file");
        refused(shell, "ADD https://example.org/x.git /x", "repositories are not fetched");
        refused(shell, &format!("COPY {host}/tool /x"), "`COPY` fetches nothing");
    });
}
