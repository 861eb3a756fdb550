//! What the monitor says of logs that are honest, rewritten, damaged, hostile or not there.

#[path = "monitor/stage.rs"]
mod stage;
#[path = "../../tlog/tests/support/mod.rs"]
mod support;

use serde_json::Value as Json;
use stage::*;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};
use support::log::{Log, export, order};
use support::{key, note, witness};
use tlog::*;

#[test]
fn a_log_that_grows_is_good_and_every_entry_is_hashed() {
    let stage = Stage::new("");
    for size in [0, 1, 255, 256, 257, 1000, 1000, 66_000, 66_001, 131_072] {
        stage.show(&orders(size));
        let said = stage.once();
        assert_eq!(
            (said.code, said.verdict.as_str(), said.entries),
            (0, "good", size),
            "{said:?}"
        );
    }
    assert_eq!(stage.told(), [""; 0]);
}

#[test]
fn a_log_that_is_rewritten_and_signed_anew_is_convicted_once_with_evidence() {
    for (before, after) in [(300, 300), (300, 1000), (256, 257), (1, 2), (1000, 70_000)] {
        let stage = Stage::new("");
        stage.show(&orders(before));
        assert_eq!(stage.once().code, 0);
        for round in 0..3 {
            stage.show(&rewritten(after + round));
            let said = stage.once();
            assert_eq!((said.code, said.verdict.as_str()), (1, "bad"), "{said:?}");
        }
        assert_eq!(stage.told(), ["fork"]);
        let event = stage.events().remove(0);
        assert_eq!(event["proven"], true);
        let evidence = event["evidence"].as_str().unwrap();
        // Anyone with the log's key is convinced, and nobody by it with another one.
        let (code, text) = stage.verify(evidence, "example.com/log", 1);
        assert!(
            code == 1 && text.contains("has signed two histories"),
            "{text}"
        );
        assert_eq!(stage.verify(evidence, "example.com/log", 2).0, 2);
        // The log is guilty, whatever it shows now; until its evidence is taken away.
        stage.show(&orders(before + 5));
        assert_eq!(stage.once().code, 1);
        std::fs::rename(stage.path(evidence), stage.path("taken away")).unwrap();
        assert_eq!(stage.once().code, 0);
        assert_eq!(stage.told(), ["fork", "recovered"]);
    }
}

#[test]
fn a_log_that_went_back_is_told_and_one_that_went_back_to_another_history_is_convicted() {
    let stage = Stage::new("");
    stage.show(&orders(600));
    assert_eq!(stage.once().code, 0);
    // Its files are still there: a mirror that lags.
    stage.show(&orders(300));
    let said = stage.once();
    assert!(said.code == 2 && said.why.contains("went_back"), "{said:?}");
    assert_eq!(stage.once().code, 2);
    stage.show(&orders(601));
    assert_eq!(stage.once().code, 0);
    assert_eq!(stage.told(), ["went_back", "recovered"]);
    // The checkpoint of another history, beside the tiles of this one.
    stage.show(&orders(601));
    stage.show_checkpoint(&signed(&rewritten(300)));
    assert_eq!(stage.once().code, 1);
    let evidence = stage.events().pop().unwrap()["evidence"].clone();
    assert_eq!(
        stage
            .verify(evidence.as_str().unwrap(), "example.com/log", 1)
            .0,
        1
    );
}

#[test]
fn every_altered_file_is_found_told_once_and_recovered_from() {
    let log = orders(66_000);
    for (file, kind) in [
        ("tile/entries/000", "entry_mismatch"),
        ("tile/entries/257.p/208", "entry_mismatch"),
        ("tile/0/000", "tile_mismatch"),
        ("tile/0/128", "entry_mismatch"),
        ("tile/1/000", "tile_mismatch"),
        ("tile/1/001.p/1", "tile_mismatch"),
        ("tile/2/000.p/1", "tile_mismatch"),
        ("checkpoint", "bad_signature"),
    ] {
        let stage = Stage::new("");
        stage.show(&orders(10));
        assert_eq!(stage.once().code, 0);
        stage.show(&log);
        let path = stage.path("log").join(file);
        let bytes = std::fs::read(&path).unwrap();
        let mut altered = bytes.clone();
        // In the checkpoint, a digit of the size; elsewhere, content.
        let place = if file == "checkpoint" { 17 } else { 20 };
        altered[place] ^= 4;
        std::fs::write(&path, &altered).unwrap();
        for _ in 0..2 {
            let said = stage.once();
            assert!(
                said.code == 1 && said.why.contains(kind),
                "{file}: {said:?}"
            );
        }
        // What is torn says nothing of the log.
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let said = stage.once();
        assert_eq!(said.code, 1, "what was proven stays so: {file}: {said:?}");
        std::fs::write(&path, &bytes).unwrap();
        let said = stage.once();
        assert_eq!((said.code, said.entries), (0, 66_000), "{file}: {said:?}");
        let told = stage.told();
        assert_eq!(told.first().unwrap(), kind, "{file}");
        assert_eq!(told.last().unwrap(), "recovered", "{file}");
    }
}

#[test]
fn what_cannot_be_read_is_never_good_and_never_called_tampering() {
    for file in ["tile/1/000", "tile/2/000.p/1", "tile/0/003", "checkpoint"] {
        let stage = Stage::new("");
        stage.show(&orders(66_000));
        let path = stage.path("log").join(file);
        let bytes = std::fs::read(&path).unwrap();
        for damage in [
            None,
            Some(&bytes[..bytes.len() / 2]),
            Some(&b"<html>sorry"[..]),
        ] {
            match damage {
                None => std::fs::remove_file(&path).unwrap(),
                Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            }
            let said = stage.once();
            assert_eq!(
                (said.code, said.verdict.as_str()),
                (2, "unknown"),
                "{file}: {said:?}"
            );
        }
        assert_eq!(stage.told(), [""; 0], "{file}");
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(stage.once().code, 0, "{file}");
    }
}

#[test]
fn what_stays_unreachable_for_longer_than_allowed_is_told_once_and_recovered_from() {
    let stage = Stage::new("unreachable_seconds = 1");
    stage.show(&orders(10));
    assert_eq!(stage.once().code, 0);
    std::fs::rename(stage.path("log"), stage.path("away")).unwrap();
    stage.until(|| {
        assert_eq!(stage.once().code, 2);
        !stage.told().is_empty()
    });
    assert_eq!(stage.once().code, 2);
    std::fs::rename(stage.path("away"), stage.path("log")).unwrap();
    assert_eq!(stage.once().code, 0);
    assert_eq!(stage.told(), ["unreachable", "recovered"]);
    assert!(stage.events().iter().all(|event| event["proven"] == false));
}

#[test]
fn an_old_tile_that_is_altered_later_is_found_when_everything_is_read_again() {
    let stage = Stage::new("reread_seconds = 1");
    stage.show(&orders(1000));
    assert_eq!(stage.once().code, 0);
    let path = stage.path("log/tile/entries/001");
    let bytes = std::fs::read(&path).unwrap();
    let mut altered = bytes.clone();
    altered[30] ^= 1;
    std::fs::write(&path, altered).unwrap();
    stage.until(|| stage.once().code == 1);
    assert_eq!(stage.once().code, 1);
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(stage.once().code, 0);
    assert_eq!(stage.told(), ["entry_mismatch", "recovered"]);
}

#[test]
fn a_log_without_growth_is_stale_if_growth_is_expected() {
    let stage = Stage::new_with("", "stale_seconds = 1");
    stage.show(&orders(1000));
    stage.until(|| stage.once().code == 2);
    assert_eq!(stage.once().code, 2);
    stage.show(&orders(1001));
    assert_eq!(stage.once().code, 0);
    assert_eq!(stage.told(), ["stale", "recovered"]);
}

#[test]
fn lost_witnesses_and_foreign_signatures_are_told_and_not_taken() {
    let cosigner = witness("example.com/witness", 9);
    let signer = key("example.com/log", 1);
    let stage = Stage::new("quorum_seconds = 1");
    let policy = format!(
        "log {}\nwitness w {}\nquorum w\n",
        signer.verifier_key(),
        cosigner.verifier_key()
    );
    std::fs::write(stage.path("policy"), policy).unwrap();
    stage.configure("", "policy = 'policy'");
    let log = orders(300);
    let witnessed = log.signed(&[&signer, &cosigner]);
    export(&log, &witnessed, &stage.path("log"));
    assert_eq!(stage.once().code, 0);
    stage.show(&orders(301));
    // Witnesses come a moment later than the log: that is no event yet.
    let said = stage.once();
    assert!(
        said.code == 2 && said.why.contains("no quorum yet"),
        "{said:?}"
    );
    assert_eq!(stage.told(), [""; 0]);
    std::thread::sleep(Duration::from_secs(2));
    let said = stage.once();
    assert!(
        said.code == 2 && said.why.contains("quorum_lost"),
        "{said:?}"
    );
    // It was not taken: the witnessed one is what counts.
    export(&log, &witnessed, &stage.path("log"));
    assert_eq!(stage.once().code, 0);
    // A fork without witnesses is one.
    stage.show(&rewritten(400));
    assert_eq!(stage.once().code, 1);
    assert_eq!(stage.told(), ["quorum_lost", "recovered", "fork"]);

    let stage = Stage::new("");
    stage.show(&orders(10));
    assert_eq!(stage.once().code, 0);
    for (origin, seed) in [("example.com/log", 2), ("example.com/other", 1)] {
        let other = Log {
            origin: origin.to_owned(),
            ..orders(11)
        };
        stage.show_checkpoint(&other.signed(&[&key(origin, seed)]));
        let said = stage.once();
        assert!(
            said.code == 2 && said.why.contains("bad_signature"),
            "{said:?}"
        );
    }
    stage.show(&orders(11));
    assert_eq!(stage.once().code, 0);
}

#[test]
fn a_webhook_that_fails_is_told_again_until_it_hears_also_by_later_runs() {
    let hook = Hook::new();
    let tell = format!(
        "deliver_seconds = 1\n[[tell]]\nname = 'hook'\nwebhook = '{}'\n",
        hook.url()
    );
    let stage = Stage::new("");
    stage.configure_tell(&tell);
    stage.show(&orders(300));
    assert_eq!(stage.once().code, 0);
    stage.show(&rewritten(300));
    hook.answers(500);
    assert_eq!(stage.once().code, 1);
    let refused = hook.heard();
    assert!(!refused.is_empty());
    hook.answers(204);
    assert_eq!(stage.once().code, 1);
    assert_eq!(stage.once().code, 1);
    let heard = hook.heard();
    assert_eq!(heard.len(), refused.len() + 1);
    // Each time the same, so that whoever heard it already knows it.
    assert!(heard.iter().all(|event| *event == heard[0]), "{heard:?}");
    assert_eq!(heard[0]["event"], "fork");
}

#[test]
fn syslog_is_told_with_a_severity() {
    let stage = Stage::new("");
    let socket = UnixDatagram::bind(stage.path("devlog")).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stage.configure_tell("[[tell]]\nname = 's'\nsyslog = 'devlog'\n");
    stage.show(&orders(300));
    assert_eq!(stage.once().code, 0);
    stage.show(&rewritten(300));
    assert_eq!(stage.once().code, 1);
    let mut bytes = [0; 8192];
    let length = socket.recv(&mut bytes).unwrap();
    let line = std::str::from_utf8(&bytes[..length]).unwrap();
    assert!(line.starts_with("<26>merkle-log["), "{line}");
    let json: Json = serde_json::from_str(line.split_once("]: ").unwrap().1).unwrap();
    assert_eq!(json["event"], "fork");
}

#[test]
fn one_monitor_has_a_state_and_a_damaged_state_is_never_begun_anew() {
    let stage = Stage::new("");
    stage.show(&orders(300));
    assert_eq!(stage.once().code, 0);
    for file in ["checkpoint", "state.json"] {
        let path = stage.path("state/log").join(file);
        let content = std::fs::read(&path).unwrap();
        std::fs::write(&path, b"torn").unwrap();
        assert_eq!(stage.run(&["--once"]).code, 2, "{file}");
        assert_eq!(std::fs::read(&path).unwrap(), b"torn");
        std::fs::write(&path, content).unwrap();
    }
    // How far entries were hashed is only saved work.
    std::fs::write(stage.path("state/log/hashed.json"), b"torn").unwrap();
    let said = stage.once();
    assert_eq!((said.code, said.entries), (0, 300));
    let daemon = stage.daemon();
    let said = stage.run(&["--once"]);
    assert!(
        said.code == 2 && said.text.contains("another process has the state"),
        "{said:?}"
    );
    drop(daemon);
    assert_eq!(stage.once().code, 0);
}

#[test]
fn mutated_answers_are_never_good_and_never_a_panic() {
    let stage = Stage::new("");
    let log = orders(700);
    let mut random = Random(seed());
    let mut bad = 0;
    for _ in 0..size(150, 3000) {
        let _ = std::fs::remove_dir_all(stage.path("state"));
        stage.show(&orders(300));
        let known = random.below(2) == 0;
        if known {
            assert_eq!(stage.once().code, 0);
        }
        stage.show(&log);
        let (file, mutation) = mutate(&stage, &mut random);
        let said = stage.once();
        assert!(
            [0, 1, 2].contains(&said.code),
            "{file} {mutation}: {said:?}"
        );
        assert!(
            !said.text.contains("panicked"),
            "{file} {mutation}: {said:?}"
        );
        // Entries that are not served are not needed, nor is what was hashed before; all else is.
        let hashed = known && ["tile/entries/000", "tile/0/000"].contains(&file.as_str());
        let allowed = hashed || mutation == "removed" && file.contains("entries");
        assert!(said.code != 0 || allowed, "{file} {mutation}: {said:?}");
        // What is served may be bad; that the log forked it is not.
        assert!(!said.why.contains("fork"), "{file} {mutation}: {said:?}");
        bad += usize::from(said.code == 1);
    }
    assert!(bad > 0);
}

/// Damages one file that a check reads.
fn mutate(stage: &Stage, random: &mut Random) -> (String, &'static str) {
    let mut files: Vec<_> = tiles_of(orders(700).size())
        .map(|path| path.to_string())
        .collect();
    files.push("checkpoint".to_owned());
    let file = files[random.below(files.len())].clone();
    let path = stage.path("log").join(&file);
    let mut bytes = std::fs::read(&path).unwrap();
    let place = random.below(bytes.len());
    let mutation = match random.below(6) {
        0 => {
            std::fs::remove_file(&path).unwrap();
            return (file, "removed");
        }
        1 => {
            bytes[place] ^= 1 << random.below(8);
            "flipped"
        }
        2 => {
            bytes.truncate(place);
            "cut"
        }
        3 => {
            bytes.extend(vec![b'x'; 1 + random.below(100)]);
            "longer"
        }
        4 => {
            bytes = vec![0; 1 << 25];
            "huge"
        }
        _ => {
            let byte = bytes[place];
            bytes.insert(place, byte);
            "doubled"
        }
    };
    std::fs::write(&path, bytes).unwrap();
    (file, mutation)
}

#[test]
fn a_slow_or_endless_log_holds_up_no_other_and_no_memory() {
    let stage = Stage::new("");
    stage.show(&orders(300));
    let vkey = key("example.com/log", 1).verifier_key();
    let logs: String = [Answer::Silent, Answer::Drip, Answer::Endless, Answer::Bomb]
        .into_iter()
        .enumerate()
        .map(|(number, answer)| {
            let url = hostile(answer);
            format!(
                "[[log]]\nname = 'h{number}'\nurl = '{url}'\nkey = '{vkey}'\ntimeout_seconds = 1\n"
            )
        })
        .collect();
    stage.configure_tell(&logs);
    let started = Instant::now();
    let (said, kilobytes) = stage.measured();
    assert_eq!(said.code, 2, "{said:?}");
    assert!(kilobytes < 200_000, "{kilobytes} kB");
    assert!(started.elapsed() < Duration::from_secs(30));
    let of =
        |name: &str| said.lines.iter().find(|line| line["log"] == name).unwrap()["verdict"].clone();
    assert_eq!(of("log"), "good");
    for number in 0..4 {
        assert_eq!(of(&format!("h{number}")), "unknown", "{said:?}");
    }
}

#[test]
fn a_monitor_that_is_killed_at_any_moment_goes_on_and_tells_everything_once() {
    let stage = Stage::new("interval_seconds = 1");
    let mut random = Random(seed());
    let mut size_now = 500;
    stage.show(&orders(size_now));
    for round in 0..size(8, 100) {
        let daemon = stage.daemon();
        let moment = Duration::from_millis(random.below(1500) as u64);
        let started = Instant::now();
        while started.elapsed() < moment {
            size_now += 1 + random.below(700) as u64;
            stage.show(&orders(size_now));
            std::thread::sleep(Duration::from_millis(50));
        }
        daemon.kill();
        // What is on disk is whole.
        if round % 4 == 0 {
            let said = stage.once();
            assert_eq!((said.code, said.entries), (0, size_now), "{said:?}");
        }
    }
    assert_eq!(stage.once().code, 0);
    // The log is rewritten while the monitor is killed again and again.
    stage.show(&rewritten(size_now + 10));
    for _ in 0..size(6, 50) {
        let daemon = stage.daemon();
        std::thread::sleep(Duration::from_millis(random.below(700) as u64));
        daemon.kill();
    }
    assert_eq!(stage.once().code, 1);
    // It may be told twice where it was killed while it told; then by the same id.
    let events = stage.events();
    let ids: std::collections::BTreeSet<_> =
        events.iter().map(|event| event["id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "{events:?}");
    assert!(events.iter().all(|event| event["event"] == "fork"));
}

#[test]
fn health_and_metrics_say_how_every_log_stands() {
    let stage = Stage::new("interval_seconds = 1\nlisten = '127.0.0.1:0'");
    stage.show(&orders(300));
    let mut daemon = stage.daemon();
    let address = daemon.address();
    stage.until(|| get(&address, "/health").0 == 200);
    let (_, metrics) = get(&address, "/metrics");
    for line in [
        "merkle_log_monitor_size_entries{log=\"log\"} 300\n",
        "merkle_log_monitor_hashed_entries{log=\"log\"} 300\n",
        "merkle_log_monitor_condition{log=\"log\",kind=\"fork\"} 0\n",
        "merkle_log_monitor_heartbeat_timestamp_seconds ",
        "merkle_log_monitor_check_age_seconds{log=\"log\"} ",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    stage.show(&rewritten(301));
    stage.until(|| get(&address, "/health").0 == 503);
    let condition = "merkle_log_monitor_condition{log=\"log\",kind=\"fork\"} 1\n";
    stage.until(|| get(&address, "/metrics").1.contains(condition));
    let health: Json = serde_json::from_str(&get(&address, "/health").1).unwrap();
    assert_eq!(health["logs"][0]["conditions"]["fork"]["proven"], true);
    stage.until(|| stage.told() == ["fork"]);
}

#[test]
fn a_checkpoint_of_a_log_is_that_of_its_first_entries() {
    // The honest counterpart of a fork: an old checkpoint beside newer tiles is no evidence.
    let signer = key("example.com/log", 1);
    let log = orders(900);
    let old = log.checkpoint_at(merkle_tree::TreeSize::new(300).unwrap());
    let honest = ForkProof {
        old: note(&old, &[&signer], 0),
        new: log.signed(&[&signer]),
        prefix_root: *old.root(),
        path: log.consistency(300, &[&signer]).path,
    };
    let stage = Stage::new("");
    std::fs::write(stage.path("honest.json"), honest.to_json()).unwrap();
    let (code, text) = stage.verify(
        stage.path("honest.json").to_str().unwrap(),
        "example.com/log",
        1,
    );
    assert!(
        code == 2 && text.contains("no evidence against a log"),
        "{text}"
    );
    let lie = ForkProof {
        prefix_root: merkle_tree::leaf_hash(&order(1)),
        ..honest
    };
    std::fs::write(stage.path("lie.cbor"), lie.to_cbor()).unwrap();
    assert_eq!(
        stage
            .verify(
                stage.path("lie.cbor").to_str().unwrap(),
                "example.com/log",
                1
            )
            .0,
        2
    );
}

#[test]
fn a_fork_is_told_while_a_long_history_is_still_being_hashed() {
    let stage = Stage::new("interval_seconds = 1\nreread_seconds = 0");
    let size = 800_000;
    let (honest, other) = (orders(size), rewritten(size));
    stage.show(&honest);
    let (shown, served) = slow(&stage.path("log"), Duration::from_millis(4));
    let vkey = key("example.com/log", 1).verifier_key();
    stage.configure_tell(&format!(
        "interval_seconds = 1\nreread_seconds = 0\n[[tell]]\nname = 'file'\ncommand = ['sh', 'tell.sh']\n
         [[log]]\nname = 'slow'\nurl = '{served}'\nkey = '{vkey}'\n"
    ));
    let monitor = stage.daemon();
    // It has taken the checkpoint, and begun to hash what is below it.
    stage.until(|| stage.path("state/slow/hashed.json").exists());
    *shown.lock().unwrap() = Some(signed(&other).to_string());
    stage.until(|| {
        let events = stage.events();
        events
            .iter()
            .any(|event| event["log"] == "slow" && event["event"] == "fork")
    });
    let hashed = std::fs::read(stage.path("state/slow/hashed.json")).unwrap();
    let hashed: Json = serde_json::from_slice(&hashed).unwrap();
    let hashed = hashed["size"].as_u64().unwrap();
    assert!(
        hashed < size,
        "all {hashed} entries were hashed before the fork was told"
    );
    monitor.kill();
}

#[test]
fn a_database_that_answers_without_end_is_given_up_in_bounded_memory() {
    for row in [
        // A row of a gigabyte, and as many short rows as there is time for.
        Some(1 << 30),
        None,
    ] {
        let address = hostile_database(row);
        let stage = Stage::new("");
        let vkey = key("example.com/log", 1).verifier_key();
        stage.configure_tell(&format!(
            "deliver_seconds = 1\n[[log]]\nname = 'sql'\ndatabase = 'host={} port={} user=x dbname=x sslmode=disable'\nkey = '{vkey}'\ntimeout_seconds = 5\n",
            address.ip(),
            address.port()
        ));
        stage.show(&orders(10));
        let (said, kilobytes) = stage.measured();
        assert_eq!(said.code, 2, "{said:?}");
        assert!(kilobytes < 200_000, "{kilobytes} kB: {said:?}");
    }
}
