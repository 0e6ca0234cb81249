-- Deliveries of webhooks, in order of arrival. `id` is the sender's name for one, the same at each attempt. The body
-- goes as soon as it has been worked; the row stays a while, so that a repeated one is known.
CREATE TABLE deliveries (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT UNIQUE NOT NULL,
  event TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  body BLOB
) STRICT;
CREATE INDEX deliveries_waiting ON deliveries (seq) WHERE body IS NOT NULL;
CREATE INDEX deliveries_by_age ON deliveries (created_at);

-- Reports name a pull request by its number.
CREATE INDEX pull_requests_by_number ON pull_requests (repo, json_extract(body, '$.number'));
