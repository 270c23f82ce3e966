-- +goose Up
-- What the hub has seen of each member's sources of events (package health): counters and shares, no content.
CREATE TABLE detection_sources (
  tenant     INTEGER NOT NULL,
  dataset    TEXT NOT NULL,
  state      TEXT NOT NULL, -- JSON, package health
  updated_ns INTEGER NOT NULL,
  PRIMARY KEY (tenant, dataset)
) WITHOUT ROWID;
