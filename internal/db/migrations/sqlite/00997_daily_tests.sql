-- +goose Up
-- The last daily test of each member (package daily): a random number, when it was sent and when it came out of the rules.
CREATE TABLE daily_tests (
  tenant     INTEGER PRIMARY KEY,
  id         TEXT NOT NULL,
  seq        INTEGER NOT NULL,
  sent_ns    INTEGER NOT NULL,
  arrived_ns INTEGER NOT NULL,
  missed     INTEGER NOT NULL
);
