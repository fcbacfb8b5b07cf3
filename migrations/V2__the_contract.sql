-- What each accepted submission was answered, and what an equal one is known by.
CREATE TABLE acceptances (
    job            INTEGER PRIMARY KEY REFERENCES batch_jobs (seq),
    client         TEXT NOT NULL,
    content_sha256 TEXT NOT NULL,           -- of lots, languages and webhooks in canonical form
    answer         TEXT NOT NULL CHECK (json_valid(answer)),
    accepted_at    TEXT NOT NULL
) STRICT;
CREATE INDEX acceptances_equal ON acceptances (client, content_sha256, accepted_at);

-- What makes a request count once: a client's Idempotency-Key, or the v1 signature of a POST.
CREATE TABLE idempotency_keys (
    client      TEXT NOT NULL,
    kind        TEXT NOT NULL CHECK (kind IN ('key', 'signature')),
    key         TEXT NOT NULL,
    body_sha256 TEXT NOT NULL,
    job         INTEGER NOT NULL REFERENCES batch_jobs (seq),
    answer      TEXT CHECK (json_valid(answer)),    -- none: that of the job's acceptance
    used_at     TEXT NOT NULL,
    PRIMARY KEY (client, kind, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_job ON idempotency_keys (job);
CREATE INDEX idempotency_keys_signatures ON idempotency_keys (used_at) WHERE kind = 'signature';

-- How many lots were taken from a client on a day (UTC).
CREATE TABLE daily_lots (
    client TEXT NOT NULL,
    day    TEXT NOT NULL,
    lots   INTEGER NOT NULL CHECK (lots >= 0),
    PRIMARY KEY (client, day)
) STRICT, WITHOUT ROWID;

-- A delivery's receiver, as host and port; whether an attempt is under way (until next_at).
ALTER TABLE webhook_deliveries ADD COLUMN host TEXT NOT NULL DEFAULT '';
ALTER TABLE webhook_deliveries ADD COLUMN in_flight INTEGER NOT NULL DEFAULT 0 CHECK (in_flight IN (0, 1));
CREATE INDEX webhook_deliveries_hosts ON webhook_deliveries (host, next_at) WHERE state = 'due';
CREATE INDEX webhook_deliveries_in_flight ON webhook_deliveries (host) WHERE in_flight = 1;

-- Receivers whose last attempt failed.
CREATE TABLE failing_receivers (
    host     TEXT PRIMARY KEY,
    failures INTEGER NOT NULL,              -- since the last success
    since    TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What was found of an image a moment ago: a restart does not look again.
CREATE TABLE image_checks (
    url        TEXT PRIMARY KEY,
    problem    TEXT,                        -- none: it can be fetched
    checked_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX image_checks_old ON image_checks (checked_at);

-- A job that an operator sends on again tells of its new end in deliveries of their own, beside
-- those that told of the old one.
DROP VIEW v_bad_deliveries;
CREATE VIEW v_bad_deliveries AS
SELECT j.id AS subject, j.status, 'the webhook to ' || d.url || ' is ' || d.state AS finding
FROM batch_jobs j JOIN webhook_deliveries d ON d.batch_job_id = j.id
WHERE CASE WHEN j.completed_at IS NOT NULL THEN d.state = 'scheduled'
           WHEN d.state = 'due' THEN 1
           ELSE d.state <> 'scheduled'
                AND NOT EXISTS (SELECT 1 FROM webhook_deliveries later
                                WHERE later.batch_job_id = d.batch_job_id AND later.url = d.url
                                  AND later.resend_number > d.resend_number AND later.state = 'scheduled') END;
