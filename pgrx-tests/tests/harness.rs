//! What the other tests take for granted of the clusters that they are given.

use server_tests::*;

#[test]
fn clusters_are_systems_of_their_own_and_standbys_their_primarys() {
    let identifier = |cluster: &Cluster| -> i64 {
        let mut client = cluster.client("postgres");
        one(
            &mut client,
            "SELECT system_identifier FROM pg_control_system()",
        )
    };
    let (first, second) = (Cluster::start(), Cluster::start());
    assert_ne!(identifier(&first), identifier(&second));
    let standby = Cluster::standby_of(&first);
    assert_eq!(identifier(&first), identifier(&standby));
}

#[test]
fn a_cluster_has_the_extension_that_is_installed() {
    let cluster = Cluster::start();
    let mut client = cluster.client("postgres");
    assert!(one::<bool>(
        &mut client,
        "SELECT installed_version = default_version FROM pg_available_extensions WHERE name = 'merkle_log'"
    ));
}

#[test]
fn a_cluster_that_is_killed_leaves_no_shared_memory_behind() {
    let cluster = Cluster::start();
    let segment = cluster.shared_memory_segment().unwrap();
    let exists = || {
        let segments = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
        segments
            .lines()
            .any(|line| line.split_whitespace().nth(1) == Some(segment.as_str()))
    };
    assert!(exists());
    drop(cluster);
    assert!(!exists());
}
