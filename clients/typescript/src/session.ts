/** A session, its commands and its log: what is followed goes on where it was when a connection breaks. */

import type { Hotbed } from "./hotbed.js";
import { lines, serverSent } from "./lines.js";
import { Problem } from "./problem.js";
import type { components } from "./generated/schema.js";
import { openTerminal, type Terminal, type TerminalOptions } from "./terminal.js";
import { pause } from "./transport.js";
import { unbroken } from "./unbroken.js";

type Schemas = components["schemas"];
export type SessionView = Schemas["SessionView"];
export type SessionEvent = Schemas["EventView"];
export type Snapshot = Schemas["SnapshotView"];
export type Sync = Schemas["SyncView"];
export type Exit = Schemas["ExitView"];
export type Command = Schemas["Command"];
export type ExecOptions = Omit<Schemas["StartExec"], "cmd" | "wait">;

export interface FollowOptions {
  /** Begin behind this sequence number; the beginning when not given. */
  after?: number;
  /** End after what is there now instead of following. */
  tail?: boolean;
  signal?: AbortSignal;
}

/** Bytes of a command's output. */
export interface Output {
  stream: "stdout" | "stderr";
  /** Of the first byte, over both streams. */
  offset: number;
  bytes: Uint8Array;
}

export interface Finished {
  id: string;
  exit: Exit;
  stdout: string;
  stderr: string;
}

/** How long to wait before the gate is asked about again, in seconds. */
const AGAIN = 0.2;

export class Session {
  constructor(
    private readonly hotbed: Hotbed,
    /** What the server said last. */
    public view: SessionView,
  ) {}

  get id(): string {
    return this.view.id;
  }

  private get at() {
    return { params: { path: { id: this.id } } };
  }

  /** Asks how it stands. */
  async read(): Promise<SessionView> {
    this.view = await this.hotbed.call(this.hotbed.api.GET("/v1/sessions/{id}", this.at));
    return this.view;
  }

  /** Waits until git sync has ended and writes pass. Where it has failed: a `Problem` of kind `conflict`. */
  async gateOpen(signal?: AbortSignal): Promise<Sync> {
    for (;;) {
      const params = { path: { id: this.id }, query: { wait_seconds: 60 } };
      const sync = await this.hotbed.call(this.hotbed.api.GET("/v1/sessions/{id}/sync", { params, signal }));
      if (sync.gate === "open") return sync;
      if (sync.phase === "failed") {
        throw new Problem(409, "conflict", `the sync of ${this.id} has failed: ${sync.error ?? ""}`, undefined);
      }
      const { state } = await this.read();
      if (state === "ended") throw new Problem(410, "gone", `the session ${this.id} has ended`, undefined);
      await pause(AGAIN, signal);
    }
  }

  /** The log, from any point; ends with the session. */
  async *events(options: FollowOptions = {}): AsyncGenerator<SessionEvent> {
    let after = options.after ?? 0;
    const open = () =>
      this.hotbed.stream(`/v1/sessions/${this.id}/events`, { after, tail: options.tail }, options.signal);
    for await (const body of unbroken(open, () => after, options)) {
      for await (const { data } of serverSent(body)) {
        const event = JSON.parse(data) as SessionEvent;
        after = event.seq;
        yield event;
        if (event.kind === "ended") return;
      }
    }
  }

  /** Runs a command, waits for its end, and answers what it printed. */
  async exec(cmd: Command, options: ExecOptions = {}): Promise<Finished> {
    const body = { ...options, cmd, wait: true };
    const view = await this.hotbed.call(
      this.hotbed.api.POST("/v1/sessions/{id}/exec", { ...this.at, body }),
    );
    if (!view.exit) throw new Problem(503, "unavailable", `${view.id} has not ended`, undefined);
    return { id: view.id, exit: view.exit, stdout: view.stdout ?? "", stderr: view.stderr ?? "" };
  }

  /** Starts a command, to be followed. */
  async start(cmd: Command, options: ExecOptions = {}): Promise<Exec> {
    const body = { ...options, cmd };
    const view = await this.hotbed.call(
      this.hotbed.api.POST("/v1/sessions/{id}/exec", { ...this.at, body }),
    );
    return this.command(view.id);
  }

  /** A command that was started before. */
  command(id: string): Exec {
    return new Exec(this.hotbed, this.id, id);
  }

  async readFile(path: string): Promise<Uint8Array> {
    const response = await this.hotbed.fetch("GET", filePath(this.id, path));
    return new Uint8Array(await response.arrayBuffer());
  }

  /** Writes a file whole; in the workspace this waits for the gate. `mode` as in `644`. */
  async writeFile(path: string, content: Uint8Array | string, mode?: string): Promise<void> {
    const body = typeof content === "string" ? new TextEncoder().encode(content) : content;
    await this.hotbed.fetch("PUT", filePath(this.id, path), { mode }, body);
  }

  async removeFile(path: string): Promise<void> {
    await this.hotbed.fetch("DELETE", filePath(this.id, path));
  }

  async snapshot(): Promise<Snapshot> {
    return this.hotbed.call(this.hotbed.api.POST("/v1/sessions/{id}/snapshots", this.at));
  }

  async fork(body: Schemas["Fork"] = {}): Promise<Session> {
    const view = await this.hotbed.call(this.hotbed.api.POST("/v1/sessions/{id}/fork", { ...this.at, body }));
    return new Session(this.hotbed, view);
  }

  /** Ends it, and waits until what it held is captured. */
  async end(options: { discard?: boolean } = {}): Promise<SessionView> {
    const params = { path: { id: this.id }, query: { wait: true, ...options } };
    this.view = await this.hotbed.call(this.hotbed.api.DELETE("/v1/sessions/{id}", { params }));
    return this.view;
  }

  /** A terminal; needs the package `ws`, because a browser's WebSocket can't show a key. */
  terminal(options: TerminalOptions = {}): Promise<Terminal> {
    return openTerminal(this.hotbed, this.id, options);
  }
}

/** A command that runs, or did. */
export class Exec {
  constructor(
    private readonly hotbed: Hotbed,
    readonly session: string,
    readonly id: string,
  ) {}

  private get at() {
    return { params: { path: { id: this.session, exec: this.id } } };
  }

  async read(): Promise<Schemas["ExecView"]> {
    return this.hotbed.call(this.hotbed.api.GET("/v1/sessions/{id}/exec/{exec}", this.at));
  }

  /** What it prints, from any offset; returns how it ended. */
  async *output(options: { from?: number; signal?: AbortSignal } = {}): AsyncGenerator<Output, Exit> {
    let from = options.from ?? 0;
    const open = () =>
      this.hotbed.stream(
        `/v1/sessions/${this.session}/exec/${this.id}/output`,
        { from, follow: true },
        options.signal,
      );
    for await (const body of unbroken(open, () => from, { signal: options.signal })) {
      for await (const text of lines(body)) {
        const line = JSON.parse(text) as Schemas["OutputLine"];
        if (line.exit) return line.exit;
        const bytes = line.hex ? fromHex(line.hex) : new TextEncoder().encode(line.text ?? "");
        const offset = line.offset ?? from;
        from = offset + bytes.length;
        yield { stream: line.stream === "stderr" ? "stderr" : "stdout", offset, bytes };
      }
    }
    throw new Problem(503, "unavailable", `the output of ${this.id} has no end`, undefined);
  }

  /** Bytes for its stdin, where it was started with `stdin`. */
  async input(data: Uint8Array | string, eof = false): Promise<void> {
    const body = typeof data === "string" ? new TextEncoder().encode(data) : data;
    await this.hotbed.fetch("POST", `/v1/sessions/${this.session}/exec/${this.id}/input`, { eof }, body);
  }

  async signal(signal: string): Promise<void> {
    const body = { signal };
    await this.hotbed.call(
      this.hotbed.api.POST("/v1/sessions/{id}/exec/{exec}/signal", { ...this.at, body }),
    );
  }
}

function filePath(session: string, path: string): string {
  const parts = path.split("/").map(encodeURIComponent);
  return `/v1/sessions/${session}/files/${parts.join("/")}`;
}

function fromHex(hex: string): Uint8Array {
  return Uint8Array.from(hex.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}
