-- What pools are sized by. `demand`: one row for each repo, its lead times. `demand_hours`: one row for each hour in
-- which somebody came, its claims by the minute; created_at is its beginning, and rows go when they are some weeks old.
-- `pool_orders`: the latest order of an operator for each repo.
CREATE TABLE demand (
  id TEXT PRIMARY KEY NOT NULL,
  created_at INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE demand_hours (
  id TEXT PRIMARY KEY NOT NULL,
  created_at INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX demand_hours_by_age ON demand_hours(created_at);

CREATE TABLE pool_orders (
  id TEXT PRIMARY KEY NOT NULL,
  created_at INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
