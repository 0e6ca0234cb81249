/** How requests are sent: with the key, with an `Idempotency-Key` where something is made, and again when that helps. */

import type { Options } from "./hotbed.js";
import { Problem, secondsToWait } from "./problem.js";

export interface Patience {
  /** How often a request is sent again at most. */
  retries: number;
  /** How long to wait for all of that, in seconds. */
  seconds: number;
}

export const PATIENCE: Patience = { retries: 5, seconds: 60 };

/** The POSTs that make something and take an `Idempotency-Key`; a test holds it against the API's description. */
const MAKES =
  /^\/v1\/(sessions|sessions\/[^/]+\/(exec|fork|snapshots|pull-requests)|repos\/[^/]+\/[^/]+\/builds)$/;

export function makesSomething(method: string, path: string): boolean {
  return method === "POST" && MAKES.test(path);
}

/** A `fetch` that throws a `Problem` for every answer that is one. */
export function transport(options: Options): (request: Request) => Promise<Response> {
  const { key, traceparent, patience = PATIENCE, fetch: send = fetch } = options;
  return async (request) => {
    const made = makesSomething(request.method, new URL(request.url).pathname);
    request.headers.set("Authorization", `Bearer ${key}`);
    const trace = traceparent?.();
    if (trace !== undefined) request.headers.set("traceparent", trace);
    if (made && !request.headers.has("Idempotency-Key")) {
      request.headers.set("Idempotency-Key", await unique());
    }
    // Sent twice, these do what they do once.
    const repeatable = made || request.method === "GET";
    const until = Date.now() + patience.seconds * 1000;
    for (let attempt = 0; ; attempt++) {
      const mayRepeat = (seconds: number) => attempt < patience.retries && Date.now() + seconds * 1000 < until;
      let response: Response;
      try {
        response = await send(request.clone());
      } catch (error) {
        const seconds = 0.1 * 2 ** attempt;
        if (request.signal.aborted || !repeatable || !mayRepeat(seconds)) throw error;
        await pause(seconds, request.signal);
        continue;
      }
      if (response.ok || response.status < 400) return response;
      const seconds = secondsToWait(response);
      const passes = response.status === 429 || response.status === 503;
      if (!passes || seconds === undefined || !mayRepeat(seconds)) throw await Problem.of(response);
      await response.body?.cancel();
      await pause(seconds, request.signal);
    }
  };
}

/** Node 18, which Debian 12 has, keeps its `crypto` in a module. */
async function unique(): Promise<string> {
  if (globalThis.crypto) return crypto.randomUUID();
  return (await import("node:crypto")).randomUUID();
}

export function pause(seconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, seconds * 1000);
    if (signal?.aborted) abort();
    signal?.addEventListener("abort", abort, { once: true });
  });
}
