/** What Hotbed says when it refuses: `application/problem+json`, as an exception. */

import type { components } from "./generated/schema.js";

export type ProblemBody = components["schemas"]["Problem"];

/** The kinds of refusals; a newer server may have more. */
export type ProblemKind =
  | "invalid"
  | "unauthorized"
  | "denied"
  | "not_found"
  | "conflict"
  | "gone"
  | "locked"
  | "exhausted"
  | "unavailable"
  | "timeout"
  | "permanent"
  | (string & {});

export class Problem extends Error {
  override readonly name = "Problem";

  constructor(
    readonly status: number,
    /** What to branch on. */
    readonly kind: ProblemKind,
    /** What was wrong: the field, its value, what was expected. */
    readonly detail: string,
    /** Seconds after which it may go well. */
    readonly retryAfter: number | undefined,
  ) {
    super(`${status} ${kind}: ${detail}`);
  }

  static async of(response: Response): Promise<Problem> {
    const text = await response.text();
    let body: Partial<ProblemBody> = {};
    try {
      body = JSON.parse(text) as Partial<ProblemBody>;
    } catch {
      // Not Hotbed's: something between here and there has answered.
    }
    const kind = body.type?.split(":").at(-1) ?? "unknown";
    return new Problem(response.status, kind, body.detail ?? text.slice(0, 500), secondsToWait(response));
  }
}

export function secondsToWait(response: Response): number | undefined {
  const seconds = Number(response.headers.get("Retry-After") ?? Number.NaN);
  return Number.isFinite(seconds) ? seconds : undefined;
}
