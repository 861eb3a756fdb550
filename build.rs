//! Keeps the sections of the extension's SQL, to which no code refers, when the library is linked.
//!
//! cargo-pgrx would say so with a flag for every crate, and all dependencies would be built a second time.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,--no-gc-sections");
    }
}
