-- The finisher asks for these after every few hundred lines that are taken in: not by reading every job
-- that is under way.
CREATE INDEX batch_jobs_settled ON batch_jobs (seq)
    WHERE completed_at IS NULL AND open_vision = 0 AND open_translations = 0;
