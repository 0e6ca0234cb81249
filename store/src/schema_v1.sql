-- Version 1. Never edit a released version: add another beside it.
-- Of each record the columns that are asked for, and the whole record as JSON (`body`), which is the truth.
-- Times are microseconds since 1970 UTC. Ids are time-ordered, so lists go by id: every further index is a page that
-- each commit has to write.

CREATE TABLE meta (
  key TEXT PRIMARY KEY NOT NULL,
  value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE counters (
  scope TEXT PRIMARY KEY NOT NULL,
  value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency (
  key TEXT NOT NULL,
  route TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (key, route)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (created_at);

CREATE TABLE sandboxes (
  id TEXT PRIMARY KEY NOT NULL,
  repo TEXT NOT NULL,
  state TEXT NOT NULL,
  session TEXT,
  created_at INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE INDEX sandboxes_live ON sandboxes (id) WHERE state <> 'gone';

CREATE TABLE sessions (
  id TEXT PRIMARY KEY NOT NULL,
  repo TEXT NOT NULL,
  state TEXT NOT NULL,
  launch TEXT NOT NULL,
  login TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE INDEX sessions_by_repo ON sessions (repo, id);
CREATE INDEX sessions_by_state ON sessions (state, launch, login);

CREATE TABLE images (
  id TEXT PRIMARY KEY NOT NULL,
  repo TEXT NOT NULL,
  state TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT;
-- At most one image of a repo is current.
CREATE UNIQUE INDEX images_current ON images (repo) WHERE state = 'current';

CREATE TABLE builds (
  id TEXT PRIMARY KEY NOT NULL,
  repo TEXT NOT NULL,
  state TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE INDEX builds_by_repo ON builds (repo, id);
CREATE INDEX builds_by_state ON builds (state);

CREATE TABLE snapshots (
  id TEXT PRIMARY KEY NOT NULL,
  session TEXT NOT NULL,
  repo TEXT NOT NULL,
  state TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE INDEX snapshots_by_session ON snapshots (session, id);

CREATE TABLE pull_requests (
  id TEXT PRIMARY KEY NOT NULL,
  session TEXT NOT NULL,
  repo TEXT NOT NULL,
  state TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE INDEX pull_requests_by_session ON pull_requests (session, id);
CREATE INDEX pull_requests_by_state ON pull_requests (state);

CREATE TABLE warmups (
  id TEXT PRIMARY KEY NOT NULL,
  repo TEXT NOT NULL,
  state TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE INDEX warmups_live ON warmups (id) WHERE state = 'live';
