-- Queries read only the days that they are asked for, over any length of history.

-- When the candle of a time begins. Steps of a fixed length are counted from 1970-01-01 00:00 UTC, whole weeks from a
-- Monday, months and years are those of the calendar (UTC).
CREATE FUNCTION candle_begin(at timestamptz, step interval) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN extract(year FROM step) = 0 AND extract(month FROM step) = 0 THEN
        date_bin(step, at, CASE WHEN extract(epoch FROM step) % 604800 = 0
            THEN timestamptz '1969-12-29 00:00:00Z' ELSE timestamptz '1970-01-01 00:00:00Z' END)
    ELSE (timestamp '1970-01-01' + interval '1 month' * (
        div(12 * (extract(year FROM at AT TIME ZONE 'UTC') - 1970) + extract(month FROM at AT TIME ZONE 'UTC') - 1,
            12 * extract(year FROM step) + extract(month FROM step))
        * (12 * extract(year FROM step) + extract(month FROM step)))::integer) AT TIME ZONE 'UTC'
END;
COMMENT ON FUNCTION candle_begin IS 'When the candle of a time begins, for any step, in UTC';

-- PL/pgSQL that is planned anew at each call: the planner knows the times, so that days outside of them are neither
-- planned for, locked nor read. Of a plain query with now() in it all days are planned for, however few it reads.
-- The first and the last price are looked up in the index: two look-ups a candle, where array_agg would sort every row.
CREATE FUNCTION candles(
    exchange  text,
    symbol    text,
    from_time timestamptz,
    to_time   timestamptz DEFAULT now(),
    step      interval DEFAULT interval '1 minute'
)
RETURNS TABLE (
    "time"       timestamptz,
    open         numeric,
    high         numeric,
    low          numeric,
    close        numeric,
    volume       numeric,
    quote_volume numeric,
    buy_volume   numeric,
    vwap         numeric,
    trades       bigint
)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET timezone = 'UTC' SET plan_cache_mode = force_custom_plan SET jit = off AS $$
#variable_conflict use_column
DECLARE
    first_begin timestamptz;
    end_begin   timestamptz;
BEGIN
    IF candles.exchange IS NULL OR candles.symbol IS NULL OR from_time IS NULL OR to_time IS NULL OR step IS NULL THEN
        RAISE EXCEPTION 'candles: exchange, symbol, from_time, to_time and step must not be null'
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF from_time > to_time THEN
        RAISE EXCEPTION 'candles: from_time (%) is later than to_time (%)', from_time, to_time
            USING ERRCODE = 'invalid_parameter_value', HINT = 'The earlier time comes first.';
    END IF;
    IF step <= interval '0' THEN
        RAISE EXCEPTION 'candles: the step must be longer than nothing, and is %', step
            USING ERRCODE = 'invalid_parameter_value', HINT = 'For example ''5 minutes'', ''1 hour'', ''1 day'' or ''1 month''.';
    END IF;
    IF (extract(year FROM step) <> 0 OR extract(month FROM step) <> 0)
        AND step <> interval '1 month' * (12 * extract(year FROM step) + extract(month FROM step))::integer
    THEN
        RAISE EXCEPTION 'candles: the step % mixes months with shorter units', step
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give whole months, or days and shorter units only.';
    END IF;
    -- No trade is older than 2009, and none as young as that.
    first_begin := candle_begin(greatest(from_time, '1970-01-01 00:00:00Z'), step);
    end_begin := candle_begin(least(to_time, '3000-01-01 00:00:00Z'), step);
    first_begin := CASE WHEN first_begin < from_time THEN first_begin + step ELSE first_begin END;
    end_begin := CASE WHEN end_begin < to_time THEN end_begin + step ELSE end_begin END;
    RETURN QUERY
        SELECT candle.begins, opened.price, candle.high, candle.low, closed.price, candle.volume, candle.quote_volume,
            candle.buy_volume, candle.quote_volume / candle.volume, candle.trades
        FROM (
            SELECT candle_begin(time, step) AS begins, min(time) AS first_time, max(time) AS last_time,
                max(price) AS high, min(price) AS low, sum(quantity) AS volume, sum(price * quantity) AS quote_volume,
                coalesce(sum(quantity) FILTER (WHERE side = 'buy'), 0) AS buy_volume, count(*) AS trades
            FROM tick_data AS tick
            WHERE tick.exchange = candles.exchange AND tick.symbol = candles.symbol AND time >= first_begin AND time < end_begin
            GROUP BY 1
        ) AS candle
        CROSS JOIN LATERAL (
            SELECT price FROM tick_data AS tick
            WHERE tick.exchange = candles.exchange AND tick.symbol = candles.symbol AND time >= first_begin AND time < end_begin
                AND time = candle.first_time
            ORDER BY length(trade_id), trade_id LIMIT 1
        ) AS opened
        CROSS JOIN LATERAL (
            SELECT price FROM tick_data AS tick
            WHERE tick.exchange = candles.exchange AND tick.symbol = candles.symbol AND time >= first_begin AND time < end_begin
                AND time = candle.last_time
            ORDER BY length(trade_id) DESC, trade_id DESC LIMIT 1
        ) AS closed
        ORDER BY 1;
    IF NOT FOUND AND NOT EXISTS (SELECT FROM instruments AS instrument
        WHERE instrument.exchange = candles.exchange AND instrument.symbol = candles.symbol)
    THEN
        RAISE WARNING 'nothing is recorded of %:%', candles.exchange, candles.symbol
            USING HINT = 'SELECT exchange, symbol FROM instruments says what is.';
    END IF;
END
$$;
COMMENT ON FUNCTION candles IS
    'Candles that begin at or after from_time and before to_time, each of all its trades; where there was no trade there is no candle';

CREATE FUNCTION ticks_per_minute(from_time timestamptz, to_time timestamptz DEFAULT now())
RETURNS TABLE (minute timestamptz, exchange text, symbol text, ticks bigint)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET timezone = 'UTC' SET plan_cache_mode = force_custom_plan SET jit = off AS $$
#variable_conflict use_column
DECLARE
    first_minute CONSTANT timestamptz := date_trunc('minute', from_time + interval '59.999999 seconds');
    end_minute   CONSTANT timestamptz := date_trunc('minute', to_time + interval '59.999999 seconds');
BEGIN
    RETURN QUERY
        SELECT counted.minute, instrument.exchange, instrument.symbol, counted.ticks
        FROM instruments AS instrument
        CROSS JOIN LATERAL (
            SELECT date_trunc('minute', time) AS minute, count(*) AS ticks FROM tick_data AS tick
            WHERE tick.exchange = instrument.exchange AND tick.symbol = instrument.symbol
                AND time >= first_minute AND time < end_minute
            GROUP BY 1
        ) AS counted
        ORDER BY 1, 2, 3;
END
$$;
COMMENT ON FUNCTION ticks_per_minute IS
    'Stored trades a minute and symbol, of the minutes that begin at or after from_time and before to_time';

-- The ranges of time in which trades are stored, in whole minutes: days that adjoin are one, and days without a trade are in none,
-- so that a single old day costs a view no more than itself. The last ends with the last trade. It runs with the rights of its
-- owner, as the views that use it do, so that a right to read such a view is still enough. (One row is what the planner should
-- expect: more, and it would compile the query.)
CREATE FUNCTION stored_ranges() RETURNS TABLE (first timestamptz, last timestamptz)
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER ROWS 1
SET timezone = 'UTC' SET plan_cache_mode = force_custom_plan SET jit = off AS $$
DECLARE
    stored tstzmultirange;
    since  timestamptz;
    oldest timestamptz := '-infinity';
    newest timestamptz;
BEGIN
    -- The DEFAULT partition has no bounds: with rows in it only the index can say where the trades begin.
    SELECT range_agg(tstzrange(
        CASE WHEN is_default THEN '-infinity' ELSE date_trunc('minute', from_time) END,
        CASE WHEN is_default THEN 'infinity' ELSE date_trunc('minute', to_time + interval '59.999999 seconds') END))
    INTO stored FROM tick_partitions() WHERE pg_relation_size(partition) > 0;
    IF NOT isfinite(lower(stored)) THEN
        SELECT date_trunc('minute', min(found.time)) INTO oldest FROM instruments CROSS JOIN LATERAL (
            SELECT time FROM tick_data AS tick
            WHERE tick.exchange = instruments.exchange AND tick.symbol = instruments.symbol
            ORDER BY time LIMIT 1) AS found;
    END IF;
    -- A few days back at first: then only those are looked at.
    FOREACH since IN ARRAY ARRAY[now() - interval '2 days', '-infinity'] LOOP
        SELECT max(found.time) INTO newest FROM instruments CROSS JOIN LATERAL (
            SELECT time FROM tick_data AS tick
            WHERE tick.exchange = instruments.exchange AND tick.symbol = instruments.symbol AND time >= since
            ORDER BY time DESC LIMIT 1) AS found;
        EXIT WHEN newest IS NOT NULL;
    END LOOP;
    RETURN QUERY
        SELECT greatest(lower(days), oldest), least(upper(days) - interval '1 minute', newest)
        FROM unnest(stored) AS days WHERE lower(days) <= newest ORDER BY 1;
END
$$;
COMMENT ON FUNCTION stored_ranges IS 'The ranges of time in which trades are stored: whole days that adjoin, the last until the last trade';

-- A function finds its tables whatever search_path it is called with.
DO $$
DECLARE
    routine regprocedure;
BEGIN
    FOR routine IN
        SELECT oid FROM pg_proc WHERE pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
            AND proname IN ('candles', 'ticks_per_minute', 'stored_ranges', 'tick_partitions', 'attach_tick_partition', 'fill_tick_partitions',
                'ensure_tick_partition', 'has_tick_partition', 'drop_tick_partitions_before')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, %I, pg_temp', routine, current_schema());
    END LOOP;
END
$$;

-- A condition on the minute of a view does not reach the times of the rows below it, and would read every day. So the
-- minutes come first, and each is looked up by the index: those that are asked for, and no others.
CREATE OR REPLACE VIEW ticks_per_minute AS
SELECT minutes.minute, instruments.exchange, instruments.symbol, stored.ticks
FROM stored_ranges()
CROSS JOIN LATERAL generate_series(first, last, interval '1 minute') AS minutes (minute)
CROSS JOIN instruments
CROSS JOIN LATERAL (
    SELECT count(*) AS ticks FROM tick_data AS tick
    WHERE tick.exchange = instruments.exchange AND tick.symbol = instruments.symbol
        AND time >= minutes.minute AND time < minutes.minute + interval '1 minute'
) AS stored
-- The first condition holds for every minute. It is there for the planner, which takes it for one that leaves few rows: otherwise
-- it would expect thousands of minutes, and compile the query (jit), which takes longer than to run it.
WHERE minutes.minute + interval '0' = minutes.minute AND stored.ticks > 0;
COMMENT ON VIEW ticks_per_minute IS 'Stored trades a minute and symbol; reads only the minutes that are asked for: for more than some days ask ticks_per_minute()';

CREATE OR REPLACE VIEW candles_1m AS
SELECT minutes.minute, instruments.exchange, instruments.symbol, candle.open, candle.high, candle.low, candle.close,
    candle.volume, candle.quote_volume, candle.trades
FROM stored_ranges()
CROSS JOIN LATERAL generate_series(first, last, interval '1 minute') AS minutes (minute)
CROSS JOIN instruments
CROSS JOIN LATERAL (
    SELECT (array_agg(price ORDER BY time, length(trade_id), trade_id))[1] AS open,
        max(price) AS high,
        min(price) AS low,
        (array_agg(price ORDER BY time DESC, length(trade_id) DESC, trade_id DESC))[1] AS close,
        sum(quantity) AS volume,
        sum(price * quantity) AS quote_volume,
        count(*) AS trades
    FROM tick_data AS tick
    WHERE tick.exchange = instruments.exchange AND tick.symbol = instruments.symbol
        AND time >= minutes.minute AND time < minutes.minute + interval '1 minute'
) AS candle
WHERE minutes.minute + interval '0' = minutes.minute AND candle.trades > 0;
COMMENT ON VIEW candles_1m IS 'One-minute candles, from the stored trades; reads only the minutes that are asked for: for more than some days ask candles()';

-- What each day holds, from the catalogue, without reading a row.
CREATE VIEW tick_days AS
SELECT (days.from_time AT TIME ZONE 'UTC')::date AS day, days.partition,
    CASE WHEN relpages > 0 THEN round(reltuples::numeric / relpages * pg_relation_size(pg_class.oid) / current_setting('block_size')::integer)
        WHEN pg_relation_size(pg_class.oid) = 0 THEN 0 END AS about_ticks,
    pg_total_relation_size(pg_class.oid) AS bytes
FROM tick_partitions() AS days JOIN pg_class ON pg_class.oid = days.partition
ORDER BY days.from_time;
COMMENT ON VIEW tick_days IS 'Each day with its size on disk, and about how many trades it holds (null: not known yet); read from the catalogue';

-- The recorder looks for these rows every minute. The condition must be that of its statements (only_time!), letter by letter.
CREATE INDEX rejected_ticks_only_time ON rejected_ticks (time)
    WHERE (coalesce(sqlstate, '') = 'TC001' OR sqlstate IS NULL AND reason = 'time is before 2009 or more than two days ahead');
