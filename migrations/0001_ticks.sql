-- Ticks, what was set aside, and what is known of the way they came.
--
-- Text keys are in collation "C": compared by bytes, which is faster and the same on every machine.

CREATE TABLE instruments (
    exchange     text COLLATE "C" NOT NULL,
    symbol       text COLLATE "C" NOT NULL,
    base         text COLLATE "C" NOT NULL,
    quote        text COLLATE "C" NOT NULL,
    venue_symbol text COLLATE "C" NOT NULL,
    first_seen   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (exchange, symbol)
);
COMMENT ON TABLE instruments IS 'What is or was recorded, and how the exchange spells it';

-- One public trade a row. The key holds the same four columns as the promise (exchange, symbol, trade_id, time), with
-- time before the id: inserts stay at the index's right edge, and one symbol's range of time is read in order.
CREATE TABLE tick_data (
    time        timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    exchange    text COLLATE "C" NOT NULL,
    symbol      text COLLATE "C" NOT NULL,
    trade_id    text COLLATE "C" NOT NULL,
    side        text COLLATE "C" NOT NULL CONSTRAINT side_is_buy_or_sell CHECK (side IN ('buy', 'sell')),
    price       numeric NOT NULL CONSTRAINT price_is_positive CHECK (price > 0),
    quantity    numeric NOT NULL CONSTRAINT quantity_is_positive CHECK (quantity > 0),
    source      text COLLATE "C" NOT NULL
        CONSTRAINT source_is_known CHECK (source IN ('live', 'backfill', 'pushed', 'bridge')),
    PRIMARY KEY (exchange, symbol, time, trade_id)
) PARTITION BY RANGE (time);
COMMENT ON TABLE tick_data IS 'Every public trade, once; partitioned by day (UTC)';
COMMENT ON COLUMN tick_data.time IS 'When the exchange matched the trade, in microseconds';
COMMENT ON COLUMN tick_data.received_at IS 'When its frame was read from the socket, by the recorder''s clock';
COMMENT ON COLUMN tick_data.side IS 'The side of the taker (aggressor)';
COMMENT ON COLUMN tick_data.price IS 'Quote currency per unit of base, with the exchange''s own digits';
COMMENT ON COLUMN tick_data.quantity IS 'Units of base, with the exchange''s own digits';

CREATE FUNCTION has_tick_partition(name text) RETURNS boolean LANGUAGE sql VOLATILE AS $$
    SELECT EXISTS (
        SELECT FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = 'tick_data'::regclass AND relname = name
    )
$$;

-- Makes the partition of one day, once, also when several recorders ask at the same moment. The table is built aside
-- and attached, which locks out neither readers nor writers of the other days.
CREATE FUNCTION ensure_tick_partition(day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    partition text := 'tick_data_' || to_char(day, 'YYYYMMDD');
BEGIN
    IF has_tick_partition(partition) THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('trading-core.partitions', 0));
    -- Asked again as a query: to_regclass would answer from a cache that has not heard of the other recorder yet.
    IF has_tick_partition(partition) THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE tick_data INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS)', partition);
    EXECUTE format('ALTER TABLE tick_data ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', partition,
        day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
END
$$;

-- Drops the partitions of the days before one, and says how many. Gives up soon where somebody reads them: every write
-- would wait behind the drop.
CREATE FUNCTION drop_tick_partitions_before(first_kept date) RETURNS integer LANGUAGE plpgsql
SET lock_timeout = '2s' AS $$
DECLARE
    partition regclass;
    dropped integer := 0;
BEGIN
    FOR partition IN
        SELECT inhrelid::regclass FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = 'tick_data'::regclass AND relname ~ '^tick_data_\d{8}$'
            AND to_date(right(relname, 8), 'YYYYMMDD') < first_kept
    LOOP
        EXECUTE format('DROP TABLE %s', partition);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;

CREATE TABLE rejected_ticks (
    exchange    text COLLATE "C" NOT NULL,
    symbol      text COLLATE "C" NOT NULL,
    trade_id    text COLLATE "C" NOT NULL,
    time        timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    side        text COLLATE "C" NOT NULL,
    price       numeric NOT NULL,
    quantity    numeric NOT NULL,
    source      text COLLATE "C" NOT NULL,
    sqlstate    text COLLATE "C",
    reason      text NOT NULL,
    rejected_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (exchange, symbol, time, trade_id)
);
COMMENT ON TABLE rejected_ticks IS 'Ticks that tick_data refused, each with the reason; the rest of their batch is stored';

CREATE TABLE quarantined_frames (
    exchange   text COLLATE "C" NOT NULL,
    hash       bytea NOT NULL,
    frame      text NOT NULL,
    reason     text NOT NULL,
    count      bigint NOT NULL DEFAULT 1,
    first_seen timestamptz NOT NULL,
    last_seen  timestamptz NOT NULL,
    PRIMARY KEY (exchange, hash)
);
COMMENT ON TABLE quarantined_frames IS 'Frames that could not be read, raw, one row for each text; count says how often it came';

CREATE TABLE feed_sessions (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    exchange       text COLLATE "C" NOT NULL,
    feed           text COLLATE "C" NOT NULL,
    connected_at   timestamptz NOT NULL,
    ended_at       timestamptz NOT NULL,
    reason         text NOT NULL,
    symbols        text[] NOT NULL,
    frames         bigint NOT NULL,
    ticks          bigint NOT NULL,
    duplicates     bigint NOT NULL,
    malformed      bigint NOT NULL,
    UNIQUE (exchange, feed, connected_at)
);
COMMENT ON TABLE feed_sessions IS 'Each connection to an exchange: from when to when, why it ended, what came over it';

CREATE TABLE tick_gaps (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    exchange    text COLLATE "C" NOT NULL,
    symbol      text COLLATE "C" NOT NULL,
    first_id    text COLLATE "C",
    last_id     text COLLATE "C",
    from_time   timestamptz,
    to_time     timestamptz,
    cause       text NOT NULL,
    status      text NOT NULL DEFAULT 'open'
        CONSTRAINT status_is_known CHECK (status IN ('open', 'repaired', 'unrecoverable', 'not_a_loss')),
    opened_at   timestamptz NOT NULL DEFAULT now(),
    closed_at   timestamptz
);
COMMENT ON TABLE tick_gaps IS 'Ranges of trade ids, or of time, that an exchange produced and that are not stored';

-- What people ask first.

CREATE VIEW latest_prices AS
SELECT instruments.exchange, instruments.symbol, latest.price, latest.side, latest.quantity, latest.time, latest.trade_id
FROM instruments
CROSS JOIN LATERAL (
    SELECT price, side, quantity, time, trade_id FROM tick_data
    WHERE tick_data.exchange = instruments.exchange AND tick_data.symbol = instruments.symbol
    ORDER BY time DESC, length(trade_id) DESC, trade_id DESC LIMIT 1
) AS latest;
COMMENT ON VIEW latest_prices IS 'The last stored trade of each symbol';

CREATE VIEW ticks_per_minute AS
SELECT date_trunc('minute', time) AS minute, exchange, symbol, count(*) AS ticks
FROM tick_data GROUP BY 1, 2, 3;
COMMENT ON VIEW ticks_per_minute IS 'Stored trades a minute and symbol; give it a range of minutes';

CREATE VIEW candles_1m AS
SELECT date_trunc('minute', time) AS minute, exchange, symbol,
    (array_agg(price ORDER BY time, length(trade_id), trade_id))[1] AS open,
    max(price) AS high,
    min(price) AS low,
    (array_agg(price ORDER BY time DESC, length(trade_id) DESC, trade_id DESC))[1] AS close,
    sum(quantity) AS volume,
    sum(price * quantity) AS quote_volume,
    count(*) AS trades
FROM tick_data GROUP BY 1, 2, 3;
COMMENT ON VIEW candles_1m IS 'One-minute candles, from the stored trades; give it a range of minutes';

CREATE VIEW open_gaps AS
SELECT id, exchange, symbol, first_id, last_id, from_time, to_time, cause, opened_at
FROM tick_gaps WHERE status = 'open';
COMMENT ON VIEW open_gaps IS 'What is missing and not yet explained';

-- Where the ticks of this database come from: real exchanges, or a simulated market. The two never mix.
CREATE TABLE recorded_from (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    origin   text NOT NULL,
    detail   text NOT NULL,
    since    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE recorded_from IS 'One row: whether these are trades of real exchanges or of a simulated market';
