//! The guide docs/deployment.md, followed to the letter on hosts of its own, and the units of examples/ by themselves.

use server_tests::command_line::program;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn project() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap().to_owned()
}

/// Runs a command as root, as whom hosts are booted; says what to do where that cannot be.
fn as_root(command: &str, arguments: &[&Path]) -> Command {
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let mut process = Command::new(if is_root { command } else { "sudo" });
    if !is_root {
        let able = Command::new("sudo").args(["-n", "true"]).status();
        assert!(
            able.is_ok_and(|status| status.success()),
            "this test boots hosts in network namespaces, for which it must be root: run it as root, or let sudo work \
             without a password; or leave it out with nextest's -E 'not binary(deployment)'"
        );
        process.args(["-n", command]);
    }
    process.args(arguments);
    process
}

#[test]
fn the_guide_is_followed_from_bare_hosts_to_a_fork_that_three_of_them_refuse() {
    let project = project();
    let directory = tempfile::tempdir().unwrap();
    let dist = directory.path().join("merkle_log.tar.gz");
    let built = std::env::var("MERKLE_LOG_PG_CONFIG").unwrap();
    let packed = Command::new(project.join("scripts/dist.sh"))
        .args([built.as_str(), "/usr/lib/postgresql/15/bin/pg_config"])
        .arg(program().get_program())
        .arg(&dist)
        .status()
        .unwrap();
    assert!(packed.success());
    let root = project.join("target/deployment/root");
    assert!(
        root.with_extension("complete").exists(),
        "scripts/setup.sh test makes {}",
        root.display()
    );
    let followed = as_root(
        "python3",
        &[
            &project.join("pgrx-tests/deployment/follow.py"),
            &project.join("docs/deployment.md"),
            &root,
            &dist,
            &project.join("target/clients/python/bin/moto_server"),
        ],
    )
    .stdin(Stdio::null())
    .status()
    .unwrap();
    assert!(followed.success());
}

fn units() -> Vec<PathBuf> {
    let mut units = Vec::new();
    let mut directories = vec![project().join("examples")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let kind = path.extension().and_then(|kind| kind.to_str());
            match kind {
                _ if path.is_dir() => directories.push(path),
                Some("service" | "socket") => units.push(path),
                _ => {}
            }
        }
    }
    assert!(units.len() > 7, "{units:?}");
    units
}

#[test]
fn systemd_finds_no_fault_with_any_unit() {
    // The programs must be where the units say that they are.
    let metrics = project().join("examples/monitoring/merkle-log-metrics");
    let directory = tempfile::tempdir().unwrap();
    let program = program().get_program().to_str().unwrap().to_owned();
    let mut copies = Vec::new();
    for unit in units() {
        let text = std::fs::read_to_string(&unit).unwrap();
        let copy = directory.path().join(unit.file_name().unwrap());
        let text = text
            .replace(
                "/usr/local/bin/merkle-log-metrics",
                metrics.to_str().unwrap(),
            )
            .replace("/usr/local/bin/merkle-log ", &format!("{program} "));
        std::fs::write(&copy, text).unwrap();
        copies.push(copy);
    }
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(&copies)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verified.stderr);
    // Debian's own units, which come along, are not ours to judge.
    let ours: Vec<_> = said
        .lines()
        .filter(|line| line.contains("merkle-log"))
        .collect();
    assert!(verified.status.success() && ours.is_empty(), "{said}");
}

#[test]
fn every_service_is_locked_in() {
    for unit in units() {
        if unit.extension().is_none_or(|kind| kind != "service") {
            continue;
        }
        let judged = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=15"])
            .arg(&unit)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&judged.stdout);
        assert!(judged.status.success(), "{}: {said}", unit.display());
        let user = std::fs::read_to_string(&unit).unwrap();
        let user = user.lines().find_map(|line| line.strip_prefix("User="));
        let known = include_str!("../../examples/deployment/sysusers.conf");
        let is_known = |user: &str| {
            known
                .lines()
                .any(|line| line.starts_with(&format!("u {user} ")))
        };
        assert!(user.is_some_and(is_known), "{user:?} of {}", unit.display());
    }
}
