-- +goose Up
-- The next number of each stream, promised to one batch before that is published: of two different batches under one number only one
-- ever reaches the bus, whichever gates they come to and whenever a gate stops.
CREATE TABLE stream_claims (
  stream BLOB PRIMARY KEY,
  seq    INTEGER NOT NULL,
  digest BLOB NOT NULL,
  at_ns  INTEGER NOT NULL
) WITHOUT ROWID;

-- +goose Down
DROP TABLE stream_claims;
