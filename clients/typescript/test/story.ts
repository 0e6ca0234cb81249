// A client's day, told on one line at its end. The test `clients` runs it behind a proxy that breaks what is followed,
// loses an answer and is busy, and holds what is told here against what the server has done.

import assert from "node:assert/strict";

import { Hotbed, makesSomething, Problem } from "../src/index.js";

const environment = (name: string): string => {
  const value = process.env[name];
  assert(value, `${name} is not set`);
  return value;
};

const hotbed = new Hotbed({ url: environment("HOTBED_ADDRESS"), key: environment("HOTBED_KEY") });
const text = (parts: Uint8Array[]) => Buffer.concat(parts).toString();

// What is repeated without harm is what the description says.
for (const [path, takesKey] of Object.entries(JSON.parse(environment("HOTBED_POSTS")) as Record<string, boolean>)) {
  assert.equal(makesSomething("POST", path), takesKey, path);
}

// Bad input is a problem with a kind.
const user = { login: "ada" };
await assert.rejects(hotbed.createSession({ repo: "acme/none", user }), (problem) => {
  assert(problem instanceof Problem);
  assert.equal(problem.status, 404);
  assert.equal(problem.kind, "not_found");
  assert.match(problem.detail, /acme\/none/);
  return true;
});
const stranger = new Hotbed({ url: hotbed.url, key: "hbk_0" });
await assert.rejects(stranger.warmUp("acme/api", "tab"), { kind: "unauthorized", status: 401 });

// Who is busy is asked again, but not for ever, and not for longer than one has patience.
const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
for (const [seconds, times] of [
  [0, 6],
  [3600, 1],
] as const) {
  let asked = 0;
  const busy = new Hotbed({
    url: hotbed.url,
    key: hotbed.key,
    traceparent: () => trace,
    fetch: async (request) => {
      asked += 1;
      assert.equal((request as Request).headers.get("traceparent"), trace);
      const problem = { type: "urn:hotbed:problem:exhausted", detail: "too often" };
      return Response.json(problem, { status: 429, headers: { "Retry-After": `${seconds}` } });
    },
  });
  await assert.rejects(busy.session("ses_1"), { kind: "exhausted", status: 429, retryAfter: seconds });
  assert.equal(asked, times);
}

// The first keystroke, and the session.
const warmup = await hotbed.warmUp("acme/api", "tab");
assert.equal((await hotbed.warmUp("acme/api", "tab")).id, warmup.id);
const session = await hotbed.createSession({ repo: "acme/api", user, warmup: warmup.id });
const events: string[] = [];
const followed = (async () => {
  let last = 0;
  for await (const event of session.events()) {
    assert.equal(event.seq, last + 1, "no event is left out or told twice");
    last = event.seq;
    events.push(event.kind);
  }
})();

const happened: string[] = [];
const heard = (async () => {
  for await (const { kind } of hotbed.events({ session: session.id })) {
    happened.push(kind);
    if (kind === "session_ended") return;
  }
})();

const sync = await session.gateOpen();
assert.equal(sync.phase, "synced");

// A command that is waited for; its first answer is lost.
const greeted = await session.exec("echo hello");
assert.equal(greeted.stdout, "ok\n");
assert.equal(greeted.exit.code, 0);

// A command that is followed across broken connections.
const run = await session.start(["make", "story"], { env: { CI: "1" } });
const parts: Uint8Array[] = [];
const output = run.output();
let next = await output.next();
for (; !next.done; next = await output.next()) parts.push(next.value.bytes);
assert.equal(next.value.code, 3);
const whole = text(parts);
assert.equal(whole.split("\n").length, 201);
assert.match(whole, /line 199 of/);
const rest: Uint8Array[] = [];
for await (const piece of run.output({ from: 5000 })) rest.push(piece.bytes);
assert.equal(text(rest), whole.slice(5000));
assert.equal((await run.read()).output_bytes, whole.length);

await session.writeFile("docs/a note.md", "What was found.\n", "644");
assert.equal(new TextDecoder().decode(await session.readFile("docs/a note.md")), "What was found.\n");
await session.removeFile("docs/a note.md");
await assert.rejects(session.readFile("docs/a note.md"), { kind: "not_found" });

const terminal = await session.terminal({ cmd: "true", rows: 10, cols: 40 });
const shown: Uint8Array[] = [];
const screen = terminal.output();
let frame = await screen.next();
for (; !frame.done; frame = await screen.next()) shown.push(frame.value);
assert.equal(text(shown), "ok\n");
assert.equal(frame.value?.code, 0);

const snapshot = await session.snapshot();
assert.equal(snapshot.state, "ready");

const listed: string[] = [];
for await (const other of hotbed.sessions({ repo: "acme/api" })) listed.push(other.id);
assert.deepEqual(listed, [session.id]);

assert.equal((await session.end()).state, "ended");
await followed;
await heard;
assert.deepEqual(happened, ["session_started", "session_ready", "session_ended"]);
// All that is remembered; what came behind an older number is not.
const happenings: number[] = [];
let gaps = 0;
const all = hotbed.events({ after: 1, tail: true, lost: (lost) => (gaps += lost.after === 1 ? 1 : 100) });
for await (const { seq } of all) happenings.push(seq);
assert.equal(gaps, 1);
const builds = [];
for await (const { kind } of hotbed.events({ kinds: ["build_ended"], repo: "acme/api", tail: true })) builds.push(kind);
assert.deepEqual(new Set(builds), new Set(["build_ended"]));
await assert.rejects(session.exec("true"), { kind: "gone" });
console.log(`told: ${JSON.stringify({ session: session.id, events, happenings, execs: 2 })}`);
