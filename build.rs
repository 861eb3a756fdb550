//! Keeps the sections of the extension's SQL, to which no code refers, when the library is linked, and tells the
//! code which major of PostgreSQL it is built for.
//!
//! cargo-pgrx would say the first with a flag for every crate, and all dependencies would be built a second time.

/// The majors that there are features for. The first needs no distinction from those before it.
const MAJORS: [u32; 5] = [14, 15, 16, 17, 18];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,--no-gc-sections");
    }
    // `since_pg16` holds for 16 and all later majors, so that code names the major in which the server changed
    // and need not be touched for the next one.
    let built_for = MAJORS
        .into_iter()
        .find(|major| std::env::var_os(format!("CARGO_FEATURE_PG{major}")).is_some());
    for major in &MAJORS[1..] {
        println!("cargo::rustc-check-cfg=cfg(since_pg{major})");
        if built_for.is_some_and(|built_for| built_for >= *major) {
            println!("cargo::rustc-cfg=since_pg{major}");
        }
    }
}
