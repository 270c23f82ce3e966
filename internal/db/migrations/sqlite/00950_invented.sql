-- +goose Up
-- Spans of a member's figures that were invented for a demonstration (tocsin demo --history): pages and reports say so. A hub that
-- serves members has no row here. Times are UTC nanoseconds, the span is half open.
CREATE TABLE invented (
  tenant  INTEGER PRIMARY KEY REFERENCES tenants(id),
  from_ns INTEGER NOT NULL,
  to_ns   INTEGER NOT NULL
);
