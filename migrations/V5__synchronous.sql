-- One attempt outside of a batch: a request asked of /v1/responses directly. The row is the intent,
-- committed before the call is made.
CREATE TABLE synchronous_calls (
    id               INTEGER PRIMARY KEY,
    request_id       INTEGER NOT NULL REFERENCES requests (id),
    next_at          TEXT NOT NULL,         -- when it is to be made
    started_at       TEXT,                  -- from here on it may be paid
    ended_at         TEXT,
    model            TEXT,
    response_id      TEXT,                  -- OpenAI's
    outcome          TEXT,                  -- as of batch_lines; none: not ended
    error            TEXT,
    input_tokens     INTEGER NOT NULL DEFAULT 0,
    cached_tokens    INTEGER NOT NULL DEFAULT 0,
    output_tokens    INTEGER NOT NULL DEFAULT 0,
    reasoning_tokens INTEGER NOT NULL DEFAULT 0,
    CHECK ((ended_at IS NULL) = (outcome IS NULL)),
    CHECK (ended_at IS NULL OR started_at IS NOT NULL)
) STRICT;
CREATE INDEX synchronous_calls_request ON synchronous_calls (request_id);
CREATE INDEX synchronous_calls_open ON synchronous_calls (next_at) WHERE ended_at IS NULL;

-- Those of claimed requests are checked, too.
DROP INDEX requests_images;
CREATE INDEX requests_images ON requests (job) WHERE images_due = 1;

-- A request may now be claimed by a direct call, too.
DROP VIEW v_orphans;
CREATE VIEW v_orphans AS
SELECT 'job without a batch' AS what, j.id AS id,
       (SELECT count(*) FROM requests r WHERE r.job = j.seq AND r.state = 'held')
       || ' requests held: run batchkeeper recover' AS detail
FROM batch_jobs j
WHERE j.status IN ('pending', 'processing', 'translating')
  AND EXISTS (SELECT 1 FROM requests r WHERE r.job = j.seq AND r.state = 'held')
UNION ALL
SELECT 'request claimed by no live batch or call', j.id, 'request ' || r.id
FROM batch_jobs j JOIN requests r ON r.job = j.seq AND r.state = 'claimed'
WHERE j.status IN ('pending', 'processing', 'translating')
  AND NOT EXISTS (SELECT 1 FROM batch_lines l JOIN openai_batches b ON b.id = l.batch_id
                  WHERE l.request_id = r.id AND l.settled = 0 AND b.state NOT IN ('ingested', 'failed'))
  AND NOT EXISTS (SELECT 1 FROM synchronous_calls d WHERE d.request_id = r.id AND d.ended_at IS NULL)
UNION ALL
SELECT 'job with nothing open that is not final', j.id, 'since ' || j.updated_at
FROM batch_jobs j
WHERE j.status IN ('pending', 'processing', 'translating')
  AND NOT EXISTS (SELECT 1 FROM requests r WHERE r.job = j.seq AND r.state IN ('waiting', 'claimed', 'held'))
  AND (j.open_vision > 0 OR j.open_translations > 0);
