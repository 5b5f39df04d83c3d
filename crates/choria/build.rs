//! Notes what `choria buildinfo` shows: the compiler, and the libraries in the lock file.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = Command::new(rustc).arg("--version").output().ok().and_then(|output| {
        let text = String::from_utf8(output.stdout).ok()?;
        Some(text.split_whitespace().nth(1)?.to_owned())
    });
    println!("cargo:rustc-env=CHORIA_RUSTC_VERSION={}", version.unwrap_or_else(|| "unknown".to_owned()));

    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock");
    println!("cargo:rerun-if-changed={}", lock.display());
    let text = fs::read_to_string(&lock).unwrap_or_default();
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    fs::write(Path::new(&out).join("dependencies.txt"), packages(&text)).expect("OUT_DIR can be written");
}

/// `name version` of each package of a lock file that came from elsewhere.
fn packages(lock: &str) -> String {
    let value = |block: &str, key: &str| {
        let line = block.lines().find(|line| line.starts_with(key))?;
        Some(line.split('"').nth(1)?.to_owned())
    };
    lock.split("[[package]]")
        .filter(|block| block.contains("\nsource = "))
        .filter_map(|block| Some(format!("{} {}\n", value(block, "name = ")?, value(block, "version = ")?)))
        .collect()
}
