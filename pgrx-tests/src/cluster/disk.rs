//! A disk that can be full. No file system has to be mounted for it, which not everyone may: a library that the server is
//! started with lets its writes fail as they would (`full_disk.c`).

use super::{Cluster, check};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

/// The disk of a cluster.
pub struct Disk {
    flag: PathBuf,
}

impl Disk {
    /// No file can grow from now on.
    pub fn fill(&self) {
        File::create(&self.flag).unwrap();
    }

    /// There is room again.
    pub fn empty(&self) {
        fs::remove_file(&self.flag).unwrap();
    }
}

impl Cluster {
    /// As `with`, on a disk that can be full.
    pub fn on_a_disk_that_fills(settings: &str) -> Cluster {
        let mut cluster = Cluster::copied(settings);
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cluster/full_disk.c");
        let library = cluster.dir.path().join("full_disk.so");
        check(
            Command::new("cc")
                .args(["-shared", "-fPIC", "-O1", "-o"])
                .arg(&library)
                .args([source, "-ldl"]),
        );
        cluster.hand_over(&library);
        cluster.preloaded = Some(library);
        cluster.restart();
        cluster
    }

    pub fn disk(&self) -> Disk {
        Disk {
            flag: self.dir.path().join("full"),
        }
    }

    /// What the server's programs find in their environment.
    pub(super) fn environment(&self) -> Vec<String> {
        let Some(library) = &self.preloaded else {
            return Vec::new();
        };
        let flag = self.disk().flag;
        vec![
            format!("LD_PRELOAD={}", library.display()),
            format!("FULL_DISK={}", flag.display()),
        ]
    }
}
