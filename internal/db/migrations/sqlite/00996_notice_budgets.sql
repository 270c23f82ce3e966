-- +goose Up
-- What each contact was told within the hour, and what was kept for a summary because it would have been too much (package notify).
CREATE TABLE notice_budgets (
  contact  TEXT NOT NULL,
  urgent   INTEGER NOT NULL,      -- 1: critical alerts, which have a budget of their own
  start_ns INTEGER NOT NULL,      -- when the hour began
  sent     INTEGER NOT NULL,
  PRIMARY KEY (contact, urgent)
) WITHOUT ROWID;

CREATE TABLE notices_held (
  contact TEXT NOT NULL,
  slot_ns INTEGER NOT NULL,       -- the ten minutes whose summary tells it
  alert   TEXT NOT NULL,
  n       INTEGER NOT NULL,       -- the newest notice's number
  notices INTEGER NOT NULL,       -- how many there were
  message TEXT NOT NULL,          -- the newest, JSON
  PRIMARY KEY (contact, slot_ns, alert)
) WITHOUT ROWID;
