//! Between the socket and the WebSocket library: text frames are handed on as binary ones, and a peer that takes nothing
//! is noticed.
//!
//! The library ends a connection at the first text that is no UTF-8, as the standard asks. One bad byte for one symbol
//! would then cost every symbol of the connection, each time, and the frame would be lost to whoever has to find out
//! why. So the kind is changed in the frame's first byte, and the reader judges what is in it. Nothing else of a
//! frame is read or changed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// What a connection is made of.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A socket as the WebSocket library sees it.
pub struct Wire {
    inner: Box<dyn Stream>,
    frames: Frames,
    /// Since when the peer takes nothing of what is to be written.
    blocked_since: Option<Instant>,
}

impl Wire {
    /// A stream behind the handshake, and what of the first frames was read with it.
    pub(super) fn new(inner: Box<dyn Stream>, read: &mut [u8]) -> Self {
        let mut frames = Frames::default();
        frames.pass(read);
        Self { inner, frames, blocked_since: None }
    }

    /// Since when the peer takes nothing of what is to be written; `None`: it takes what comes.
    #[must_use]
    pub const fn blocked_since(&self) -> Option<Instant> {
        self.blocked_since
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("blocked_since", &self.blocked_since).finish_non_exhaustive()
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(context, into))?;
        this.frames.pass(into.filled_mut().get_mut(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write(context, bytes);
        if written.is_ready() {
            this.blocked_since = None;
        } else {
            this.blocked_since.get_or_insert_with(Instant::now);
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.inner).poll_flush(context);
        // TLS takes what it is given and is blocked here.
        if flushed.is_pending() {
            this.blocked_since.get_or_insert_with(Instant::now);
        } else {
            this.blocked_since = None;
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

/// Where in the flow of frames the reader is: only headers are read, however they are cut into pieces.
#[derive(Debug, Default)]
enum Frames {
    /// A frame begins.
    #[default]
    First,
    /// Its length.
    Length,
    /// Bytes of a longer length that are still to come, what was read of it, and whether a mask follows.
    Long { left: u8, length: u64, is_masked: bool },
    /// So many bytes of it are still to come.
    Payload(u64),
}

impl Frames {
    /// The bits of the first byte that say what a frame is.
    const KIND: u8 = 0b1111;
    const TEXT: u8 = 1;
    const BINARY: u8 = 2;

    fn pass(&mut self, bytes: &mut [u8]) {
        let mut rest = bytes;
        while let Some((first, others)) = rest.split_first_mut() {
            if let Self::Payload(left) = self {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(others.len() + 1);
                *left -= u64::try_from(here).unwrap_or(*left);
                if *left == 0 {
                    *self = Self::First;
                }
                rest = others.get_mut(here - 1..).unwrap_or_default();
                continue;
            }
            *self = self.header(first);
            rest = others;
        }
    }

    /// The state behind one byte of a header.
    fn header(&self, byte: &mut u8) -> Self {
        match *self {
            Self::First | Self::Payload(_) => {
                if *byte & Self::KIND == Self::TEXT {
                    *byte = (*byte & !Self::KIND) | Self::BINARY;
                }
                Self::Length
            }
            Self::Length => {
                let is_masked = *byte & 0x80 != 0;
                match *byte & 0x7f {
                    126 => Self::Long { left: 2, length: 0, is_masked },
                    127 => Self::Long { left: 8, length: 0, is_masked },
                    length => Self::payload(length.into(), is_masked),
                }
            }
            Self::Long { left, length, is_masked } => {
                let length = (length << 8) | u64::from(*byte);
                if left > 1 {
                    Self::Long { left: left - 1, length, is_masked }
                } else {
                    Self::payload(length, is_masked)
                }
            }
        }
    }

    /// The mask, which a server must not send, is as good as payload.
    const fn payload(length: u64, is_masked: bool) -> Self {
        let length = if is_masked { length.saturating_add(4) } else { length };
        if length == 0 { Self::First } else { Self::Payload(length) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame as a server sends it.
    fn frame(first: u8, is_masked: bool, payload: &[u8]) -> Vec<u8> {
        let mask = if is_masked { 0x80 } else { 0 };
        let mut frame = vec![first];
        match payload.len() {
            short @ ..126 => frame.push(mask | u8::try_from(short).unwrap()),
            middle @ 126..65_536 => {
                frame.push(mask | 126);
                frame.extend(u16::try_from(middle).unwrap().to_be_bytes());
            }
            long => {
                frame.push(mask | 127);
                frame.extend(u64::try_from(long).unwrap().to_be_bytes());
            }
        }
        if is_masked {
            frame.extend([0x81, 0x81, 0x81, 0x81]);
        }
        frame.extend(payload);
        frame
    }

    proptest! {
        #[test]
        fn text_becomes_binary_and_nothing_else_changes_however_it_is_cut(
            frames in proptest::collection::vec(
                (0_u8..16, 0_u8..16, any::<bool>(), prop_oneof![0_usize..4, 120_usize..130, 65_530_usize..65_540]),
                1..6,
            ),
            cuts in proptest::collection::vec(1_usize..2_000, 1..40),
        ) {
            let (mut sent, mut expected) = (Vec::new(), Vec::new());
            for (flags, kind, is_masked, length) in frames {
                // Full of what looks like the head of a text frame.
                let payload = vec![0x81; length];
                sent.extend(frame((flags << 4) | kind, is_masked, &payload));
                let kind = if kind == 1 { 2 } else { kind };
                expected.extend(frame((flags << 4) | kind, is_masked, &payload));
            }
            let mut passed = sent.clone();
            let (mut state, mut at, mut cuts) = (Frames::default(), 0, cuts.into_iter().cycle());
            while at < passed.len() {
                let end = (at + cuts.next().unwrap()).min(passed.len());
                state.pass(&mut passed[at..end]);
                at = end;
            }
            prop_assert_eq!(passed, expected);
        }
    }

    #[test]
    fn a_length_that_no_frame_has_is_no_overflow() {
        let mut bytes = vec![0x81, 0xff];
        bytes.extend([0xff; 8]);
        bytes.extend([0x81; 100]);
        let mut state = Frames::default();
        state.pass(&mut bytes);
        assert_eq!((bytes[0], bytes[10], bytes[99]), (0x82, 0x81, 0x81));
    }
}
