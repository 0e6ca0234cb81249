/** A terminal over a WebSocket: bytes both ways, a size when the window changes, the exit at the end. */

import type { Hotbed } from "./hotbed.js";
import type { Exit } from "./session.js";

export interface TerminalOptions {
  /** The program; a login shell when not given. */
  cmd?: string;
  rows?: number;
  cols?: number;
}

export interface Terminal {
  /** What it shows, until its program ends; returns the exit. */
  output(): AsyncGenerator<Uint8Array, Exit | undefined>;
  write(data: Uint8Array | string): void;
  resize(rows: number, cols: number): void;
  close(): void;
}

export async function openTerminal(
  hotbed: Hotbed,
  session: string,
  options: TerminalOptions,
): Promise<Terminal> {
  const { WebSocket } = await import("ws");
  const url = hotbed.address(`/v1/sessions/${session}/terminal`, { ...options });
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(url, { headers: { Authorization: `Bearer ${hotbed.key}` } });
  const arrived: (Uint8Array | { exit: Exit })[] = [];
  let over: { error?: Error } | undefined;
  let wake = () => {};
  const news = (change: () => void) => {
    change();
    wake();
  };
  socket.on("message", (data: Buffer, binary: boolean) =>
    news(() => arrived.push(binary ? new Uint8Array(data) : { exit: JSON.parse(data.toString()) as Exit })),
  );
  socket.on("close", () => news(() => (over ??= {})));
  await new Promise<void>((resolve, reject) => {
    socket.once("open", resolve);
    socket.once("error", reject);
  });
  socket.on("error", (error) => news(() => (over = { error })));
  return {
    async *output() {
      for (;;) {
        const next = arrived.shift();
        if (next instanceof Uint8Array) yield next;
        else if (next) return next.exit;
        else if (over) {
          if (over.error) throw over.error;
          return undefined;
        } else await new Promise<void>((resolve) => (wake = resolve));
      }
    },
    write: (data) => socket.send(typeof data === "string" ? new TextEncoder().encode(data) : data, { binary: true }),
    resize: (rows, cols) => socket.send(JSON.stringify({ rows, cols })),
    close: () => socket.close(),
  };
}
