//! An HTTP server of one directory, which fails when it is told to.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What happens to a request instead of an answer.
#[derive(Clone, Copy)]
pub enum Fault {
    Status(u16),
    HangUp,
    /// Less than was announced.
    Torn,
    /// More than anyone can want.
    Endless,
}

pub struct Server {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    faults: VecDeque<Fault>,
    requests: usize,
}

impl Server {
    /// Serves until the test's process ends.
    pub fn of(directory: PathBuf) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away is no failure of the server.
                let _ = answer(stream, &directory, &shared);
            }
        });
        Server { port, state }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    pub fn next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().unwrap().faults.extend(faults);
    }

    pub fn requests(&self) -> usize {
        self.state.lock().unwrap().requests
    }

    pub fn reset(&self) {
        *self.state.lock().unwrap() = State::default();
    }
}

fn answer(mut stream: TcpStream, directory: &Path, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines
        .next()
        .transpose()?
        .is_some_and(|line| !line.is_empty())
    {}
    let path = request
        .split(' ')
        .nth(1)
        .unwrap_or("/")
        .trim_start_matches('/')
        .to_owned();
    let file = std::fs::read(directory.join(path));
    let fault = {
        let mut state = state.lock().unwrap();
        state.requests += 1;
        state.faults.pop_front()
    };
    let mut respond = |status: u16, length: usize, body: &[u8]| {
        write!(
            stream,
            "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        )?;
        stream.write_all(body)
    };
    match (fault, file) {
        (Some(Fault::HangUp), _) => Ok(()),
        (Some(Fault::Status(status)), _) => respond(status, 0, b""),
        (Some(Fault::Torn), Ok(file)) => respond(200, file.len(), &file[..file.len() / 2]),
        (Some(Fault::Endless), _) => respond(200, 1 << 22, &[b'x'; 1 << 22]),
        (_, Ok(file)) => respond(200, file.len(), &file),
        (_, Err(_)) => respond(404, 0, b""),
    }
}
