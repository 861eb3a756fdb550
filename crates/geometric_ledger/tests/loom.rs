//! Every order in which a reader and a writer of a cell can meet, by loom:
//! `make test-loom`.
#![cfg(loom)]

mod atomic {
    pub use loom::sync::atomic::{AtomicU64, Ordering, fence};
}

#[path = "../src/storage/seqlock.rs"]
mod seqlock;

use atomic::AtomicU64;
use loom::sync::Arc;

#[test]
fn a_reader_sees_one_state_of_a_cell() {
    loom::model(|| {
        let cell: Arc<[AtomicU64; 3]> = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
        let writing = cell.clone();
        let writer = loom::thread::spawn(move || {
            seqlock::write(&writing, &[2, 1, 1]);
            seqlock::write(&writing, &[4, 2, 2]);
        });
        let mut words = [0; 3];
        if seqlock::read(&cell, &mut words) {
            let [stamp, first, second] = words;
            assert_eq!((first, second), (stamp / 2, stamp / 2));
        }
        writer.join().unwrap();
        assert!(seqlock::read(&cell, &mut words));
        assert_eq!(words, [4, 2, 2]);
    });
}

#[test]
fn what_was_read_at_an_unchanged_version_is_one_state() {
    loom::model(|| {
        let version = Arc::new(seqlock::Version::new());
        let words: Arc<[AtomicU64; 2]> = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
        let (changing, writing) = (version.clone(), words.clone());
        let writer = loom::thread::spawn(move || {
            changing.change(|| {
                for word in writing.iter() {
                    word.store(1, atomic::Ordering::Relaxed);
                }
            });
        });
        let before = version.begin();
        let [first, second] = [0, 1].map(|at| words[at].load(atomic::Ordering::Relaxed));
        if version.unchanged(before) {
            assert_eq!(first, second);
        }
        writer.join().unwrap();
    });
}
