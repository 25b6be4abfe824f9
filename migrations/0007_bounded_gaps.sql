-- The open gaps of one symbol are counted, widened and taken back; and recording goes on with them after a start.
CREATE INDEX tick_gaps_open_by_symbol ON tick_gaps (exchange, symbol) WHERE status = 'open';
