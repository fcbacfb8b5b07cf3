-- More of what must hold, told to whoever should know, and counted without a look at every row.

-- Invariants: each of these views must be empty. The auditor looks every minute at what is not
-- final (by `status`), `batchkeeper doctor` at everything.

DROP VIEW v_bad_finished_lots;
CREATE VIEW v_bad_finished_lots AS
SELECT j.id AS subject, j.status,
       'counts ' || j.total_lots || ' lots, ' || j.processed_lots || ' finished and ' || j.failed_lots
       || ' failed, has other rows' AS finding
FROM batch_jobs j
WHERE (j.total_lots, j.processed_lots, j.failed_lots) <>
      (SELECT count(*), coalesce(sum(l.status IN ('completed', 'failed')), 0), coalesce(sum(l.status = 'failed'), 0)
       FROM batch_lots l WHERE l.batch_job_id = j.id)
  -- An import knows the headers of some final jobs, and nothing of their lots.
  AND NOT (j.origin = 'import' AND j.completed_at IS NOT NULL
           AND NOT EXISTS (SELECT 1 FROM batch_lots l WHERE l.batch_job_id = j.id));

DROP VIEW v_bad_links;
CREATE VIEW v_bad_links AS
SELECT j.id AS subject, j.status, 'batch ' || b.openai_batch_id || ' works for it, but it names none of that stage' AS finding
FROM batch_jobs j JOIN batch_links k ON k.job = j.seq JOIN openai_batches b ON b.id = k.batch_id
WHERE b.openai_batch_id IS NOT NULL
  AND CASE b.stage WHEN 'vision' THEN j.openai_batch_id ELSE j.openai_translation_batch_id END IS NULL
UNION ALL
SELECT j.id, j.status, 'names vision batch ' || b.openai_batch_id || ', which does not work for it'
FROM batch_jobs j JOIN openai_batches b ON b.openai_batch_id = j.openai_batch_id
WHERE b.stage <> 'vision' OR NOT EXISTS (SELECT 1 FROM batch_links k WHERE k.batch_id = b.id AND k.job = j.seq)
UNION ALL
SELECT j.id, j.status, 'names translation batch ' || b.openai_batch_id || ', which does not work for it'
FROM batch_jobs j JOIN openai_batches b ON b.openai_batch_id = j.openai_translation_batch_id
WHERE b.stage <> 'translation' OR NOT EXISTS (SELECT 1 FROM batch_links k WHERE k.batch_id = b.id AND k.job = j.seq);

CREATE VIEW v_bad_claims AS
SELECT j.id AS subject, j.status, 'request ' || r.id || ' waits to be sent, and a batch may still answer it' AS finding
FROM batch_jobs j JOIN requests r ON r.job = j.seq
WHERE r.state = 'waiting'
  AND EXISTS (SELECT 1 FROM batch_lines l JOIN openai_batches b ON b.id = l.batch_id
              WHERE l.request_id = r.id AND l.settled = 0 AND b.state NOT IN ('ingested', 'failed'))
UNION ALL
-- Of a second batch under one key a person is told; a recovery takes up whatever there is.
SELECT j.id, j.status, 'request ' || r.id || ' is claimed by more than one batch'
FROM batch_jobs j JOIN requests r ON r.job = j.seq
WHERE r.state = 'claimed'
  AND (SELECT count(*) FROM batch_lines l JOIN openai_batches b ON b.id = l.batch_id
       WHERE l.request_id = r.id AND l.settled = 0 AND b.state NOT IN ('ingested', 'failed')
         AND b.duplicate_of IS NULL AND (b.state = 'planned' OR b.input_sha256 IS NOT NULL)) > 1;

CREATE VIEW v_bad_lots AS
SELECT j.id AS subject, j.status, 'lot ' || l.lot_id || ' is pending, and none of its requests is open' AS finding
FROM batch_jobs j JOIN batch_lots l ON l.batch_job_id = j.id
WHERE l.status = 'pending'
  AND NOT EXISTS (SELECT 1 FROM requests r WHERE r.lot = l.id AND r.state IN ('waiting', 'claimed', 'held'))
UNION ALL
SELECT j.id, j.status, 'lot ' || l.lot_id || ' is ' || l.status || ', and request ' || r.id || ' of it is ' || r.state
FROM batch_jobs j JOIN requests r ON r.job = j.seq JOIN batch_lots l ON l.id = r.lot
WHERE r.state IN ('waiting', 'claimed', 'held') AND l.status <> 'pending'
UNION ALL
SELECT j.id, j.status, 'lot ' || l.lot_id || ' is ' || l.status || ' without a text or a reason'
FROM batch_jobs j JOIN batch_lots l ON l.batch_job_id = j.id
WHERE l.status = 'failed' AND l.error_message IS NULL
   OR l.status = 'completed' AND l.vision_result IS NULL
      AND NOT EXISTS (SELECT 1 FROM lot_translations t WHERE t.lot = l.id AND t.text IS NOT NULL);

CREATE VIEW v_bad_answers AS
SELECT j.id AS subject, j.status, 'request ' || r.id || ' is done, and its text is not here' AS finding
FROM batch_jobs j JOIN requests r ON r.job = j.seq
WHERE r.state = 'done'
  AND CASE r.stage
      WHEN 'vision' THEN (SELECT l.vision_result IS NULL FROM batch_lots l WHERE l.id = r.lot)
      ELSE NOT EXISTS (SELECT 1 FROM lot_translations t
                       WHERE t.lot = r.lot AND t.language = r.language AND t.text IS NOT NULL) END
UNION ALL
SELECT j.id, j.status, 'request ' || r.id || ' failed, and no reason is here'
FROM batch_jobs j JOIN requests r ON r.job = j.seq
WHERE r.state = 'failed' AND r.stage = 'translation'
  AND NOT EXISTS (SELECT 1 FROM lot_translations t WHERE t.lot = r.lot AND t.language = r.language);

CREATE VIEW v_bad_final_jobs AS
SELECT j.id AS subject, j.status, 'is final, and some of its requests are open' AS finding
FROM batch_jobs j
WHERE j.completed_at IS NOT NULL
  AND (j.open_vision > 0 OR j.open_translations > 0
       OR EXISTS (SELECT 1 FROM requests r WHERE r.job = j.seq AND r.state IN ('waiting', 'claimed', 'held')));

DROP VIEW v_bad_batches;
CREATE VIEW v_bad_batches AS
SELECT CAST(b.id AS TEXT) AS subject, b.state AS status, 'was sealed with ' || b.lines || ' lines, has other rows' AS finding
FROM openai_batches b
WHERE b.state <> 'planned' AND b.lines <> (SELECT count(*) FROM batch_lines l WHERE l.batch_id = b.id)
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

CREATE VIEW v_bad_lines AS
SELECT CAST(l.batch_id AS TEXT) AS subject, '' AS status,
       'the line of request ' || l.request_id || ' has a verdict and no outcome, or an answer and no verdict' AS finding
FROM batch_lines l
WHERE l.settled <> (l.outcome IS NOT NULL) AND (l.settled = 1 OR l.outcome = 'answered')
UNION ALL
SELECT CAST(l.batch_id AS TEXT), '', 'the answer to request ' || r.id || ' was read, and its text is not here'
FROM batch_lines l JOIN requests r ON r.id = l.request_id
WHERE l.outcome = 'answered'
  AND CASE r.stage
      WHEN 'vision' THEN (SELECT lot.vision_result IS NULL FROM batch_lots lot WHERE lot.id = r.lot)
      ELSE NOT EXISTS (SELECT 1 FROM lot_translations t
                       WHERE t.lot = r.lot AND t.language = r.language AND t.text IS NOT NULL) END
UNION ALL
SELECT CAST(l.batch_id AS TEXT), '', 'the job of request ' || r.id || ' is not linked to it'
FROM batch_lines l JOIN requests r ON r.id = l.request_id
WHERE NOT EXISTS (SELECT 1 FROM batch_links k WHERE k.batch_id = l.batch_id AND k.job = r.job);

CREATE VIEW v_bad_webhooks AS
SELECT j.id AS subject, j.status, 'no webhook to ' || j.webhook_url || ' is planned' AS finding
FROM batch_jobs j
WHERE j.webhook_url IS NOT NULL AND j.processing_mode = 'batch' AND (j.origin = 'api' OR j.completed_at IS NULL)
  AND EXISTS (SELECT 1 FROM batch_lots l WHERE l.batch_job_id = j.id AND l.webhook_url IS NULL)
  AND NOT EXISTS (SELECT 1 FROM webhook_deliveries d WHERE d.batch_job_id = j.id AND d.url = j.webhook_url);

CREATE VIEW v_bad_attempts AS
SELECT d.batch_job_id AS subject, d.state AS status,
       'the webhook to ' || d.url || ' counts ' || d.attempts || ' attempts, has other rows' AS finding
FROM webhook_deliveries d
WHERE d.attempts <> (SELECT count(*) FROM delivery_attempts a WHERE a.delivery_id = d.id)
UNION ALL
SELECT d.batch_job_id, d.state, 'the webhook to ' || d.url || ' is delivered, and no attempt says so'
FROM webhook_deliveries d
WHERE d.state = 'delivered'
  AND NOT EXISTS (SELECT 1 FROM delivery_attempts a WHERE a.delivery_id = d.id AND a.response_status BETWEEN 200 AND 299);

DROP VIEW v_bad_states;
CREATE VIEW v_bad_states AS
SELECT l.batch_job_id AS subject, '' AS status, 'lot ' || l.lot_id || ' has the state ' || l.status AS finding FROM batch_lots l
WHERE l.status NOT IN ('pending', 'completed', 'failed', 'cancelled')
UNION ALL
SELECT j.id, '', 'request ' || r.id || ' has the state ' || r.state || ', stage ' || r.stage
FROM requests r JOIN batch_jobs j ON j.seq = r.job
WHERE r.state NOT IN ('waiting', 'claimed', 'done', 'failed', 'held', 'cancelled')
   OR r.stage NOT IN ('vision', 'translation')
UNION ALL
SELECT CAST(l.batch_id AS TEXT), '', 'the line of request ' || l.request_id || ' has the outcome ' || l.outcome
FROM batch_lines l
WHERE l.outcome NOT IN ('answered', 'refused', 'truncated', 'filtered', 'image_unreachable', 'passing', 'wrong',
                        'unreadable', 'missing', 'not_run');

-- How many jobs, batches and deliveries there are in each state, kept by triggers: final ones stay
-- for ever, and whoever asks every few seconds must not read them all.

CREATE TABLE state_counts (
    what   TEXT NOT NULL,                   -- jobs, batches, deliveries
    state  TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (what, state)
) STRICT, WITHOUT ROWID;
INSERT INTO state_counts SELECT 'jobs', status, count(*) FROM batch_jobs GROUP BY status;
INSERT INTO state_counts SELECT 'batches', state, count(*) FROM openai_batches GROUP BY state;
INSERT INTO state_counts SELECT 'deliveries', state, count(*) FROM webhook_deliveries GROUP BY state;

CREATE TRIGGER jobs_added AFTER INSERT ON batch_jobs BEGIN
    INSERT INTO state_counts VALUES ('jobs', NEW.status, 1) ON CONFLICT DO UPDATE SET number = number + 1;
END;
CREATE TRIGGER jobs_moved AFTER UPDATE OF status ON batch_jobs WHEN OLD.status <> NEW.status BEGIN
    UPDATE state_counts SET number = number - 1 WHERE what = 'jobs' AND state = OLD.status;
    INSERT INTO state_counts VALUES ('jobs', NEW.status, 1) ON CONFLICT DO UPDATE SET number = number + 1;
END;
CREATE TRIGGER jobs_removed AFTER DELETE ON batch_jobs BEGIN
    UPDATE state_counts SET number = number - 1 WHERE what = 'jobs' AND state = OLD.status;
END;
CREATE TRIGGER batches_added AFTER INSERT ON openai_batches BEGIN
    INSERT INTO state_counts VALUES ('batches', NEW.state, 1) ON CONFLICT DO UPDATE SET number = number + 1;
END;
CREATE TRIGGER batches_moved AFTER UPDATE OF state ON openai_batches WHEN OLD.state <> NEW.state BEGIN
    UPDATE state_counts SET number = number - 1 WHERE what = 'batches' AND state = OLD.state;
    INSERT INTO state_counts VALUES ('batches', NEW.state, 1) ON CONFLICT DO UPDATE SET number = number + 1;
END;
CREATE TRIGGER batches_removed AFTER DELETE ON openai_batches BEGIN
    UPDATE state_counts SET number = number - 1 WHERE what = 'batches' AND state = OLD.state;
END;
CREATE TRIGGER deliveries_added AFTER INSERT ON webhook_deliveries BEGIN
    INSERT INTO state_counts VALUES ('deliveries', NEW.state, 1) ON CONFLICT DO UPDATE SET number = number + 1;
END;
CREATE TRIGGER deliveries_moved AFTER UPDATE OF state ON webhook_deliveries WHEN OLD.state <> NEW.state BEGIN
    UPDATE state_counts SET number = number - 1 WHERE what = 'deliveries' AND state = OLD.state;
    INSERT INTO state_counts VALUES ('deliveries', NEW.state, 1) ON CONFLICT DO UPDATE SET number = number + 1;
END;
CREATE TRIGGER deliveries_removed AFTER DELETE ON webhook_deliveries BEGIN
    UPDATE state_counts SET number = number - 1 WHERE what = 'deliveries' AND state = OLD.state;
END;

CREATE VIEW v_bad_state_counts AS
WITH counted (what, state, number) AS (
    SELECT 'jobs', status, count(*) FROM batch_jobs GROUP BY status
    UNION ALL SELECT 'batches', state, count(*) FROM openai_batches GROUP BY state
    UNION ALL SELECT 'deliveries', state, count(*) FROM webhook_deliveries GROUP BY state)
SELECT t.what || ' ' || t.state AS subject, '' AS status, 'are counted as ' || t.number || ', have other rows' AS finding
FROM state_counts t
WHERE t.number <> coalesce((SELECT c.number FROM counted c WHERE c.what = t.what AND c.state = t.state), 0)
UNION ALL
SELECT c.what || ' ' || c.state, '', 'are not counted'
FROM counted c
WHERE NOT EXISTS (SELECT 1 FROM state_counts t WHERE t.what = c.what AND t.state = c.state);

-- What is to be told of alerts where `alerts.webhook_url` says: made with the alert, in one
-- transaction, and again when it closes.

CREATE TABLE alert_notices (
    id              INTEGER PRIMARY KEY,
    alert           INTEGER NOT NULL REFERENCES alerts (id),
    change          TEXT NOT NULL CHECK (change IN ('opened', 'closed')),
    state           TEXT NOT NULL CHECK (state IN ('due', 'notified', 'failed', 'unwanted')),
    attempts        INTEGER NOT NULL DEFAULT 0,
    next_at         TEXT,
    response_status INTEGER,
    error_message   TEXT,
    created_at      TEXT NOT NULL,
    notified_at         TEXT,
    UNIQUE (alert, change),
    CHECK ((state = 'due') = (next_at IS NOT NULL)),
    CHECK ((state = 'notified') = (notified_at IS NOT NULL))
) STRICT;
CREATE INDEX alert_notices_due ON alert_notices (next_at) WHERE state = 'due';
CREATE INDEX alert_notices_failed ON alert_notices (created_at) WHERE state = 'failed';
