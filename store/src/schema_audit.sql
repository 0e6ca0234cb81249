-- What was done, in order. Rows are added and, when they are old, removed; no row ever changes.
CREATE TABLE audit (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  created_at INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE INDEX audit_by_age ON audit (created_at);
CREATE TRIGGER audit_stays_as_it_is BEFORE UPDATE ON audit
BEGIN
  SELECT RAISE(ABORT, 'the audit log is added to, and never changed');
END;
