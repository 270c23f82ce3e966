-- +goose Up
-- Whose session it is, so that people see theirs and end them; '' while nobody is signed in.
ALTER TABLE sessions ADD COLUMN person TEXT NOT NULL DEFAULT '';
CREATE INDEX sessions_person ON sessions (person) WHERE person <> '';
-- The account that an invitation renews; '' for one that makes an account.
ALTER TABLE invitations ADD COLUMN person TEXT NOT NULL DEFAULT '';
