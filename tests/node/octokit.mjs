// octokit.js against the stand-in: what must succeed succeeds, what GitHub refuses is refused in GitHub's words.
import assert from "node:assert/strict";
import { App, Octokit } from "octokit";

const hub = JSON.parse(process.env.STANDIN);
const quiet = { debug() {}, info() {}, warn() {}, error() {} };
const Client = Octokit.defaults({ baseUrl: hub.api_url, log: quiet, retry: { enabled: false }, throttle: { enabled: false } });

const knob = async (name, body) => {
  const answer = await fetch(`${hub.web_url}/_standin/${name}`, { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } });
  assert.equal(answer.status, 200, `knob ${name}`);
};
const refused = async (status, words, deed) => {
  const error = await deed.then(() => assert.fail(`expected ${status} ${words}`), (e) => e);
  assert.equal(error.status, status, String(error));
  assert.match(JSON.stringify(error.response.data), words);
};

const app = new App({
  appId: hub.app_id,
  privateKey: hub.private_key,
  oauth: { clientId: hub.client_id, clientSecret: hub.client_secret },
  webhooks: { secret: hub.webhook_secret },
  Octokit: Client,
  log: quiet,
});

// The App.
const { data: self } = await app.octokit.request("GET /app");
assert.equal(self.id, hub.app_id);
const { data: installation } = await app.octokit.request("GET /repos/{owner}/{repo}/installation", { owner: "acme", repo: "api" });
await refused(404, /Not Found/, app.octokit.request("GET /repos/{owner}/{repo}/installation", { owner: "acme", repo: "none" }));
const scoped = await app.octokit.auth({ type: "installation", installationId: installation.id, repositoryNames: ["api"], permissions: { contents: "read", metadata: "read" } });
assert.match(scoped.token, /^ghs_/);
assert.equal(scoped.permissions.contents, "read");
await refused(422, /permissions requested are not granted/, app.octokit.request("POST /app/installations/{installation_id}/access_tokens", { installation_id: installation.id, permissions: { administration: "write" } }));
const reader = new Client({ auth: scoped.token });
assert.equal((await reader.request("GET /installation/repositories")).data.total_count, 1);
assert.equal((await reader.rest.repos.get({ owner: "acme", repo: "api" })).data.default_branch, "main");
assert.ok((await reader.rest.repos.listBranches({ owner: "acme", repo: "api" })).data.some((b) => b.name === "x"));
await refused(403, /Resource not accessible by integration/, reader.rest.pulls.create({ owner: "acme", repo: "api", title: "t", head: "x", base: "main" }));

// Two users, by device.
const signIn = async (login) => {
  let code;
  const auth = await import("@octokit/auth-oauth-device").then(({ createOAuthDeviceAuth }) =>
    createOAuthDeviceAuth({
      clientType: "github-app",
      clientId: hub.client_id,
      request: new Client().request,
      onVerification: async (verification) => {
        code = verification.user_code;
        await knob("approve", { user_code: code, login });
      },
    })({ type: "oauth" }),
  );
  assert.match(code, /^[A-Z0-9]{4}-[A-Z0-9]{4}$/);
  assert.match(auth.token, /^ghu_/);
  return auth;
};
const ada = new Client({ auth: (await signIn("ada")).token });
const bo = new Client({ auth: (await signIn("bo")).token });
assert.equal((await ada.rest.users.getAuthenticated()).data.login, "ada");

// Pull requests.
const pull = { owner: "acme", repo: "api", title: "By octokit", head: "x", base: "main", body: "b" };
const { data: made } = await ada.rest.pulls.create(pull);
assert.equal(made.user.login, "ada");
await refused(422, /A pull request already exists for acme:x\./, ada.rest.pulls.create(pull));
await refused(422, /No commits between main and empty/, ada.rest.pulls.create({ ...pull, head: "empty" }));
await refused(422, /"field":"head"/, ada.rest.pulls.create({ ...pull, head: "none" }));
assert.equal((await ada.rest.pulls.list({ owner: "acme", repo: "api", head: "acme:x", state: "open" })).data.length, 1);
assert.equal((await ada.rest.pulls.list({ owner: "acme", repo: "api", head: "acme:none", state: "open" })).data.length, 0);
const number = made.number;
await ada.rest.pulls.update({ owner: "acme", repo: "api", pull_number: number, title: "Renamed" });
await refused(422, /Can not approve your own pull request/, ada.rest.pulls.createReview({ owner: "acme", repo: "api", pull_number: number, event: "APPROVE" }));
assert.equal((await bo.rest.pulls.createReview({ owner: "acme", repo: "api", pull_number: number, event: "APPROVE" })).data.state, "APPROVED");
await bo.rest.pulls.merge({ owner: "acme", repo: "api", pull_number: number });
const { data: merged } = await ada.rest.pulls.get({ owner: "acme", repo: "api", pull_number: number });
assert.equal(merged.merged, true);
assert.equal(merged.title, "Renamed");

// Ends.
await refused(401, /Bad credentials/, new Client({ auth: "ghu_nobody" }).rest.users.getAuthenticated());
await reader.request("DELETE /installation/token");
await refused(401, /Bad credentials/, reader.request("GET /installation/repositories"));
await knob("faults", { method: "GET", path: "/user", retry_after: 7 });
const limited = await ada.rest.users.getAuthenticated().then(() => assert.fail("limited"), (e) => e);
assert.equal(limited.status, 403);
assert.equal(limited.response.headers["retry-after"], "7");

console.log("octokit: all as described");
