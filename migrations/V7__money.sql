-- What everything cost, what it may cost, and how much OpenAI takes at once.
--
-- Money is whole pico-dollars: a price of one dollar a million tokens is 1,000,000 of them a token, and
-- no price of OpenAI's needs a fraction. Costs are never stored: they are tokens times the price that is
-- in force on the day on which the attempt was made, so that a price put right puts right what it made.

-- The configuration's prices, in pico-dollars a token; written at each start of the daemon.
CREATE TABLE prices (
    model  TEXT NOT NULL,
    mode   TEXT NOT NULL CHECK (mode IN ('batch', 'synchronous')),
    since  TEXT NOT NULL,                   -- a day (UTC)
    input  INTEGER NOT NULL CHECK (input >= 0),
    cached INTEGER NOT NULL CHECK (cached >= 0),
    output INTEGER NOT NULL CHECK (output >= 0),
    PRIMARY KEY (model, mode, since)
) STRICT, WITHOUT ROWID;

-- Of all of a batch's lines; they stay when the lines go.
ALTER TABLE openai_batches ADD COLUMN input_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE openai_batches ADD COLUMN cached_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE openai_batches ADD COLUMN output_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE openai_batches ADD COLUMN reasoning_tokens INTEGER NOT NULL DEFAULT 0;
-- What OpenAI says of the whole batch; none: nothing.
ALTER TABLE openai_batches ADD COLUMN openai_input_tokens INTEGER;
ALTER TABLE openai_batches ADD COLUMN openai_cached_tokens INTEGER;
ALTER TABLE openai_batches ADD COLUMN openai_output_tokens INTEGER;
ALTER TABLE openai_batches ADD COLUMN openai_reasoning_tokens INTEGER;
-- What it takes of the model's queue, as estimated: input and the most that may come out.
ALTER TABLE openai_batches ADD COLUMN queue_tokens INTEGER NOT NULL DEFAULT 0;
CREATE INDEX openai_batches_usage ON openai_batches (ingested_at)
    WHERE openai_input_tokens IS NOT NULL
      AND (openai_input_tokens, openai_cached_tokens, openai_output_tokens, openai_reasoning_tokens)
          <> (input_tokens, cached_tokens, output_tokens, reasoning_tokens);

-- What a job was estimated to cost when it was accepted, pico-dollars; none: there was no price.
ALTER TABLE batch_jobs ADD COLUMN estimated_cost INTEGER;
ALTER TABLE batch_jobs ADD COLUMN estimated_tokens INTEGER;

-- Tokens of every attempt, failed ones too, by job and by client and day (UTC, of the attempt).
CREATE TABLE job_usage (
    job              INTEGER NOT NULL REFERENCES batch_jobs (seq),
    stage            TEXT NOT NULL,
    language         TEXT NOT NULL,
    model            TEXT NOT NULL,
    mode             TEXT NOT NULL,
    day              TEXT NOT NULL,
    answers          INTEGER NOT NULL,
    input_tokens     INTEGER NOT NULL,
    cached_tokens    INTEGER NOT NULL,
    output_tokens    INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    PRIMARY KEY (job, stage, language, model, mode, day)
) STRICT, WITHOUT ROWID;
CREATE TABLE client_usage (
    client           TEXT NOT NULL,
    day              TEXT NOT NULL,
    model            TEXT NOT NULL,
    mode             TEXT NOT NULL,
    answers          INTEGER NOT NULL,
    input_tokens     INTEGER NOT NULL,
    cached_tokens    INTEGER NOT NULL,
    output_tokens    INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    PRIMARY KEY (client, day, model, mode)
) STRICT, WITHOUT ROWID;
CREATE INDEX client_usage_days ON client_usage (day);

-- What a batch under way will cost each of its clients, as estimated, pico-dollars: it counts until the
-- batch is taken in, on the day on which that was planned.
CREATE TABLE reservations (
    batch_id INTEGER NOT NULL REFERENCES openai_batches (id) ON DELETE CASCADE,
    client   TEXT NOT NULL,
    day      TEXT NOT NULL,
    cost     INTEGER NOT NULL,
    PRIMARY KEY (batch_id, client)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER reservations_end AFTER UPDATE OF state ON openai_batches WHEN NEW.state IN ('ingested', 'failed') BEGIN
    DELETE FROM reservations WHERE batch_id = NEW.id;
END;

-- How many tokens of a model OpenAI takes into its queue: learned from what it refused.
CREATE TABLE queue_limits (
    model      TEXT PRIMARY KEY,
    tokens     INTEGER NOT NULL CHECK (tokens > 0),
    learned_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One attempt's tokens, whatever brought them.
CREATE VIEW v_attempts AS
SELECT r.job, j.client, r.stage, r.language, b.model, 'batch' AS mode, substr(b.created_at, 1, 10) AS day,
       l.batch_id, l.request_id, l.outcome, l.input_tokens, l.cached_tokens, l.output_tokens, l.reasoning_tokens
FROM batch_lines l JOIN openai_batches b ON b.id = l.batch_id JOIN requests r ON r.id = l.request_id
     JOIN batch_jobs j ON j.seq = r.job
UNION ALL
SELECT r.job, j.client, r.stage, r.language, coalesce(d.model, ''), 'synchronous', substr(d.started_at, 1, 10),
       NULL, d.request_id, d.outcome, d.input_tokens, d.cached_tokens, d.output_tokens, d.reasoning_tokens
FROM synchronous_calls d JOIN requests r ON r.id = d.request_id JOIN batch_jobs j ON j.seq = r.job
WHERE d.ended_at IS NOT NULL;

INSERT INTO job_usage
SELECT job, stage, language, model, mode, day, sum(outcome IS 'answered'), sum(input_tokens), sum(cached_tokens),
       sum(output_tokens), sum(reasoning_tokens)
FROM v_attempts WHERE outcome IS 'answered' OR input_tokens > 0 OR output_tokens > 0
GROUP BY job, stage, language, model, mode, day;
INSERT INTO client_usage
SELECT j.client, u.day, u.model, u.mode, sum(u.answers), sum(u.input_tokens), sum(u.cached_tokens),
       sum(u.output_tokens), sum(u.reasoning_tokens)
FROM job_usage u JOIN batch_jobs j ON j.seq = u.job GROUP BY j.client, u.day, u.model, u.mode;
UPDATE openai_batches SET (input_tokens, cached_tokens, output_tokens, reasoning_tokens) =
    (SELECT coalesce(sum(l.input_tokens), 0), coalesce(sum(l.cached_tokens), 0), coalesce(sum(l.output_tokens), 0),
            coalesce(sum(l.reasoning_tokens), 0) FROM batch_lines l WHERE l.batch_id = openai_batches.id);

-- The counters follow the rows: by the difference, since an error may be replaced by a later text.
CREATE TRIGGER job_usage_counts AFTER INSERT ON job_usage BEGIN
    INSERT INTO client_usage SELECT client, NEW.day, NEW.model, NEW.mode, NEW.answers, NEW.input_tokens, NEW.cached_tokens,
                                    NEW.output_tokens, NEW.reasoning_tokens FROM batch_jobs WHERE seq = NEW.job
    ON CONFLICT DO UPDATE SET answers = answers + excluded.answers, input_tokens = input_tokens + excluded.input_tokens,
        cached_tokens = cached_tokens + excluded.cached_tokens, output_tokens = output_tokens + excluded.output_tokens,
        reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens;
END;
CREATE TRIGGER job_usage_grows AFTER UPDATE ON job_usage BEGIN
    UPDATE client_usage SET answers = answers + NEW.answers - OLD.answers,
        input_tokens = input_tokens + NEW.input_tokens - OLD.input_tokens,
        cached_tokens = cached_tokens + NEW.cached_tokens - OLD.cached_tokens,
        output_tokens = output_tokens + NEW.output_tokens - OLD.output_tokens,
        reasoning_tokens = reasoning_tokens + NEW.reasoning_tokens - OLD.reasoning_tokens
    WHERE client = (SELECT client FROM batch_jobs WHERE seq = NEW.job) AND day = NEW.day AND model = NEW.model
      AND mode = NEW.mode;
END;
CREATE TRIGGER lines_used AFTER UPDATE OF outcome, input_tokens, cached_tokens, output_tokens, reasoning_tokens ON batch_lines
WHEN (NEW.input_tokens, NEW.cached_tokens, NEW.output_tokens, NEW.reasoning_tokens)
     <> (OLD.input_tokens, OLD.cached_tokens, OLD.output_tokens, OLD.reasoning_tokens)
  OR (NEW.outcome IS 'answered') <> (OLD.outcome IS 'answered') BEGIN
    UPDATE openai_batches SET input_tokens = input_tokens + NEW.input_tokens - OLD.input_tokens,
        cached_tokens = cached_tokens + NEW.cached_tokens - OLD.cached_tokens,
        output_tokens = output_tokens + NEW.output_tokens - OLD.output_tokens,
        reasoning_tokens = reasoning_tokens + NEW.reasoning_tokens - OLD.reasoning_tokens
    WHERE id = NEW.batch_id;
    INSERT INTO job_usage
    SELECT r.job, r.stage, r.language, b.model, 'batch', substr(b.created_at, 1, 10),
           (NEW.outcome IS 'answered') - (OLD.outcome IS 'answered'), NEW.input_tokens - OLD.input_tokens,
           NEW.cached_tokens - OLD.cached_tokens, NEW.output_tokens - OLD.output_tokens,
           NEW.reasoning_tokens - OLD.reasoning_tokens
    FROM requests r, openai_batches b WHERE r.id = NEW.request_id AND b.id = NEW.batch_id
    ON CONFLICT DO UPDATE SET answers = answers + excluded.answers, input_tokens = input_tokens + excluded.input_tokens,
        cached_tokens = cached_tokens + excluded.cached_tokens, output_tokens = output_tokens + excluded.output_tokens,
        reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens;
END;
CREATE TRIGGER calls_used AFTER UPDATE OF ended_at ON synchronous_calls
WHEN OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL
 AND (NEW.outcome IS 'answered' OR NEW.input_tokens > 0 OR NEW.output_tokens > 0) BEGIN
    INSERT INTO job_usage
    SELECT job, stage, language, coalesce(NEW.model, ''), 'synchronous', substr(NEW.started_at, 1, 10),
           NEW.outcome IS 'answered', NEW.input_tokens, NEW.cached_tokens, NEW.output_tokens, NEW.reasoning_tokens
    FROM requests WHERE id = NEW.request_id
    ON CONFLICT DO UPDATE SET answers = answers + excluded.answers, input_tokens = input_tokens + excluded.input_tokens,
        cached_tokens = cached_tokens + excluded.cached_tokens, output_tokens = output_tokens + excluded.output_tokens,
        reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens;
END;

-- The price of each model on each day that anything was used: also by its dated name.
CREATE VIEW v_day_prices AS
SELECT u.model, u.mode, u.day, p.model AS priced_as, p.input, p.cached, p.output, max(p.since) AS since
FROM (SELECT DISTINCT model, mode, day FROM client_usage) u JOIN prices p
  ON p.mode = u.mode AND p.since <= u.day
 AND (u.model = p.model OR u.model GLOB p.model || '-20[0-9][0-9]-[01][0-9]-[0-3][0-9]')
GROUP BY u.model, u.mode, u.day;

DROP VIEW v_costs;
CREATE VIEW v_costs AS
WITH costed AS (
    SELECT b.*, (SELECT (b.input_tokens - b.cached_tokens) * p.input + b.cached_tokens * p.cached + b.output_tokens * p.output
                 FROM prices p
                 WHERE p.mode = 'batch' AND p.since <= substr(b.created_at, 1, 10)
                   AND (b.model = p.model OR b.model GLOB p.model || '-20[0-9][0-9]-[01][0-9]-[0-3][0-9]')
                 ORDER BY p.since DESC LIMIT 1) AS cost
    FROM openai_batches b)
SELECT id AS batch_id, openai_batch_id, stage, model, job_id, state, lines,
       (SELECT count(*) FROM batch_lines l WHERE l.batch_id = costed.id AND l.outcome = 'answered')
       + (SELECT coalesce(sum(w.answered), 0) FROM cleaned_work w WHERE w.batch_id = costed.id) AS answered,
       input_tokens, cached_tokens, output_tokens, reasoning_tokens, cost AS cost_picodollars,
       CASE WHEN cost IS NULL THEN 'unknown'
            ELSE printf('%d.%06d', cost / 1000000000000, cost % 1000000000000 / 1000000) END AS cost_usd
FROM costed;

-- What jobs were estimated to cost, and what they have come to.
CREATE VIEW v_job_costs AS
WITH costed AS (
    SELECT j.*, (SELECT count(*) FROM job_usage u WHERE u.job = j.seq) AS parts,
           (SELECT CASE WHEN count(*) = count(c) THEN sum(c) END FROM
               (SELECT (SELECT (u.input_tokens - u.cached_tokens) * p.input + u.cached_tokens * p.cached
                               + u.output_tokens * p.output
                        FROM prices p
                        WHERE p.mode = u.mode AND p.since <= u.day
                          AND (u.model = p.model OR u.model GLOB p.model || '-20[0-9][0-9]-[01][0-9]-[0-3][0-9]')
                        ORDER BY p.since DESC LIMIT 1) AS c
                FROM job_usage u WHERE u.job = j.seq)) AS cost
    FROM batch_jobs j)
SELECT id AS job_id, client, status,
       (SELECT coalesce(sum(answers), 0) FROM job_usage u WHERE u.job = costed.seq) AS answers,
       (SELECT coalesce(sum(input_tokens), 0) FROM job_usage u WHERE u.job = costed.seq) AS input_tokens,
       (SELECT coalesce(sum(cached_tokens), 0) FROM job_usage u WHERE u.job = costed.seq) AS cached_tokens,
       (SELECT coalesce(sum(output_tokens), 0) FROM job_usage u WHERE u.job = costed.seq) AS output_tokens,
       (SELECT coalesce(sum(reasoning_tokens), 0) FROM job_usage u WHERE u.job = costed.seq) AS reasoning_tokens,
       CASE parts WHEN 0 THEN 0 ELSE cost END AS cost_picodollars,
       CASE parts WHEN 0 THEN '0.000000' ELSE
           CASE WHEN cost IS NULL THEN 'unknown'
            ELSE printf('%d.%06d', cost / 1000000000000, cost % 1000000000000 / 1000000) END END AS cost_usd,
       estimated_tokens, estimated_cost AS estimated_picodollars,
       CASE WHEN estimated_cost IS NULL THEN 'unknown'
            ELSE printf('%d.%06d', estimated_cost / 1000000000000, estimated_cost % 1000000000000 / 1000000) END
           AS estimated_usd
FROM costed;

-- By client, day and model.
CREATE VIEW v_spending AS
WITH costed AS (
    SELECT u.*, (u.input_tokens - u.cached_tokens) * p.input + u.cached_tokens * p.cached + u.output_tokens * p.output AS cost
    FROM client_usage u LEFT JOIN v_day_prices p ON p.model = u.model AND p.mode = u.mode AND p.day = u.day)
SELECT client, day, model, mode, answers, input_tokens, cached_tokens, output_tokens, reasoning_tokens,
       cost AS cost_picodollars,
       CASE WHEN cost IS NULL THEN 'unknown'
            ELSE printf('%d.%06d', cost / 1000000000000, cost % 1000000000000 / 1000000) END AS cost_usd
FROM costed;
