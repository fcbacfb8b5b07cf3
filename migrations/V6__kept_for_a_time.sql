-- What is kept for a time: backups, and the texts of jobs that ended long ago.

-- A verified copy in the folder of `[backup]`: what was committed before `snapshot_at` is in it.
CREATE TABLE backups (
    id          INTEGER PRIMARY KEY,
    path        TEXT NOT NULL UNIQUE,
    bytes       INTEGER NOT NULL,
    snapshot_at TEXT NOT NULL,
    verified_at TEXT NOT NULL
) STRICT;

-- From `cleaning_since` on a final job's lots, texts, requests and lines go by chunks, until at
-- `cleaned_at` none is left. Its header and its sums stay.
ALTER TABLE batch_jobs ADD COLUMN cleaning_since TEXT;
ALTER TABLE batch_jobs ADD COLUMN cleaned_at TEXT;
CREATE INDEX batch_jobs_kept ON batch_jobs (completed_at) WHERE completed_at IS NOT NULL AND cleaning_since IS NULL;
CREATE INDEX batch_jobs_cleaning ON batch_jobs (seq) WHERE cleaning_since IS NOT NULL AND cleaned_at IS NULL;

-- What the lines and direct calls of cleaned jobs came to: of each job and batch a row, of its direct
-- calls one without a batch.
CREATE TABLE cleaned_work (
    job              INTEGER NOT NULL REFERENCES batch_jobs (seq),
    batch_id         INTEGER REFERENCES openai_batches (id),
    began_at         TEXT,                  -- of direct calls: when the first was made
    lines            INTEGER NOT NULL,
    answered         INTEGER NOT NULL,
    input_tokens     INTEGER NOT NULL,
    cached_tokens    INTEGER NOT NULL,
    output_tokens    INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX cleaned_work_job ON cleaned_work (job, coalesce(batch_id, 0));
CREATE INDEX cleaned_work_batch ON cleaned_work (batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX cleaned_work_synchronous ON cleaned_work (began_at) WHERE batch_id IS NULL;

DROP VIEW v_jobs;
CREATE VIEW v_jobs AS
SELECT j.id, j.client, j.status, j.total_lots, j.processed_lots, j.failed_lots, j.open_vision, j.open_translations,
       j.languages, j.openai_batch_id, j.openai_translation_batch_id, j.created_at, j.updated_at, j.completed_at,
       (SELECT count(*) FROM webhook_deliveries d WHERE d.batch_job_id = j.id AND d.state <> 'delivered') AS webhooks_open,
       j.error_message, j.cleaned_at
FROM batch_jobs j;

DROP VIEW v_costs;
CREATE VIEW v_costs AS
WITH cleaned AS (
    SELECT batch_id, sum(lines) AS lines, sum(answered) AS answered, sum(input_tokens) AS input_tokens,
           sum(cached_tokens) AS cached_tokens, sum(output_tokens) AS output_tokens,
           sum(reasoning_tokens) AS reasoning_tokens
    FROM cleaned_work WHERE batch_id IS NOT NULL GROUP BY batch_id)
SELECT b.id AS batch_id, b.openai_batch_id, b.stage, b.model, b.job_id,
       count(l.request_id) + coalesce(c.lines, 0) AS lines,
       coalesce(sum(l.outcome = 'answered'), 0) + coalesce(c.answered, 0) AS answered,
       coalesce(sum(l.input_tokens), 0) + coalesce(c.input_tokens, 0) AS input_tokens,
       coalesce(sum(l.cached_tokens), 0) + coalesce(c.cached_tokens, 0) AS cached_tokens,
       coalesce(sum(l.output_tokens), 0) + coalesce(c.output_tokens, 0) AS output_tokens,
       coalesce(sum(l.reasoning_tokens), 0) + coalesce(c.reasoning_tokens, 0) AS reasoning_tokens
FROM openai_batches b LEFT JOIN batch_lines l ON l.batch_id = b.id LEFT JOIN cleaned c ON c.batch_id = b.id
GROUP BY b.id HAVING count(l.request_id) + coalesce(c.lines, 0) > 0;

DROP VIEW v_bad_finished_lots;
CREATE VIEW v_bad_finished_lots AS
SELECT j.id AS subject, j.status,
       'counts ' || j.total_lots || ' lots, ' || j.processed_lots || ' finished and ' || j.failed_lots
       || ' failed, has other rows' AS finding
FROM batch_jobs j
WHERE j.cleaning_since IS NULL
  AND (j.total_lots, j.processed_lots, j.failed_lots) <>
      (SELECT count(*), coalesce(sum(l.status IN ('completed', 'failed')), 0), coalesce(sum(l.status = 'failed'), 0)
       FROM batch_lots l WHERE l.batch_job_id = j.id)
  -- An import knows the headers of some final jobs, and nothing of their lots.
  AND NOT (j.origin = 'import' AND j.completed_at IS NOT NULL
           AND NOT EXISTS (SELECT 1 FROM batch_lots l WHERE l.batch_job_id = j.id));

DROP VIEW v_bad_final_jobs;
CREATE VIEW v_bad_final_jobs AS
SELECT j.id AS subject, j.status, 'is final, and some of its requests are open' AS finding
FROM batch_jobs j
WHERE j.completed_at IS NOT NULL
  AND (j.open_vision > 0 OR j.open_translations > 0
       OR EXISTS (SELECT 1 FROM requests r WHERE r.job = j.seq AND r.state IN ('waiting', 'claimed', 'held')))
UNION ALL
SELECT j.id, j.status, 'is cleaned, and is not final'
FROM batch_jobs j
WHERE j.completed_at IS NULL AND (j.cleaning_since IS NOT NULL OR j.cleaned_at IS NOT NULL)
UNION ALL
SELECT j.id, j.status, 'is cleaned, and some of its rows are here'
FROM batch_jobs j
WHERE j.cleaned_at IS NOT NULL
  AND (j.cleaning_since IS NULL OR EXISTS (SELECT 1 FROM batch_lots l WHERE l.batch_job_id = j.id)
       OR EXISTS (SELECT 1 FROM requests r WHERE r.job = j.seq));

DROP VIEW v_bad_batches;
CREATE VIEW v_bad_batches AS
SELECT CAST(b.id AS TEXT) AS subject, b.state AS status, 'was sealed with ' || b.lines || ' lines, has other rows' AS finding
FROM openai_batches b
WHERE b.state <> 'planned'
  AND b.lines <> (SELECT count(*) FROM batch_lines l WHERE l.batch_id = b.id)
               + (SELECT coalesce(sum(w.lines), 0) FROM cleaned_work w WHERE w.batch_id = b.id)
UNION ALL
SELECT CAST(b.id AS TEXT), b.state, 'is over, but some of its lines have no verdict'
FROM openai_batches b
WHERE b.state IN ('ingested', 'failed')
  AND EXISTS (SELECT 1 FROM batch_lines l WHERE l.batch_id = b.id AND l.settled = 0)
UNION ALL
SELECT CAST(b.id AS TEXT), b.state, 'some of its lines up to request ' || b.settled_to || ' have no verdict'
FROM openai_batches b
WHERE b.state NOT IN ('ingested', 'failed') AND b.settled_to > 0
  AND EXISTS (SELECT 1 FROM batch_lines l WHERE l.batch_id = b.id AND l.request_id <= b.settled_to AND l.settled = 0)
UNION ALL
SELECT CAST(b.id AS TEXT), b.state, 'was taken in before its files were read to the end'
FROM openai_batches b
WHERE b.state = 'ingested'
  AND (b.output_file_id IS NOT NULL AND b.output_ingested IS NOT b.output_bytes
       OR b.error_file_id IS NOT NULL AND b.error_ingested IS NOT b.error_bytes
       OR b.ingested_at IS NULL);
