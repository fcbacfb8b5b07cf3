-- For what is asked often, on a database that is kept for years.

-- Whose batch a listed one is that carries no key of ours; whether an input is shared.
CREATE INDEX openai_batches_input ON openai_batches (input_file_id) WHERE input_file_id IS NOT NULL;
-- The newest of OpenAI's times.
CREATE INDEX openai_batches_time ON openai_batches (openai_time);
CREATE INDEX openai_batches_input_time ON openai_batches (input_file_time);
-- How the last batches of a model went.
CREATE INDEX openai_batches_model ON openai_batches (model, ingested_at) WHERE state = 'ingested';
-- How many of a job's lots are finished, without reading their texts.
CREATE INDEX batch_lots_status ON batch_lots (batch_job_id, status);
