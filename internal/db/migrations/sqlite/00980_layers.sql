-- +goose Up
-- What the scheme, a region or a member changes about detection rules (package layer). Rules come and go with updates; these stay.
CREATE TABLE rule_layers (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  kind       TEXT NOT NULL,             -- off, except, level
  rule       TEXT NOT NULL,             -- the rule's id
  title      TEXT NOT NULL,             -- as it was then, for people
  scope      TEXT NOT NULL,             -- scheme, region, member
  region     TEXT NOT NULL DEFAULT '',  -- tenants.area, of scope region
  tenant     INTEGER NOT NULL DEFAULT 0,
  field      TEXT NOT NULL DEFAULT '',  -- of an exception
  value      TEXT NOT NULL DEFAULT '',
  level      TEXT NOT NULL DEFAULT '',  -- of a change of level
  reason     TEXT NOT NULL,
  owner      TEXT NOT NULL,             -- who answers for it
  made_by    TEXT NOT NULL,
  made_ns    INTEGER NOT NULL,
  expires_ns INTEGER NOT NULL DEFAULT 0, -- 0: never; an exception always does
  ended_ns   INTEGER NOT NULL DEFAULT 0,
  ended_by   TEXT NOT NULL DEFAULT '',
  hits       INTEGER NOT NULL DEFAULT 0, -- detections and events that it kept back or changed
  last_ns    INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX rule_layers_open ON rule_layers (ended_ns, expires_ns);
-- Detections that did not become alerts because of a layer.
CREATE TABLE rule_suppressed (
  digest      BLOB PRIMARY KEY,         -- of the detection's key: a replay is the same line
  layer       INTEGER NOT NULL,
  tenant      INTEGER NOT NULL,
  rule        TEXT NOT NULL,
  title       TEXT NOT NULL,
  level       TEXT NOT NULL,
  entity_kind TEXT NOT NULL,
  entity      TEXT NOT NULL,
  reason      TEXT NOT NULL,
  count       INTEGER NOT NULL,
  first_ns    INTEGER NOT NULL,
  last_ns     INTEGER NOT NULL,
  at_ns       INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX rule_suppressed_layer ON rule_suppressed (layer, at_ns);
CREATE INDEX rule_suppressed_at ON rule_suppressed (at_ns);
