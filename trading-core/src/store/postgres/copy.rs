//! A batch as one binary COPY.
//!
//! The envelope is PostgreSQL's (<https://www.postgresql.org/docs/current/sql-copy.html>, "Binary Format"); what a
//! value looks like in it comes from sqlx's encoders. Buffers are used again, so that a batch allocates little.

use std::sync::Mutex;

use sqlx::postgres::PgArgumentBuffer;
use sqlx::{Encode, PgConnection, Postgres};

use super::Attempt;
use crate::domain::{Tick, lock};

const STATEMENT: &str = "COPY tick_data (time, received_at, exchange, symbol, trade_id, side, price, quantity, source) \
     FROM STDIN (FORMAT binary)";

/// Signature, no flags, no header extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const FIELDS: i16 = 9;
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
    let (mut buffer, mut id) = buffers.take();
    encode(batch, &mut buffer, &mut id)
        .map_err(|error| Attempt::from(sqlx::Error::Encode(error)))?;
    let mut copy = connection.copy_in_raw(STATEMENT).await?;
    copy.send(buffer.as_slice()).await?;
    let stored = copy.finish().await?;
    buffers.give_back((buffer, id));
    Ok(stored)
}

/// Appends a batch in COPY's binary format.
fn encode(
    batch: &[Tick],
    buffer: &mut PgArgumentBuffer,
    id: &mut String,
) -> Result<(), sqlx::error::BoxDynError> {
    buffer.reserve(HEADER.len() + batch.len() * TICK_BYTES + TRAILER.len());
    buffer.extend_from_slice(HEADER);
    for tick in batch {
        buffer.extend_from_slice(&FIELDS.to_be_bytes());
        field(buffer, tick.exchange_at.to_datetime())?;
        field(buffer, tick.received_at.to_datetime())?;
        field(buffer, tick.instrument.exchange())?;
        field(buffer, tick.instrument.symbol().as_str())?;
        id.clear();
        tick.trade_id.append_to(id);
        field(buffer, id.as_str())?;
        field(buffer, tick.side.as_str())?;
        field(buffer, tick.price)?;
        field(buffer, tick.quantity)?;
        field(buffer, tick.source.as_str())?;
    }
    buffer.extend_from_slice(&TRAILER);
    Ok(())
}

/// One field: its length, then its value as sqlx writes it.
fn field<'q, T: Encode<'q, Postgres>>(
    buffer: &mut PgArgumentBuffer,
    value: T,
) -> Result<(), sqlx::error::BoxDynError> {
    let at = buffer.len();
    buffer.extend_from_slice(&[0; 4]);
    // None of our values is NULL, so the answer that says so is of no interest.
    let _is_null = value.encode(buffer)?;
    let length = i32::try_from(buffer.len() - at - 4)?;
    if let Some(prefix) = buffer.get_mut(at..at + 4) {
        prefix.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}
