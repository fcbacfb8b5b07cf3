-- What happened, counted when it happens by triggers: for the status page's pictures and for
-- /metrics, which must not read all rows there ever were.

-- Since the beginning; only grows.
CREATE TABLE counters (
    what   TEXT NOT NULL,
    label  TEXT NOT NULL,                   -- a client, an outcome, a bound in seconds
    number INTEGER NOT NULL,
    PRIMARY KEY (what, label)
) STRICT, WITHOUT ROWID;

-- By the minute, for eight days.
CREATE TABLE minute_stats (
    minute TEXT NOT NULL,                   -- 2026-11-25T09:24
    what   TEXT NOT NULL,                   -- lots_completed, lots_failed, input_tokens (not from the cache), …
    number INTEGER NOT NULL,
    millis INTEGER NOT NULL DEFAULT 0,      -- of lots: from acceptance to their end, together
    PRIMARY KEY (minute, what)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER minute_stats_expire AFTER INSERT ON minute_stats BEGIN
    DELETE FROM minute_stats WHERE minute < strftime('%Y-%m-%dT%H:%M', NEW.minute, '-8 days');
END;

CREATE TRIGGER jobs_accepted AFTER INSERT ON batch_jobs WHEN NEW.origin = 'api' BEGIN
    INSERT INTO counters VALUES ('jobs_accepted', NEW.client, 1), ('lots_accepted', NEW.client, NEW.total_lots)
        ON CONFLICT DO UPDATE SET number = number + excluded.number;
END;

-- From acceptance to the end; the bounds are those of `batchkeeper_job_duration_seconds`.
CREATE TRIGGER jobs_ended AFTER UPDATE OF completed_at ON batch_jobs
WHEN NEW.completed_at IS NOT NULL AND OLD.completed_at IS NULL BEGIN
    INSERT INTO counters VALUES ('jobs_ended', NEW.status, 1) ON CONFLICT DO UPDATE SET number = number + 1;
    INSERT INTO counters
        SELECT 'job_seconds', CASE WHEN s <= 60 THEN '60' WHEN s <= 300 THEN '300' WHEN s <= 900 THEN '900'
                                   WHEN s <= 1800 THEN '1800' WHEN s <= 3600 THEN '3600' WHEN s <= 7200 THEN '7200'
                                   WHEN s <= 14400 THEN '14400' WHEN s <= 28800 THEN '28800' WHEN s <= 57600 THEN '57600'
                                   WHEN s <= 86400 THEN '86400' ELSE '+Inf' END, 1
        FROM (SELECT round((julianday(NEW.completed_at) - julianday(NEW.created_at)) * 86400) AS s) WHERE TRUE
        ON CONFLICT DO UPDATE SET number = number + 1;
    INSERT INTO counters
        SELECT 'job_seconds_sum', '', max(0, CAST(round((julianday(NEW.completed_at) - julianday(NEW.created_at)) * 86400) AS INTEGER)) WHERE TRUE
        ON CONFLICT DO UPDATE SET number = number + excluded.number;
END;

CREATE TRIGGER lots_finished AFTER UPDATE OF status ON batch_lots
WHEN NEW.processed_at IS NOT NULL AND OLD.status = 'pending' AND NEW.status IN ('completed', 'failed') BEGIN
    INSERT INTO counters VALUES ('lots_finished', NEW.status, 1) ON CONFLICT DO UPDATE SET number = number + 1;
    INSERT INTO minute_stats
        SELECT substr(NEW.processed_at, 1, 16), 'lots_' || NEW.status, 1,
               max(0, CAST(round((julianday(NEW.processed_at) - julianday(j.created_at)) * 86400000) AS INTEGER))
        FROM batch_jobs j WHERE j.id = NEW.batch_job_id
        ON CONFLICT DO UPDATE SET number = number + 1, millis = millis + excluded.millis;
END;

-- A batch's lines all at once, when it is over: none of them changes any more.
CREATE TRIGGER batches_over AFTER UPDATE OF state ON openai_batches
WHEN NEW.state IN ('ingested', 'failed') AND OLD.state NOT IN ('ingested', 'failed') BEGIN
    INSERT INTO counters
        SELECT 'lines', outcome, count(*) FROM batch_lines WHERE batch_id = NEW.id AND outcome IS NOT NULL GROUP BY outcome
        ON CONFLICT DO UPDATE SET number = number + excluded.number;
    INSERT INTO minute_stats (minute, what, number)
        SELECT substr(NEW.ingested_at, 1, 16), k.what, k.tokens
        FROM (SELECT 'input_tokens' AS what, NEW.input_tokens - NEW.cached_tokens AS tokens
              UNION ALL SELECT 'cached_tokens', NEW.cached_tokens
              UNION ALL SELECT 'output_tokens', NEW.output_tokens) k
        WHERE NEW.ingested_at IS NOT NULL
        ON CONFLICT DO UPDATE SET number = number + excluded.number;
END;

CREATE TRIGGER calls_over AFTER UPDATE OF ended_at ON synchronous_calls
WHEN NEW.ended_at IS NOT NULL AND OLD.ended_at IS NULL BEGIN
    INSERT INTO counters VALUES ('calls', NEW.outcome, 1) ON CONFLICT DO UPDATE SET number = number + 1;
    INSERT INTO minute_stats (minute, what, number)
        VALUES (substr(NEW.ended_at, 1, 16), 'input_tokens', NEW.input_tokens - NEW.cached_tokens),
               (substr(NEW.ended_at, 1, 16), 'cached_tokens', NEW.cached_tokens),
               (substr(NEW.ended_at, 1, 16), 'output_tokens', NEW.output_tokens)
        ON CONFLICT DO UPDATE SET number = number + excluded.number;
END;

CREATE TRIGGER attempts_ended AFTER UPDATE OF ended_at ON delivery_attempts
WHEN NEW.ended_at IS NOT NULL AND OLD.ended_at IS NULL BEGIN
    INSERT INTO counters VALUES ('attempts', CASE WHEN NEW.response_status BETWEEN 200 AND 299 THEN 'delivered'
                                              WHEN NEW.response_status IS NOT NULL THEN 'refused' ELSE 'unreachable' END, 1)
        ON CONFLICT DO UPDATE SET number = number + 1;
END;

-- What there was before; the minutes begin now.
INSERT INTO counters SELECT 'jobs_accepted', client, count(*) FROM batch_jobs WHERE origin = 'api' GROUP BY client;
INSERT INTO counters SELECT 'lots_accepted', client, sum(total_lots) FROM batch_jobs WHERE origin = 'api' GROUP BY client;
INSERT INTO counters SELECT 'jobs_ended', status, count(*) FROM batch_jobs WHERE completed_at IS NOT NULL GROUP BY status;
INSERT INTO counters SELECT 'lots_finished', 'completed', sum(processed_lots - failed_lots) FROM batch_jobs HAVING count(*) > 0;
INSERT INTO counters SELECT 'lots_finished', 'failed', sum(failed_lots) FROM batch_jobs HAVING count(*) > 0;
INSERT INTO counters
    SELECT 'job_seconds', CASE WHEN s <= 60 THEN '60' WHEN s <= 300 THEN '300' WHEN s <= 900 THEN '900'
                               WHEN s <= 1800 THEN '1800' WHEN s <= 3600 THEN '3600' WHEN s <= 7200 THEN '7200'
                               WHEN s <= 14400 THEN '14400' WHEN s <= 28800 THEN '28800' WHEN s <= 57600 THEN '57600'
                               WHEN s <= 86400 THEN '86400' ELSE '+Inf' END, count(*)
    FROM (SELECT round((julianday(completed_at) - julianday(created_at)) * 86400) AS s FROM batch_jobs WHERE completed_at IS NOT NULL)
    GROUP BY 2;
INSERT INTO counters
    SELECT 'job_seconds_sum', '', CAST(sum(max(0, round((julianday(completed_at) - julianday(created_at)) * 86400))) AS INTEGER)
    FROM batch_jobs WHERE completed_at IS NOT NULL HAVING count(*) > 0;
INSERT INTO counters
    SELECT 'lines', l.outcome, count(*) FROM openai_batches b JOIN batch_lines l ON l.batch_id = b.id
    WHERE b.state IN ('ingested', 'failed') AND l.outcome IS NOT NULL GROUP BY l.outcome;
INSERT INTO counters SELECT 'calls', outcome, count(*) FROM synchronous_calls WHERE ended_at IS NOT NULL GROUP BY outcome;
INSERT INTO counters
    SELECT 'attempts', CASE WHEN response_status BETWEEN 200 AND 299 THEN 'delivered'
                            WHEN response_status IS NOT NULL THEN 'refused' ELSE 'unreachable' END, count(*)
    FROM delivery_attempts WHERE ended_at IS NOT NULL GROUP BY 2;
