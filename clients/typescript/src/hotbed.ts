/** Hotbed, as a client sees it. `api` has every call of the description, typed; the rest is what is asked for most. */

import createClient, { type Client } from "openapi-fetch";

import type { components, paths } from "./generated/schema.js";
import { serverSent } from "./lines.js";
import { type FollowOptions, Session } from "./session.js";
import { type Patience, transport } from "./transport.js";
import { unbroken } from "./unbroken.js";

type Schemas = components["schemas"];
export type NewSession = Schemas["CreateSession"];
export type Warmup = Schemas["WarmupView"];
export type Happening = Schemas["HappeningView"];
export type Lost = Schemas["LostView"];

export interface HappeningsOptions extends FollowOptions {
  /** Of this repo alone. */
  repo?: string;
  /** Of this session alone. */
  session?: string;
  /** Of these kinds alone, such as `build_ended`. */
  kinds?: string[];
  /** Told when what came behind `after` and before `next` is no longer remembered: what one knows may be old then. */
  lost?: (lost: Lost) => void;
}

export interface Options {
  /** `http://127.0.0.1:7070` */
  url: string;
  /** An API key. */
  key: string;
  /** How long to go on when the server is busy or away. */
  patience?: Patience;
  /** The trace that a request belongs to, as W3C's `traceparent`: Hotbed's spans, and those in the sandbox, become part of it. */
  traceparent?: () => string | undefined;
  /** In place of the global one. */
  fetch?: typeof fetch;
}

type Query = Record<string, string | number | boolean | undefined>;

export class Hotbed {
  /** Every call, as the API's description has it. A refusal is thrown as a `Problem`. */
  readonly api: Client<paths>;
  readonly url: string;
  readonly key: string;
  private readonly send: (request: Request) => Promise<Response>;

  constructor(options: Options) {
    this.url = options.url.replace(/\/+$/, "");
    this.key = options.key;
    this.send = transport(options);
    this.api = createClient<paths>({ baseUrl: this.url, fetch: this.send });
  }

  /** What a call of `api` answers. */
  async call<T>(answer: Promise<{ data?: T; response: Response }>): Promise<T> {
    // What is refused has been thrown; what has no body is nobody's data.
    return (await answer).data as T;
  }

  async createSession(body: NewSession): Promise<Session> {
    return new Session(this, await this.call(this.api.POST("/v1/sessions", { body })));
  }

  /** A session that there is already. */
  async session(id: string): Promise<Session> {
    return new Session(this, await this.call(this.api.GET("/v1/sessions/{id}", { params: { path: { id } } })));
  }

  /** Every page of sessions, newest first. */
  async *sessions(query: { repo?: string; state?: string; user?: string } = {}): AsyncGenerator<Session> {
    let after: string | undefined;
    do {
      const page = await this.call(this.api.GET("/v1/sessions", { params: { query: { ...query, after } } }));
      for (const view of page.items) yield new Session(this, view);
      after = page.next ?? undefined;
    } while (after !== undefined);
  }

  /** Announces a session at the first keystroke, and again at every further one: the same client and repo have one warm-up. */
  async warmUp(repo: string, client: string, branch?: string): Promise<Warmup> {
    return this.call(this.api.POST("/v1/warmups", { body: { repo, client, branch } }));
  }

  async withdrawWarmUp(id: string): Promise<Warmup> {
    return this.call(this.api.DELETE("/v1/warmups/{id}", { params: { path: { id } } }));
  }

  /** What happens in the whole installation, as it happens, without end: from what is still remembered, or from `after`. */
  async *events(options: HappeningsOptions = {}): AsyncGenerator<Happening> {
    let after = options.after ?? 0;
    const { repo, session, tail, signal } = options;
    const kind = options.kinds?.join(",");
    const open = () => this.stream("/v1/events", { after, repo, session, kind, tail }, signal);
    for await (const body of unbroken(open, () => after, options)) {
      for await (const { event, data } of serverSent(body)) {
        if (event === "lost") {
          const lost = JSON.parse(data) as Lost;
          after = lost.next - 1;
          options.lost?.(lost);
        } else {
          const happening = JSON.parse(data) as Happening;
          after = happening.seq;
          yield happening;
        }
      }
    }
  }

  /** A request whose body is bytes. */
  async fetch(method: string, path: string, query: Query = {}, body?: Uint8Array): Promise<Response> {
    return this.send(new Request(this.address(path, query), { method, body: body as BodyInit | undefined }));
  }

  /** The body of an answer, while it comes. */
  async stream(path: string, query: Query, signal?: AbortSignal): Promise<ReadableStream<Uint8Array>> {
    const response = await this.send(new Request(this.address(path, query), { signal }));
    return response.body ?? new Blob().stream();
  }

  address(path: string, query: Query = {}): URL {
    const url = new URL(this.url + path);
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined) url.searchParams.set(name, String(value));
    }
    return url;
  }
}
