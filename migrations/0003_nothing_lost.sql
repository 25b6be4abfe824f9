-- Connections are noted when they stand, gaps are worked on, and what is complete is remembered.

-- A connection has a row from its first moment, so that a recorder which is killed leaves a trace of it.
ALTER TABLE feed_sessions
    ADD COLUMN recorder text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN seen_at timestamptz,
    ALTER COLUMN ended_at DROP NOT NULL,
    ALTER COLUMN reason DROP NOT NULL,
    ALTER COLUMN frames SET DEFAULT 0,
    ALTER COLUMN ticks SET DEFAULT 0,
    ALTER COLUMN duplicates SET DEFAULT 0,
    ALTER COLUMN malformed SET DEFAULT 0;
UPDATE feed_sessions SET seen_at = ended_at;
ALTER TABLE feed_sessions
    ALTER COLUMN seen_at SET NOT NULL,
    DROP CONSTRAINT feed_sessions_exchange_feed_connected_at_key,
    ADD UNIQUE (recorder, exchange, feed, connected_at),
    ADD CONSTRAINT ended_with_a_reason CHECK ((ended_at IS NULL) = (reason IS NULL));
CREATE INDEX feed_sessions_open ON feed_sessions (seen_at) WHERE ended_at IS NULL;
COMMENT ON COLUMN feed_sessions.recorder IS 'Which run of which process: host, process id, start';
COMMENT ON COLUMN feed_sessions.seen_at IS 'The last sign of life of its recorder';
COMMENT ON COLUMN feed_sessions.ended_at IS 'Null while it stands. Of a recorder that died: when that was noticed';

-- A gap is ids, or time where ids prove nothing. Found twice it is one gap.
DELETE FROM tick_gaps AS later USING tick_gaps AS earlier
WHERE (later.exchange, later.symbol, later.first_id, later.last_id)
    = (earlier.exchange, earlier.symbol, earlier.first_id, earlier.last_id) AND later.id > earlier.id;
UPDATE tick_gaps SET from_time = coalesce(from_time, opened_at - interval '1 hour'), to_time = coalesce(to_time, opened_at);
ALTER TABLE tick_gaps
    ALTER COLUMN from_time SET NOT NULL,
    ALTER COLUMN to_time SET NOT NULL,
    ADD COLUMN attempts integer NOT NULL DEFAULT 0,
    ADD COLUMN retry_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN claimed_by text COLLATE "C",
    ADD COLUMN claimed_until timestamptz,
    ADD COLUMN note text,
    ADD CONSTRAINT ids_are_a_pair CHECK ((first_id IS NULL) = (last_id IS NULL)),
    ADD CONSTRAINT closed_when_settled CHECK ((status = 'open') = (closed_at IS NULL));
CREATE UNIQUE INDEX tick_gaps_ids ON tick_gaps (exchange, symbol, first_id, last_id) WHERE first_id IS NOT NULL;
CREATE UNIQUE INDEX tick_gaps_times ON tick_gaps (exchange, symbol, from_time, to_time) WHERE first_id IS NULL;
CREATE INDEX tick_gaps_open ON tick_gaps (exchange, retry_at) WHERE status = 'open';
COMMENT ON COLUMN tick_gaps.first_id IS 'First missing trade id; null where only the time is known';
COMMENT ON COLUMN tick_gaps.from_time IS 'Exchange time of the trade before it';
COMMENT ON COLUMN tick_gaps.to_time IS 'Exchange time of the trade after it';
COMMENT ON COLUMN tick_gaps.status IS 'open; repaired: stored since; unrecoverable: the exchange no longer has it; not_a_loss: never issued';
COMMENT ON COLUMN tick_gaps.note IS 'What came of the last attempt';
COMMENT ON COLUMN tick_gaps.claimed_until IS 'Until then only claimed_by works on it';

-- Up to here every id of a symbol is stored, or listed in tick_gaps: what is younger is looked through next.
CREATE TABLE checked_until (
    exchange text COLLATE "C" NOT NULL,
    symbol   text COLLATE "C" NOT NULL,
    trade_id text COLLATE "C" NOT NULL,
    time     timestamptz NOT NULL,
    PRIMARY KEY (exchange, symbol)
);
COMMENT ON TABLE checked_until IS 'The newest trade of each symbol up to which the ids were looked through';

-- Which database this is: what waits in a spool on disk is stored in no other.
ALTER TABLE recorded_from ADD COLUMN id uuid NOT NULL DEFAULT gen_random_uuid();
COMMENT ON COLUMN recorded_from.id IS 'Names this database to the spool';
