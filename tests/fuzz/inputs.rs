//! Inputs of the fuzz targets: real ones, layers made up at random, and damage.

use std::fs;
use std::path::Path;

use tar::{EntryType, Header};

/// Marsaglia's xorshift64: small, and the same on every host. Its state is never 0.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Less than `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end
    }

    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

pub const TAR_WORDS: [&[u8]; 18] = [
    b"..",
    b"/",
    b"../../victim",
    b".wh.",
    b".wh..wh..opq",
    b"\0",
    b"77777777777\0",
    b"\x80\0\0\0\0\0\0\0\0\0\0\x01",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"14 path=../x\n",
    b"11 size=-1\n",
    b"22 GNU.sparse.major=1\n",
    b"26 GNU.sparse.map=0,9,1,9\n",
    b"ustar\0",
    b"ustar  \0",
    b"S",
    b"x",
    b"L",
];

pub const JSON_WORDS: [&[u8]; 12] = [
    b"null",
    b"{",
    b"}",
    b"[",
    b"]",
    b"-1",
    b"18446744073709551616",
    b"\"manifests\":[",
    b"\"config\":",
    b"\"\\ud800\"",
    b"sha256:",
    b"1e400",
];

pub const DOCKERFILE_WORDS: [&[u8]; 14] = [
    b"FROM ",
    b"# escape=`\n",
    b"\\\n",
    b"<<EOF\n",
    b"EOF\n",
    b"RUN ",
    b"${a:-",
    b"}",
    b"\"",
    b"'",
    b"[\"a\"]",
    b"--from=",
    b"HEALTHCHECK ",
    "é".as_bytes(),
];

pub const TOML_WORDS: [&[u8]; 14] = [
    b"[[",
    b"]]",
    b"[containers.a]\n",
    b"= ",
    b"\"\"\"",
    b"${A:-",
    b"}",
    b"\"",
    b"\n",
    b"0x",
    b"99999999999999999999",
    b"1h",
    b"{ }",
    "\u{202e}é".as_bytes(),
];

/// A few changes of the kinds that damage and malice make.
pub fn damage(input: &mut Vec<u8>, others: &[Vec<u8>], words: &[&[u8]], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        let end = (at + random.below(700)).min(input.len());
        match random.below(8) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = random.next() as u8,
            2 => drop(input.drain(at..end)),
            3 => {
                let copied = input[at..end].to_vec();
                input.splice(at..at, copied);
            }
            4 => {
                let other = random.one(others);
                let from = random.below(other.len() + 1);
                let to = (from + random.below(2000)).min(other.len());
                input.splice(at..end, other[from..to].iter().copied());
            }
            5 => input.truncate(at),
            // Over what is there, so that what follows stays where it is; or between.
            6 => {
                let word = random.one(words);
                let end = (at + word.len()).min(input.len());
                input.splice(at..end, word.iter().copied());
            }
            _ => {
                let word = random.one(words);
                input.splice(at..at, word.iter().copied());
            }
        }
        input.truncate(256 << 10);
    }
}

/// Few names, so that members meet.
const NAMES: [&str; 14] = [
    "a",
    "b",
    "a/b",
    "a/b/c",
    "l/x",
    "l/../m",
    "./a/",
    ".wh.a",
    "a/.wh.b",
    "a/.wh..wh..opq",
    ".wh..wh..opq",
    "/a",
    "../b",
    "",
];
const TARGETS: [&str; 8] = ["a", "b", "/a", "../..", "a/b", "../../victim", ".", "l"];
const KINDS: [EntryType; 9] = [
    EntryType::Regular,
    EntryType::Regular,
    EntryType::Directory,
    EntryType::Directory,
    EntryType::Symlink,
    EntryType::Link,
    EntryType::Fifo,
    EntryType::Char,
    EntryType::Continuous,
];
const ATTRIBUTES: [(&str, &[u8]); 6] = [
    ("SCHILY.xattr.user.a", b"\n1"),
    ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
    ("mtime", b"-1.5"),
    ("size", b"3"),
    ("linkpath", b"../../.."),
    ("GNU.sparse.map", b"0,1,4096,2"),
];

/// With one filter or another, and one check or another.
fn xz(plain: &[u8], at: usize) -> Vec<u8> {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let filters = [&["--lzma2"][..], &["--x86", "--lzma2"], &["--delta=dist=3", "--lzma2=dict=4KiB"]];
    let checks = ["--check=crc32", "--check=crc64", "--check=sha256", "--check=none"];
    let mut command = Command::new("xz");
    command.args(["-c", "-T1", checks[at % checks.len()]]).args(filters[at % filters.len()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("xz is installed");
    let mut stdin = child.stdin.take().unwrap();
    let made = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(plain).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(made.status.success());
    made.stdout
}

/// Layers of a few members each, plain and compressed; and GNU tar's sparse files.
pub fn layers(random: &mut Random) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (0..60).map(|_| made_up(random)).collect();
    let zstd = all.iter().take(3).map(|plain| zstd::encode_all(plain.as_slice(), 1).unwrap()).collect::<Vec<_>>();
    all.extend(zstd);
    let xz: Vec<_> = all.iter().take(6).enumerate().map(|(at, plain)| xz(plain, at)).collect();
    all.extend(xz);
    for version in ["0.0", "0.1", "1.0"] {
        all.push(sparse(&["--format=posix", &format!("--sparse-version={version}")]));
    }
    all.push(sparse(&["--format=gnu"]));
    all
}

fn made_up(random: &mut Random) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for _ in 0..1 + random.below(10) {
        if random.below(4) == 0 {
            let attribute = *random.one(&ATTRIBUTES);
            tar.append_pax_extensions([attribute]).unwrap();
        }
        let kind = *random.one(&KINDS);
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(*random.one(&[0o644, 0o4755, 0o2755, 0o1777, 0]));
        header.set_uid(random.below(3) as u64);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        let body: &[u8] = if kind == EntryType::Regular { b"abc" } else { b"" };
        header.set_size(body.len() as u64);
        let old = header.as_old_mut();
        let (name, target) = (random.one(&NAMES).as_bytes(), random.one(&TARGETS).as_bytes());
        old.name[..name.len()].copy_from_slice(name);
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            old.linkname[..target.len()].copy_from_slice(target);
        }
        header.set_cksum();
        tar.append(&header, body).unwrap();
    }
    tar.into_inner().unwrap()
}

fn sparse(format: &[&str]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let file = fs::File::create(directory.path().join("sparse")).unwrap();
    for at in [0, 1 << 16, 3 << 16, 5 << 16, 7 << 16, 9 << 16] {
        std::os::unix::fs::FileExt::write_all_at(&file, b"part", at).unwrap();
    }
    let mut tar = std::process::Command::new("tar");
    let made = tar.args(format).args(["--sparse", "-cf", "-", "-C"]).arg(directory.path()).arg("sparse").output();
    let made = made.expect("GNU tar is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    made.stdout
}

pub fn documents() -> Vec<Vec<u8>> {
    let digest = |digit: &str| format!("sha256:{}", digit.repeat(64));
    let descriptor = |kind: &str, digit: &str| {
        serde_json::json!({ "mediaType": kind, "digest": digest(digit), "size": 7,
            "annotations": { "org.opencontainers.image.ref.name": "latest" } })
    };
    let oci = "application/vnd.oci.image";
    let mut listed = descriptor(&format!("{oci}.manifest.v1+json"), "a");
    listed["platform"] = serde_json::json!({ "os": "linux", "architecture": "amd64", "variant": "v2" });
    let documents = [
        serde_json::json!({ "schemaVersion": 2, "mediaType": format!("{oci}.index.v1+json"),
            "manifests": [listed, descriptor(&format!("{oci}.manifest.v1+json"), "b")] }),
        serde_json::json!({ "schemaVersion": 2, "mediaType": format!("{oci}.manifest.v1+json"),
            "config": descriptor(&format!("{oci}.config.v1+json"), "c"),
            "layers": [descriptor(&format!("{oci}.layer.v1.tar+gzip"), "d")] }),
        serde_json::json!({ "architecture": "amd64", "os": "linux", "config": {
            "Cmd": ["/bin/serve"], "Env": ["PATH=/bin", "A"], "ExposedPorts": { "80/tcp": {} }, "Volumes": { "/v": {} },
            "User": "1:2", "WorkingDir": "/w", "StopSignal": "SIGTERM", "Labels": { "a": "b" }, "Shell": null,
            "Healthcheck": { "Test": ["CMD-SHELL", "true"], "Interval": 1_000_000_000, "Retries": 3 } },
            "rootfs": { "type": "layers", "diff_ids": [digest("e"), digest("f")] }, "history": [{ "created_by": "x" }] }),
    ];
    documents.iter().map(|document| document.to_string().into_bytes()).collect()
}

pub fn challenges() -> Vec<Vec<u8>> {
    [
        r#"Bearer realm="https://auth.example.org/token",service="example.org",scope="repository:a/b:pull,push""#,
        r#"Basic realm="a \"quoted\" name", Negotiate, BEARER Realm = x , error="insufficient_scope""#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// The files of this repository below these directories whose names end so.
pub fn files(below: &[&str], end: &str) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut all, mut open) = (Vec::new(), below.iter().map(|name| root.join(name)).collect::<Vec<_>>());
    while let Some(directory) = open.pop() {
        let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            match path.is_dir() {
                true => open.push(path),
                false if path.to_string_lossy().ends_with(end) => all.push(fs::read(path).unwrap()),
                false => {}
            }
        }
    }
    all
}
