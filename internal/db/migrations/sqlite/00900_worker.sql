-- +goose Up
-- The workers' memory (package worker). Times are UTC nanoseconds. Sequences are those of the bus unless said otherwise.
CREATE TABLE worker_leases (
  shard    TEXT PRIMARY KEY,            -- the set of bus partitions that one worker follows
  holder   TEXT NOT NULL,
  fence    INTEGER NOT NULL,            -- rises with each take-over; a write with a lower one is refused
  until_ns INTEGER NOT NULL,
  position INTEGER NOT NULL DEFAULT 0,  -- everything up to here is stored and alerted
  planned  INTEGER NOT NULL DEFAULT 0   -- number of the last plan
);

-- A plan is written before any of its effects. It is done when none of them is missing.
CREATE TABLE worker_plans (
  shard       TEXT NOT NULL,
  number      INTEGER NOT NULL,
  fence       INTEGER NOT NULL,
  first       INTEGER NOT NULL,
  last        INTEGER NOT NULL,
  messages    INTEGER NOT NULL,
  digest      BLOB NOT NULL,            -- SHA-256 over the messages' sequences and batch digests; the insert's token
  ingested_ns INTEGER NOT NULL,         -- event.ingested of every row
  decoder     TEXT NOT NULL,            -- versions that made the rows
  enricher    TEXT NOT NULL,
  done_ns     INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (shard, number)
) WITHOUT ROWID;

-- The last batch of each stream that is stored: what comes at or below it again is a repeat.
CREATE TABLE worker_heads (
  stream    BLOB PRIMARY KEY,
  tenant    INTEGER NOT NULL,
  collector TEXT NOT NULL,
  lane      TEXT NOT NULL,
  seq       INTEGER NOT NULL,           -- the stream's own number
  batches   INTEGER NOT NULL,
  events    INTEGER NOT NULL,           -- rows stored
  dead      INTEGER NOT NULL,           -- events put aside
  at_ns     INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX worker_heads_collector ON worker_heads (tenant, collector);

-- What could not be processed, and why. The batch itself stays in the blob store.
CREATE TABLE worker_dead (
  shard     TEXT NOT NULL,
  bus_seq   INTEGER NOT NULL,
  place     INTEGER NOT NULL,           -- index of the event in its batch, -1 for the whole batch
  at_ns     INTEGER NOT NULL,
  tenant    INTEGER NOT NULL,
  collector TEXT NOT NULL,
  digest    TEXT NOT NULL,
  events    INTEGER NOT NULL,           -- how many events it stands for
  reason    TEXT NOT NULL,
  notice    BLOB NOT NULL,              -- the bus message
  PRIMARY KEY (shard, bus_seq, place)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE worker_dead;
DROP TABLE worker_heads;
DROP TABLE worker_plans;
DROP TABLE worker_leases;
