-- The views: tables for people, costs, and the invariants.

-- ---------------------------------------------------------------------------------------------------------
-- What people read
-- ---------------------------------------------------------------------------------------------------------

-- A job.
CREATE VIEW v_jobs AS
SELECT j.id, j.client, j.status, j.total_lots, j.processed_lots, j.failed_lots, j.open_vision,
       j.open_translations, j.languages, j.openai_batch_id, j.openai_translation_batch_id, j.created_at,
       j.updated_at, j.completed_at,
       (SELECT count(*) FROM webhook_deliveries d
        WHERE d.batch_job_id = j.id AND d.state <> 'delivered') AS webhooks_open,
       j.error_message, j.cleaned_at
FROM batch_jobs j;

-- A submission: the intent first, then OpenAI's batch.
CREATE VIEW v_batches AS
SELECT b.id, b.submission_key, b.stage, b.state, b.openai_batch_id, b.openai_status, b.model, b.lines,
       b.openai_completed, b.openai_failed, b.input_file_id, b.output_file_id, b.error_file_id, b.job_id,
       b.duplicate_of, b.created_at, b.submitted_at, b.ended_at, b.ingested_at, b.next_at, b.failures, b.error,
       b.abandon_wanted, b.abandoned_at
FROM openai_batches b;

-- One attempt at a request, in a batch or by a synchronous call.
CREATE VIEW v_attempts AS
SELECT r.job, j.client, r.stage, r.language, b.model, 'batch' AS mode, substr(b.created_at, 1, 10) AS day,
       l.batch_id, l.request_id, l.outcome, l.input_tokens, l.cached_tokens, l.output_tokens, l.reasoning_tokens,
       l.usage_unknown
FROM batch_lines l JOIN openai_batches b ON b.id = l.batch_id JOIN requests r ON r.id = l.request_id
     JOIN batch_jobs j ON j.seq = r.job
UNION ALL
SELECT r.job, j.client, r.stage, r.language, coalesce(d.model, ''), 'synchronous', substr(d.started_at, 1, 10),
       NULL, d.request_id, d.outcome, d.input_tokens, d.cached_tokens, d.output_tokens, d.reasoning_tokens,
       d.usage_unknown
FROM synchronous_calls d JOIN requests r ON r.id = d.request_id JOIN batch_jobs j ON j.seq = r.job
WHERE d.ended_at IS NOT NULL;

-- ---------------------------------------------------------------------------------------------------------
-- Costs, in pico-dollars and in dollars: tokens times the price that is in force on the attempt's day.
--
-- `usage_unknown` counts attempts whose tokens are unknown. `cost_picodollars` then is the cost of the others, and
-- `cost_usd` is `unknown`. Each product of the cost formula is at most 3 * 10^18 and a sum of costs is added up in
-- two halves, so that no amount becomes a fraction.
-- ---------------------------------------------------------------------------------------------------------

-- The price of each model on each day on which it was used.
CREATE VIEW v_day_prices AS
SELECT u.model, u.mode, u.day, p.model AS priced_as, p.input, p.cached, p.output, max(p.since) AS since
FROM (SELECT DISTINCT model, mode, day FROM client_usage) u JOIN prices p
  ON p.mode = u.mode AND p.since <= u.day AND (u.model = p.model OR u.model GLOB p.dated_models)
GROUP BY u.model, u.mode, u.day;

-- What recovered batches used for jobs that this database does not have, as after a restore: OpenAI's own usage
-- of the batch, less the usage of its lines here. `is_known` is 0 if OpenAI answered lines and reports no usage.
CREATE VIEW v_usage_without_job AS
WITH used AS (
    SELECT id AS batch_id, substr(created_at, 1, 10) AS day, model, lines_without_job AS lines,
           openai_input_tokens IS NOT NULL OR openai_completed = 0 AS is_known,
           max(0, coalesce(openai_input_tokens - input_tokens, 0)) AS input_tokens,
           max(0, coalesce(openai_cached_tokens - cached_tokens, 0)) AS cached_tokens,
           max(0, coalesce(openai_output_tokens - output_tokens, 0)) AS output_tokens,
           max(0, coalesce(openai_reasoning_tokens - reasoning_tokens, 0)) AS reasoning_tokens
    FROM openai_batches WHERE lines_without_job > 0 AND state IN ('ingested', 'failed'))
SELECT u.*, CASE WHEN u.is_known THEN
                (SELECT min(u.input_tokens - u.cached_tokens, 3000000000000000000 / max(p.input, 1)) * p.input
                        + min(u.cached_tokens, 3000000000000000000 / max(p.cached, 1)) * p.cached
                        + min(u.output_tokens, 3000000000000000000 / max(p.output, 1)) * p.output
                 FROM prices p
                 WHERE p.mode = 'batch' AND p.since <= u.day AND (u.model = p.model OR u.model GLOB p.dated_models)
                 ORDER BY p.since DESC LIMIT 1) END AS cost_picodollars
FROM used u;

-- A batch, with what it used for jobs that this database does not have.
CREATE VIEW v_costs AS
WITH used AS (
    SELECT b.id, b.openai_batch_id, b.stage, b.model, b.job_id, b.state, b.lines, b.created_at,
           coalesce(n.is_known, 1) AS is_known, b.usage_unknown,
           b.input_tokens + coalesce(n.input_tokens, 0) AS input_tokens,
           b.cached_tokens + coalesce(n.cached_tokens, 0) AS cached_tokens,
           b.output_tokens + coalesce(n.output_tokens, 0) AS output_tokens,
           b.reasoning_tokens + coalesce(n.reasoning_tokens, 0) AS reasoning_tokens
    FROM openai_batches b LEFT JOIN v_usage_without_job n ON n.batch_id = b.id),
costed AS (
    SELECT b.*, CASE WHEN b.is_known THEN
                (SELECT min(b.input_tokens - b.cached_tokens, 3000000000000000000 / max(p.input, 1)) * p.input
                        + min(b.cached_tokens, 3000000000000000000 / max(p.cached, 1)) * p.cached
                        + min(b.output_tokens, 3000000000000000000 / max(p.output, 1)) * p.output
                 FROM prices p
                 WHERE p.mode = 'batch' AND p.since <= substr(b.created_at, 1, 10)
                   AND (b.model = p.model OR b.model GLOB p.dated_models)
                 ORDER BY p.since DESC LIMIT 1) END AS cost
    FROM used b)
SELECT id AS batch_id, openai_batch_id, stage, model, job_id, state, lines,
       (SELECT count(*) FROM batch_lines l WHERE l.batch_id = costed.id AND l.outcome = 'answered')
       + (SELECT coalesce(sum(w.answered), 0) FROM cleaned_work w WHERE w.batch_id = costed.id) AS answered,
       input_tokens, cached_tokens, output_tokens, reasoning_tokens, usage_unknown, cost AS cost_picodollars,
       CASE WHEN cost IS NULL OR usage_unknown > 0 THEN 'unknown'
            ELSE printf('%d.%06d', cost / 1000000000000, cost % 1000000000000 / 1000000) END AS cost_usd
FROM costed;

-- A synchronous call that was made.
CREATE VIEW v_call_costs AS
SELECT d.id, d.request_id, d.started_at, d.model, d.input_tokens, d.cached_tokens, d.output_tokens,
       d.reasoning_tokens, d.usage_unknown,
       CASE WHEN d.input_tokens + d.output_tokens = 0 THEN 0 ELSE
           (SELECT min(d.input_tokens - d.cached_tokens, 3000000000000000000 / max(p.input, 1)) * p.input
                   + min(d.cached_tokens, 3000000000000000000 / max(p.cached, 1)) * p.cached
                   + min(d.output_tokens, 3000000000000000000 / max(p.output, 1)) * p.output
            FROM prices p
            WHERE p.mode = 'synchronous' AND p.since <= substr(d.started_at, 1, 10)
              AND (d.model = p.model OR d.model GLOB p.dated_models)
            ORDER BY p.since DESC LIMIT 1) END AS cost_picodollars
FROM synchronous_calls d WHERE d.started_at IS NOT NULL;

-- What a job used, by stage, language, model and day.
CREATE VIEW v_job_usage AS
SELECT u.*, (SELECT min(u.input_tokens - u.cached_tokens, 3000000000000000000 / max(p.input, 1)) * p.input
                    + min(u.cached_tokens, 3000000000000000000 / max(p.cached, 1)) * p.cached
                    + min(u.output_tokens, 3000000000000000000 / max(p.output, 1)) * p.output
             FROM prices p
             WHERE p.mode = u.mode AND p.since <= u.day AND (u.model = p.model OR u.model GLOB p.dated_models)
             ORDER BY p.since DESC LIMIT 1) AS cost_picodollars
FROM job_usage u;

-- A job: its estimate and its cost.
CREATE VIEW v_job_costs AS
WITH costed AS (
    SELECT j.*, (SELECT count(*) FROM job_usage u WHERE u.job = j.seq) AS parts,
           (SELECT coalesce(sum(u.usage_unknown), 0) FROM job_usage u WHERE u.job = j.seq) AS usage_unknown,
           (SELECT CASE WHEN count(*) <> count(u.cost_picodollars) THEN NULL
                        WHEN total(u.cost_picodollars) >= 9e18 THEN 9223372036854775807
                        ELSE sum(u.cost_picodollars >> 32) * 4294967296 + sum(u.cost_picodollars & 4294967295) END
            FROM v_job_usage u WHERE u.job = j.seq) AS cost
    FROM batch_jobs j)
SELECT id AS job_id, client, status,
       (SELECT coalesce(sum(answers), 0) FROM job_usage u WHERE u.job = costed.seq) AS answers,
       (SELECT coalesce(sum(input_tokens), 0) FROM job_usage u WHERE u.job = costed.seq) AS input_tokens,
       (SELECT coalesce(sum(cached_tokens), 0) FROM job_usage u WHERE u.job = costed.seq) AS cached_tokens,
       (SELECT coalesce(sum(output_tokens), 0) FROM job_usage u WHERE u.job = costed.seq) AS output_tokens,
       (SELECT coalesce(sum(reasoning_tokens), 0) FROM job_usage u WHERE u.job = costed.seq) AS reasoning_tokens,
       usage_unknown,
       CASE parts WHEN 0 THEN 0 ELSE cost END AS cost_picodollars,
       CASE WHEN parts = 0 THEN '0.000000' WHEN cost IS NULL OR usage_unknown > 0 THEN 'unknown'
            ELSE printf('%d.%06d', cost / 1000000000000, cost % 1000000000000 / 1000000) END AS cost_usd,
       estimated_tokens, estimated_cost AS estimated_picodollars,
       CASE WHEN estimated_cost IS NULL THEN 'unknown'
            ELSE printf('%d.%06d', estimated_cost / 1000000000000, estimated_cost % 1000000000000 / 1000000) END
           AS estimated_usd
FROM costed;

-- A client, by day and model. Tokens of jobs that this database does not have belong to the client
-- `without a job`.
CREATE VIEW v_spending AS
WITH used AS (
    SELECT client, day, model, mode, answers, input_tokens, cached_tokens, output_tokens, reasoning_tokens,
           usage_unknown, 1 AS is_known FROM client_usage
    UNION ALL
    SELECT 'without a job', day, model, 'batch', 0, sum(input_tokens), sum(cached_tokens), sum(output_tokens),
           sum(reasoning_tokens), 0, min(is_known) FROM v_usage_without_job GROUP BY day, model
    HAVING min(is_known) = 0 OR sum(input_tokens + output_tokens) > 0),
costed AS (
    SELECT u.*, CASE WHEN u.is_known THEN
                (SELECT min(u.input_tokens - u.cached_tokens, 3000000000000000000 / max(p.input, 1)) * p.input
                        + min(u.cached_tokens, 3000000000000000000 / max(p.cached, 1)) * p.cached
                        + min(u.output_tokens, 3000000000000000000 / max(p.output, 1)) * p.output
                 FROM prices p
                 WHERE p.mode = u.mode AND p.since <= u.day AND (u.model = p.model OR u.model GLOB p.dated_models)
                 ORDER BY p.since DESC LIMIT 1) END AS cost
    FROM used u)
SELECT client, day, model, mode, answers, input_tokens, cached_tokens, output_tokens, reasoning_tokens,
       usage_unknown, cost AS cost_picodollars,
       CASE WHEN cost IS NULL OR usage_unknown > 0 THEN 'unknown'
            ELSE printf('%d.%06d', cost / 1000000000000, cost % 1000000000000 / 1000000) END AS cost_usd
FROM costed;

-- ---------------------------------------------------------------------------------------------------------
-- Invariants: each of these views must be empty. The auditor reads them every minute for what is not final
-- (by `status`), `batchkeeper doctor` reads them for everything.
-- ---------------------------------------------------------------------------------------------------------

-- Work that no batch and no call answers.
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

-- A job names a batch that does not work for it, or does not name one that does.
CREATE VIEW v_bad_links AS
SELECT j.id AS subject, j.status,
       'batch ' || b.openai_batch_id || ' works for it, but it names none of that stage' AS finding
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
WHERE b.stage <> 'translation'
   OR NOT EXISTS (SELECT 1 FROM batch_links k WHERE k.batch_id = b.id AND k.job = j.seq);

-- A request is sent, or may be sent, a second time.
CREATE VIEW v_bad_claims AS
SELECT j.id AS subject, j.status,
       'request ' || r.id || ' waits to be sent, and a batch may still answer it' AS finding
FROM batch_jobs j JOIN requests r ON r.job = j.seq
WHERE r.state = 'waiting'
  AND EXISTS (SELECT 1 FROM batch_lines l JOIN openai_batches b ON b.id = l.batch_id
              WHERE l.request_id = r.id AND l.settled = 0 AND b.state NOT IN ('ingested', 'failed'))
UNION ALL
-- A second batch under one key has an alert of its own, and a recovery links every batch that it finds.
SELECT j.id, j.status, 'request ' || r.id || ' is claimed by more than one batch'
FROM batch_jobs j JOIN requests r ON r.job = j.seq
WHERE r.state = 'claimed'
  AND (SELECT count(*) FROM batch_lines l JOIN openai_batches b ON b.id = l.batch_id
       WHERE l.request_id = r.id AND l.settled = 0 AND b.state NOT IN ('ingested', 'failed')
         AND b.duplicate_of IS NULL AND (b.state = 'planned' OR b.input_sha256 IS NOT NULL)) > 1;

-- A synchronous call is not the only source of an answer to its request.
CREATE VIEW v_bad_calls AS
SELECT j.id AS subject, j.status,
       'request ' || r.id || ' waits to be sent, and a call may still answer it' AS finding
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
  AND EXISTS (SELECT 1 FROM synchronous_calls e
              WHERE e.request_id = d.request_id AND e.ended_at IS NULL AND e.id < d.id)
UNION ALL
SELECT j.id, j.status, 'call ' || d.id || ' of request ' || r.id || ' has the outcome ' || d.outcome
FROM synchronous_calls d JOIN requests r ON r.id = d.request_id JOIN batch_jobs j ON j.seq = r.job
WHERE d.outcome NOT IN ('answered', 'refused', 'truncated', 'filtered', 'image_unreachable', 'passing',
                        'misconfigured', 'wrong', 'unreadable', 'missing', 'not_run');

-- The state of a lot does not fit its requests or its text.
CREATE VIEW v_bad_lots AS
SELECT j.id AS subject, j.status,
       'lot ' || l.lot_id || ' is pending, and none of its requests is open' AS finding
FROM batch_jobs j JOIN batch_lots l ON l.batch_job_id = j.id
WHERE l.status = 'pending'
  AND NOT EXISTS (SELECT 1 FROM requests r WHERE r.lot = l.id AND r.state IN ('waiting', 'claimed', 'held'))
UNION ALL
SELECT j.id, j.status,
       'lot ' || l.lot_id || ' is ' || l.status || ', and request ' || r.id || ' of it is ' || r.state
FROM batch_jobs j JOIN requests r ON r.job = j.seq JOIN batch_lots l ON l.id = r.lot
WHERE r.state IN ('waiting', 'claimed', 'held') AND l.status <> 'pending'
UNION ALL
SELECT j.id, j.status, 'lot ' || l.lot_id || ' is ' || l.status || ' without a text or a reason'
FROM batch_jobs j JOIN batch_lots l ON l.batch_job_id = j.id
WHERE l.status = 'failed' AND l.error_message IS NULL
   OR l.status = 'completed' AND l.vision_result IS NULL
      AND NOT EXISTS (SELECT 1 FROM lot_translations t WHERE t.lot = l.id AND t.text IS NOT NULL);

-- A request has a verdict without a text or a reason.
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

-- The counters of open requests of a job are wrong.
CREATE VIEW v_bad_open_requests AS
SELECT j.id AS subject, j.status,
       'counts ' || j.open_vision || ' open vision and ' || j.open_translations
       || ' open translation requests, has other rows' AS finding
FROM batch_jobs j
-- The counters of a job that is being changed are right once all of its lots are.
WHERE j.pending_change IS NULL AND (j.open_vision, j.open_translations) <>
      (SELECT coalesce(sum(r.stage = 'vision'), 0), coalesce(sum(r.stage = 'translation'), 0) FROM requests r
       WHERE r.job = j.seq AND r.state IN ('waiting', 'claimed', 'held'));

-- The counters of lots of a job are wrong.
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

-- A final job has open requests, or a cleaned job has rows.
CREATE VIEW v_bad_final_jobs AS
SELECT j.id AS subject, j.status, 'is final, and some of its requests are open' AS finding
FROM batch_jobs j
WHERE j.completed_at IS NOT NULL AND j.pending_change IS NULL
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

-- The counters or states of a batch do not fit its lines and files.
CREATE VIEW v_bad_batches AS
SELECT CAST(b.id AS TEXT) AS subject, b.state AS status,
       'was sealed with ' || b.lines || ' lines, has other rows' AS finding
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
SELECT CAST(b.id AS TEXT), b.state, 'was ingested before its files were read to the end'
FROM openai_batches b
WHERE b.state = 'ingested'
  AND (b.output_file_id IS NOT NULL AND b.output_ingested IS NOT b.output_bytes
       OR b.error_file_id IS NOT NULL AND b.error_ingested IS NOT b.error_bytes
       OR b.ingested_at IS NULL);

-- A line has an outcome without a verdict, an answer without a text, or no link to its job.
CREATE VIEW v_bad_lines AS
SELECT CAST(l.batch_id AS TEXT) AS subject, '' AS status,
       'the line of request ' || l.request_id
       || ' has a verdict and no outcome, or an answer and no verdict' AS finding
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

-- A job with a webhook URL has no delivery.
CREATE VIEW v_bad_webhooks AS
SELECT j.id AS subject, j.status, 'no webhook to ' || j.webhook_url || ' is planned' AS finding
FROM batch_jobs j
WHERE j.webhook_url IS NOT NULL AND j.processing_mode = 'batch' AND (j.origin = 'api' OR j.completed_at IS NULL)
  AND EXISTS (SELECT 1 FROM batch_lots l WHERE l.batch_job_id = j.id AND l.webhook_url IS NULL)
  AND NOT EXISTS (SELECT 1 FROM webhook_deliveries d WHERE d.batch_job_id = j.id AND d.url = j.webhook_url);

-- A delivery is scheduled after the end of its job, or due before it. A job that an operator retries has new
-- deliveries for its new end beside the old ones.
CREATE VIEW v_bad_deliveries AS
SELECT j.id AS subject, j.status, 'the webhook to ' || d.url || ' is ' || d.state AS finding
FROM batch_jobs j JOIN webhook_deliveries d ON d.batch_job_id = j.id
WHERE CASE WHEN j.completed_at IS NOT NULL THEN d.state = 'scheduled' AND j.pending_change IS NULL
           WHEN d.state = 'due' THEN 1
           ELSE d.state <> 'scheduled'
                AND NOT EXISTS (SELECT 1 FROM webhook_deliveries later
                                WHERE later.batch_job_id = d.batch_job_id AND later.url = d.url
                                  AND later.resend_number > d.resend_number AND later.state = 'scheduled') END;

-- The attempts of a delivery do not fit its state.
CREATE VIEW v_bad_attempts AS
SELECT d.batch_job_id AS subject, d.state AS status,
       'the webhook to ' || d.url || ' counts ' || d.attempts || ' attempts, has other rows' AS finding
FROM webhook_deliveries d
WHERE d.attempts <> (SELECT count(*) FROM delivery_attempts a WHERE a.delivery_id = d.id)
UNION ALL
SELECT d.batch_job_id, d.state, 'the webhook to ' || d.url || ' is delivered, and no attempt says so'
FROM webhook_deliveries d
WHERE d.state = 'delivered'
  AND NOT EXISTS (SELECT 1 FROM delivery_attempts a
                  WHERE a.delivery_id = d.id AND a.response_status BETWEEN 200 AND 299);

-- A row of a big table has an unknown state.
CREATE VIEW v_bad_states AS
SELECT l.batch_job_id AS subject, '' AS status, 'lot ' || l.lot_id || ' has the state ' || l.status AS finding
FROM batch_lots l
WHERE l.status NOT IN ('pending', 'completed', 'failed', 'cancelled')
UNION ALL
SELECT j.id, '', 'request ' || r.id || ' has the state ' || r.state || ', stage ' || r.stage
FROM requests r JOIN batch_jobs j ON j.seq = r.job
WHERE r.state NOT IN ('waiting', 'claimed', 'done', 'failed', 'held', 'cancelled')
   OR r.stage NOT IN ('vision', 'translation')
UNION ALL
SELECT CAST(l.batch_id AS TEXT), '', 'the line of request ' || l.request_id || ' has the outcome ' || l.outcome
FROM batch_lines l
WHERE l.outcome NOT IN ('answered', 'refused', 'truncated', 'filtered', 'image_unreachable', 'passing',
                        'misconfigured', 'wrong', 'unreadable', 'missing', 'not_run');

-- `state_counts` differs from the rows.
CREATE VIEW v_bad_state_counts AS
WITH counted (what, state, number) AS (
    SELECT 'jobs', status, count(*) FROM batch_jobs GROUP BY status
    UNION ALL SELECT 'batches', state, count(*) FROM openai_batches GROUP BY state
    UNION ALL SELECT 'deliveries', state, count(*) FROM webhook_deliveries GROUP BY state)
SELECT t.what || ' ' || t.state AS subject, '' AS status,
       'are counted as ' || t.number || ', have other rows' AS finding
FROM state_counts t
WHERE t.number <> coalesce((SELECT c.number FROM counted c WHERE c.what = t.what AND c.state = t.state), 0)
UNION ALL
SELECT c.what || ' ' || c.state, '', 'are not counted'
FROM counted c
WHERE NOT EXISTS (SELECT 1 FROM state_counts t WHERE t.what = c.what AND t.state = c.state);

-- The token counters differ from the attempts, deleted ones included.
CREATE VIEW v_bad_usage AS
SELECT j.id AS subject, j.status, 'the counters of its tokens differ from its attempts' AS finding
FROM batch_jobs j
WHERE (SELECT coalesce(sum(u.answers), 0) || ' ' || coalesce(sum(u.input_tokens), 0)
              || ' ' || coalesce(sum(u.cached_tokens), 0) || ' ' || coalesce(sum(u.output_tokens), 0)
              || ' ' || coalesce(sum(u.reasoning_tokens), 0) || ' ' || coalesce(sum(u.usage_unknown), 0)
       FROM job_usage u WHERE u.job = j.seq)
   <> (SELECT coalesce(sum(a.answered), 0) || ' ' || coalesce(sum(a.input_tokens), 0)
              || ' ' || coalesce(sum(a.cached_tokens), 0) || ' ' || coalesce(sum(a.output_tokens), 0)
              || ' ' || coalesce(sum(a.reasoning_tokens), 0) || ' ' || coalesce(sum(a.usage_unknown), 0)
       FROM (SELECT l.outcome IS 'answered' AS answered, l.input_tokens, l.cached_tokens, l.output_tokens,
                    l.reasoning_tokens, l.usage_unknown
             FROM requests r JOIN batch_lines l ON l.request_id = r.id WHERE r.job = j.seq
             UNION ALL
             SELECT d.outcome IS 'answered', d.input_tokens, d.cached_tokens, d.output_tokens, d.reasoning_tokens,
                    d.usage_unknown
             FROM requests r JOIN synchronous_calls d ON d.request_id = r.id WHERE r.job = j.seq
             UNION ALL
             SELECT w.answered, w.input_tokens, w.cached_tokens, w.output_tokens, w.reasoning_tokens,
                    w.usage_unknown
             FROM cleaned_work w WHERE w.job = j.seq) a)
UNION ALL
SELECT 'client ' || c.client || ' on ' || c.day, '',
       'the counters of its tokens of ' || c.model || ' differ from those of its jobs'
FROM client_usage c
WHERE (c.answers, c.input_tokens, c.cached_tokens, c.output_tokens, c.reasoning_tokens, c.usage_unknown)
   <> (SELECT coalesce(sum(u.answers), 0), coalesce(sum(u.input_tokens), 0), coalesce(sum(u.cached_tokens), 0),
              coalesce(sum(u.output_tokens), 0), coalesce(sum(u.reasoning_tokens), 0), coalesce(sum(u.usage_unknown), 0)
       FROM job_usage u JOIN batch_jobs j ON j.seq = u.job
       WHERE j.client = c.client AND u.day = c.day AND u.model = c.model AND u.mode = c.mode);
