-- One row for each repo that was ever configured: which tick was answered, how its builds went, what was pushed.
CREATE TABLE cadence (
  id TEXT PRIMARY KEY NOT NULL,
  created_at INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
