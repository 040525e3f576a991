//! Notes the compiler's version for `engine_build_info`.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=ENGINE_BUILD_COMMIT");
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc)
        .arg("--version")
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok());
    // "rustc 1.95.0 (…)": the number is what people compare.
    if let Some(number) = version.as_deref().and_then(|text| text.split(' ').nth(1)) {
        println!("cargo:rustc-env=ENGINE_BUILD_RUSTC={number}");
    }
}
