/**
 * Tells Hotbed at the first keystroke that a session is likely, so that its sandbox is ready when the user submits.
 *
 * No dependency, no build step. Types are in `warmup.d.ts`. What it promises to the page: it never throws into an
 * event handler, never holds anything up, and sends nothing of what is typed, only that something is.
 *
 * - the first input sends at once; what follows is gathered, and sent no oftener than `debounce`;
 * - while somebody types, a heartbeat keeps the warm-up alive; when nobody does it expires by itself;
 * - leaving the field withdraws it after `grace`, closing the page at once;
 * - `take()` hands the warm-up over to the session that is submitted, and leaves it alone from then on.
 */

const DEFAULTS = {
  debounce: 300,
  heartbeat: 30_000,
  grace: 10_000,
};

/** @param {import("./warmup").WarmupOptions} options */
export function createWarmup(options) {
  return new Warmup(options);
}

/** Who types, for Hotbed: this tab, whatever it is navigated to. */
function thisTab() {
  const key = "hotbed-warmup-client";
  try {
    const known = sessionStorage.getItem(key);
    if (known) return known;
    const made = `tab-${crypto.randomUUID()}`;
    sessionStorage.setItem(key, made);
    return made;
  } catch {
    // No storage here: a page of its own each time.
    return `tab-${Math.random().toString(36).slice(2)}`;
  }
}

class Warmup {
  #options;
  #url;
  #token = null;
  /** Of the last answer. */
  #id = null;
  #state = "idle";
  /** Anything typed since the last announcement. */
  #typed = false;
  #inFlight = null;
  /** Moves when what was announced is no longer wanted: an answer that comes afterwards is withdrawn. */
  #epoch = 0;
  #sentAt = 0;
  #timers = {};
  /** No announcement before this, because Hotbed asked for a pause. */
  #notBefore = 0;
  #undo = [];

  constructor(options) {
    for (const needed of ["url", "repo", "token"]) {
      if (!options[needed]) throw new TypeError(`createWarmup: \`${needed}\` is missing`);
    }
    this.#options = { ...DEFAULTS, ...options, client: options.client ?? thisTab() };
    this.#url = `${String(options.url).replace(/\/+$/, "")}/v1/warmups`;
  }

  /** The warm-up that is live as far as the page knows. */
  get id() {
    return this.#id;
  }

  get state() {
    return this.#state;
  }

  get client() {
    return this.#options.client;
  }

  /** Listens to a text field, or anything that fires `input`. Returns what stops it. */
  attach(element) {
    const on = (target, event, run) => {
      target.addEventListener(event, run);
      return () => target.removeEventListener(event, run);
    };
    const undo = [
      on(element, "input", () => this.type()),
      on(element, "focus", () => this.#stop("leave")),
      on(element, "blur", () => this.#leave()),
      // A page that is put away may never be heard of again.
      on(window, "pagehide", () => this.#goodbye()),
    ];
    const detach = () => undo.splice(0).forEach((stop) => stop());
    this.#undo.push(detach);
    return detach;
  }

  /** Somebody typed. Called for each keystroke; cheap. */
  type() {
    if (this.#state === "taken") return;
    this.#stop("leave");
    this.#typed = true;
    if (this.#inFlight) return; // looked at again when it is answered
    if (this.#id === null) this.#send();
    else this.#beat();
  }

  /** The branch that the session will start from; `null` is the repository's own. */
  setBranch(branch) {
    if ((this.#options.branch ?? null) === branch) return;
    this.#options.branch = branch;
    // Only where somebody has begun to type: choosing a branch is not yet a session.
    if (this.#id !== null || this.#inFlight) this.#start("debounce", this.#options.debounce, () => this.#send());
  }

  /** Another repository: the old one's warm-up is withdrawn, the next keystroke announces the new one. */
  setRepo(repo, branch = null) {
    if (this.#options.repo === repo) return this.setBranch(branch);
    this.withdraw();
    this.#options.repo = repo;
    this.#options.branch = branch;
  }

  /** The user submits: resolves to the warm-up's id for `POST /v1/sessions`, or `null` where there is none. */
  async take() {
    this.#typed = false;
    while (this.#inFlight) await this.#inFlight;
    return this.#forget("taken");
  }

  /** After a submission: the next keystroke is about another session. */
  reset() {
    this.#forget();
  }

  /** The user has changed their mind. */
  withdraw() {
    if (this.#state === "taken") return;
    const id = this.#forget();
    if (id !== null) this.#cancel(id);
  }

  /** Stops listening and withdraws. */
  close() {
    this.#undo.splice(0).forEach((detach) => detach());
    this.withdraw();
  }

  // ------------------------------------------------------------------------------------------------ inside

  #leave() {
    if (this.#id === null && !this.#inFlight) return;
    this.#start("leave", this.#options.grace, () => this.withdraw());
  }

  #goodbye() {
    if (this.#state === "taken") return;
    const id = this.#forget();
    if (id === null) return;
    // `keepalive` lets it outlive the page; the token is at hand, because it was used for the announcement.
    fetch(`${this.#url}/${id}`, { method: "DELETE", keepalive: true, headers: this.#headers() }).catch(() => {});
  }

  /** Back to the beginning; what was live is for the caller to withdraw, or not. */
  #forget(state = "idle") {
    const id = this.#id;
    this.#epoch += 1;
    this.#stop("debounce", "heartbeat", "leave");
    this.#id = null;
    this.#typed = false;
    this.#enter(state);
    return id;
  }

  #cancel(id) {
    this.#ask("DELETE", `${this.#url}/${id}`).catch((e) => {
      // One that has expired is what was wanted.
      if (e.status !== 404) this.#report(e);
    });
  }

  /** Gathers keystrokes: the next announcement comes when the warm-up needs one to stay alive. */
  #beat() {
    if (this.#timers.heartbeat) return;
    const rest = this.#sentAt + this.#options.heartbeat - Date.now();
    if (rest <= 0) this.#send();
    else this.#start("heartbeat", rest, () => this.#typed && this.#send());
  }

  #send() {
    const wait = Math.max(this.#notBefore - Date.now(), this.#inFlight ? this.#options.debounce : 0);
    if (wait > 0) return this.#start("debounce", wait, () => this.#send());
    this.#stop("debounce", "heartbeat");
    this.#typed = false;
    this.#sentAt = Date.now();
    if (this.#id === null) this.#enter("announcing");
    this.#inFlight = this.#announce(this.#epoch)
      .catch((e) => {
        if (this.#state === "announcing") this.#enter("idle");
        this.#report(e);
      })
      .finally(() => {
        this.#inFlight = null;
        // What was typed meanwhile.
        if (this.#typed && this.#state !== "taken") this.#id === null ? this.#send() : this.#beat();
      });
  }

  async #announce(epoch) {
    const { repo, branch, client } = this.#options;
    const body = { repo, client, ...(branch ? { branch } : {}) };
    const { id } = await this.#ask("POST", this.#url, body);
    if (epoch !== this.#epoch) return this.#cancel(id);
    this.#id = id;
    if (this.#state === "announcing") this.#enter("live");
  }

  #headers() {
    return { authorization: `Bearer ${this.#token}`, "content-type": "application/json" };
  }

  async #ask(method, url, body, again = true) {
    if (this.#token === null) {
      const { token } = this.#options;
      this.#token = typeof token === "function" ? await token() : token;
    }
    const answer = await fetch(url, {
      method,
      headers: this.#headers(),
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    if (answer.ok) return answer.json();
    if (answer.status === 401 && again && typeof this.#options.token === "function") {
      // It has expired: one more, once.
      this.#token = null;
      return this.#ask(method, url, body, false);
    }
    if (answer.status === 429 || answer.status === 503) {
      const seconds = Number(answer.headers.get("retry-after")) || 5;
      this.#notBefore = Date.now() + seconds * 1000;
    }
    const problem = await answer.json().catch(() => ({}));
    const failure = new Error(`${method} ${url}: ${answer.status}: ${problem.detail ?? answer.statusText}`);
    throw Object.assign(failure, { status: answer.status });
  }

  #enter(state) {
    if (state === this.#state) return;
    this.#state = state;
    this.#tell("onState", state, this.#id);
  }

  #report(error) {
    this.#tell("onError", error);
  }

  /** What the page does with it must not disturb us, nor we it. */
  #tell(name, ...args) {
    try {
      this.#options[name]?.(...args);
    } catch (e) {
      queueMicrotask(() => {
        throw e;
      });
    }
  }

  #start(name, after, run) {
    clearTimeout(this.#timers[name]);
    this.#timers[name] = setTimeout(() => {
      this.#timers[name] = undefined;
      run();
    }, after);
  }

  #stop(...names) {
    for (const name of names) {
      clearTimeout(this.#timers[name]);
      this.#timers[name] = undefined;
    }
  }
}
