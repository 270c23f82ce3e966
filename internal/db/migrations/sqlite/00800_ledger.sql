-- +goose Up
-- What stands in the ledger, so that a digest can be found in it. The ledger's own files are the truth: these rows are made from them again
-- when they are missing.
CREATE TABLE ledger_entries (
	leaf      BLOB    NOT NULL PRIMARY KEY, -- 32 bytes: an envelope's digest, or that of a line of the register
	idx       INTEGER NOT NULL UNIQUE,      -- place in the log, from 0
	kind      TEXT    NOT NULL DEFAULT '',  -- batch, registration, confirmation, revocation, fork, clone; '' when made again from the files
	tenant    INTEGER NOT NULL DEFAULT 0,
	collector TEXT    NOT NULL DEFAULT '',
	stream    BLOB,                         -- batch: 16 bytes
	seq       INTEGER NOT NULL DEFAULT 0,   -- batch: sequence in its stream; others: number of the register's line
	added_ns  INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE INDEX ledger_entries_stream ON ledger_entries (stream, seq) WHERE stream IS NOT NULL;

-- Where the ledger stands in the register of members.
CREATE TABLE ledger_cursor (
	id       INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
	register INTEGER NOT NULL DEFAULT 0
) STRICT;

INSERT INTO ledger_cursor (id, register) VALUES (1, 0);

-- +goose Down
SELECT 1; -- migrations go forward only
