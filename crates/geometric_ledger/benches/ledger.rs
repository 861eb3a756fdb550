fn main() {
    use geometric_ledger::*;
    use std::time::Instant;
    let args: Vec<u64> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let n = args.first().copied().unwrap_or(1_000_000);
    let dir = std::path::PathBuf::from("/tmp/gl-bench");
    let _ = std::fs::remove_dir_all(&dir);
    let none = std::env::var("NONE").is_ok();
    let threads: usize = std::env::var("T").ok().and_then(|t| t.parse().ok()).unwrap_or(1);
    let d = if none { Durability::None } else { Durability::Sync };
    let l = Options::new().durability(d).open(&dir).unwrap();
    let key = |i: u64| *blake3::hash(&i.to_le_bytes()).as_bytes();
    let t = Instant::now();
    let mut worst = 0f64;
    for from in (0..n).step_by(10_000) {
        let b: Vec<_> = (from..from + 10_000).map(|i| (key(i), Account::with_balance(i as i128 + 1))).collect();
        let t = Instant::now();
        l.update_batch(&b).unwrap();
        worst = worst.max(t.elapsed().as_secs_f64());
    }
    println!("load {:.0}/s worst batch {:.1} ms", n as f64 / t.elapsed().as_secs_f64(), worst * 1e3);
    let keys: Vec<Key> = (0..n).map(key).collect();
    for round in 0..3u64 {
        let secs = 5.0;
        let t = Instant::now();
        let total = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|s| {
            for th in 0..threads {
                let (l, keys, total) = (&l, &keys, &total);
                s.spawn(move || {
                    let mut x = 0x9E3779B97F4A7C15u64 ^ (round << 32) ^ (th as u64) << 8;
                    let mut b: Vec<(Key, Account)> = vec![([0; 32], Account::default()); 10_000];
                    let mut spent = 0.0;
                    let mut n = 0;
                    while t.elapsed().as_secs_f64() < secs {
                        for (k, a) in &mut b {
                            x ^= x << 13; x ^= x >> 7; x ^= x << 17;
                            *k = keys[(x % keys.len() as u64) as usize];
                            *a = Account { balance: (x >> 32) as i128, nonce: x, ..Account::default() };
                        }
                        let t = Instant::now();
                        l.update_batch(&b).unwrap();
                        spent += t.elapsed().as_secs_f64();
                        n += 10_000;
                    }
                    total.fetch_add(n, std::sync::atomic::Ordering::Relaxed);
                    let _ = spent;
                });
            }
        });
        println!("update {:.0}/s", total.into_inner() as f64 / t.elapsed().as_secs_f64());
    }
    for writer in [false, true] {
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|s| {
            if writer {
                let (l, keys, stop) = (&l, &keys, &stop);
                s.spawn(move || {
                    let mut at = 0;
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let b: Vec<_> = (0..10_000).map(|i| (keys[(at + i * 7919) % keys.len()], Account::with_balance(1))).collect();
                        at += 1;
                        l.update_batch(&b).unwrap();
                    }
                });
            }
            let hs: Vec<_> = (0..2).map(|th| { let (l, keys) = (&l, &keys); s.spawn(move || {
                let mut x = 0x9E3779B97F4A7C15u64 ^ th;
                let t = Instant::now();
                let mut n = 0u64;
                let mut hit = 0u64;
                while t.elapsed().as_secs_f64() < 3.0 {
                    for _ in 0..1000 {
                        x ^= x << 13; x ^= x >> 7; x ^= x << 17;
                        hit += l.get(&keys[(x % keys.len() as u64) as usize]).is_some() as u64;
                    }
                    n += 1000;
                }
                assert_eq!(hit, n);
                n as f64 / t.elapsed().as_secs_f64()
            })}).collect();
            let sum: f64 = hs.into_iter().map(|h| h.join().unwrap()).sum();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            println!("get writer={writer} {sum:.0}/s");
        });
    }
    let t = Instant::now();
    l.close().unwrap();
    println!("close {:?}", t.elapsed());
    let t = Instant::now();
    let l = Options::new().open(&dir).unwrap();
    println!("open {:?} {:?}", t.elapsed(), l.recovery());
    let st = l.stats();
    println!("{} slots {} index {} wal", st.slots_bytes / n, st.index_bytes / n, st.wal_bytes / n);
}
