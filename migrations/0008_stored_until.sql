-- What a recorder that is killed may have had in memory only: exact, whatever its settings were.

ALTER TABLE feed_sessions ADD COLUMN stored_until timestamptz;
COMMENT ON COLUMN feed_sessions.stored_until IS
    'What came before this time is in the database or in the recorder''s spool (by the database''s clock); null: not known';
