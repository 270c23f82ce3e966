-- +goose Up
-- Questions of the centre about its own stored history (package rematch): jobs that go on after a restart.
CREATE TABLE rematch_jobs (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  what       TEXT NOT NULL,            -- an address, network or name; or "rule"
  rule       TEXT NOT NULL DEFAULT '', -- Sigma
  reason     TEXT NOT NULL,
  made_by    TEXT NOT NULL,
  made_ns    INTEGER NOT NULL,
  from_ns    INTEGER NOT NULL,
  to_ns      INTEGER NOT NULL,
  place_ns   INTEGER NOT NULL,         -- everything from here to to_ns is done: the newest first
  state      TEXT NOT NULL,            -- waiting, done, failed, stopped
  problem    TEXT NOT NULL DEFAULT '',
  looked     INTEGER NOT NULL DEFAULT 0,
  hits       INTEGER NOT NULL DEFAULT 0,
  found      TEXT NOT NULL DEFAULT '{}', -- hits by member with first, last and some events, JSON
  ended_ns   INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX rematch_jobs_state ON rematch_jobs (state, id);
