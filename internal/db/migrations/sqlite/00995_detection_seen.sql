-- +goose Up
-- What the hub has seen of each member's sources of events, by collector and kind of device (package health): counters and shares, no content. Without a
-- dataset: the share of the collector's lines that were understood. It takes the place of detection_sources, which an older program may still write.
CREATE TABLE detection_seen (
  tenant     INTEGER NOT NULL,
  collector  TEXT NOT NULL,
  dataset    TEXT NOT NULL,
  state      TEXT NOT NULL, -- JSON, package health
  updated_ns INTEGER NOT NULL,
  PRIMARY KEY (tenant, collector, dataset)
) WITHOUT ROWID;
