// How a page hears: from a stream of its own when it leads, else from the page of this site that does. So a browser has one stream
// for all pages of a site, and a page that nobody looks at lets it go. Everything between pages goes through a BroadcastChannel,
// which like the lock belongs to this site; its name says whose messages these are.
//
// A page that joins says up to where it is current; the leader answers with what came since, or that the list must be loaded. Until
// then the joining page takes no events: they would move its cursor past those it lacks.

const LOGGED = ["MESSAGE", "MESSAGE_UPDATED", "MESSAGE_REMOVED"];
const KEPT = 300, HELLO_MS = 1000;

class Line {
  #server;
  #page;
  #channel;
  #leadership;
  #me = Math.random().toString(36).slice(2);
  #hasJoined = false;
  #hello = 0;
  #kept = []; // logged events since #keptFrom, for pages that join
  #keptFrom = null;
  #visit = null; // aborted when the stream is to be let go; another one for each time that this page leads
  #wake = null; // ends the present pause
  #silence = 0;
  #leaving = 0;
  #state = { ms: 0, isHeldBack: false };

  // `page`: {cursor(), hear(name, data, id), load(), showState(state)}; until `signal` is aborted.
  constructor(server, name, page, signal) {
    this.#server = server;
    this.#page = page;
    this.#channel = "BroadcastChannel" in window ? new BroadcastChannel(name) : null;
    this.#leadership = new Leadership(name, { lead: () => this.#lead(), resign: () => this.#letGo() });
    if (this.#channel) this.#channel.onmessage = ({ data }) => this.#onMessage[data.type]?.(data);
    on(document, "visibilitychange", () => this.#attend(), { signal });
    window.addEventListener("online", () => this.#wake?.(), { signal });
    window.addEventListener("pagehide", () => this.#leadership.stepDown(), { signal });
    window.addEventListener("pageshow", () => this.#attend(), { signal });
    signal.addEventListener("abort", () => this.#close());
    this.#attend();
  }

  #close() {
    clearTimeout(this.#leaving);
    clearInterval(this.#hello);
    this.#leadership.stepDown();
    this.#channel?.close();
  }

  #attend() {
    clearTimeout(this.#leaving);
    if (own("visibilityState") === "hidden") {
      this.#leaving = setTimeout(() => this.#leadership.stepDown(), HIDDEN_MS);
      return;
    }
    this.#leadership.stand();
    this.#wake?.();
    if (!this.#leadership.isLeading) this.#join();
  }

  // ---- leading

  async #lead() {
    const visit = (this.#visit = new AbortController()), { signal } = visit;
    let pause = FIRST_MS;
    this.#tell({ type: "leader" });
    while (!signal.aborted) {
      const [ms, wasLive] = await this.#listen(signal);
      if (signal.aborted) return;
      if (wasLive) pause = FIRST_MS;
      const next = ms ?? within(pause); // the server's time is spread over all clients already
      if (ms === null) pause = Math.min(pause * 2, MOST_MS);
      this.#showState({ ...this.#state, ms: next });
      await Promise.race([wait(next, signal), new Promise((done) => { this.#wake = done; })]);
    }
  }

  // One stream, to its end. Returns when the server wants to be asked again, or null, and whether it had been live.
  async #listen(signal) {
    const connection = new AbortController();
    const cut = () => connection.abort();
    signal.addEventListener("abort", cut);
    let retry = null, wasLive = false;
    try {
      this.#pass({ name: "PREFERENCES", data: await (await this.#server.ask("/api/user/preferences", { signal })).text(), id: null });
      this.#watch(cut, wasLive);
      const query = new URLSearchParams({ after: this.#page.cursor(), connectionId: "embedded" });
      const answer = await this.#server.ask(`/api/sse/connect?${query}`, { signal: connection.signal });
      await readEvents(answer.body, (name, data, id) => {
        this.#watch(cut, true);
        if (name === "CONNECTED") { wasLive = true; this.#showState({ ms: 0, isHeldBack: false }); }
        if (name !== "HEARTBEAT" && !signal.aborted) this.#pass({ name, data, id });
      }, (ms) => { retry = ms; });
    } catch (problem) {
      if (problem instanceof TypeError) this.#server.forgetToken(); // refused without a word, perhaps for the token's sake
    }
    clearTimeout(this.#silence);
    signal.removeEventListener("abort", cut);
    return [retry, wasLive];
  }

  // Silence ends a stream; one that never said a word is held back by a proxy, and the list is asked for instead.
  #watch(cut, isHeard) {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => {
      cut();
      if (isHeard) return;
      this.#state.isHeldBack = true;
      this.#tell({ type: "load" });
      this.#page.load();
    }, isHeard ? DEAD_MS : DEAD_MS * 0.75);
  }

  #letGo() {
    this.#visit?.abort();
    clearTimeout(this.#silence);
  }

  #pass(event) {
    this.#tell({ type: "event", event });
    this.#apply(event);
  }

  #showState(state) {
    this.#state = state;
    this.#page.showState(state);
    this.#tell({ type: "state", state });
  }

  // ---- following

  #join() {
    this.#hasJoined = false;
    clearInterval(this.#hello);
    const ask = () => this.#tell({ type: "hello", after: this.#page.cursor() });
    ask();
    this.#hello = setInterval(() => { if (this.#hasJoined || this.#leadership.isLeading) clearInterval(this.#hello); else ask(); }, HELLO_MS);
  }

  #tell(message) {
    this.#channel?.postMessage({ ...message, from: this.#me });
  }

  #onMessage = {
    hello: ({ after, from }) => {
      if (!this.#leadership.isLeading) return;
      const isKnown = this.#keptFrom && epochOf(after) === epochOf(this.#keptFrom) && seqOf(after) >= seqOf(this.#keptFrom);
      const events = isKnown ? this.#kept.filter(({ id }) => seqOf(id) > seqOf(after)) : null;
      this.#tell({ type: "welcome", to: from, events, state: this.#state });
    },
    welcome: ({ to, events, state }) => {
      if (to !== this.#me || this.#hasJoined || this.#leadership.isLeading) return;
      this.#hasJoined = true;
      this.#page.showState((this.#state = state));
      if (events) events.forEach((event) => this.#apply(event));
      else this.#reload();
    },
    event: ({ event }) => { if (this.#hasJoined && !this.#leadership.isLeading) this.#apply(event); },
    state: ({ state }) => { if (!this.#leadership.isLeading) this.#page.showState((this.#state = state)); },
    load: () => { if (!this.#leadership.isLeading) this.#page.load(); },
    leader: () => { if (!this.#leadership.isLeading) this.#join(); },
  };

  async #reload() {
    this.#kept = [];
    this.#keptFrom = null;
    await this.#page.load();
    this.#keptFrom = this.#page.cursor();
  }

  #apply(event) {
    if (LOGGED.includes(event.name)) {
      this.#kept.push(event);
      if (this.#kept.length > KEPT) this.#keptFrom = this.#kept.shift().id;
    }
    if (event.name === "CONNECTED") this.#keptFrom ??= event.id;
    if (event.name === "RESET") {
      this.#kept = [];
      this.#keptFrom = event.id;
    }
    this.#page.hear(event.name, JSON.parse(event.data), event.id);
  }
}
