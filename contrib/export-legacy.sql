-- The dump that `batchkeeper import-legacy` reads, from the earlier service's PostgreSQL:
--
--     psql --no-psqlrc --dbname=… --file=export-legacy.sql > dump.json
--
-- It streams, a thousand rows at a time, from one snapshot, and changes nothing. Stop the earlier service first,
-- its intake and its workers (docs/moving-in.md).

\set ON_ERROR_STOP on
\set QUIET on
\set FETCH_COUNT 1000
\pset format unaligned
\pset tuples_only on
\pset pager off
SET client_encoding = 'UTF8';
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

\echo '{"batch_jobs": ['
SELECT CASE row_number() OVER earliest WHEN 1 THEN '' ELSE ',' END || row_to_json(j)
FROM batch_jobs j WINDOW earliest AS (ORDER BY j.created_at, j.id) ORDER BY j.created_at, j.id;
\echo '], "batch_lots": ['
SELECT CASE row_number() OVER earliest WHEN 1 THEN '' ELSE ',' END || row_to_json(l)
FROM batch_lots l WINDOW earliest AS (ORDER BY l.batch_job_id, l.created_at, l.id)
ORDER BY l.batch_job_id, l.created_at, l.id;
\echo ']}'

COMMIT;
