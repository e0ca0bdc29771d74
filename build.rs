//! Links the release builds of `evenkeel-monitor` and `evenkeel-runtime` statically, still position-independent
//! (static-PIE), and packs the relocations of all.
//!
//! A monitor runs beside every container, so what counts is the memory that it does not share: the dynamic loader and the
//! writable pages of three shared libraries are a third of it. The runtime is executed several times in a container's life,
//! and the loader is a third of what that takes. The `evenkeel` binary stays dynamic: it looks up names of registries,
//! and the host's name service is made of shared libraries.
//!
//! Cargo can switch `crt-static` on for a whole build only. For some binaries the linker is told two things: `-static-pie`
//! chooses start-up code that relocates itself, and a directory that is searched first says what `-lc` and its like
//! stand for: linker scripts that name the archives. Rust's standard library is the same in both cases.
//!
//! Where there are no archives (Debian has them in libc6-dev, Fedora in glibc-static), or on another target, nothing is
//! said and both are dynamic: they work the same; a monitor is 50 KiB larger, a runtime a millisecond slower.

use std::env;
use std::error::Error;
use std::path::Path;
use std::process::Command;

/// What rustc links on this target, and the archives that stand for it.
const LIBRARIES: [(&str, &[&str]); 7] = [
    ("gcc_s", &["gcc_eh", "gcc", "c"]),
    ("c", &["c", "gcc_eh", "gcc"]),
    ("m", &["m"]),
    ("dl", &["dl"]),
    ("pthread", &["pthread"]),
    ("rt", &["rt"]),
    ("util", &["util"]),
];

/// The binaries that are linked so.
const BINARIES: [&str; 2] = ["evenkeel-monitor", "evenkeel-runtime"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let is_known = variable("TARGET") == "x86_64-unknown-linux-gnu" && variable("HOST") == variable("TARGET");
    if variable("PROFILE") != "release" || !is_known {
        return Ok(());
    }
    if knows_packed_relocations() {
        // About one bit for a pointer in place of 24 bytes: at every start a third of a megabyte less to read, for
        // `evenkeel` two thirds.
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    let archives: Vec<&str> = LIBRARIES.iter().flat_map(|(_, archives)| *archives).copied().collect();
    if !archives.iter().all(|archive| is_installed(archive)) {
        return Ok(());
    }
    let directory = Path::new(&variable("OUT_DIR")).join("static");
    std::fs::create_dir_all(&directory)?;
    for (library, archives) in LIBRARIES {
        let names: String = archives.iter().map(|archive| format!(" -l:lib{archive}.a")).collect();
        std::fs::write(directory.join(format!("lib{library}.so")), format!("GROUP ({names} )\n"))?;
    }
    for binary in BINARIES {
        println!("cargo:rustc-link-arg-bin={binary}=-static-pie");
        println!("cargo:rustc-link-arg-bin={binary}=-L{}", directory.display());
        // Segments begin on pages of their own, so that what is relocated and what is written touch as few as they can.
        println!("cargo:rustc-link-arg-bin={binary}=-Wl,-z,separate-loadable-segments");
    }
    Ok(())
}

/// Whether the start-up code and the loader of this host unpack them (DT_RELR): glibc's do since 2.36.
fn knows_packed_relocations() -> bool {
    let answer = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let text = answer.map(|answer| String::from_utf8_lossy(&answer.stdout).into_owned()).unwrap_or_default();
    let version = text.trim().strip_prefix("glibc 2.").and_then(|minor| minor.parse::<u32>().ok());
    version.is_some_and(|minor| minor >= 36)
}

/// The C compiler that links answers with a path for an archive that it finds, and with the bare name otherwise.
fn is_installed(archive: &str) -> bool {
    let question = format!("-print-file-name=lib{archive}.a");
    let answer = Command::new("cc").arg(question).output();
    answer.is_ok_and(|answer| String::from_utf8_lossy(&answer.stdout).starts_with('/'))
}
