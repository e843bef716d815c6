-- Prepares a leader for its standby: the role by which the standby signs in, with the password of
-- secrets/standby_password, and the slot that keeps the log for it. May be run again.
\set ON_ERROR_STOP on
\set password `cat /run/secrets/standby_password`
SELECT 'CREATE ROLE fellow_standby' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'fellow_standby') \gexec
ALTER ROLE fellow_standby LOGIN REPLICATION PASSWORD :'password';
-- postgres-node sets this too, but pg_rewind does crash recovery with the files alone, and requires it.
ALTER SYSTEM SET wal_log_hints = on;
-- Rights belong to one database; this is the one to which pg_rewind connects (PostgreSQL, "pg_rewind").
\connect postgres
GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean), pg_read_binary_file(text),
    pg_read_binary_file(text, bigint, bigint, boolean) TO fellow_standby;
SELECT pg_create_physical_replication_slot('standby', true)
WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = 'standby');
