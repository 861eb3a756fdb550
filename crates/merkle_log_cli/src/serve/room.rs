//! Large answers hold room in memory until they are sent: many slow readers cannot exhaust it.

use super::gateway::Gateway;
use super::problems::Problem;
use axum::body::{Body, HttpBody};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::OwnedSemaphorePermit;

/// Bytes up to which an answer needs no room of its own.
const SMALL: u64 = 128 << 10;

struct Held {
    body: Body,
    _room: OwnedSemaphorePermit,
}

impl HttpBody for Held {
    type Data = axum::body::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        // hyper drops a body that has ended before its bytes are on their way.
        false
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The answer, once there is room for it.
pub async fn held(gateway: &Gateway, response: Response) -> Result<Response, Problem> {
    let bytes = response.body().size_hint().lower();
    if bytes <= SMALL {
        return Ok(response);
    }
    let room = gateway.room_for(bytes as usize).await?;
    Ok(response.map(|body| Body::new(Held { body, _room: room })))
}
