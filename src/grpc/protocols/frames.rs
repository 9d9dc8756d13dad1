//! The frames of gRPC, which Connect's streaming calls and gRPC-Web use too: a flag, a length, and the
//! message. Both of them send the trailers in a last frame.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use tonic::{Status, body::Body};

/// The size of what precedes the message: the flag (1 byte) and the length (4 bytes).
pub(super) const PREFIX_BYTES: usize = 5;

/// The flag of an uncompressed message.
pub(super) const MESSAGE: u8 = 0;

/// Returns a frame with this flag and content.
pub(super) fn frame(flag: u8, content: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES.saturating_add(content.len()));
    frame.put_u8(flag);
    frame.put_u32(u32::try_from(content.len()).unwrap_or(u32::MAX));
    frame.put_slice(content);
    frame.freeze()
}

/// A body that sends its trailers as a last frame of data.
pub(super) struct FramedTrailers {
    pub(super) body: Body,
    /// Returns the frame with these trailers.
    pub(super) frame_of: fn(&HeaderMap) -> Bytes,
}

impl http_body::Body for FramedTrailers {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let translate = |frame: Frame<Bytes>| match frame.into_trailers() {
            Ok(trailers) => Frame::data((self.frame_of)(&trailers)),
            Err(frame) => frame,
        };
        Poll::Ready(frame.map(|frame| frame.map(translate)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
