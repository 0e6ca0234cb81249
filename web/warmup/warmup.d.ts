/** `idle`: nothing announced. `taken`: handed over to a session. */
export type WarmupState = "idle" | "announcing" | "live" | "taken";

export interface WarmupOptions {
  /** Where Hotbed's API is, such as `https://hotbed.example.com`. */
  url: string;
  /** `owner/name`. */
  repo: string;
  /**
   * A token of `POST /v1/warmups/tokens`, or what asks your server for one. Never the API key: a page can't keep a
   * secret.
   */
  token: string | (() => string | Promise<string>);
  /** Whoever types; the token is for this client. This tab, when not given. */
  client?: string;
  /** The branch that the session will start from; the repository's own when not given. */
  branch?: string | null;
  /** Milliseconds in which changes of the branch are gathered. 300. */
  debounce?: number;
  /** Milliseconds between two announcements while somebody types; less than the repository's `warmup_ttl`. 30000. */
  heartbeat?: number;
  /** Milliseconds after which leaving the field withdraws. 10000. */
  grace?: number;
  onState?: (state: WarmupState, id: string | null) => void;
  /**
   * What went wrong, with the HTTP status where there was an answer. The page goes on without a warm-up: a session
   * starts all the same.
   */
  onError?: (error: Error & { status?: number }) => void;
}

export interface Warmup {
  /** The warm-up that is live as far as the page knows. */
  readonly id: string | null;
  readonly state: WarmupState;
  readonly client: string;
  /** Listens to a text field. Returns what stops it. */
  attach(element: HTMLElement): () => void;
  /** Somebody typed; for editors that fire no `input`. */
  type(): void;
  /** The branch that the session will start from; `null` is the repository's own. */
  setBranch(branch: string | null): void;
  /** Another repository: the old one's warm-up is withdrawn. */
  setRepo(repo: string, branch?: string | null): void;
  /** At submit: the id for `POST /v1/sessions`, or `null`. It is not withdrawn any more. */
  take(): Promise<string | null>;
  /** After a submission: the next keystroke is about another session. */
  reset(): void;
  /** The user has changed their mind. */
  withdraw(): void;
  /** Stops listening and withdraws. */
  close(): void;
}

export function createWarmup(options: WarmupOptions): Warmup;
