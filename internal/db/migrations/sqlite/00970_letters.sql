-- +goose Up
-- What is needed to try again what was put aside (package worker, letters.go).
ALTER TABLE worker_dead ADD COLUMN stream BLOB NOT NULL DEFAULT x'';      -- of the batch; empty when the message could not be read
ALTER TABLE worker_dead ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;        -- of the batch in its stream
ALTER TABLE worker_dead ADD COLUMN places TEXT NOT NULL DEFAULT '';       -- indices of the events it stands for, JSON; '': the whole batch, or place alone
ALTER TABLE worker_dead ADD COLUMN detected INTEGER NOT NULL DEFAULT 0;   -- 1: the rules have seen these events
ALTER TABLE worker_dead ADD COLUMN retry TEXT NOT NULL DEFAULT '';        -- names the try that was asked for and is not done
ALTER TABLE worker_dead ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;      -- that failed
CREATE UNIQUE INDEX worker_dead_retry ON worker_dead (retry) WHERE retry <> '';
CREATE INDEX worker_dead_stream ON worker_dead (stream, seq);
