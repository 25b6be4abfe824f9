//! Records as the payloads of blocks: a batch is one block, or several where it is large.

use super::SpoolError;
use crate::domain::Record;

/// Records that one block holds at most: what is read back at once stays small.
pub(super) const BLOCK_RECORDS_MAX: usize = 1_000;
/// Bytes of a block at most, on writing and on reading.
pub(super) const BLOCK_BYTES_MAX: usize = 4 << 20;

/// A kind of record that can wait in the spool: its form on disk, which outlives the program that wrote it.
pub trait Spooled: Record {
    /// Bytes of one record at least: what claims to hold more records than fit is no block.
    const BYTES_MIN: usize;

    /// The payload of a block with these records.
    ///
    /// The payloads of a new kind begin with a zero byte and the name of the kind. A file whose head is damaged does not say
    /// its kind, so that only the payload keeps its records from being taken for those of another; those of ticks, which are
    /// older than this rule, never begin with zero.
    ///
    /// # Errors
    ///
    /// When there is no memory for it.
    fn encode(records: &[Self]) -> Result<Vec<u8>, SpoolError>;

    /// Reads a payload; `None`: it is none of this kind, or names something that cannot be.
    fn decode(payload: &[u8]) -> Option<Vec<Self>>;
}

/// One block, ready to be framed.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) payload: Vec<u8>,
    pub(super) records: u32,
}

/// The records as one block, or as several where they are many or large.
pub(super) fn encode<R: Spooled>(records: &[R]) -> Result<Vec<Encoded>, SpoolError> {
    let mut blocks = Vec::new();
    let mut parts: Vec<&[R]> = records.chunks(BLOCK_RECORDS_MAX).rev().collect();
    while let Some(part) = parts.pop() {
        let payload = R::encode(part)?;
        match part {
            _ if payload.len() <= BLOCK_BYTES_MAX => {
                let records = u32::try_from(part.len()).unwrap_or(u32::MAX);
                blocks.push(Encoded { payload, records });
            }
            [_] => return Err(SpoolError::TooLarge(payload.len())),
            _ => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
        }
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::super::tests::tick;
    use super::*;
    use crate::domain::{Tick, TradeId};

    #[test]
    fn many_ticks_are_several_blocks_in_order() {
        let ticks: Vec<Tick> = (0..2_500).map(tick).collect();
        let blocks = encode(&ticks).unwrap();
        let counts: Vec<u32> = blocks.iter().map(|block| block.records).collect();
        assert_eq!(counts, [1_000, 1_000, 500]);
        let back: Vec<Tick> =
            blocks.iter().flat_map(|block| Tick::decode(&block.payload).unwrap()).collect();
        assert_eq!(back, ticks);
        let per_tick = blocks[0].payload.len() / 1_000;
        assert!(per_tick <= 70, "{per_tick} bytes: config/trading-core.toml says 70");
    }

    #[test]
    fn a_block_is_bounded_in_bytes() {
        let long = |len: usize| Tick { trade_id: TradeId::Text("x".repeat(len).into()), ..tick(1) };
        let halves = [long(3 << 20), long(3 << 20), tick(2)];
        assert_eq!(encode(&halves).unwrap().len(), 2);
        assert!(matches!(encode(&[long(5 << 20)]), Err(SpoolError::TooLarge(_))));
    }
}
