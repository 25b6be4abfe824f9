-- A day is known by its bounds and not by its name, and what is refused is bounded.

-- Each partition with its bounds. Times are read back in the style in which they were written, whatever the session's is.
CREATE FUNCTION tick_partitions()
RETURNS TABLE (partition regclass, from_time timestamptz, to_time timestamptz, is_default boolean)
LANGUAGE sql STABLE SET datestyle = 'ISO' SET timezone = 'UTC' AS $$
    SELECT pg_class.oid::regclass,
        CASE WHEN bounds[1] = 'MINVALUE' THEN '-infinity' ELSE trim(bounds[1], '''')::timestamptz END,
        CASE WHEN bounds[2] = 'MAXVALUE' THEN 'infinity' ELSE trim(bounds[2], '''')::timestamptz END,
        bounds IS NULL
    FROM pg_inherits
    JOIN pg_class ON pg_class.oid = inhrelid
    CROSS JOIN regexp_match(pg_get_expr(relpartbound, pg_class.oid), '^FOR VALUES FROM \((.*)\) TO \((.*)\)$') AS bounds
    WHERE inhparent = 'tick_data'::regclass AND NOT inhdetachpending
$$;
COMMENT ON FUNCTION tick_partitions IS 'The partitions of tick_data with their bounds; the DEFAULT partition has none';

DROP FUNCTION ensure_tick_partition(date);

-- Makes a table like tick_data and attaches it, under this name or, where that is taken, one that begins with it. Built
-- aside, it locks out neither readers nor writers of the other days.
CREATE FUNCTION attach_tick_partition(stem text, from_time timestamptz, to_time timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    namespace CONSTANT name := (SELECT nspname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE pg_class.oid = 'tick_data'::regclass);
    free text;
BEGIN
    -- Asked as a query: to_regclass would answer from a cache that has not heard of the other recorder yet.
    SELECT candidate INTO free
    FROM (SELECT stem || coalesce('_' || nullif(number, 0), '') AS candidate, number FROM generate_series(0, 99) AS number) AS names
    WHERE NOT EXISTS (SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE relname = candidate AND nspname = namespace)
    ORDER BY number LIMIT 1;
    EXECUTE format('CREATE TABLE %I.%I (LIKE tick_data INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS)',
        namespace, free);
    EXECUTE format('ALTER TABLE tick_data ATTACH PARTITION %I.%I FOR VALUES FROM (%L) TO (%L)',
        namespace, free, from_time, to_time);
END
$$;

-- Makes what of a day (UTC) partitions of other bounds leave free, which may be nothing.
CREATE FUNCTION fill_tick_partitions(day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    day_end CONSTANT timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
    reached timestamptz := day::timestamp AT TIME ZONE 'UTC';
    stem CONSTANT text := 'tick_data_' || to_char(day, 'YYYYMMDD') || '_from_';
    begins timestamptz[] := '{}';
    ends timestamptz[] := '{}';
    other record;
BEGIN
    FOR other IN
        SELECT from_time, to_time FROM tick_partitions() AS it
        WHERE it.from_time < day_end AND it.to_time > reached ORDER BY it.from_time
    LOOP
        IF other.from_time > reached THEN
            begins := begins || reached;
            ends := ends || other.from_time;
        END IF;
        reached := greatest(reached, other.to_time);
    END LOOP;
    IF reached < day_end THEN
        begins := begins || reached;
        ends := ends || day_end;
    END IF;
    FOR piece IN 1 .. cardinality(begins) LOOP
        PERFORM attach_tick_partition(stem || to_char(begins[piece] AT TIME ZONE 'UTC', 'HH24MISS'), begins[piece], ends[piece]);
    END LOOP;
END
$$;

-- Sees to it that rows of a day (UTC) can be stored, and says what an operator should know of it: null where a partition
-- takes the day, 'default' where only the DEFAULT partition does (its name follows), 'detached' where a table that is not
-- attached has the day's name (which follows). Safe when several recorders ask at the same moment. Waits for no lock for
-- longer than 2 s.
CREATE FUNCTION ensure_tick_partition(day date) RETURNS text LANGUAGE plpgsql
SET lock_timeout = '2s' SET datestyle = 'ISO' SET timezone = 'UTC' AS $$
DECLARE
    day_begin CONSTANT timestamptz := day::timestamp AT TIME ZONE 'UTC';
    day_end CONSTANT timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
    usual_name CONSTANT text := 'tick_data_' || to_char(day, 'YYYYMMDD');
    usual_bound CONSTANT text := format('FOR VALUES FROM (%L) TO (%L)', day_begin::text, day_end::text);
    is_there CONSTANT text := 'SELECT EXISTS (SELECT FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = ''tick_data''::regclass AND relname = $1 AND NOT inhdetachpending
            AND pg_get_expr(relpartbound, pg_class.oid) = $2)';
    default_partition CONSTANT regclass :=
        (SELECT nullif(partdefid, 0) FROM pg_partitioned_table WHERE partrelid = 'tick_data'::regclass);
    found boolean;
BEGIN
    EXECUTE is_there INTO found USING usual_name, usual_bound;
    IF found THEN
        RETURN NULL;
    END IF;
    -- To attach a day, all rows of the DEFAULT partition are looked through, and nobody may read them meanwhile.
    IF pg_relation_size(default_partition) > 64 * 1024 * 1024 AND NOT EXISTS (SELECT FROM tick_partitions()
        WHERE from_time <= day_begin AND to_time >= day_end)
    THEN
        RETURN 'default ' || default_partition;
    END IF;
    BEGIN
        PERFORM pg_advisory_xact_lock(hashtextextended('trading-core.partitions', 0));
        EXECUTE is_there INTO found USING usual_name, usual_bound;
        IF found THEN
            RETURN NULL;
        END IF;
        PERFORM attach_tick_partition(usual_name, day_begin, day_end);
    EXCEPTION
        WHEN invalid_object_definition THEN
            -- It would overlap another partition, which takes the day, or a part of it.
            PERFORM fill_tick_partitions(day);
        WHEN lock_not_available OR check_violation OR insufficient_privilege THEN
            -- Not made: that matters only where nothing else takes the rows.
            IF EXISTS (SELECT FROM tick_partitions() WHERE from_time <= day_begin AND to_time >= day_end) THEN
                RETURN NULL;
            END IF;
            IF default_partition IS NULL THEN
                RAISE;
            END IF;
            RETURN 'default ' || default_partition;
    END;
    IF EXISTS (SELECT FROM pg_class WHERE oid = to_regclass(usual_name)
        AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = pg_class.oid AND inhparent = 'tick_data'::regclass))
    THEN
        RETURN 'detached ' || usual_name;
    END IF;
    RETURN NULL;
END
$$;

-- Refused ticks are kept up to a number for each exchange, and only counted from there on.
CREATE TABLE rejected_overflow (
    exchange   text COLLATE "C" NOT NULL,
    symbol     text COLLATE "C" NOT NULL,
    reason     text COLLATE "C" NOT NULL,
    count      bigint NOT NULL,
    first_time timestamptz NOT NULL,
    last_time  timestamptz NOT NULL,
    first_seen timestamptz NOT NULL DEFAULT now(),
    last_seen  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (exchange, symbol, reason)
);
COMMENT ON TABLE rejected_overflow IS 'Refused ticks beyond those that rejected_ticks keeps: counted, by symbol and SQLSTATE';
COMMENT ON COLUMN rejected_overflow.reason IS 'The SQLSTATE; TC001: only the time was refused';
COMMENT ON COLUMN rejected_ticks.sqlstate IS 'Of the refusal; TC001: only the time was refused, and the tick is stored once the clocks agree';
