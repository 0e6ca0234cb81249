/** Streams that go on where they were: one connection after the other. */

import { Problem } from "./problem.js";
import { pause } from "./transport.js";

/** How long to wait before a broken stream is taken up again, in seconds. */
const AGAIN = 0.2;
/** How often in a row a stream may break without anything having come. */
const BREAKS = 20;
/** A connection that has stood for so long, in seconds, did nothing wrong: there was nothing to say, and something on the way hung up. */
const STOOD = 5;

export interface Following {
  /** With the first body that did not break, all is there. */
  tail?: boolean;
  signal?: AbortSignal;
}

/** One body after the other. It gives up where each breaks at once without having brought anything, or when the server refuses. */
export async function* unbroken(
  open: () => Promise<ReadableStream<Uint8Array>>,
  position: () => number,
  { tail, signal }: Following = {},
): AsyncGenerator<ReadableStream<Uint8Array>> {
  let breaks = 0;
  for (let was = position(); ; was = position()) {
    let since: number | undefined;
    const broken: { error?: unknown } = {};
    try {
      const body = await open();
      since = Date.now();
      yield guarded(body, broken);
    } catch (error) {
      // The server is away, perhaps to come back.
      if (error instanceof Problem || signal?.aborted) throw error;
      broken.error = error;
    }
    if (signal?.aborted) throw signal.reason;
    if (tail && broken.error === undefined) return;
    const stood = since !== undefined && Date.now() - since > STOOD * 1000;
    breaks = position() > was || stood ? 0 : breaks + 1;
    if (breaks > BREAKS) throw broken.error ?? new Error("a stream ended again and again without anything new");
    await pause(AGAIN, signal);
  }
}

/** A body whose break is an end; `broken` keeps what it was. */
function guarded(body: ReadableStream<Uint8Array>, broken: { error?: unknown }): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  return new ReadableStream({
    async pull(controller) {
      try {
        const { done, value } = await reader.read();
        if (done) controller.close();
        else controller.enqueue(value);
      } catch (error) {
        broken.error = error;
        controller.close();
      }
    },
    cancel: (reason) => reader.cancel(reason),
  });
}
