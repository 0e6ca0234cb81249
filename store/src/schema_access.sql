-- One row for each API key that was ever made. The body holds the key's hash, never the key.
CREATE TABLE api_keys (
  id TEXT PRIMARY KEY NOT NULL,
  created_at INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
