-- Paper trading: accounts, orders, fills, positions and equity over time. One transaction stores what belongs
-- together, so at every moment an account's cash is its initial cash, less its buys, plus its sells, less its fees.
-- Money is in the account's quote currency, times are the exchange's.

CREATE TABLE paper_accounts (
    account      text COLLATE "C" PRIMARY KEY,
    kind         text COLLATE "C" NOT NULL,
    exchange     text COLLATE "C" NOT NULL,
    quote        text COLLATE "C" NOT NULL,
    initial_cash numeric NOT NULL CHECK (initial_cash >= 0),
    cash         numeric NOT NULL CHECK (cash >= 0),
    fees         numeric NOT NULL CHECK (fees >= 0),
    last_order   bigint NOT NULL CHECK (last_order >= 0),
    last_fill    bigint NOT NULL CHECK (last_fill >= 0),
    seen_at      timestamptz NOT NULL,
    stopped      text,
    revision     bigint NOT NULL CHECK (revision > 0),
    writer       text COLLATE "C" NOT NULL,
    stored_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE paper_accounts IS 'One row per strategy of paper trading: its account as it is now';
COMMENT ON COLUMN paper_accounts.account IS 'The strategy''s name in the settings';
COMMENT ON COLUMN paper_accounts.kind IS 'Which strategy: sma_crossover, mean_reversion';
COMMENT ON COLUMN paper_accounts.quote IS 'The currency of all its money';
COMMENT ON COLUMN paper_accounts.last_order IS 'Id of its last order: the number of orders';
COMMENT ON COLUMN paper_accounts.last_fill IS 'Id of its last fill: the number of fills';
COMMENT ON COLUMN paper_accounts.seen_at IS 'Exchange time of the newest tick that the row takes account of';
COMMENT ON COLUMN paper_accounts.stopped IS 'Why trading stopped, if it did; a restart tries again';
COMMENT ON COLUMN paper_accounts.revision IS 'Counts the writes of the row, so that two writers notice each other';
COMMENT ON COLUMN paper_accounts.writer IS 'The run that wrote it';

CREATE TABLE paper_orders (
    account    text COLLATE "C" NOT NULL REFERENCES paper_accounts ON DELETE CASCADE,
    order_id   bigint NOT NULL CHECK (order_id > 0),
    exchange   text COLLATE "C" NOT NULL,
    symbol     text COLLATE "C" NOT NULL,
    base       text COLLATE "C" NOT NULL,
    side       text COLLATE "C" NOT NULL CHECK (side IN ('buy', 'sell')),
    quantity   numeric NOT NULL,
    filled     numeric NOT NULL CHECK (filled >= 0 AND (filled <= quantity OR filled = 0)),
    status     text COLLATE "C" NOT NULL
               CHECK (status IN ('new', 'partially_filled', 'filled', 'cancelled', 'rejected')),
    reason     text COLLATE "C",
    trade_id   text COLLATE "C" NOT NULL,
    placed_at  timestamptz NOT NULL,
    updated_at timestamptz NOT NULL CHECK (updated_at >= placed_at),
    PRIMARY KEY (account, order_id),
    CHECK ((reason IS NOT NULL) = (status IN ('cancelled', 'rejected')))
);
CREATE INDEX paper_orders_open ON paper_orders (account) WHERE status IN ('new', 'partially_filled');
COMMENT ON TABLE paper_orders IS 'Every market order of paper trading, as it stands now';
COMMENT ON COLUMN paper_orders.base IS 'The base currency: the unit of the quantities';
COMMENT ON COLUMN paper_orders.quantity IS 'Units of base asked for; a rejected order may ask for nonsense';
COMMENT ON COLUMN paper_orders.filled IS 'Units of base filled so far: the sum of its fills';
COMMENT ON COLUMN paper_orders.reason IS 'Why it was cancelled or rejected';
COMMENT ON COLUMN paper_orders.trade_id IS 'The tick that caused it; later ticks fill it';

CREATE TABLE paper_fills (
    account     text COLLATE "C" NOT NULL,
    fill_id     bigint NOT NULL CHECK (fill_id > 0),
    order_id    bigint NOT NULL,
    exchange    text COLLATE "C" NOT NULL,
    symbol      text COLLATE "C" NOT NULL,
    side        text COLLATE "C" NOT NULL CHECK (side IN ('buy', 'sell')),
    price       numeric NOT NULL CHECK (price >= 0),
    quantity    numeric NOT NULL CHECK (quantity > 0),
    value       numeric NOT NULL CHECK (value >= 0),
    fee         numeric NOT NULL CHECK (fee >= 0),
    trade_id    text COLLATE "C" NOT NULL,
    exchange_at timestamptz NOT NULL,
    PRIMARY KEY (account, fill_id),
    FOREIGN KEY (account, order_id) REFERENCES paper_orders ON DELETE CASCADE
);
CREATE INDEX paper_fills_order ON paper_fills (account, order_id);
COMMENT ON TABLE paper_fills IS 'Every fill: one tick''s part of an order';
COMMENT ON COLUMN paper_fills.price IS 'Quote per base, the tick''s price moved against the order by the slippage';
COMMENT ON COLUMN paper_fills.value IS 'Price times quantity, to twelve places';
COMMENT ON COLUMN paper_fills.fee IS 'Paid on top of the value';
COMMENT ON COLUMN paper_fills.trade_id IS 'The tick that filled it';

CREATE TABLE paper_positions (
    account       text COLLATE "C" NOT NULL REFERENCES paper_accounts ON DELETE CASCADE,
    exchange      text COLLATE "C" NOT NULL,
    symbol        text COLLATE "C" NOT NULL,
    base          text COLLATE "C" NOT NULL,
    quantity      numeric NOT NULL CHECK (quantity >= 0),
    cost          numeric NOT NULL CHECK (cost >= 0),
    average_price numeric,
    realized      numeric NOT NULL,
    last_price    numeric NOT NULL,
    last_at       timestamptz NOT NULL,
    PRIMARY KEY (account, exchange, symbol),
    CHECK (quantity > 0 OR cost = 0)
);
COMMENT ON TABLE paper_positions IS 'What each account holds of each symbol; flat ones stay for their profit';
COMMENT ON COLUMN paper_positions.quantity IS 'Units of base held: the sum of the signed fills';
COMMENT ON COLUMN paper_positions.cost IS 'What they were bought for, without fees';
COMMENT ON COLUMN paper_positions.average_price IS 'Cost per unit, to twelve places; null when nothing is held';
COMMENT ON COLUMN paper_positions.realized IS 'Profit of what was sold over what it was bought for, before fees';
COMMENT ON COLUMN paper_positions.last_price IS 'The last price seen when the row was written';
COMMENT ON COLUMN paper_positions.last_at IS 'Exchange time of that price';

CREATE TABLE paper_equity (
    account        text COLLATE "C" NOT NULL REFERENCES paper_accounts ON DELETE CASCADE,
    at             timestamptz NOT NULL,
    cash           numeric NOT NULL,
    position_value numeric NOT NULL,
    equity         numeric NOT NULL CHECK (equity = cash + position_value),
    realized       numeric NOT NULL,
    unrealized     numeric NOT NULL,
    fees           numeric NOT NULL,
    pnl            numeric NOT NULL CHECK (pnl = realized + unrealized - fees),
    PRIMARY KEY (account, at)
);
COMMENT ON TABLE paper_equity IS 'What each account was worth over time, at the last prices before each moment';
COMMENT ON COLUMN paper_equity.position_value IS 'Positions at their last price';
COMMENT ON COLUMN paper_equity.pnl IS 'Equity less the initial cash: profit after fees';

CREATE VIEW paper_summary AS
SELECT a.account, a.kind, a.exchange, a.quote,
       a.last_order AS orders, a.last_fill AS fills,
       e.equity, e.pnl,
       round(100 * e.pnl / nullif(a.initial_cash, 0), 4) AS pnl_percent,
       e.realized, e.unrealized, e.fees, e.cash, e.position_value,
       e.at, a.stopped
FROM paper_accounts a
LEFT JOIN LATERAL (
    SELECT * FROM paper_equity p WHERE p.account = a.account ORDER BY p.at DESC LIMIT 1
) e ON true
ORDER BY a.account;
COMMENT ON VIEW paper_summary IS 'Each strategy''s latest equity and profit';
