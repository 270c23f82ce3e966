-- +goose Up
-- Times are UTC nanoseconds; 0 means never. Tenant 0 is the centre.
CREATE TABLE tenants (
  id            INTEGER PRIMARY KEY AUTOINCREMENT, -- never used twice
  name          TEXT NOT NULL COLLATE NOCASE UNIQUE,
  sector        TEXT NOT NULL DEFAULT '',
  area          TEXT NOT NULL DEFAULT '',          -- police force or region
  contact_name  TEXT NOT NULL DEFAULT '',
  contact_email TEXT NOT NULL DEFAULT '',
  contact_phone TEXT NOT NULL DEFAULT '',
  policy        TEXT NOT NULL DEFAULT 'metadata',  -- the most the centre may ask for
  created_ns    INTEGER NOT NULL
);

CREATE TABLE sites (
  id         TEXT PRIMARY KEY,
  tenant     INTEGER NOT NULL REFERENCES tenants(id),
  name       TEXT NOT NULL COLLATE NOCASE,
  created_ns INTEGER NOT NULL,
  UNIQUE (tenant, name)
);

CREATE TABLE collectors (
  id               TEXT PRIMARY KEY,               -- UUIDv7
  tenant           INTEGER NOT NULL REFERENCES tenants(id),
  site             TEXT NOT NULL REFERENCES sites(id),
  name             TEXT NOT NULL,
  state            TEXT NOT NULL CHECK (state IN ('quarantined', 'live', 'revoked')),
  batch_key        BLOB NOT NULL UNIQUE,           -- Ed25519 public key
  words            TEXT NOT NULL,                  -- check words
  word_tries       INTEGER NOT NULL DEFAULT 0,
  renew_counter    INTEGER NOT NULL DEFAULT 0,     -- of the last renewal; the next must be higher
  policy           TEXT NOT NULL DEFAULT '',       -- digest of the local policy last told
  version          TEXT NOT NULL DEFAULT '',
  parser_pack      TEXT NOT NULL DEFAULT '',
  rule_pack        TEXT NOT NULL DEFAULT '',
  indicator_set    TEXT NOT NULL DEFAULT '',
  clock_offset_ns  INTEGER NOT NULL DEFAULT 0,
  registered_ns    INTEGER NOT NULL,
  confirmed_ns     INTEGER NOT NULL DEFAULT 0,
  confirmed_by     TEXT NOT NULL DEFAULT '',
  revoked_ns       INTEGER NOT NULL DEFAULT 0,
  revoked_by       TEXT NOT NULL DEFAULT '',
  revoke_reason    TEXT NOT NULL DEFAULT '',
  last_seen_ns     INTEGER NOT NULL DEFAULT 0,     -- any request
  last_batch_ns    INTEGER NOT NULL DEFAULT 0,     -- last batch accepted
  last_created_ns  INTEGER NOT NULL DEFAULT 0      -- when that batch was sealed, by the collector's clock
);
CREATE INDEX collectors_tenant ON collectors (tenant, id);

-- Certificates issued to a collector, by the digest of their public key. The
-- one before stays good until it expires: the answer with the new one may get lost.
CREATE TABLE collector_certs (
  tls_key       BLOB PRIMARY KEY,                  -- SHA-256 of the SubjectPublicKeyInfo
  collector     TEXT NOT NULL REFERENCES collectors(id),
  serial        TEXT NOT NULL DEFAULT '',
  not_before_ns INTEGER NOT NULL DEFAULT 0,
  not_after_ns  INTEGER NOT NULL
);
CREATE INDEX collector_certs_collector ON collector_certs (collector, not_after_ns);

CREATE TABLE tokens (
  id          TEXT PRIMARY KEY,
  secret_hash BLOB NOT NULL UNIQUE,                -- SHA-256; the secret itself is never kept
  tenant      INTEGER NOT NULL REFERENCES tenants(id),
  site        TEXT NOT NULL REFERENCES sites(id),
  created_ns  INTEGER NOT NULL,
  created_by  TEXT NOT NULL,
  expires_ns  INTEGER NOT NULL,
  used_ns     INTEGER NOT NULL DEFAULT 0,
  used_by     TEXT NOT NULL DEFAULT '',            -- collector
  cancelled_ns INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX tokens_tenant ON tokens (tenant, created_ns);

-- Registrations, confirmations, revocations and forks, in order, for the ledger.
CREATE TABLE register_log (
  seq       INTEGER PRIMARY KEY AUTOINCREMENT,
  kind      TEXT NOT NULL,
  collector TEXT NOT NULL,
  tenant    INTEGER NOT NULL,
  at_ns     INTEGER NOT NULL,
  body      BLOB NOT NULL
);

-- Where each reader of streams stands (gate, ledger …).
CREATE TABLE stream_heads (
  reader     TEXT NOT NULL,
  stream     BLOB NOT NULL,
  collector  TEXT NOT NULL,
  tenant     INTEGER NOT NULL,
  lane       TEXT NOT NULL,
  epoch      TEXT NOT NULL,
  seq        INTEGER NOT NULL,
  digest     BLOB NOT NULL,
  position   TEXT NOT NULL DEFAULT '',
  receipt    BLOB NOT NULL DEFAULT x'',
  started_ns INTEGER NOT NULL,                     -- when the stream's first batch came
  created_ns INTEGER NOT NULL,                     -- of the head's batch, by the collector's clock
  updated_ns INTEGER NOT NULL,
  PRIMARY KEY (reader, stream)
) WITHOUT ROWID;
CREATE INDEX stream_heads_collector ON stream_heads (collector, reader);

-- What was accepted: proves repeats and forks, and gives a repeat its receipt again.
CREATE TABLE batches (
  stream      BLOB NOT NULL,
  seq         INTEGER NOT NULL,
  digest      BLOB NOT NULL,
  received_ns INTEGER NOT NULL,
  events      INTEGER NOT NULL,
  size        INTEGER NOT NULL,
  receipt     BLOB NOT NULL,
  PRIMARY KEY (stream, seq)
) WITHOUT ROWID;

CREATE TABLE forks (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  stream      BLOB NOT NULL,
  collector   TEXT NOT NULL,
  tenant      INTEGER NOT NULL,
  seq         INTEGER NOT NULL,
  have        BLOB NOT NULL,
  got         BLOB NOT NULL,
  at_ns       INTEGER NOT NULL,
  UNIQUE (stream, seq, got)
);

-- Sums of Manifest.Counts, and of what the hub itself counts, along a stream.
CREATE TABLE stream_counts (
  stream    BLOB NOT NULL,
  name      TEXT NOT NULL,
  collector TEXT NOT NULL,
  tenant    INTEGER NOT NULL,
  value     INTEGER NOT NULL,
  PRIMARY KEY (stream, name)
) WITHOUT ROWID;
CREATE INDEX stream_counts_collector ON stream_counts (collector, name, value);
CREATE TABLE day_counts (
  collector TEXT NOT NULL,
  day       INTEGER NOT NULL,                      -- days since 1970, UTC, by the hub's clock
  name      TEXT NOT NULL,
  tenant    INTEGER NOT NULL,
  value     INTEGER NOT NULL,
  PRIMARY KEY (collector, day, name)
) WITHOUT ROWID;
-- How far each counter has counted a stream, so that a replay adds nothing.
CREATE TABLE stream_marks (
  stream BLOB NOT NULL,
  source TEXT NOT NULL,
  seq    INTEGER NOT NULL,
  PRIMARY KEY (stream, source)
) WITHOUT ROWID;

CREATE TABLE people (
  id              TEXT PRIMARY KEY,
  email           TEXT NOT NULL COLLATE NOCASE UNIQUE,
  name            TEXT NOT NULL,
  role            TEXT NOT NULL CHECK (role IN ('operator', 'analyst', 'member')),
  tenant          INTEGER NOT NULL DEFAULT 0,
  password        TEXT NOT NULL,                   -- argon2id, PHC string; '' cannot sign in
  totp_secret     BLOB NOT NULL DEFAULT x'',       -- sealed
  totp_step       INTEGER NOT NULL DEFAULT 0,      -- last time step used
  disabled        INTEGER NOT NULL DEFAULT 0,
  generation      INTEGER NOT NULL DEFAULT 1,      -- raised to end all sessions
  created_ns      INTEGER NOT NULL,
  last_sign_in_ns INTEGER NOT NULL DEFAULT 0,
  CHECK ((role = 'member') = (tenant <> 0))
);
CREATE INDEX people_tenant ON people (tenant);

CREATE TABLE invitations (
  id          TEXT PRIMARY KEY,
  secret_hash BLOB NOT NULL UNIQUE,
  email       TEXT NOT NULL,
  name        TEXT NOT NULL,
  role        TEXT NOT NULL,
  tenant      INTEGER NOT NULL,
  created_ns  INTEGER NOT NULL,
  created_by  TEXT NOT NULL,
  expires_ns  INTEGER NOT NULL,
  used_ns     INTEGER NOT NULL DEFAULT 0
);

-- Failed sign-ins: by account (digest of the address, known or not), by where
-- they came from, and by account and place for places a person signs in from.
CREATE TABLE sign_in_failures (
  subject    TEXT PRIMARY KEY,
  failures   INTEGER NOT NULL,
  until_ns   INTEGER NOT NULL,
  updated_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX sign_in_failures_updated ON sign_in_failures (updated_ns);

-- Where people signed in from, so that guessing from elsewhere cannot lock them out.
CREATE TABLE sign_in_places (
  person     TEXT NOT NULL REFERENCES people(id),
  place      TEXT NOT NULL,
  last_ns    INTEGER NOT NULL,
  PRIMARY KEY (person, place)
) WITHOUT ROWID;

CREATE TABLE sessions (
  token_hash BLOB PRIMARY KEY,
  data       BLOB NOT NULL,
  expires_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX sessions_expires ON sessions (expires_ns);

CREATE TABLE audit (
  id     INTEGER PRIMARY KEY AUTOINCREMENT,
  at_ns  INTEGER NOT NULL,
  who    TEXT NOT NULL,
  action TEXT NOT NULL,
  object TEXT NOT NULL,
  tenant INTEGER NOT NULL DEFAULT 0,
  detail TEXT NOT NULL DEFAULT ''
);
CREATE INDEX audit_tenant ON audit (tenant, id);

CREATE TABLE indicators (
  id            TEXT PRIMARY KEY,
  kind          TEXT NOT NULL,
  value         TEXT NOT NULL,                     -- canonical
  source        TEXT NOT NULL,
  confidence    INTEGER NOT NULL,
  tlp           TEXT NOT NULL,
  push          INTEGER NOT NULL,
  note          TEXT NOT NULL DEFAULT '',
  valid_from_ns INTEGER NOT NULL,
  valid_until_ns INTEGER NOT NULL,
  added_ns      INTEGER NOT NULL,
  added_by      TEXT NOT NULL DEFAULT '',
  updated_ns    INTEGER NOT NULL,
  removed_ns    INTEGER NOT NULL DEFAULT 0,
  hits          INTEGER NOT NULL DEFAULT 0,
  last_hit_ns   INTEGER NOT NULL DEFAULT 0,
  UNIQUE (kind, value, source)
);
CREATE INDEX indicators_added ON indicators (removed_ns, added_ns DESC, id DESC);
CREATE INDEX indicators_value ON indicators (value);

CREATE TABLE indicator_sets (
  version    INTEGER PRIMARY KEY,
  created_ns INTEGER NOT NULL,
  expires_ns INTEGER NOT NULL,
  entries    INTEGER NOT NULL,
  content    BLOB NOT NULL,                        -- SHA-256 over what the set lists
  digest     BLOB NOT NULL,                        -- SHA-256 of the set
  key        BLOB NOT NULL,                        -- its hash key
  envelope   BLOB NOT NULL
);
-- From a hit's number back to the indicator, for the sets still in use.
CREATE TABLE indicator_hashes (
  version   INTEGER NOT NULL,
  kind      TEXT NOT NULL,
  hash      INTEGER NOT NULL,
  indicator TEXT NOT NULL,
  PRIMARY KEY (version, kind, hash, indicator)
) WITHOUT ROWID;

CREATE TABLE alerts (
  num           INTEGER PRIMARY KEY,               -- from the counter alert.num
  id            TEXT NOT NULL UNIQUE,              -- UUIDv7
  ref           TEXT NOT NULL UNIQUE,              -- AL-7K3M9QX, to say on the telephone
  rev           INTEGER NOT NULL,                  -- of the last change, rising over all alerts
  tenant        INTEGER NOT NULL,
  sector        TEXT NOT NULL DEFAULT '',
  family        TEXT NOT NULL,
  entity_kind   TEXT NOT NULL,
  entity        TEXT NOT NULL,
  state         TEXT NOT NULL CHECK (state IN ('new', 'assigned', 'closed', 'suppressed')),
  open          INTEGER NOT NULL,                  -- new or assigned
  severity      INTEGER NOT NULL,                  -- 0 informational … 4 critical
  score         INTEGER NOT NULL,                  -- risk, 0 to 100; severity×20 and what adds to it
  assignee      TEXT NOT NULL DEFAULT '',
  escalated_ns  INTEGER NOT NULL DEFAULT 0,
  acknowledged_ns INTEGER NOT NULL DEFAULT 0,
  first_ns      INTEGER NOT NULL,                  -- event time
  last_ns       INTEGER NOT NULL,
  created_ns    INTEGER NOT NULL,                  -- hub time
  updated_ns    INTEGER NOT NULL,
  closed_ns     INTEGER NOT NULL DEFAULT 0,
  verdict       TEXT NOT NULL DEFAULT '',
  title         TEXT NOT NULL,
  source        TEXT NOT NULL DEFAULT '',
  user          TEXT NOT NULL DEFAULT '',
  host          TEXT NOT NULL DEFAULT '',
  count         INTEGER NOT NULL,
  detections    INTEGER NOT NULL,
  events        INTEGER NOT NULL DEFAULT 0,        -- event ids ever given, with repeats
  late          INTEGER NOT NULL DEFAULT 0,
  site          INTEGER NOT NULL DEFAULT 0,
  notices       INTEGER NOT NULL DEFAULT 0,        -- notices sent
  noticed_ns    INTEGER NOT NULL DEFAULT 0,
  noticed_count INTEGER NOT NULL DEFAULT 0,        -- count at the last notice
  due_ns        INTEGER NOT NULL DEFAULT 0,        -- when the next counted update may go; 0: none waits
  previous      TEXT NOT NULL DEFAULT '',          -- the closed alert of the same group
  body          BLOB NOT NULL                      -- JSON: rules, tags, reason, steps, member text …
);
-- The two orders of the queue, with what the filters look at, so that a page is
-- found without touching the rows it leaves out.
CREATE INDEX alerts_rank ON alerts (open, score DESC, last_ns DESC, num DESC, tenant, family, severity, sector, state, assignee, escalated_ns);
CREATE INDEX alerts_recent ON alerts (open, last_ns DESC, num DESC, tenant, family, severity, sector, state, assignee, escalated_ns);
CREATE INDEX alerts_tenant_rank ON alerts (tenant, open, score DESC, last_ns DESC, num DESC, family, severity, state);
CREATE INDEX alerts_tenant_recent ON alerts (tenant, open, last_ns DESC, num DESC, family, severity, state);
CREATE INDEX alerts_family ON alerts (family, open, last_ns DESC, num DESC);
CREATE INDEX alerts_assignee ON alerts (assignee, open, last_ns DESC, num DESC) WHERE assignee <> '';
CREATE INDEX alerts_escalated ON alerts (open, last_ns DESC, num DESC) WHERE escalated_ns > 0;
CREATE INDEX alerts_source ON alerts (source, last_ns DESC) WHERE source <> '';
CREATE INDEX alerts_entity ON alerts (entity, last_ns DESC);
CREATE INDEX alerts_due ON alerts (due_ns) WHERE due_ns > 0;
CREATE INDEX alerts_rev ON alerts (rev);

CREATE VIRTUAL TABLE alert_words USING fts5 (text, content = '', contentless_delete = 1, tokenize = 'trigram');

-- The newest alert of each group.
CREATE TABLE alert_groups (
  grp   BLOB PRIMARY KEY,                          -- digest of tenant, family, entity
  alert INTEGER NOT NULL REFERENCES alerts(num)
) WITHOUT ROWID;

CREATE TABLE alert_techniques (
  technique TEXT NOT NULL,
  alert     INTEGER NOT NULL REFERENCES alerts(num),
  PRIMARY KEY (technique, alert)
) WITHOUT ROWID;
CREATE INDEX alert_techniques_alert ON alert_techniques (alert, technique);

-- Detections already applied, by the digest of their key.
CREATE TABLE alert_detections (
  digest  BLOB PRIMARY KEY,
  alert   INTEGER NOT NULL,
  rule    TEXT NOT NULL,
  count   INTEGER NOT NULL,
  last_ns INTEGER NOT NULL,
  at_ns   INTEGER NOT NULL,
  plan    TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX alert_detections_at ON alert_detections (at_ns);
CREATE INDEX alert_detections_alert ON alert_detections (alert, last_ns DESC);

CREATE TABLE alert_events (
  alert  INTEGER NOT NULL REFERENCES alerts(num),
  n      INTEGER NOT NULL,                         -- order of arrival
  stream BLOB NOT NULL,
  seq    INTEGER NOT NULL,
  idx    INTEGER NOT NULL,
  PRIMARY KEY (alert, n)
) WITHOUT ROWID;

CREATE TABLE alert_activity (
  id     INTEGER PRIMARY KEY AUTOINCREMENT,
  alert  INTEGER NOT NULL REFERENCES alerts(num),
  at_ns  INTEGER NOT NULL,
  actor  TEXT NOT NULL,                            -- person, or '' for the program
  name   TEXT NOT NULL DEFAULT '',                 -- as it was then
  kind   TEXT NOT NULL,
  text   TEXT NOT NULL DEFAULT '',
  shared INTEGER NOT NULL DEFAULT 1                -- the member may read it
);
CREATE INDEX alert_activity_alert ON alert_activity (alert, id);

-- How many alerts there are, so that no page has to count them. Each alert is
-- counted under its tenant, under -1 (all tenants) and under -2 with its sector;
-- there with technique '' and once more with each of its techniques; and under
-- its tenant once more with severity -1 and family '', any.
CREATE TABLE alert_counts (
  tenant    INTEGER NOT NULL,
  sector    TEXT NOT NULL,
  state     TEXT NOT NULL,
  escalated INTEGER NOT NULL,
  severity  INTEGER NOT NULL,
  family    TEXT NOT NULL,
  technique TEXT NOT NULL,
  n         INTEGER NOT NULL,
  PRIMARY KEY (tenant, sector, technique, state, escalated, severity, family)
) WITHOUT ROWID;
CREATE INDEX alert_counts_tenants ON alert_counts (technique, state, escalated, severity, family, tenant, n) WHERE tenant >= 0;

CREATE TABLE suppressions (
  id          TEXT PRIMARY KEY,
  tenant      INTEGER NOT NULL,                    -- -1: every member
  family      TEXT NOT NULL DEFAULT '',            -- '' means any, as below
  rule        TEXT NOT NULL DEFAULT '',
  entity_kind TEXT NOT NULL DEFAULT '',
  entity      TEXT NOT NULL DEFAULT '',
  reason      TEXT NOT NULL,
  owner       TEXT NOT NULL,
  created_ns  INTEGER NOT NULL,
  expires_ns  INTEGER NOT NULL,
  ended_ns    INTEGER NOT NULL DEFAULT 0,
  hits        INTEGER NOT NULL DEFAULT 0,
  last_hit_ns INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX suppressions_active ON suppressions (tenant, expires_ns);

CREATE TABLE outbox (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  key        TEXT NOT NULL UNIQUE,
  kind       TEXT NOT NULL,
  tenant     INTEGER NOT NULL,
  payload    BLOB NOT NULL,
  state      TEXT NOT NULL CHECK (state IN ('waiting', 'running', 'done', 'dead')),
  attempts   INTEGER NOT NULL DEFAULT 0,
  due_ns     INTEGER NOT NULL,
  lease_ns   INTEGER NOT NULL DEFAULT 0,
  runner     TEXT NOT NULL DEFAULT '',
  created_ns INTEGER NOT NULL,
  ended_ns   INTEGER NOT NULL DEFAULT 0,
  result     TEXT NOT NULL DEFAULT '',
  error      TEXT NOT NULL DEFAULT ''
);
CREATE INDEX outbox_due ON outbox (kind, due_ns, id) WHERE state = 'waiting';
CREATE INDEX outbox_running ON outbox (lease_ns) WHERE state = 'running';
CREATE INDEX outbox_dead ON outbox (ended_ns DESC) WHERE state = 'dead';
CREATE INDEX outbox_ended ON outbox (ended_ns) WHERE state = 'done';
CREATE INDEX outbox_tenant ON outbox (tenant, id DESC);

CREATE TABLE counters (
  name  TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO counters (name, value) VALUES ('alert.rev', 0), ('alert.num', 0);
