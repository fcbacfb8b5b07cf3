-- The finisher asks for these after every few hundred lines that are taken in: not by reading every job
-- that is under way.
CREATE INDEX batch_jobs_settled ON batch_jobs (seq)
    WHERE completed_at IS NULL AND open_vision = 0 AND open_translations = 0;

-- The counters of tokens against the attempts that they count, those that were cleaned away among them.
-- Empty, as every `v_bad_` view.
CREATE VIEW v_bad_usage AS
SELECT j.id AS subject, j.status, 'its tokens are counted otherwise than its attempts have them' AS finding
FROM batch_jobs j
WHERE (SELECT coalesce(sum(u.answers), 0) || ' ' || coalesce(sum(u.input_tokens), 0) || ' ' || coalesce(sum(u.cached_tokens), 0)
              || ' ' || coalesce(sum(u.output_tokens), 0) || ' ' || coalesce(sum(u.reasoning_tokens), 0)
       FROM job_usage u WHERE u.job = j.seq)
   <> (SELECT coalesce(sum(a.answered), 0) || ' ' || coalesce(sum(a.input_tokens), 0) || ' ' || coalesce(sum(a.cached_tokens), 0)
              || ' ' || coalesce(sum(a.output_tokens), 0) || ' ' || coalesce(sum(a.reasoning_tokens), 0)
       FROM (SELECT l.outcome IS 'answered' AS answered, l.input_tokens, l.cached_tokens, l.output_tokens, l.reasoning_tokens
             FROM requests r JOIN batch_lines l ON l.request_id = r.id WHERE r.job = j.seq
             UNION ALL
             SELECT d.outcome IS 'answered', d.input_tokens, d.cached_tokens, d.output_tokens, d.reasoning_tokens
             FROM requests r JOIN synchronous_calls d ON d.request_id = r.id WHERE r.job = j.seq
             UNION ALL
             SELECT w.answered, w.input_tokens, w.cached_tokens, w.output_tokens, w.reasoning_tokens
             FROM cleaned_work w WHERE w.job = j.seq) a)
UNION ALL
SELECT 'client ' || c.client || ' on ' || c.day, '', 'its tokens of ' || c.model || ' are counted otherwise than those of its jobs'
FROM client_usage c
WHERE (c.answers, c.input_tokens, c.cached_tokens, c.output_tokens, c.reasoning_tokens)
   <> (SELECT coalesce(sum(u.answers), 0), coalesce(sum(u.input_tokens), 0), coalesce(sum(u.cached_tokens), 0),
              coalesce(sum(u.output_tokens), 0), coalesce(sum(u.reasoning_tokens), 0)
       FROM job_usage u JOIN batch_jobs j ON j.seq = u.job
       WHERE j.client = c.client AND u.day = c.day AND u.model = c.model AND u.mode = c.mode);
