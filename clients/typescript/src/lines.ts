/** Streams as they come over HTTP: lines, lines of JSON, server-sent events. */

export async function* lines(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of body) {
    const parts = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = parts.pop() ?? "";
    for (const line of parts) yield line.replace(/\r$/, "");
  }
  // What is left has no end: its connection broke within it.
}

/** An event as it is sent: its name, and its data. */
export interface Sent {
  event: string;
  data: string;
}

/** Each event; comments, which keep the connection alive, are left out. */
export async function* serverSent(body: ReadableStream<Uint8Array>): AsyncGenerator<Sent> {
  let event = "message";
  let data: string[] = [];
  for await (const line of lines(body)) {
    const value = () => line.slice(line.indexOf(":") + 1).replace(/^ /, "");
    if (line.startsWith("data:")) data.push(value());
    else if (line.startsWith("event:")) event = value();
    else if (line === "") {
      if (data.length > 0) yield { event, data: data.join("\n") };
      [event, data] = ["message", []];
    }
  }
}
