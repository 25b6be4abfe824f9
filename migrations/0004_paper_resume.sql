-- A restart of paper trading goes on as if there had been none: which ticks an account has taken, in order of arrival.
-- Rows of an earlier version have nulls: their strategies warm up anew.

ALTER TABLE paper_accounts
    ALTER COLUMN seen_at DROP NOT NULL,
    ADD COLUMN began_at timestamptz,
    ADD COLUMN taken_until timestamptz,
    ADD CONSTRAINT taken_since_it_began CHECK (began_at <= taken_until);
COMMENT ON COLUMN paper_accounts.seen_at IS 'Exchange time of the newest tick that the row takes account of; null before the first';
COMMENT ON COLUMN paper_accounts.began_at IS 'Since when its strategies take ticks: those with this received_at or a later one';
COMMENT ON COLUMN paper_accounts.taken_until IS 'When the newest tick that the row takes account of arrived (received_at)';

ALTER TABLE paper_positions ADD COLUMN last_trade_id text COLLATE "C";
COMMENT ON COLUMN paper_positions.last_trade_id IS 'The trade of the last price: with last_at, the last tick taken of the symbol';
