-- A database as version 1 left it. Frozen: it stands for what lies on disks out there.
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

INSERT INTO meta VALUES('instance', CAST('ins_00000000000000000000000000000abc' AS BLOB));
INSERT INTO meta VALUES('secret', x'0707070707070707070707070707070707070707070707070707070707070707');
INSERT INTO counters VALUES('pr', 41);
INSERT INTO sandboxes VALUES('sbx_00000000000000000000000000000002', 'acme/repo-2', 'warm', 'ses_00000000000000000000000000000002', 1700000002123456, '{"id":"sbx_00000000000000000000000000000002","repo":"acme/repo-2","purpose":{"build":"bld_00000000000000000000000000000002"},"state":"warm","image":"img_00000000000000000000000000000002","source":"sha256:0000000000000000000000000000000000000000000000000000000000000002","commit":"0000000000000000000000000000000000000002","engine_id":"engine-2 with \"quotes\" and ünïcode","token_hash":"0000000000000000000000000000000000000000000000000000000000000002","session":"ses_00000000000000000000000000000002","reserved":null,"created_at":"2023-11-14T22:13:22.123456789Z","ready_at":"2023-11-14T22:13:21.123456789Z","claimed_at":null,"deadline":"2023-11-14T22:15:00.123456789Z","reason":null}');
INSERT INTO sessions VALUES('ses_00000000000000000000000000000003', 'acme/repo-0', 'ended', 'cold', 'user-3', 1700000003123456, '{"id":"ses_00000000000000000000000000000003","repo":"acme/repo-0","state":"ended","launch":"cold","sandbox":"sbx_00000000000000000000000000000003","image":null,"user":{"login":"user-3","name":"Ü\n\u0000","email":"u@example.com"},"env":{"KEY":"value 3"},"base":"main","branch":"hotbed/3","sync":{"phase":"pending","wanted":null,"head":null,"lag_commits":null,"error":null,"started_at":null,"ended_at":null},"snapshot":null,"parent":null,"warmup":null,"created_at":"2023-11-14T22:13:23.123456789Z","started_at":null,"expires_at":"2023-11-14T22:30:00.123456789Z","idle_end_seconds":4294967295,"deadline":"2023-11-14T22:15:00.123456789Z","ended_at":null,"end":"requested","trouble":null}');
PRAGMA user_version = 1;
