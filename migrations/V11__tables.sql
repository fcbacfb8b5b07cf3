-- The tables, by subject. The views are in V12, the triggers in V13.
--
-- Times are text in RFC 3339, UTC, with three decimals. They sort as text and a person can read them.
-- Money is a whole number of pico-dollars: one dollar for a million tokens is 1,000,000 pico-dollars a token.
-- A CHECK lists the states of the small tables. The program's enums hold the states of the big tables
-- (batch_lots, requests, batch_lines, lot_translations), because a new CHECK means that the table is copied.

-- ---------------------------------------------------------------------------------------------------------
-- This database
-- ---------------------------------------------------------------------------------------------------------

-- The one row that tells this database from others.
CREATE TABLE instance (
    id           INTEGER PRIMARY KEY CHECK (id = 1),
    database_id  TEXT NOT NULL,             -- written into the metadata of every batch: a database ignores
                                            -- the batches of others in the same OpenAI project
    created_at   TEXT NOT NULL,
    listed_until INTEGER,                   -- OpenAI's time, in seconds, up to which complete listings have
                                            -- shown every batch of the project
    compared_at  TEXT,                      -- when OpenAI's batches were last compared with this database
    creates      INTEGER NOT NULL DEFAULT 0,   -- creates that were begun
    clock_confirmed_at             TEXT,    -- when the machine's clock was last known to be right
    clock_confirmed_by_operator_at TEXT     -- when an operator last said so
) STRICT;

-- Backups that were made and read back.
CREATE TABLE backups (
    id          INTEGER PRIMARY KEY,
    path        TEXT NOT NULL UNIQUE,
    bytes       INTEGER NOT NULL,
    snapshot_at TEXT NOT NULL,              -- everything committed before this time is in the copy
    verified_at TEXT NOT NULL
) STRICT;

-- ---------------------------------------------------------------------------------------------------------
-- Jobs and their lots
-- ---------------------------------------------------------------------------------------------------------

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
    openai_batch_id             TEXT REFERENCES openai_batches (openai_batch_id),  -- newest, vision
    openai_translation_batch_id TEXT REFERENCES openai_batches (openai_batch_id),  -- newest, translation
    total_lots                  INTEGER NOT NULL CHECK (total_lots >= 0),
    processed_lots              INTEGER NOT NULL DEFAULT 0 CHECK (processed_lots BETWEEN 0 AND total_lots),
    failed_lots                 INTEGER NOT NULL DEFAULT 0 CHECK (failed_lots BETWEEN 0 AND processed_lots),
    open_vision                 INTEGER NOT NULL DEFAULT 0 CHECK (open_vision >= 0),        -- requests without
    open_translations           INTEGER NOT NULL DEFAULT 0 CHECK (open_translations >= 0),  -- a verdict
    estimated_cost              INTEGER,    -- at acceptance, pico-dollars; NULL if a model had no price
    estimated_tokens            INTEGER,
    error_message               TEXT,
    legacy_batches              TEXT,       -- unconfirmed batch ids of an imported job
    created_at                  TEXT NOT NULL,
    updated_at                  TEXT NOT NULL,
    completed_at                TEXT,       -- when it became final
    cleaning_since              TEXT,       -- its lots, texts, requests and lines are being deleted in chunks
    cleaned_at                  TEXT,       -- they are deleted; this row and its usage stay
    retried_at                  TEXT,       -- when an operator last sent a part of it again, after its end
    pending_change              TEXT CHECK (pending_change IN
        ('cancel', 'release', 'retry_lots', 'retry_translations')),
    changed_to                  INTEGER NOT NULL DEFAULT 0,   -- its lots up to this position are changed
    CHECK ((completed_at IS NOT NULL) = (status IN ('completed', 'failed', 'cancelled')))
) STRICT;
CREATE INDEX batch_jobs_active ON batch_jobs (status)
    WHERE status IN ('pending', 'processing', 'translating');
-- The operators' lists: each ends in the row's key.
CREATE INDEX batch_jobs_by_status ON batch_jobs (status);
CREATE INDEX batch_jobs_by_client ON batch_jobs (client);
CREATE INDEX batch_jobs_by_client_and_status ON batch_jobs (client, status);
CREATE INDEX batch_jobs_by_time ON batch_jobs (created_at);
CREATE INDEX batch_jobs_listed ON batch_jobs (client, created_at);
CREATE INDEX batch_jobs_vision ON batch_jobs (openai_batch_id);
CREATE INDEX batch_jobs_translation ON batch_jobs (openai_translation_batch_id);
-- The finisher looks these up after every few hundred ingested lines.
CREATE INDEX batch_jobs_settled ON batch_jobs (seq)
    WHERE completed_at IS NULL AND open_vision = 0 AND open_translations = 0;
CREATE INDEX batch_jobs_kept ON batch_jobs (completed_at)
    WHERE completed_at IS NOT NULL AND cleaning_since IS NULL;
CREATE INDEX batch_jobs_changing ON batch_jobs (seq) WHERE pending_change IS NOT NULL;
CREATE INDEX batch_jobs_cleaning ON batch_jobs (seq) WHERE cleaning_since IS NOT NULL AND cleaned_at IS NULL;

-- The client's own values of a job.
CREATE TABLE job_metadata (
    job   INTEGER NOT NULL REFERENCES batch_jobs (seq),
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (job, key)
) STRICT, WITHOUT ROWID;
-- Finds jobs by a value; it ends in the job's key.
CREATE INDEX job_metadata_value ON job_metadata (value);

CREATE TABLE batch_lots (
    id              INTEGER PRIMARY KEY,
    batch_job_id    TEXT NOT NULL REFERENCES batch_jobs (id),
    position        INTEGER NOT NULL,       -- in the job, from 0
    lot_id          TEXT NOT NULL,
    additional_info TEXT NOT NULL,
    images          TEXT NOT NULL,          -- JSON list of URLs
    missing_images  TEXT,                   -- JSON list of the URLs that cannot be used
    missing_reasons TEXT CHECK (json_type(missing_reasons) = 'object'),  -- why each of images is missing, by URL
    webhook_url     TEXT,                   -- NULL if the job's URL applies
    reference       TEXT,                   -- the client's own name of the lot
    status          TEXT NOT NULL,          -- pending, completed, failed, cancelled
    vision_result   TEXT,
    error_message   TEXT,
    processed_at    TEXT,
    UNIQUE (batch_job_id, position)
) STRICT;
-- Finds a lot by the client's id of it.
CREATE INDEX batch_lots_lot_id ON batch_lots (lot_id);
CREATE INDEX batch_lots_reference ON batch_lots (reference) WHERE reference IS NOT NULL;
-- Counts the finished lots of a job without reading their texts.
CREATE INDEX batch_lots_status ON batch_lots (batch_job_id, status);

CREATE TABLE lot_translations (
    lot      INTEGER NOT NULL REFERENCES batch_lots (id),
    language TEXT NOT NULL,
    text     TEXT,
    error    TEXT,                          -- why there is no text
    PRIMARY KEY (lot, language),
    CHECK ((text IS NULL) <> (error IS NULL))
) STRICT, WITHOUT ROWID;

-- One answer that is wanted: the description of a lot, or its translation into one language.
CREATE TABLE requests (
    id             INTEGER PRIMARY KEY,
    lot            INTEGER NOT NULL REFERENCES batch_lots (id),
    job            INTEGER NOT NULL REFERENCES batch_jobs (seq),
    stage          TEXT NOT NULL,               -- vision, translation
    language       TEXT NOT NULL,               -- '' in the vision stage
    state          TEXT NOT NULL,               -- waiting, claimed, done, failed, held, cancelled
    attempts       INTEGER NOT NULL DEFAULT 0,  -- lines that came back without a verdict
    cap_raised     INTEGER NOT NULL DEFAULT 0,  -- 1: the token cap of the last answer was too low
    images_due     INTEGER NOT NULL DEFAULT 0,  -- 1: the lot's images are checked before it is sent
    image_failures INTEGER NOT NULL DEFAULT 0,  -- how often OpenAI could not use one of its images
    batch_cap      INTEGER,                     -- the most lines of the next batch that holds it
    since          TEXT NOT NULL,               -- waiting since
    retry_at       TEXT,                        -- not sent before, after a transient failure or a refusal without
                                                -- a reason; NULL if it is due
    transient_failures INTEGER NOT NULL DEFAULT 0,
    transient_wait_ms  INTEGER NOT NULL DEFAULT 0,  -- the sum of its waits after transient failures
    refusals           INTEGER NOT NULL DEFAULT 0,  -- how often OpenAI refused its batch and did not say why
    UNIQUE (lot, stage, language)
) STRICT;
CREATE INDEX requests_queue ON requests (job, state, stage, images_due, retry_at, batch_cap);
CREATE INDEX requests_retry ON requests (retry_at) WHERE retry_at IS NOT NULL;
CREATE INDEX requests_images ON requests (job) WHERE images_due = 1;

-- The results of image checks. They save a second check after a restart.
CREATE TABLE image_checks (
    url        TEXT PRIMARY KEY,
    problem    TEXT,                        -- NULL if the image can be used
    checked_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX image_checks_old ON image_checks (checked_at);

-- ---------------------------------------------------------------------------------------------------------
-- Accepted submissions
-- ---------------------------------------------------------------------------------------------------------

-- The answer to each accepted submission, and the hash that finds an equal one.
CREATE TABLE acceptances (
    job            INTEGER PRIMARY KEY REFERENCES batch_jobs (seq),
    client         TEXT NOT NULL,
    content_sha256 TEXT NOT NULL,           -- of lots, languages and webhooks in canonical form
    answer         TEXT NOT NULL CHECK (json_valid(answer)),
    accepted_at    TEXT NOT NULL
) STRICT;
CREATE INDEX acceptances_equal ON acceptances (client, content_sha256, accepted_at);

-- The keys under which a request has an effect once: a client's Idempotency-Key, or the v1 signature of a
-- POST.
CREATE TABLE idempotency_keys (
    client      TEXT NOT NULL,
    kind        TEXT NOT NULL CHECK (kind IN ('key', 'signature')),
    key         TEXT NOT NULL,
    body_sha256 TEXT NOT NULL,
    job         INTEGER REFERENCES batch_jobs (seq),   -- NULL for a test event
    answer      TEXT CHECK (json_valid(answer)),    -- NULL if the answer is that of the job's acceptance
    used_at     TEXT NOT NULL,
    PRIMARY KEY (client, kind, key),
    CHECK (job IS NOT NULL OR answer IS NOT NULL)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_job ON idempotency_keys (job);
CREATE INDEX idempotency_keys_signatures ON idempotency_keys (used_at) WHERE kind = 'signature';

-- The number of lots that were accepted from a client on a day (UTC).
CREATE TABLE daily_lots (
    client TEXT NOT NULL,
    day    TEXT NOT NULL,
    lots   INTEGER NOT NULL CHECK (lots >= 0),
    PRIMARY KEY (client, day)
) STRICT, WITHOUT ROWID;

-- ---------------------------------------------------------------------------------------------------------
-- Batches at OpenAI
-- ---------------------------------------------------------------------------------------------------------

-- A submission: the intent first, then OpenAI's batch.
CREATE TABLE openai_batches (
    id                      INTEGER PRIMARY KEY,
    submission_key          TEXT NOT NULL UNIQUE,     -- sent in the metadata and in the file's name
    stage                   TEXT NOT NULL CHECK (stage IN ('vision', 'translation')),
    scheme                  TEXT NOT NULL CHECK (scheme IN ('own', 'legacy')),  -- of its custom ids
    state                   TEXT NOT NULL CHECK (state IN
        ('planned', 'sealed', 'uploaded', 'creating', 'submitted', 'ended', 'ingested', 'failed')),
    openai_batch_id         TEXT UNIQUE,
    job_id                  TEXT REFERENCES batch_jobs (id),   -- if all lines belong to one job
    duplicate_of            INTEGER REFERENCES openai_batches (id),
    base_url                TEXT NOT NULL,            -- the identity that it was made under
    organization            TEXT NOT NULL,
    project                 TEXT NOT NULL,
    model                   TEXT NOT NULL,
    parameters              TEXT NOT NULL CHECK (json_valid(parameters)),   -- frozen
    lines                   INTEGER NOT NULL DEFAULT 0,
    lines_without_job       INTEGER NOT NULL DEFAULT 0,   -- of a recovered batch: lines of jobs that are not here
    queue_tokens            INTEGER NOT NULL DEFAULT 0,   -- its estimated input tokens in the model's queue
    queue_caps              INTEGER NOT NULL DEFAULT 0,   -- the caps of its answers, which may count there too
    input_bytes             INTEGER,
    input_sha256            TEXT,
    input_file_id           TEXT,
    input_file_time         INTEGER,                  -- OpenAI's clock, seconds
    input_file_since        TEXT,                     -- our clock
    openai_time             INTEGER,                  -- OpenAI's created_at, seconds
    openai_expires          INTEGER,                  -- OpenAI's expires_at, seconds
    openai_status           TEXT,
    openai_total            INTEGER NOT NULL DEFAULT 0,   -- OpenAI's request_counts
    openai_completed        INTEGER NOT NULL DEFAULT 0,
    openai_failed           INTEGER NOT NULL DEFAULT 0,
    openai_errors           TEXT,                     -- OpenAI's errors.data of a refused batch
    output_file_id          TEXT,
    output_bytes            INTEGER,                  -- set when the file is in the spool
    output_sha256           TEXT,
    output_ingested         INTEGER NOT NULL DEFAULT 0,   -- bytes that are ingested
    error_file_id           TEXT,
    error_bytes             INTEGER,
    error_sha256            TEXT,
    error_ingested          INTEGER NOT NULL DEFAULT 0,
    settled_to              INTEGER NOT NULL DEFAULT 0,   -- the lines up to this request have their verdict
    unknown_lines           INTEGER NOT NULL DEFAULT 0,   -- result lines that belong to no line of the batch
    verdict                 TEXT,                     -- what its lines say together: sound, outage, recovered,
                                                      -- misconfigured; NULL until both files are read
    input_tokens            INTEGER NOT NULL DEFAULT 0,   -- the sums of its lines; they stay when the lines
    cached_tokens           INTEGER NOT NULL DEFAULT 0,   -- are deleted
    output_tokens           INTEGER NOT NULL DEFAULT 0,
    reasoning_tokens        INTEGER NOT NULL DEFAULT 0,
    usage_unknown           INTEGER NOT NULL DEFAULT 0,   -- lines whose tokens are unknown
    openai_input_tokens     INTEGER,                  -- OpenAI's own usage of the whole batch; NULL if OpenAI
    openai_cached_tokens    INTEGER,                  -- does not report it, or reports what no batch can have
    openai_output_tokens    INTEGER,
    openai_reasoning_tokens INTEGER,
    cancel_wanted           INTEGER NOT NULL DEFAULT 0 CHECK (cancel_wanted IN (0, 1)),
    abandon_wanted          INTEGER NOT NULL DEFAULT 0 CHECK (abandon_wanted IN (0, 1)),  -- an operator's intent,
                                                      -- or that of a listing for a planned batch, which the
                                                      -- daemon carries out
    abandoned_at            TEXT,                     -- its unanswered requests were sent on; late answers are
                                                      -- still ingested
    failures                INTEGER NOT NULL DEFAULT 0,   -- failed calls since the last good one
    refused_after           INTEGER,                  -- successful calls of the kind in call_kinds when OpenAI
                                                      -- began to refuse this batch; NULL if it does not
    next_at                 TEXT NOT NULL,            -- when a worker looks at it again
    error                   TEXT,
    created_at              TEXT NOT NULL,
    submitted_at            TEXT,
    ended_at                TEXT,
    ingested_at             TEXT,
    cleaned_at              TEXT,                     -- when its files at OpenAI were removed
    CHECK (state NOT IN ('submitted', 'ended', 'ingested') OR openai_batch_id IS NOT NULL),
    CHECK (state NOT IN ('uploaded', 'creating') OR input_file_id IS NOT NULL),
    CHECK (state <> 'failed' OR error IS NOT NULL)
) STRICT;
CREATE INDEX openai_batches_live ON openai_batches (state, next_at) WHERE state NOT IN ('ingested', 'failed');
CREATE INDEX openai_batches_abandon ON openai_batches (state) WHERE abandon_wanted = 1;
CREATE INDEX openai_batches_unclean ON openai_batches (ingested_at)
    WHERE ingested_at IS NOT NULL AND cleaned_at IS NULL;
CREATE INDEX openai_batches_job ON openai_batches (job_id);
CREATE INDEX openai_batches_duplicate ON openai_batches (duplicate_of);
-- Finds the batch of an input file that is listed without our key.
CREATE INDEX openai_batches_input ON openai_batches (input_file_id) WHERE input_file_id IS NOT NULL;
-- Find the batch of a result file.
CREATE INDEX openai_batches_output ON openai_batches (output_file_id) WHERE output_file_id IS NOT NULL;
CREATE INDEX openai_batches_error ON openai_batches (error_file_id) WHERE error_file_id IS NOT NULL;
-- The operators' lists.
CREATE INDEX openai_batches_by_state ON openai_batches (state);
CREATE INDEX openai_batches_by_stage ON openai_batches (stage);
CREATE INDEX openai_batches_made ON openai_batches (created_at);
-- The newest of OpenAI's times.
CREATE INDEX openai_batches_time ON openai_batches (openai_time);
CREATE INDEX openai_batches_input_time ON openai_batches (input_file_time);
-- How the last batches of a model ended.
CREATE INDEX openai_batches_model ON openai_batches (model, ingested_at) WHERE state = 'ingested';
-- Batches whose own usage differs from the sum of their lines.
CREATE INDEX openai_batches_usage ON openai_batches (ingested_at)
    WHERE openai_input_tokens IS NOT NULL
      AND (openai_input_tokens, openai_cached_tokens, openai_output_tokens, openai_reasoning_tokens)
          <> (input_tokens, cached_tokens, output_tokens, reasoning_tokens);

CREATE INDEX openai_batches_without_job ON openai_batches (id) WHERE lines_without_job > 0;

-- Batches that carry this database's id and that an operator has said it did not make (`recover --ignore`).
CREATE TABLE ignored_batches (
    openai_batch_id TEXT PRIMARY KEY,
    openai_time     INTEGER NOT NULL,       -- OpenAI's created_at, seconds
    evidence        TEXT NOT NULL,          -- why it is not this database's
    ignored_at      TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The jobs that a batch works for.
CREATE TABLE batch_links (
    batch_id INTEGER NOT NULL REFERENCES openai_batches (id),
    job      INTEGER NOT NULL REFERENCES batch_jobs (seq),
    PRIMARY KEY (batch_id, job)
) STRICT, WITHOUT ROWID;
CREATE INDEX batch_links_job ON batch_links (job);

-- One attempt at a request, in a batch. The lines of the input file are in the order of request_id.
CREATE TABLE batch_lines (
    batch_id         INTEGER NOT NULL REFERENCES openai_batches (id),
    request_id       INTEGER NOT NULL REFERENCES requests (id),
    custom_id        TEXT,                  -- NULL if it follows our own scheme
    outcome          TEXT,                  -- answered, refused, truncated, …; NULL if it was not read yet
    error            TEXT,
    setting          TEXT,                  -- the setting that the error blames: model, reasoning_effort, …
    settled          INTEGER NOT NULL DEFAULT 0,
    input_tokens     INTEGER NOT NULL DEFAULT 0,
    cached_tokens    INTEGER NOT NULL DEFAULT 0,
    output_tokens    INTEGER NOT NULL DEFAULT 0,
    reasoning_tokens INTEGER NOT NULL DEFAULT 0,
    usage_unknown    INTEGER NOT NULL DEFAULT 0 CHECK (usage_unknown IN (0, 1)),  -- 1: OpenAI stated tokens that
                                            -- no line can have; they are stored as 0
    PRIMARY KEY (batch_id, request_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX batch_lines_request ON batch_lines (request_id);
CREATE INDEX batch_lines_custom ON batch_lines (batch_id, custom_id) WHERE custom_id IS NOT NULL;

-- Lines of a batch that was found at OpenAI, which have not claimed their requests yet. While there is one, no batch
-- is sealed and none is ingested.
CREATE TABLE unclaimed_lines (
    batch_id   INTEGER NOT NULL REFERENCES openai_batches (id),
    number     INTEGER NOT NULL,            -- in the order of the batch
    request_id INTEGER,                     -- NULL if only the custom id is known
    custom_id  TEXT,
    PRIMARY KEY (batch_id, number)
) STRICT, WITHOUT ROWID;

-- The calls of one kind: the evidence of whether a refusal is of one object or of the account.
CREATE TABLE call_kinds (
    kind          TEXT PRIMARY KEY CHECK (kind IN ('upload', 'create', 'poll', 'download')),
    successes     INTEGER NOT NULL DEFAULT 0,
    refused_batch INTEGER                   -- the batch row that was refused last since the last success
) STRICT, WITHOUT ROWID;

-- The tokens of a model's queue at OpenAI, learned from what OpenAI refused.
CREATE TABLE queue_limits (
    model      TEXT PRIMARY KEY,
    tokens     INTEGER NOT NULL CHECK (tokens > 0),
    learned_at TEXT NOT NULL,
    cap_percent    INTEGER NOT NULL DEFAULT 0 CHECK (cap_percent BETWEEN 0 AND 100),  -- the part of the answers'
    cap_changed_at TEXT                     -- caps that counts, and when it was last changed
) STRICT, WITHOUT ROWID;

-- One attempt at a request outside of a batch, through /v1/responses. The row is committed before the call.
CREATE TABLE synchronous_calls (
    id               INTEGER PRIMARY KEY,
    request_id       INTEGER NOT NULL REFERENCES requests (id),
    next_at          TEXT NOT NULL,         -- when the call is due
    started_at       TEXT,                  -- OpenAI may bill the call from then on
    ended_at         TEXT,
    model            TEXT,
    response_id      TEXT,                  -- OpenAI's
    outcome          TEXT,                  -- the same values as in batch_lines; NULL until it ended
    error            TEXT,
    input_tokens     INTEGER NOT NULL DEFAULT 0,
    cached_tokens    INTEGER NOT NULL DEFAULT 0,
    output_tokens    INTEGER NOT NULL DEFAULT 0,
    reasoning_tokens INTEGER NOT NULL DEFAULT 0,
    usage_unknown    INTEGER NOT NULL DEFAULT 0 CHECK (usage_unknown IN (0, 1)),  -- as in batch_lines
    CHECK ((ended_at IS NULL) = (outcome IS NULL)),
    CHECK (ended_at IS NULL OR started_at IS NOT NULL)
) STRICT;
CREATE INDEX synchronous_calls_request ON synchronous_calls (request_id);
CREATE INDEX synchronous_calls_open ON synchronous_calls (next_at) WHERE ended_at IS NULL;

-- ---------------------------------------------------------------------------------------------------------
-- Webhooks
-- ---------------------------------------------------------------------------------------------------------

CREATE TABLE webhook_deliveries (
    id              INTEGER PRIMARY KEY,
    batch_job_id    TEXT NOT NULL REFERENCES batch_jobs (id),
    url             TEXT NOT NULL,
    host            TEXT NOT NULL DEFAULT '',     -- the receiver's host and port
    state           TEXT NOT NULL CHECK (state IN ('scheduled', 'due', 'delivered', 'failed')),
    resend_number   INTEGER NOT NULL DEFAULT 0,   -- 0 for the first delivery, then one more for each resend
    attempts        INTEGER NOT NULL DEFAULT 0,
    in_flight       INTEGER NOT NULL DEFAULT 0 CHECK (in_flight IN (0, 1)),  -- an attempt runs until next_at
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
CREATE INDEX webhook_deliveries_hosts ON webhook_deliveries (host, next_at) WHERE state = 'due';
-- The operators' lists.
CREATE INDEX webhook_deliveries_by_state ON webhook_deliveries (state);
CREATE INDEX webhook_deliveries_by_host ON webhook_deliveries (host);
CREATE INDEX webhook_deliveries_by_host_and_state ON webhook_deliveries (host, state);
CREATE INDEX webhook_deliveries_by_time ON webhook_deliveries (created_at);
CREATE INDEX webhook_deliveries_in_flight ON webhook_deliveries (host) WHERE in_flight = 1;

CREATE TABLE delivery_attempts (
    delivery_id     INTEGER NOT NULL REFERENCES webhook_deliveries (id),
    attempt         INTEGER NOT NULL,
    started_at      TEXT NOT NULL,
    ended_at        TEXT,                   -- NULL if the process ended first
    response_status INTEGER,
    error_message   TEXT,
    PRIMARY KEY (delivery_id, attempt)
) STRICT, WITHOUT ROWID;

-- Receivers whose last attempt failed.
CREATE TABLE failing_receivers (
    host     TEXT PRIMARY KEY,
    failures INTEGER NOT NULL,              -- since the last success
    since    TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- ---------------------------------------------------------------------------------------------------------
-- Pauses, alerts and events
-- ---------------------------------------------------------------------------------------------------------

-- Scopes of work that are stopped.
CREATE TABLE pauses (
    scope       TEXT PRIMARY KEY,           -- openai, openai:sending, creates, synchronous, model:<name>,
                                            -- stage:<name>, intake, submissions, webhooks
    reason      TEXT NOT NULL,
    since       TEXT NOT NULL,
    until       TEXT,                       -- NULL if it lasts until something resumes the scope
    openai_time INTEGER,                    -- OpenAI's time, in seconds, of the oldest batch that caused it
    probe_lines INTEGER,                    -- the most lines of the batch that tests whether the cause is gone;
                                            -- NULL if it is sent whole
    after_batch INTEGER                     -- only a batch after this row ends the pause
) STRICT, WITHOUT ROWID;

CREATE TABLE alerts (
    id        INTEGER PRIMARY KEY,
    kind      TEXT NOT NULL,
    subject   TEXT NOT NULL,
    message   TEXT NOT NULL,                -- what is wrong, and the command that fixes it
    opened_at TEXT NOT NULL,
    closed_at TEXT,
    acknowledged_at TEXT                    -- when an operator said that it is being looked after
) STRICT;
CREATE UNIQUE INDEX alerts_open ON alerts (kind, subject) WHERE closed_at IS NULL;

-- The receivers of alerts. Each start of the daemon writes them from the configuration.
CREATE TABLE alert_receivers (
    name           TEXT PRIMARY KEY,        -- alerts.webhook_url, or a name of [[alert_receivers]]
    least_severity TEXT NOT NULL CHECK (least_severity IN ('notice', 'warning', 'critical'))
) STRICT, WITHOUT ROWID;

-- Notifications of alerts. The transaction that opens or closes an alert adds a row for each receiver.
CREATE TABLE alert_notices (
    id              INTEGER PRIMARY KEY,
    alert           INTEGER NOT NULL REFERENCES alerts (id),
    change          TEXT NOT NULL CHECK (change IN ('opened', 'closed')),
    receiver        TEXT NOT NULL DEFAULT 'alerts.webhook_url',
    state           TEXT NOT NULL CHECK (state IN ('due', 'notified', 'failed', 'unwanted')),
    attempts        INTEGER NOT NULL DEFAULT 0,
    next_at         TEXT,
    response_status INTEGER,
    error_message   TEXT,
    created_at      TEXT NOT NULL,
    notified_at     TEXT,
    UNIQUE (alert, change, receiver),
    CHECK ((state = 'due') = (next_at IS NOT NULL)),
    CHECK ((state = 'notified') = (notified_at IS NOT NULL))
) STRICT;
CREATE INDEX alert_notices_due ON alert_notices (receiver, next_at) WHERE state = 'due';
CREATE INDEX alert_notices_failed ON alert_notices (created_at) WHERE state = 'failed';

-- What happened to jobs and batches.
CREATE TABLE events (
    id       INTEGER PRIMARY KEY,
    at       TEXT NOT NULL,
    job_id   TEXT REFERENCES batch_jobs (id),
    batch_id INTEGER REFERENCES openai_batches (id),
    kind     TEXT NOT NULL,
    detail   TEXT NOT NULL
) STRICT;
CREATE INDEX events_job ON events (job_id) WHERE job_id IS NOT NULL;
CREATE INDEX events_kind ON events (kind);
CREATE INDEX events_time ON events (at);
CREATE INDEX events_batch ON events (batch_id) WHERE batch_id IS NOT NULL;
-- The answers whose tokens are unknown: an alert names the newest.
CREATE INDEX events_usage_unknown ON events (at) WHERE kind = 'usage_unknown';

-- Every change that a person makes, by a command or on a page. Triggers refuse to change or delete a row, and
-- retention keeps it.
CREATE TABLE operator_actions (
    id      INTEGER PRIMARY KEY,
    at      TEXT NOT NULL,
    actor   TEXT NOT NULL,                  -- a name that is not verified
    origin  TEXT NOT NULL,                  -- command line, or a browser's address
    action  TEXT NOT NULL,
    subject TEXT NOT NULL,                  -- a job, delivery, batch, alert or scope
    detail  TEXT NOT NULL,                  -- the state that was seen, and the effect
    cost    INTEGER,                        -- at most, pico-dollars
    nonce   TEXT UNIQUE,                    -- of the page's form: it has an effect once
    outcome_of INTEGER UNIQUE REFERENCES operator_actions (id)   -- this row is the outcome of that one
) STRICT;
CREATE INDEX operator_actions_subject ON operator_actions (subject);

-- What persons have asked for and a worker carries out. The row goes when the outcome is recorded.
CREATE TABLE operator_tasks (
    action   INTEGER PRIMARY KEY REFERENCES operator_actions (id),
    kind     TEXT NOT NULL CHECK (kind IN ('resend_webhooks', 'send_test_event', 'back_up')),
    subject  TEXT NOT NULL,
    position INTEGER NOT NULL DEFAULT 0,    -- of several rows: those up to this one are done
    done     INTEGER NOT NULL DEFAULT 0     -- and that many
) STRICT;

-- ---------------------------------------------------------------------------------------------------------
-- Usage and money
-- ---------------------------------------------------------------------------------------------------------

-- From which day on (UTC) a provider was used. A day has the prices of its provider.
CREATE TABLE providers (
    since    TEXT PRIMARY KEY,
    base_url TEXT NOT NULL
) STRICT;

-- The configured prices of the provider of each day, in pico-dollars a token. Each start of the daemon writes them.
-- Costs are never stored: a view multiplies the tokens by the price of the attempt's day. A corrected price
-- therefore corrects every cost.
CREATE TABLE prices (
    model        TEXT NOT NULL,
    dated_models TEXT NOT NULL,             -- a GLOB pattern of the model's dated names, which cost the same
    mode         TEXT NOT NULL CHECK (mode IN ('batch', 'synchronous')),
    since        TEXT NOT NULL,             -- a day (UTC)
    input        INTEGER CHECK (input >= 0),   -- NULL: the provider has no price
    cached       INTEGER CHECK (cached >= 0),
    output       INTEGER CHECK (output >= 0),
    PRIMARY KEY (model, mode, since)
) STRICT, WITHOUT ROWID;

-- The tokens of every attempt, failed ones included, by job and day (UTC, of the attempt).
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
    usage_unknown    INTEGER NOT NULL DEFAULT 0,    -- attempts whose tokens are unknown
    PRIMARY KEY (job, stage, language, model, mode, day)
) STRICT, WITHOUT ROWID;

-- The same by client and day.
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
    usage_unknown    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (client, day, model, mode)
) STRICT, WITHOUT ROWID;
CREATE INDEX client_usage_days ON client_usage (day);

-- The estimated cost of a live batch for each of its clients, pico-dollars. It counts against the budget of
-- the day on which the batch was planned, until the batch is ingested or has failed. The share of lines whose
-- tokens are unknown stays.
CREATE TABLE reservations (
    batch_id INTEGER REFERENCES openai_batches (id) ON DELETE CASCADE,  -- NULL: synchronous calls whose tokens
                                            -- are unknown
    client   TEXT NOT NULL,
    day      TEXT NOT NULL,
    cost     INTEGER NOT NULL CHECK (cost >= 0)
) STRICT;
CREATE UNIQUE INDEX reservations_batches ON reservations (batch_id, client, day);
CREATE UNIQUE INDEX reservations_calls ON reservations (client, day) WHERE batch_id IS NULL;

-- The sums of the deleted lines and calls of cleaned jobs: one row for each job and batch, and one row
-- without a batch for the job's synchronous calls.
CREATE TABLE cleaned_work (
    job              INTEGER NOT NULL REFERENCES batch_jobs (seq),
    batch_id         INTEGER REFERENCES openai_batches (id),
    began_at         TEXT,                  -- when the first synchronous call was made
    lines            INTEGER NOT NULL,
    answered         INTEGER NOT NULL,
    input_tokens     INTEGER NOT NULL,
    cached_tokens    INTEGER NOT NULL,
    output_tokens    INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    usage_unknown    INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX cleaned_work_job ON cleaned_work (job, coalesce(batch_id, 0));
CREATE INDEX cleaned_work_batch ON cleaned_work (batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX cleaned_work_synchronous ON cleaned_work (began_at) WHERE batch_id IS NULL;

-- ---------------------------------------------------------------------------------------------------------
-- Statistics that triggers keep, so that the status page and /metrics do not read every row
-- ---------------------------------------------------------------------------------------------------------

-- The number of jobs, batches and deliveries in each state.
CREATE TABLE state_counts (
    what   TEXT NOT NULL,                   -- jobs, batches, deliveries
    state  TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (what, state)
) STRICT, WITHOUT ROWID;

-- Counters that only grow.
CREATE TABLE counters (
    what   TEXT NOT NULL,
    label  TEXT NOT NULL,                   -- a client, an outcome, a bound in seconds
    number INTEGER NOT NULL,
    PRIMARY KEY (what, label)
) STRICT, WITHOUT ROWID;

-- Statistics by the minute, kept for eight days; then by the hour, kept for 31 days.
CREATE TABLE minute_stats (
    minute TEXT NOT NULL,                   -- 2026-11-25T09:24
    what   TEXT NOT NULL,                   -- lots_completed, lots_failed, input_tokens (not cached), …
    number INTEGER NOT NULL,
    millis INTEGER NOT NULL DEFAULT 0,      -- lots: the sum of their times from acceptance to the end
    PRIMARY KEY (minute, what)
) STRICT, WITHOUT ROWID;
