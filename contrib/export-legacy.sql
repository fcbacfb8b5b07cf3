-- Writes the dump that `batchkeeper import-legacy` reads, from the earlier service's PostgreSQL:
--
--     psql -X -f export-legacy.sql "dbname=…" > dump.json
--
-- It reads one snapshot through a cursor: neither side holds it in memory, and writers are not
-- blocked. Stop the earlier service first, including its workers (docs/start/migrating.md). On an error,
-- psql ends with a status other than 0 and the dump ends within its JSON: no import accepts such a
-- file.

\set ON_ERROR_STOP on
\set QUIET on
\set FETCH_COUNT 500
\pset format unaligned
\pset tuples_only on
\pset pager off
\encoding UTF8

BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;
\qecho '{"batch_jobs": ['
SELECT CASE row_number() OVER (ORDER BY created_at, id) WHEN 1 THEN '' ELSE ',' END || row_to_json(job)
FROM batch_jobs job ORDER BY created_at, id;
\qecho '], "batch_lots": ['
SELECT CASE row_number() OVER (ORDER BY batch_job_id, created_at, id) WHEN 1 THEN '' ELSE ',' END || row_to_json(lot)
FROM batch_lots lot ORDER BY batch_job_id, created_at, id;
\qecho ']}'
COMMIT;
