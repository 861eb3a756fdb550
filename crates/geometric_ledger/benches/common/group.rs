//! A limit of memory for processes: a memory cgroup (Linux's cgroups(7), version 1 or 2), which only root can make.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A group of processes that together may use so much memory, page cache included; gone when dropped.
pub struct Group {
    directory: PathBuf,
}

impl Group {
    pub fn new(bytes: u64) -> Group {
        let first = Path::new("/sys/fs/cgroup/memory");
        let (root, limit) = match first.exists() {
            true => (first, "memory.limit_in_bytes"),
            false => (Path::new("/sys/fs/cgroup"), "memory.max"),
        };
        let directory = root.join(format!("geometric_ledger-{}", std::process::id()));
        std::fs::create_dir(&directory).expect("only root can make a memory cgroup");
        std::fs::write(directory.join(limit), bytes.to_string()).unwrap();
        Group { directory }
    }

    /// A process of the group. It begins with [`wait_for_the_group`].
    pub fn start(&self, program: &mut Command) -> Child {
        let mut child = program.stdin(Stdio::piped()).spawn().unwrap();
        std::fs::write(self.directory.join("cgroup.procs"), child.id().to_string()).unwrap();
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        child
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        std::fs::remove_dir(&self.directory).unwrap();
    }
}

/// What a process of a group does first: it waits until it is in it.
pub fn wait_for_the_group() {
    std::io::stdin().read_line(&mut String::new()).unwrap();
}
