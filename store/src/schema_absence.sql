-- One row for each repo of which something is left and that is not configured: since when.
CREATE TABLE absence (
  id TEXT PRIMARY KEY NOT NULL,
  created_at INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
