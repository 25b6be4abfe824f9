//! A batch as one binary COPY.
//!
//! The envelope is PostgreSQL's (<https://www.postgresql.org/docs/current/sql-copy.html>, "Binary Format"). Buffers are
//! used again, so that a batch allocates little.

use std::sync::{LazyLock, Mutex};

use sqlx::PgConnection;
use sqlx::error::BoxDynError;
use sqlx::postgres::PgArgumentBuffer;

use super::{Attempt, tick_data};
use crate::domain::{Tick, lock};

static STATEMENT: LazyLock<String> =
    LazyLock::new(|| format!("COPY tick_data ({}) FROM STDIN (FORMAT binary)", tick_data::names()));

/// Signature, no flags, no header extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();

/// Room for one tick of the usual size, so that a batch's buffer grows once.
const TICK_BYTES: usize = 176;

/// Buffers that wait for the next batch.
#[derive(Debug, Default)]
pub(super) struct CopyBuffers(Mutex<Vec<(PgArgumentBuffer, String)>>);

impl CopyBuffers {
    fn take(&self) -> (PgArgumentBuffer, String) {
        lock(&self.0).pop().unwrap_or_default()
    }

    fn give_back(&self, mut buffers: (PgArgumentBuffer, String)) {
        buffers.0.clear();
        lock(&self.0).push(buffers);
    }
}

/// Copies a batch into `tick_data`; all of it or nothing.
pub(super) async fn copy(
    connection: &mut PgConnection,
    buffers: &CopyBuffers,
    batch: &[Tick],
) -> Result<u64, Attempt> {
    let (mut buffer, mut text) = buffers.take();
    encode(batch, &mut buffer, &mut text)
        .map_err(|error| Attempt::from(sqlx::Error::Encode(error)))?;
    let mut copy = connection.copy_in_raw(&STATEMENT).await?;
    copy.send(buffer.as_slice()).await?;
    let stored = copy.finish().await?;
    buffers.give_back((buffer, text));
    Ok(stored)
}

/// Appends a batch in COPY's binary format.
fn encode(
    batch: &[Tick],
    buffer: &mut PgArgumentBuffer,
    text: &mut String,
) -> Result<(), BoxDynError> {
    buffer.reserve(HEADER.len() + batch.len() * TICK_BYTES + TRAILER.len());
    buffer.extend_from_slice(HEADER);
    let fields = i16::try_from(tick_data::COLUMNS.len())?.to_be_bytes();
    for tick in batch {
        buffer.extend_from_slice(&fields);
        tick_data::put(tick, text, buffer)?;
    }
    buffer.extend_from_slice(&TRAILER);
    Ok(())
}
