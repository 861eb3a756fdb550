//! A stream on which the server sends no message that is longer than [`LONGEST`], so that whoever rules a server cannot
//! fill the memory of a program that asks it. The client library reads each message whole before anyone sees it.
//!
//! A message is a byte for its type, its length in four bytes, which count themselves, and its content (PostgreSQL,
//! "Frontend/Backend Protocol"). Only the answer to a request for TLS is one byte by itself.

use std::io::{Error, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

/// Bytes of the longest message: four times a bundle of 256 entries, each of the greatest length.
pub const LONGEST: u32 = 64 << 20;

/// Bytes of a type and a length.
const HEADER: usize = 5;

/// What the next byte is part of.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// The answer to a request for TLS.
    Negotiation,
    /// So many bytes of a header are known.
    Header([u8; HEADER], usize),
    /// So many bytes of content are to come.
    Content(u32),
    /// Records of TLS, in which the messages are.
    Encrypted,
}

const NEXT: Place = Place::Header([0; HEADER], 0);

pub struct Bounded<S> {
    stream: S,
    place: Place,
}

impl<S> Bounded<S> {
    pub fn new(stream: S, asks_for_tls: bool) -> Bounded<S> {
        let place = if asks_for_tls {
            Place::Negotiation
        } else {
            NEXT
        };
        Bounded { stream, place }
    }

    fn follow(&mut self, mut bytes: &[u8]) -> Result<()> {
        while let Some((first, rest)) = bytes.split_first() {
            match &mut self.place {
                Place::Encrypted => return Ok(()),
                Place::Negotiation if *first == b'S' => self.place = Place::Encrypted,
                Place::Negotiation => self.place = NEXT,
                Place::Header(header, known) => {
                    header[*known] = *first;
                    *known += 1;
                    if *known == HEADER {
                        self.place = Place::Content(content(*header)?);
                    }
                }
                Place::Content(left) => {
                    let here = bytes.len().min(*left as usize);
                    *left -= here as u32;
                    bytes = &bytes[here..];
                    if *left == 0 {
                        self.place = NEXT;
                    }
                    continue;
                }
            }
            bytes = rest;
        }
        Ok(())
    }
}

/// How many bytes follow a header.
fn content([_, length @ ..]: [u8; HEADER]) -> Result<u32> {
    let length = u32::from_be_bytes(length);
    match length.checked_sub(4) {
        Some(content) if content <= LONGEST => Ok(content),
        Some(content) => Err(Error::other(format!(
            "the server sends a message of {content} bytes, which are more than {LONGEST}"
        ))),
        None => Err(Error::other("the server does not speak PostgreSQL")),
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let followed = self.follow(&buffer.filled()[before..]);
        if followed.is_err() {
            // With an error nothing was read.
            buffer.set_filled(before);
        }
        Poll::Ready(followed)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: TlsStream + Unpin> TlsStream for Bounded<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream.channel_binding()
    }
}

/// Makes TLS streams of which the messages are bounded.
pub struct BoundedTls<T>(pub T);

impl<S, T> TlsConnect<S> for BoundedTls<T>
where
    T: TlsConnect<S>,
    T::Future: Send + 'static,
{
    type Stream = Bounded<T::Stream>;
    type Error = T::Error;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Self::Stream, T::Error>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        let connecting = self.0.connect(stream);
        Box::pin(async move { Ok(Bounded::new(connecting.await?, false)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    fn message(content: &[u8]) -> Vec<u8> {
        let length = content.len() as u32 + 4;
        [b"D".as_slice(), &length.to_be_bytes(), content].concat()
    }

    /// What a reader gets, however the bytes are cut, and whether it is an error in the end.
    fn read(bytes: &[u8], cut: usize, asks_for_tls: bool) -> (usize, bool) {
        let parts = bytes.chunks(cut);
        let stream = parts.fold(
            Box::new(tokio::io::empty()) as Box<dyn AsyncRead + Unpin>,
            |before, part| Box::new(before.chain(part)),
        );
        let mut bounded = Bounded::new(stream, asks_for_tls);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let mut got = Vec::new();
        let done = runtime.block_on(bounded.read_to_end(&mut got));
        assert!(bytes.starts_with(&got));
        (got.len(), done.is_err())
    }

    #[test]
    fn messages_pass_and_the_first_that_is_too_long_ends_the_connection() {
        let good = [
            message(b""),
            message(b"abc"),
            message(&[7; 300]),
            message(b""),
        ]
        .concat();
        let mut header = message(b"");
        header[1..].copy_from_slice(&(LONGEST + 5).to_be_bytes());
        let mut longest = message(b"");
        longest[1..].copy_from_slice(&(LONGEST + 4).to_be_bytes());
        let mut absurd = message(b"");
        absurd[1..].copy_from_slice(&3u32.to_be_bytes());
        for cut in [1, 2, 3, 5, 8, 1000] {
            assert_eq!(read(&good, cut, false), (good.len(), false), "{cut}");
            assert!(!read(&[good.clone(), longest.clone()].concat(), cut, false).1);
            for bad in [&header, &absurd] {
                assert!(read(&[good.as_slice(), bad].concat(), cut, false).1);
                // The answer to a request for TLS goes before them.
                assert!(read(&[b"N", good.as_slice(), bad].concat(), cut, true).1);
                // Within TLS the records are none of this.
                assert!(!read(&[b"S", good.as_slice(), bad].concat(), cut, true).1);
            }
        }
    }
}
