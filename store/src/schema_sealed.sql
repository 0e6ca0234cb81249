-- Secrets, sealed by whoever put them: nothing here can open them.
CREATE TABLE sealed (
  name TEXT PRIMARY KEY NOT NULL,
  body BLOB NOT NULL
) STRICT, WITHOUT ROWID;
