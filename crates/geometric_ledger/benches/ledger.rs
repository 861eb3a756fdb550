fn main() {
    use geometric_ledger::*;
    use std::time::Instant;
    let args: Vec<u64> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let n = args.first().copied().unwrap_or(1_000_000);
    let dir = std::path::PathBuf::from("/tmp/gl-bench");
    let _ = std::fs::remove_dir_all(&dir);
    let none = std::env::var("NONE").is_ok();
    let threads: usize = std::env::var("T")
        .ok()
        .and_then(|t| t.parse().ok())
        .unwrap_or(1);
    let d = if none {
        Durability::None
    } else {
        Durability::Sync
    };
    let l = Options::new().durability(d).open(&dir).unwrap();
    let key = |i: u64| *blake3::hash(&i.to_le_bytes()).as_bytes();
    let t = Instant::now();
    let mut worst = 0f64;
    for from in (0..n).step_by(10_000) {
        let b: Vec<_> = (from..from + 10_000)
            .map(|i| (key(i), Account::with_balance(i as i128 + 1)))
            .collect();
        let t = Instant::now();
        l.update_batch(&b).unwrap();
        worst = worst.max(t.elapsed().as_secs_f64());
    }
    println!(
        "load {:.0}/s worst batch {:.1} ms",
        n as f64 / t.elapsed().as_secs_f64(),
        worst * 1e3
    );
    let keys: Vec<Key> = (0..n).map(key).collect();
    let mut x = 0x9E3779B97F4A7C15u64;
    let batches: Vec<Vec<(Key, Account)>> = (0..200)
        .map(|_| {
            (0..10_000)
                .map(|_| {
                    x ^= x << 13;
                    x ^= x >> 7;
                    x ^= x << 17;
                    (
                        keys[(x % keys.len() as u64) as usize],
                        Account {
                            balance: (x >> 32) as i128,
                            nonce: x,
                            ..Account::default()
                        },
                    )
                })
                .collect()
        })
        .collect();
    let random: Vec<Key> = (0..1_000_000)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            keys[(x % keys.len() as u64) as usize]
        })
        .collect();
    for _round in 0..3u64 {
        let secs = 5.0;
        let t = Instant::now();
        let total = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|s| {
            for th in 0..threads {
                let (l, batches, total) = (&l, &batches, &total);
                s.spawn(move || {
                    let mut n = 0;
                    let mut at = th * 100;
                    while t.elapsed().as_secs_f64() < secs {
                        l.update_batch(&batches[at % batches.len()]).unwrap();
                        at += 1;
                        n += 10_000;
                    }
                    total.fetch_add(n, std::sync::atomic::Ordering::Relaxed);
                });
            }
        });
        println!(
            "update {:.0}/s",
            total.into_inner() as f64 / t.elapsed().as_secs_f64()
        );
    }
    for (writer, many) in [(false, false), (false, true), (true, false), (true, true)] {
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|s| {
            if writer {
                let (l, keys, stop) = (&l, &keys, &stop);
                s.spawn(move || {
                    let mut at = 0;
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let b: Vec<_> = (0..10_000)
                            .map(|i| (keys[(at + i * 7919) % keys.len()], Account::with_balance(1)))
                            .collect();
                        at += 1;
                        l.update_batch(&b).unwrap();
                    }
                });
            }
            let hs: Vec<_> = (0..2)
                .map(|th| {
                    let (l, random) = (&l, &random);
                    s.spawn(move || {
                        let t = Instant::now();
                        let mut n = 0u64;
                        let mut hit = 0u64;
                        while t.elapsed().as_secs_f64() < 3.0 {
                            let part = &random[(n as usize + th * 500_000) % 1_000_000..][..1000];
                            if many {
                                hit += l.get_many(part).unwrap().iter().flatten().count() as u64;
                            } else {
                                for k in part {
                                    hit += l.get(k).is_some() as u64;
                                }
                            }
                            n += 1000;
                        }
                        assert_eq!(hit, n);
                        n as f64 / t.elapsed().as_secs_f64()
                    })
                })
                .collect();
            let sum: f64 = hs.into_iter().map(|h| h.join().unwrap()).sum();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            println!("get writer={writer} many={many} {sum:.0}/s");
        });
    }
    let t = Instant::now();
    l.close().unwrap();
    println!("close {:?}", t.elapsed());
    let t = Instant::now();
    let l = Options::new().open(&dir).unwrap();
    println!("open {:?} {:?}", t.elapsed(), l.recovery());
    let st = l.stats();
    println!(
        "{} slots {} index {} wal",
        st.slots_bytes / n,
        st.index_bytes / n,
        st.wal_bytes / n
    );
}
