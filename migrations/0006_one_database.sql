-- A copy of a database is not that database: what waits in a spool for the one must not be stored in the other. A dump
-- carries recorded_from along; where its database lies, no dump carries.
ALTER TABLE recorded_from
    ADD COLUMN cluster text COLLATE "C",
    ADD COLUMN database_oid bigint,
    ADD COLUMN copied_from uuid;
COMMENT ON COLUMN recorded_from.cluster IS 'The system identifier of the cluster it was claimed in; null where it may not be asked for';
COMMENT ON COLUMN recorded_from.database_oid IS 'The oid of the database it was claimed in; another one means that this is a copy, which gets an id of its own';
COMMENT ON COLUMN recorded_from.copied_from IS 'The id of the database that this one is a copy of';
