-- What must hold of direct calls: one that was begun is its request's only way to an answer. Empty, as
-- every `v_bad_` view.
CREATE VIEW v_bad_calls AS
SELECT j.id AS subject, j.status, 'request ' || r.id || ' waits to be sent, and a call may still answer it' AS finding
FROM synchronous_calls d JOIN requests r ON r.id = d.request_id JOIN batch_jobs j ON j.seq = r.job
WHERE d.ended_at IS NULL AND r.state = 'waiting'
UNION ALL
SELECT j.id, j.status, 'request ' || r.id || ' is asked by a call and by batch row ' || b.id
FROM synchronous_calls d JOIN requests r ON r.id = d.request_id JOIN batch_jobs j ON j.seq = r.job
     JOIN batch_lines l ON l.request_id = r.id AND l.settled = 0
     JOIN openai_batches b ON b.id = l.batch_id AND b.state NOT IN ('ingested', 'failed')
WHERE d.ended_at IS NULL
UNION ALL
SELECT j.id, j.status, 'request ' || r.id || ' is asked by more than one call'
FROM synchronous_calls d JOIN requests r ON r.id = d.request_id JOIN batch_jobs j ON j.seq = r.job
WHERE d.ended_at IS NULL
  AND EXISTS (SELECT 1 FROM synchronous_calls e WHERE e.request_id = d.request_id AND e.ended_at IS NULL AND e.id < d.id)
UNION ALL
SELECT j.id, j.status, 'call ' || d.id || ' of request ' || r.id || ' has the outcome ' || d.outcome
FROM synchronous_calls d JOIN requests r ON r.id = d.request_id JOIN batch_jobs j ON j.seq = r.job
WHERE d.outcome NOT IN ('answered', 'refused', 'truncated', 'filtered', 'image_unreachable', 'passing', 'wrong',
                        'unreadable', 'missing', 'not_run');

-- OpenAI's time, in seconds, of the newest batch of this database that a whole listing has shown: what
-- was made much before it, no later listing need show again.
ALTER TABLE instance ADD COLUMN listed_until INTEGER;

-- When OpenAI's batches were compared with this database. A daemon clears it when it starts, and creates
-- no batch before it is set again: the database may be an older one that was put back.
ALTER TABLE instance ADD COLUMN compared_at TEXT;
