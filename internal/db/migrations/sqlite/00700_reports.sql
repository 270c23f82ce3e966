-- +goose Up
-- Which weekly reports were made to be mailed. A row is written with the mail's entry in the outbox and stays for good, so that no member
-- gets a week twice, whatever the outbox has forgotten.
CREATE TABLE reports (
	tenant  INTEGER NOT NULL REFERENCES tenants(id),
	week    TEXT    NOT NULL,            -- 2026-W47
	made_ns INTEGER NOT NULL,
	mail_to TEXT    NOT NULL,            -- the contact's address at that time
	events  INTEGER NOT NULL DEFAULT 0,  -- what the report said, for the list
	alerts  INTEGER NOT NULL DEFAULT 0,
	PRIMARY KEY (tenant, week)
) STRICT, WITHOUT ROWID;

-- +goose Down
SELECT 1; -- migrations go forward only
