//! What is drawn, in a terminal that is only a buffer.

use super::super::Heard;
use super::super::reading::{Check, Found, Sizes};
use super::super::screen::tests::{key, log};
use super::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;

fn drawn(screen: &Screen, now: Instant, size: (u16, u16), colors: bool) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    terminal
        .draw(|frame| draw(frame, screen, now, colors))
        .unwrap();
    terminal.backend().buffer().clone()
}

fn lines(screen: &Screen, now: Instant, size: (u16, u16)) -> Vec<String> {
    let buffer = drawn(screen, now, size, true);
    let line = |y| {
        (0..size.0)
            .map(|x| buffer[(x, y)].symbol())
            .collect::<String>()
    };
    (0..size.1)
        .map(line)
        .map(|line| line.trim_end().to_owned())
        .collect()
}

fn reading() -> Reading {
    Reading {
        database: "shop".to_owned(),
        worker: Some(77),
        logs: vec![
            Log {
                sources: 3,
                root: Some("ab".repeat(32)),
                lag_rows: Some(1234),
                lag_seconds: Some(75.0),
                batch_age: Some(4.0),
                batch_seconds: Some(0.012),
                batch_entries: Some(1000),
                signed: Some(12_345_000),
                ..log("audit", 12_345_678)
            },
            Log {
                state: "failing".to_owned(),
                problem: "public.\x1b[2Jorders: table\nis gone".to_owned(),
                ..log("payments", 0)
            },
        ],
        commands: vec![Running {
            command: "verify_log".to_owned(),
            log: Some("audit".to_owned()),
            done: 37,
            total: 100,
        }],
        sizes: Sizes {
            entries: 3 << 30,
            leaf_data: 0,
            queue: 8192,
            other: 1 << 20,
        },
        health: Some(vec![Check {
            name: "error".to_owned(),
            object: Some("payments".to_owned()),
            detail: "the last batch failed".to_owned(),
        }]),
        ..Reading::default()
    }
}

fn screen(now: Instant) -> Screen {
    let mut screen = Screen::new(Duration::from_secs(1));
    screen.hear(Heard::Read(Box::new(reading())), now);
    screen
}

#[test]
fn on_80_by_24_everything_is_there() {
    let now = Instant::now();
    let all = lines(&screen(now), now, (80, 24));
    assert!(
        all[0].starts_with("merkle-log  shop  worker 77  2 logs  12,345,678 entries  3.0 GB"),
        "{}",
        all[0]
    );
    assert_eq!(all[1], "health: error of payments: the last batch failed");
    assert_eq!(
        all[2].split_whitespace().collect::<Vec<_>>(),
        [
            "log", "state", "entries", "new/s", "lag", "oldest", "batch", "verify", "found"
        ]
    );
    assert_eq!(
        all[3].split_whitespace().collect::<Vec<_>>().join(" "),
        ">audit running 12,345,678 - 1,234 75 s 12 ms 37 % -"
    );
    assert_eq!(
        all[4].split_whitespace().collect::<Vec<_>>().join(" "),
        "payments failing 0 - ? ? - - -"
    );
    let text = all.join("\n");
    for part in [
        " audit ",
        "batch     1,000 entries in 12 ms, 4.0 s ago; 3 sources",
        "12,345,000 entries are signed",
        "verified  not since this began (v)",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert_eq!(all[23], "q quit  p pause  r resume  v verify  ? help");
}

#[test]
fn what_the_selected_log_suffers_from_is_shown_and_cannot_move_the_cursor() {
    let now = Instant::now();
    let mut screen = screen(now);
    screen.press(key('j'), now);
    let text = lines(&screen, now, (80, 24)).join("\n");
    assert!(
        text.contains("problem   public.\\u{1b}[2Jorders: table is gone"),
        "{text}"
    );
    assert!(
        text.contains("health    error: the last batch failed"),
        "{text}"
    );
}

#[test]
fn a_narrow_terminal_has_the_columns_that_matter_most() {
    let now = Instant::now();
    let screen = screen(now);
    let header = |width| {
        let line = lines(&screen, now, (width, 24))[2].clone();
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(header(120).last().unwrap(), "signed");
    assert_eq!(header(79)[3..5], ["new/s", "lag"]);
    assert_eq!(header(55), ["log", "state", "entries", "lag", "batch"]);
    assert_eq!(header(40), ["log", "state", "entries", "lag"]);
    assert_eq!(header(24), ["log", "state"]);
    // Without room for details, the list has all of it.
    assert!(!lines(&screen, now, (80, 10)).join("\n").contains("sources"));
    // In no size is there a panic, with help or without.
    let mut helped = self::screen(now);
    helped.press(key('?'), now);
    for width in [1, 2, 9, 10, 23, 24, 25, 33, 41, 57, 70, 79, 90, 200] {
        for height in [1, 2, 5, 6, 7, 13, 14, 15, 24, 60] {
            drawn(&screen, now, (width, height), true);
            drawn(&helped, now, (width, height), false);
        }
    }
}

#[test]
fn without_colours_the_words_and_the_mark_say_the_same() {
    let now = Instant::now();
    let screen = screen(now);
    let plain = drawn(&screen, now, (80, 24), false);
    let coloured = drawn(&screen, now, (80, 24), true);
    assert!(
        plain
            .content()
            .iter()
            .all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset)
    );
    assert!(coloured.content().iter().any(|cell| cell.fg == Color::Red));
    let symbols = |buffer: &Buffer| {
        buffer
            .content()
            .iter()
            .map(|cell| cell.symbol().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(symbols(&plain), symbols(&coloured));
    assert!(plain[(5, 3)].modifier.contains(Modifier::REVERSED));
}

#[test]
fn a_lost_connection_is_shown_with_what_was_known_last() {
    let now = Instant::now();
    let mut screen = screen(now);
    screen.hear(Heard::Lost("connection closed\nreally".to_owned()), now);
    let later = now + Duration::from_secs(12);
    let all = lines(&screen, later, (80, 24));
    assert_eq!(
        all[1],
        "CONNECTION LOST, trying again (this is 12 s old): connection closed really"
    );
    assert!(all[3].contains("audit"));
    screen.hear(Heard::Read(Box::new(reading())), later);
    assert!(lines(&screen, later, (80, 24))[1].starts_with("health"));
    // So is a server that accepts questions and does not answer.
    let all = lines(&screen, later + Duration::from_secs(20), (80, 24));
    assert_eq!(all[1], "no answer: this is 20 s old");
}

#[test]
fn a_verification_is_shown_while_it_runs_and_when_it_has_ended() {
    let now = Instant::now();
    let mut screen = screen(now);
    screen.press(key('v'), now);
    let text = |screen: &Screen| lines(screen, now + Duration::from_secs(3), (100, 30)).join("\n");
    assert!(
        text(&screen).contains("verified  for 3.0 s now, 37 %"),
        "{}",
        text(&screen)
    );
    let mut ended = |found| {
        screen.hear(
            Heard::Verified {
                log: "audit".to_owned(),
                after: Duration::from_secs(2),
                found,
            },
            now,
        );
        text(&screen)
    };
    let intact = ended(Ok(Found::default()));
    assert!(
        intact.contains("verified  intact, in 2.0 s, 3.0 s ago"),
        "{intact}"
    );
    let bad = ended(Ok(Found {
        faults: 2,
        on_record: 1,
        first: vec!["modified public.orders 42 at 41: the row differs".to_owned()],
    }));
    assert!(
        bad.contains("verified  2 findings, in 2.0 s")
            && bad.contains("modified public.orders 42 at 41"),
        "{bad}"
    );
    let refused = ended(Err("permission denied".to_owned()));
    assert!(
        refused.contains("could not be: permission denied"),
        "{refused}"
    );
}

#[test]
fn a_database_without_logs_says_so() {
    let now = Instant::now();
    let mut screen = Screen::new(Duration::from_secs(1));
    assert_eq!(lines(&screen, now, (80, 24))[0], "merkle-log: reading");
    screen.hear(Heard::Read(Box::default()), now);
    assert!(lines(&screen, now, (80, 24))[3].starts_with("There is no log"));
}

#[test]
fn a_list_longer_than_the_screen_follows_the_selected_log() {
    let now = Instant::now();
    let mut screen = Screen::new(Duration::from_secs(1));
    let logs = (0..100)
        .map(|number| log(&format!("log{number:02}"), number))
        .collect();
    screen.hear(
        Heard::Read(Box::new(Reading {
            logs,
            ..Reading::default()
        })),
        now,
    );
    screen.press(key('G'), now);
    let text = lines(&screen, now, (80, 24)).join("\n");
    assert!(text.contains(">log99") && !text.contains("log00"), "{text}");
}

#[test]
fn numbers_have_a_bounded_width() {
    for (number, text) in [
        (0, "0"),
        (999, "999"),
        (1000, "1,000"),
        (12_345_678, "12,345,678"),
        (5_000_000_000, "5.00 G"),
        (-1234, "-1,234"),
    ] {
        assert_eq!(count(number), text);
    }
    for (seconds, text) in [
        (0.0, "0 ms"),
        (0.012, "12 ms"),
        (0.9996, "1.0 s"),
        (9.97, "10 s"),
        (100.0, "2 min"),
        (7200.0, "2 h"),
        (1e6, "12 d"),
    ] {
        assert_eq!(span(seconds), text);
    }
    for (number, text) in [
        (0, "0 B"),
        (8192, "8.0 kB"),
        (1023 * 1024, "1.0 MB"),
        (3 << 30, "3.0 GB"),
    ] {
        assert_eq!(bytes(number), text);
    }
    assert!((0..100_000).all(|step| span(f64::from(step) * 17.3).chars().count() <= 6));
}
