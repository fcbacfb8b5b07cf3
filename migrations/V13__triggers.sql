-- The triggers: counters and statistics that follow the rows.

-- ---------------------------------------------------------------------------------------------------------
-- state_counts
-- ---------------------------------------------------------------------------------------------------------

-- Jobs.
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

-- Batches.
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

-- Webhook deliveries.
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

-- ---------------------------------------------------------------------------------------------------------
-- Usage and reservations
-- ---------------------------------------------------------------------------------------------------------

-- The tokens of a line, by the difference: a later text may replace an error.
CREATE TRIGGER lines_used
AFTER UPDATE OF outcome, input_tokens, cached_tokens, output_tokens, reasoning_tokens, usage_unknown ON batch_lines
WHEN (NEW.input_tokens, NEW.cached_tokens, NEW.output_tokens, NEW.reasoning_tokens, NEW.usage_unknown)
     <> (OLD.input_tokens, OLD.cached_tokens, OLD.output_tokens, OLD.reasoning_tokens, OLD.usage_unknown)
  OR (NEW.outcome IS 'answered') <> (OLD.outcome IS 'answered') BEGIN
    UPDATE openai_batches SET input_tokens = input_tokens + NEW.input_tokens - OLD.input_tokens,
        cached_tokens = cached_tokens + NEW.cached_tokens - OLD.cached_tokens,
        output_tokens = output_tokens + NEW.output_tokens - OLD.output_tokens,
        reasoning_tokens = reasoning_tokens + NEW.reasoning_tokens - OLD.reasoning_tokens,
        usage_unknown = usage_unknown + NEW.usage_unknown - OLD.usage_unknown
    WHERE id = NEW.batch_id;
    INSERT INTO job_usage
    SELECT r.job, r.stage, r.language, b.model, 'batch', substr(b.created_at, 1, 10),
           (NEW.outcome IS 'answered') - (OLD.outcome IS 'answered'), NEW.input_tokens - OLD.input_tokens,
           NEW.cached_tokens - OLD.cached_tokens, NEW.output_tokens - OLD.output_tokens,
           NEW.reasoning_tokens - OLD.reasoning_tokens, NEW.usage_unknown - OLD.usage_unknown
    FROM requests r, openai_batches b WHERE r.id = NEW.request_id AND b.id = NEW.batch_id
    ON CONFLICT DO UPDATE SET answers = answers + excluded.answers,
        input_tokens = input_tokens + excluded.input_tokens,
        cached_tokens = cached_tokens + excluded.cached_tokens,
        output_tokens = output_tokens + excluded.output_tokens,
        reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,
        usage_unknown = usage_unknown + excluded.usage_unknown;
END;

-- The tokens of a synchronous call.
CREATE TRIGGER calls_used AFTER UPDATE OF ended_at ON synchronous_calls
WHEN OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL
 AND (NEW.outcome IS 'answered' OR NEW.input_tokens > 0 OR NEW.output_tokens > 0 OR NEW.usage_unknown > 0) BEGIN
    INSERT INTO job_usage
    SELECT job, stage, language, coalesce(NEW.model, ''), 'synchronous', substr(NEW.started_at, 1, 10),
           NEW.outcome IS 'answered', NEW.input_tokens, NEW.cached_tokens, NEW.output_tokens, NEW.reasoning_tokens,
           NEW.usage_unknown
    FROM requests WHERE id = NEW.request_id
    ON CONFLICT DO UPDATE SET answers = answers + excluded.answers,
        input_tokens = input_tokens + excluded.input_tokens,
        cached_tokens = cached_tokens + excluded.cached_tokens,
        output_tokens = output_tokens + excluded.output_tokens,
        reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,
        usage_unknown = usage_unknown + excluded.usage_unknown;
END;

-- A client's usage follows that of its jobs.
CREATE TRIGGER job_usage_counts AFTER INSERT ON job_usage BEGIN
    INSERT INTO client_usage SELECT client, NEW.day, NEW.model, NEW.mode, NEW.answers, NEW.input_tokens,
                                    NEW.cached_tokens,
                                    NEW.output_tokens, NEW.reasoning_tokens, NEW.usage_unknown
    FROM batch_jobs WHERE seq = NEW.job
    ON CONFLICT DO UPDATE SET answers = answers + excluded.answers,
        input_tokens = input_tokens + excluded.input_tokens,
        cached_tokens = cached_tokens + excluded.cached_tokens,
        output_tokens = output_tokens + excluded.output_tokens,
        reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,
        usage_unknown = usage_unknown + excluded.usage_unknown;
END;

CREATE TRIGGER job_usage_grows AFTER UPDATE ON job_usage BEGIN
    UPDATE client_usage SET answers = answers + NEW.answers - OLD.answers,
        input_tokens = input_tokens + NEW.input_tokens - OLD.input_tokens,
        cached_tokens = cached_tokens + NEW.cached_tokens - OLD.cached_tokens,
        output_tokens = output_tokens + NEW.output_tokens - OLD.output_tokens,
        reasoning_tokens = reasoning_tokens + NEW.reasoning_tokens - OLD.reasoning_tokens,
        usage_unknown = usage_unknown + NEW.usage_unknown - OLD.usage_unknown
    WHERE client = (SELECT client FROM batch_jobs WHERE seq = NEW.job) AND day = NEW.day AND model = NEW.model
      AND mode = NEW.mode;
END;

-- A batch that is ingested or has failed reserves nothing but the share of its lines whose tokens are unknown.
CREATE TRIGGER reservations_end AFTER UPDATE OF state ON openai_batches
WHEN NEW.state IN ('ingested', 'failed') AND OLD.state NOT IN ('ingested', 'failed') BEGIN
    UPDATE reservations SET cost = cost / max(1, u.lines) * u.usage_unknown
    FROM (SELECT j.client, count(*) AS lines, sum(l.usage_unknown) AS usage_unknown
          FROM batch_lines l JOIN requests r ON r.id = l.request_id JOIN batch_jobs j ON j.seq = r.job
          WHERE l.batch_id = NEW.id GROUP BY j.client) u
    WHERE NEW.usage_unknown > 0 AND reservations.batch_id = NEW.id AND u.client = reservations.client;
    DELETE FROM reservations WHERE batch_id = NEW.id AND (cost = 0 OR NEW.usage_unknown = 0);
END;

-- ---------------------------------------------------------------------------------------------------------
-- counters and minute_stats
-- ---------------------------------------------------------------------------------------------------------

-- Jobs and lots of the API.
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
        SELECT 'job_seconds_sum', '',
               max(0, CAST(round((julianday(NEW.completed_at) - julianday(NEW.created_at)) * 86400) AS INTEGER))
        WHERE TRUE
        ON CONFLICT DO UPDATE SET number = number + excluded.number;
END;

-- Lots.
CREATE TRIGGER lots_finished AFTER UPDATE OF status ON batch_lots
WHEN NEW.processed_at IS NOT NULL AND OLD.status = 'pending' AND NEW.status IN ('completed', 'failed') BEGIN
    INSERT INTO counters VALUES ('lots_finished', NEW.status, 1) ON CONFLICT DO UPDATE SET number = number + 1;
    INSERT INTO minute_stats
        SELECT substr(NEW.processed_at, 1, 16), 'lots_' || NEW.status, 1,
               max(0, CAST(round((julianday(NEW.processed_at) - julianday(j.created_at)) * 86400000) AS INTEGER))
        FROM batch_jobs j WHERE j.id = NEW.batch_job_id
        ON CONFLICT DO UPDATE SET number = number + 1, millis = millis + excluded.millis;
END;

-- A lot that is sent again leaves the minute in which it ended: it will end again, and counts once. The counter
-- above only grows, and counts each end.
CREATE TRIGGER lots_reopened AFTER UPDATE OF status ON batch_lots
WHEN OLD.processed_at IS NOT NULL AND OLD.status IN ('completed', 'failed') AND NEW.status = 'pending' BEGIN
    UPDATE minute_stats SET number = max(0, number - 1),
        millis = max(0, millis - (
            SELECT max(0, CAST(round((julianday(OLD.processed_at) - julianday(j.created_at)) * 86400000) AS INTEGER))
            FROM batch_jobs j WHERE j.id = OLD.batch_job_id))
    WHERE minute = substr(OLD.processed_at, 1, 16) AND what = 'lots_' || OLD.status;
END;

-- The lines of a batch, all at once when it is final: none of them changes after that.
CREATE TRIGGER batches_over AFTER UPDATE OF state ON openai_batches
WHEN NEW.state IN ('ingested', 'failed') AND OLD.state NOT IN ('ingested', 'failed') BEGIN
    INSERT INTO counters
        SELECT 'lines', outcome, count(*) FROM batch_lines
        WHERE batch_id = NEW.id AND outcome IS NOT NULL GROUP BY outcome
        ON CONFLICT DO UPDATE SET number = number + excluded.number;
    INSERT INTO minute_stats (minute, what, number)
        SELECT substr(NEW.ingested_at, 1, 16), k.what, k.tokens
        FROM (SELECT 'input_tokens' AS what, NEW.input_tokens - NEW.cached_tokens AS tokens
              UNION ALL SELECT 'cached_tokens', NEW.cached_tokens
              UNION ALL SELECT 'output_tokens', NEW.output_tokens) k
        WHERE NEW.ingested_at IS NOT NULL
        ON CONFLICT DO UPDATE SET number = number + excluded.number;
    INSERT INTO minute_stats (minute, what, number)
        SELECT substr(NEW.ingested_at, 1, 16), iif(outcome = 'answered', 'lines_answered', 'lines_failed'), count(*)
        FROM batch_lines
        WHERE batch_id = NEW.id AND outcome <> 'not_run' AND NEW.ingested_at IS NOT NULL
        GROUP BY 2
        ON CONFLICT DO UPDATE SET number = number + excluded.number;
END;

-- Synchronous calls.
CREATE TRIGGER calls_over AFTER UPDATE OF ended_at ON synchronous_calls
WHEN NEW.ended_at IS NOT NULL AND OLD.ended_at IS NULL BEGIN
    INSERT INTO counters VALUES ('calls', NEW.outcome, 1) ON CONFLICT DO UPDATE SET number = number + 1;
    INSERT INTO minute_stats (minute, what, number)
        VALUES (substr(NEW.ended_at, 1, 16), 'input_tokens', NEW.input_tokens - NEW.cached_tokens),
               (substr(NEW.ended_at, 1, 16), 'cached_tokens', NEW.cached_tokens),
               (substr(NEW.ended_at, 1, 16), 'output_tokens', NEW.output_tokens)
        ON CONFLICT DO UPDATE SET number = number + excluded.number;
END;

-- Attempts at webhooks.
CREATE TRIGGER attempts_ended AFTER UPDATE OF ended_at ON delivery_attempts
WHEN NEW.ended_at IS NOT NULL AND OLD.ended_at IS NULL BEGIN
    INSERT INTO counters VALUES ('attempts', CASE WHEN NEW.response_status BETWEEN 200 AND 299 THEN 'delivered'
                                              WHEN NEW.response_status IS NOT NULL THEN 'refused' ELSE 'unreachable' END, 1)
        ON CONFLICT DO UPDATE SET number = number + 1;
END;

-- ---------------------------------------------------------------------------------------------------------
-- operator_actions is append-only
-- ---------------------------------------------------------------------------------------------------------

CREATE TRIGGER operator_actions_kept BEFORE UPDATE ON operator_actions BEGIN
    SELECT RAISE(ABORT, 'operator_actions is append-only');
END;

CREATE TRIGGER operator_actions_stay BEFORE DELETE ON operator_actions BEGIN
    SELECT RAISE(ABORT, 'operator_actions is append-only');
END;

-- A replacement deletes a row without the trigger above.
CREATE TRIGGER operator_actions_added BEFORE INSERT ON operator_actions
WHEN EXISTS (SELECT 1 FROM operator_actions
             WHERE id = NEW.id OR nonce = NEW.nonce OR outcome_of = NEW.outcome_of) BEGIN
    SELECT RAISE(ABORT, 'operator_actions is append-only');
END;
