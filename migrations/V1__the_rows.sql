-- Times are text, RFC 3339 in UTC with three decimals, so that they sort and can be read.
-- CHECKs hold the states of the small tables; those of the big ones (batch_lots, requests,
-- batch_lines, lot_translations) are held by the program's enums: changing a CHECK means
-- rebuilding the table.

CREATE TABLE instance (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    database_id TEXT NOT NULL,              -- in the metadata of every batch: two appliances in one
    created_at  TEXT NOT NULL               -- OpenAI project leave each other's alone
) STRICT;

CREATE TABLE batch_jobs (
    seq                         INTEGER PRIMARY KEY,
    id                          TEXT NOT NULL UNIQUE CHECK (length(id) = 36),
    client                      TEXT NOT NULL,
    origin                      TEXT NOT NULL CHECK (origin IN ('api', 'import')),
    processing_mode             TEXT NOT NULL CHECK (processing_mode IN ('batch', 'synchronous')),
    status                      TEXT NOT NULL CHECK (status IN
        ('pending', 'processing', 'translating', 'completed', 'failed', 'cancelled')),
    languages                   TEXT NOT NULL CHECK (json_type(languages) = 'array'),
    webhook_url                 TEXT,
    openai_batch_id             TEXT REFERENCES openai_batches (openai_batch_id),  -- newest of vision
    openai_translation_batch_id TEXT REFERENCES openai_batches (openai_batch_id),  -- newest of translation
    total_lots                  INTEGER NOT NULL CHECK (total_lots >= 0),
    processed_lots              INTEGER NOT NULL DEFAULT 0 CHECK (processed_lots BETWEEN 0 AND total_lots),
    failed_lots                 INTEGER NOT NULL DEFAULT 0 CHECK (failed_lots BETWEEN 0 AND processed_lots),
    open_vision                 INTEGER NOT NULL DEFAULT 0 CHECK (open_vision >= 0),        -- requests not settled
    open_translations           INTEGER NOT NULL DEFAULT 0 CHECK (open_translations >= 0),  -- of each stage
    error_message               TEXT,
    legacy_batches              TEXT,       -- links that the earlier service had, not confirmed
    created_at                  TEXT NOT NULL,
    updated_at                  TEXT NOT NULL,
    completed_at                TEXT,       -- when it became final
    CHECK ((completed_at IS NOT NULL) = (status IN ('completed', 'failed', 'cancelled')))
) STRICT;
CREATE INDEX batch_jobs_active ON batch_jobs (status) WHERE status IN ('pending', 'processing', 'translating');
CREATE INDEX batch_jobs_listed ON batch_jobs (client, created_at);
CREATE INDEX batch_jobs_vision ON batch_jobs (openai_batch_id);
CREATE INDEX batch_jobs_translation ON batch_jobs (openai_translation_batch_id);

CREATE TABLE batch_lots (
    id              INTEGER PRIMARY KEY,
    batch_job_id    TEXT NOT NULL REFERENCES batch_jobs (id),
    position        INTEGER NOT NULL,       -- in the job, from 0
    lot_id          TEXT NOT NULL,
    additional_info TEXT NOT NULL,
    images          TEXT NOT NULL,          -- JSON list of URLs
    missing_images  TEXT,                   -- JSON list of those that cannot be fetched
    webhook_url     TEXT,                   -- its own; none: the job's
    status          TEXT NOT NULL,          -- pending, completed, failed, cancelled
    vision_result   TEXT,
    error_message   TEXT,
    processed_at    TEXT,
    UNIQUE (batch_job_id, position)
) STRICT;

CREATE TABLE lot_translations (
    lot      INTEGER NOT NULL REFERENCES batch_lots (id),
    language TEXT NOT NULL,
    text     TEXT,
    error    TEXT,                          -- why there is no text
    PRIMARY KEY (lot, language),
    CHECK ((text IS NULL) <> (error IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE requests (
    id         INTEGER PRIMARY KEY,
    lot        INTEGER NOT NULL REFERENCES batch_lots (id),
    job        INTEGER NOT NULL REFERENCES batch_jobs (seq),
    stage      TEXT NOT NULL,               -- vision, translation
    language   TEXT NOT NULL,               -- '' of a vision request
    state      TEXT NOT NULL,               -- waiting, claimed, done, failed, held, cancelled
    attempts   INTEGER NOT NULL DEFAULT 0,  -- lines that came back without a verdict
    cap_raised INTEGER NOT NULL DEFAULT 0,  -- 1: the cap of its last answer was too low
    images_due INTEGER NOT NULL DEFAULT 0,  -- 1: its lot's images are checked before it is sent
    image_failures INTEGER NOT NULL DEFAULT 0, -- how often OpenAI could not fetch an image of it
    batch_cap  INTEGER,                     -- its next batch holds at most so many lines
    since      TEXT NOT NULL,               -- waiting since
    UNIQUE (lot, stage, language)
) STRICT;
CREATE INDEX requests_queue ON requests (job, state, stage, images_due, batch_cap);
CREATE INDEX requests_images ON requests (job) WHERE images_due = 1 AND state = 'waiting';

CREATE TABLE openai_batches (
    id                 INTEGER PRIMARY KEY,
    submission_key     TEXT NOT NULL UNIQUE,     -- travels in the metadata and the file's name
    stage              TEXT NOT NULL CHECK (stage IN ('vision', 'translation')),
    scheme             TEXT NOT NULL CHECK (scheme IN ('own', 'legacy')),  -- of its custom ids
    state              TEXT NOT NULL CHECK (state IN
        ('planned', 'sealed', 'uploaded', 'creating', 'submitted', 'ended', 'ingested', 'failed')),
    openai_batch_id    TEXT UNIQUE,
    job_id             TEXT REFERENCES batch_jobs (id),   -- where all of it is one job's
    duplicate_of       INTEGER REFERENCES openai_batches (id),
    base_url           TEXT NOT NULL,            -- the identity it was made under
    organization       TEXT NOT NULL,
    project            TEXT NOT NULL,
    model              TEXT NOT NULL,
    parameters         TEXT NOT NULL CHECK (json_valid(parameters)),       -- frozen
    lines              INTEGER NOT NULL DEFAULT 0,
    input_bytes        INTEGER,
    input_sha256       TEXT,
    input_file_id      TEXT,
    input_file_time    INTEGER,                  -- OpenAI's clock, seconds
    input_file_since   TEXT,                     -- our clock
    openai_time        INTEGER,                  -- OpenAI's created_at, seconds
    openai_expires     INTEGER,                  -- OpenAI's expires_at, seconds
    openai_status      TEXT,
    openai_total       INTEGER NOT NULL DEFAULT 0,   -- request_counts
    openai_completed   INTEGER NOT NULL DEFAULT 0,
    openai_failed      INTEGER NOT NULL DEFAULT 0,
    openai_errors      TEXT,                     -- errors.data of a refused one
    output_file_id     TEXT,
    output_bytes       INTEGER,                  -- set when spooled
    output_sha256      TEXT,
    output_ingested       INTEGER NOT NULL DEFAULT 0,   -- bytes taken in
    error_file_id      TEXT,
    error_bytes        INTEGER,
    error_sha256       TEXT,
    error_ingested        INTEGER NOT NULL DEFAULT 0,
    settled_to         INTEGER NOT NULL DEFAULT 0,   -- request up to which lines have their verdict
    unknown_lines      INTEGER NOT NULL DEFAULT 0,   -- result lines that belong to none of ours
    uniform_error      TEXT,                     -- what every line failed with
    cancel_wanted      INTEGER NOT NULL DEFAULT 0 CHECK (cancel_wanted IN (0, 1)),
    failures           INTEGER NOT NULL DEFAULT 0,   -- failed calls since the last good one
    next_at            TEXT NOT NULL,            -- when to look at it again
    error              TEXT,
    created_at         TEXT NOT NULL,
    submitted_at       TEXT,
    ended_at           TEXT,
    ingested_at        TEXT,
    cleaned_at         TEXT,                     -- when its files at OpenAI were removed
    CHECK (state NOT IN ('submitted', 'ended', 'ingested') OR openai_batch_id IS NOT NULL),
    CHECK (state NOT IN ('uploaded', 'creating') OR input_file_id IS NOT NULL),
    CHECK (state <> 'failed' OR error IS NOT NULL)
) STRICT;
CREATE INDEX openai_batches_live ON openai_batches (state, next_at) WHERE state NOT IN ('ingested', 'failed');
CREATE INDEX openai_batches_unclean ON openai_batches (ingested_at) WHERE ingested_at IS NOT NULL AND cleaned_at IS NULL;
CREATE INDEX openai_batches_job ON openai_batches (job_id);
CREATE INDEX openai_batches_duplicate ON openai_batches (duplicate_of);

-- Which jobs a batch works for.
CREATE TABLE batch_links (
    batch_id INTEGER NOT NULL REFERENCES openai_batches (id),
    job      INTEGER NOT NULL REFERENCES batch_jobs (seq),
    PRIMARY KEY (batch_id, job)
) STRICT, WITHOUT ROWID;
CREATE INDEX batch_links_job ON batch_links (job);

-- One attempt: a request in a batch. Their order in the input file is that of request_id.
CREATE TABLE batch_lines (
    batch_id         INTEGER NOT NULL REFERENCES openai_batches (id),
    request_id       INTEGER NOT NULL REFERENCES requests (id),
    custom_id        TEXT,                  -- where it is not of our own scheme
    outcome          TEXT,                  -- answered, refused, truncated, …; none: not read yet
    error            TEXT,
    settled          INTEGER NOT NULL DEFAULT 0,
    input_tokens     INTEGER NOT NULL DEFAULT 0,
    cached_tokens    INTEGER NOT NULL DEFAULT 0,
    output_tokens    INTEGER NOT NULL DEFAULT 0,
    reasoning_tokens INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (batch_id, request_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX batch_lines_request ON batch_lines (request_id);
CREATE INDEX batch_lines_custom ON batch_lines (batch_id, custom_id) WHERE custom_id IS NOT NULL;

CREATE TABLE webhook_deliveries (
    id              INTEGER PRIMARY KEY,
    batch_job_id    TEXT NOT NULL REFERENCES batch_jobs (id),
    url             TEXT NOT NULL,
    state           TEXT NOT NULL CHECK (state IN ('scheduled', 'due', 'delivered', 'failed')),
    resend_number   INTEGER NOT NULL DEFAULT 0,   -- how often an operator has sent it again
    attempts        INTEGER NOT NULL DEFAULT 0,
    next_at         TEXT,
    response_status INTEGER,
    error_message   TEXT,
    created_at      TEXT NOT NULL,
    delivered_at    TEXT,
    UNIQUE (batch_job_id, url, resend_number),
    CHECK ((state = 'due') = (next_at IS NOT NULL)),
    CHECK ((state = 'delivered') = (delivered_at IS NOT NULL))
) STRICT;
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (next_at) WHERE state = 'due';

CREATE TABLE delivery_attempts (
    delivery_id     INTEGER NOT NULL REFERENCES webhook_deliveries (id),
    attempt         INTEGER NOT NULL,
    started_at      TEXT NOT NULL,
    ended_at        TEXT,                   -- none: the process ended first
    response_status INTEGER,
    error_message   TEXT,
    PRIMARY KEY (delivery_id, attempt)
) STRICT, WITHOUT ROWID;

-- What is stopped and why; without an end an operator or `recover` lets it go on.
CREATE TABLE pauses (
    scope  TEXT PRIMARY KEY,                -- openai, creates, model:<name>, intake, submissions, webhooks
    reason TEXT NOT NULL,
    since  TEXT NOT NULL,
    until  TEXT,
    openai_time INTEGER                     -- of the oldest batch that it is about, seconds
) STRICT, WITHOUT ROWID;

CREATE TABLE alerts (
    id        INTEGER PRIMARY KEY,
    kind      TEXT NOT NULL,
    subject   TEXT NOT NULL,
    message   TEXT NOT NULL,                -- what is wrong and what mends it
    opened_at TEXT NOT NULL,
    closed_at TEXT
) STRICT;
CREATE UNIQUE INDEX alerts_open ON alerts (kind, subject) WHERE closed_at IS NULL;

CREATE TABLE events (
    id       INTEGER PRIMARY KEY,
    at       TEXT NOT NULL,
    job_id   TEXT REFERENCES batch_jobs (id),
    batch_id INTEGER REFERENCES openai_batches (id),
    kind     TEXT NOT NULL,
    detail   TEXT NOT NULL
) STRICT;
CREATE INDEX events_job ON events (job_id) WHERE job_id IS NOT NULL;
CREATE INDEX events_batch ON events (batch_id) WHERE batch_id IS NOT NULL;

-- Views for people.

CREATE VIEW v_jobs AS
SELECT j.id, j.client, j.status, j.total_lots, j.processed_lots, j.failed_lots, j.open_vision, j.open_translations,
       j.languages, j.openai_batch_id, j.openai_translation_batch_id, j.created_at, j.updated_at, j.completed_at,
       (SELECT count(*) FROM webhook_deliveries d WHERE d.batch_job_id = j.id AND d.state <> 'delivered') AS webhooks_open,
       j.error_message
FROM batch_jobs j;

CREATE VIEW v_batches AS
SELECT b.id, b.submission_key, b.stage, b.state, b.openai_batch_id, b.openai_status, b.model, b.lines,
       b.openai_completed, b.openai_failed, b.input_file_id, b.output_file_id, b.error_file_id, b.job_id,
       b.duplicate_of, b.created_at, b.submitted_at, b.ended_at, b.ingested_at, b.next_at, b.failures, b.error
FROM openai_batches b;

-- Work that nobody looks after: must be empty.
CREATE VIEW v_orphans AS
SELECT 'job without a batch' AS what, j.id AS id,
       (SELECT count(*) FROM requests r WHERE r.job = j.seq AND r.state = 'held')
       || ' requests held: run batchkeeper recover' AS detail
FROM batch_jobs j
WHERE j.status IN ('pending', 'processing', 'translating')
  AND EXISTS (SELECT 1 FROM requests r WHERE r.job = j.seq AND r.state = 'held')
UNION ALL
SELECT 'request claimed by no live batch', j.id, 'request ' || r.id
FROM batch_jobs j JOIN requests r ON r.job = j.seq AND r.state = 'claimed'
WHERE j.status IN ('pending', 'processing', 'translating')
  AND NOT EXISTS (SELECT 1 FROM batch_lines l JOIN openai_batches b ON b.id = l.batch_id
                  WHERE l.request_id = r.id AND l.settled = 0 AND b.state NOT IN ('ingested', 'failed'))
UNION ALL
SELECT 'job with nothing open that is not final', j.id, 'since ' || j.updated_at
FROM batch_jobs j
WHERE j.status IN ('pending', 'processing', 'translating')
  AND NOT EXISTS (SELECT 1 FROM requests r WHERE r.job = j.seq AND r.state IN ('waiting', 'claimed', 'held'))
  AND (j.open_vision > 0 OR j.open_translations > 0);

CREATE VIEW v_costs AS
SELECT b.id AS batch_id, b.openai_batch_id, b.stage, b.model, b.job_id, count(*) AS lines,
       sum(l.outcome = 'answered') AS answered, sum(l.input_tokens) AS input_tokens,
       sum(l.cached_tokens) AS cached_tokens, sum(l.output_tokens) AS output_tokens,
       sum(l.reasoning_tokens) AS reasoning_tokens
FROM openai_batches b JOIN batch_lines l ON l.batch_id = b.id
GROUP BY b.id;

-- Invariants: each of these views must be empty. The auditor looks every minute at what is not
-- final, `batchkeeper doctor` at everything.

CREATE VIEW v_bad_open_requests AS
SELECT j.id AS subject, j.status,
       'counts ' || j.open_vision || ' open vision and ' || j.open_translations || ' open translation requests, has other rows' AS finding
FROM batch_jobs j
WHERE (j.open_vision, j.open_translations) <>
      (SELECT coalesce(sum(r.stage = 'vision'), 0), coalesce(sum(r.stage = 'translation'), 0) FROM requests r
       WHERE r.job = j.seq AND r.state IN ('waiting', 'claimed', 'held'));

CREATE VIEW v_bad_finished_lots AS
SELECT j.id AS subject, j.status,
       'counts ' || j.processed_lots || ' finished and ' || j.failed_lots || ' failed lots, has other rows' AS finding
FROM batch_jobs j
WHERE (j.processed_lots, j.failed_lots) <>
      (SELECT coalesce(sum(l.status IN ('completed', 'failed')), 0), coalesce(sum(l.status = 'failed'), 0)
       FROM batch_lots l WHERE l.batch_job_id = j.id);

CREATE VIEW v_bad_links AS
SELECT j.id AS subject, j.status, 'batch ' || b.openai_batch_id || ' works for it, but it names none of that stage' AS finding
FROM openai_batches b JOIN batch_links k ON k.batch_id = b.id JOIN batch_jobs j ON j.seq = k.job
WHERE b.openai_batch_id IS NOT NULL
  AND CASE b.stage WHEN 'vision' THEN j.openai_batch_id ELSE j.openai_translation_batch_id END IS NULL;

CREATE VIEW v_bad_deliveries AS
SELECT j.id AS subject, j.status, 'the webhook to ' || d.url || ' is ' || d.state AS finding
FROM batch_jobs j JOIN webhook_deliveries d ON d.batch_job_id = j.id
WHERE (d.state = 'scheduled') = (j.completed_at IS NOT NULL);

CREATE VIEW v_bad_batches AS
SELECT CAST(b.id AS TEXT) AS subject, b.state AS status, 'was sealed with ' || b.lines || ' lines, has other rows' AS finding
FROM openai_batches b
WHERE b.state <> 'planned' AND b.lines <> (SELECT count(*) FROM batch_lines l WHERE l.batch_id = b.id)
UNION ALL
SELECT CAST(b.id AS TEXT), b.state, 'is over, but some of its lines have no verdict'
FROM openai_batches b
WHERE b.state IN ('ingested', 'failed')
  AND EXISTS (SELECT 1 FROM batch_lines l WHERE l.batch_id = b.id AND l.settled = 0);

CREATE VIEW v_bad_states AS
SELECT l.batch_job_id AS subject, '' AS status, 'lot ' || l.lot_id || ' has the state ' || l.status AS finding FROM batch_lots l
WHERE l.status NOT IN ('pending', 'completed', 'failed', 'cancelled')
UNION ALL
SELECT j.id, '', 'request ' || r.id || ' has the state ' || r.state FROM requests r JOIN batch_jobs j ON j.seq = r.job
WHERE r.state NOT IN ('waiting', 'claimed', 'done', 'failed', 'held', 'cancelled');
