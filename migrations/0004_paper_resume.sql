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

-- Each account at one moment: that of its row and its positions, which are stored together. Before, the amounts were those
-- of the last point of equity, up to an interval older than the orders and fills beside them.
CREATE OR REPLACE VIEW paper_summary AS
SELECT a.account, a.kind, a.exchange, a.quote,
       a.last_order AS orders, a.last_fill AS fills,
       a.cash + held.value AS equity,
       a.cash + held.value - a.initial_cash AS pnl,
       round(100 * (a.cash + held.value - a.initial_cash) / nullif(a.initial_cash, 0), 4) AS pnl_percent,
       held.realized, held.value - held.cost AS unrealized, a.fees, a.cash, held.value AS position_value,
       a.seen_at AS at, a.stopped
FROM paper_accounts a
CROSS JOIN LATERAL (
    SELECT coalesce(sum(round(quantity * last_price, 12)), 0) AS value,
           coalesce(sum(cost), 0) AS cost,
           coalesce(sum(realized), 0) AS realized
    FROM paper_positions p WHERE p.account = a.account
) held
ORDER BY a.account;
COMMENT ON VIEW paper_summary IS 'Each strategy: its orders and fills, what its account is worth, and its profit, all at one moment';
