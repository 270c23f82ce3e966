-- +goose Up
-- The last daily test of each collector (package daily): a random number, when it was handed out, when the event came out of the hub's rules, and when what the on-site rules found came.
CREATE TABLE daily_sites (
  collector  TEXT PRIMARY KEY,
  tenant     INTEGER NOT NULL,
  id         TEXT NOT NULL,
  handed_ns  INTEGER NOT NULL,
  arrived_ns INTEGER NOT NULL,
  found_ns   INTEGER NOT NULL,
  missed     INTEGER NOT NULL
);
