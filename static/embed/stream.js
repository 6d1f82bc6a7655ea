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
  #cut = null; // ends the present stream
  #health;
  #leaving = 0;
  #shown = { state: "start", isHeld: false, ms: 0 };

  // `page`: {cursor(), unread(), hear(name, data, id), load(), showState(shown)}; until `signal` is aborted.
  constructor(server, name, page, signal) {
    this.#server = server;
    this.#page = page;
    this.#health = new StreamHealth({
      ask: (signal) => server.ask("/api/user/messages?limit=1", { signal }).then((answer) => answer.json()),
      catchUp: (told) => this.#catchUp(told),
      cut: () => this.#cut?.(),
      show: (state, isHeld) => this.#show({ state, isHeld, ms: 0 }),
    });
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
      this.#health.fail();
      if (wasLive) pause = FIRST_MS;
      const next = ms ?? within(pause); // the server's time is spread over all clients already
      if (ms === null) pause = Math.min(pause * 2, MOST_MS);
      if (this.#health.state === "wait") this.#show({ state: "wait", isHeld: false, ms: next });
      await Promise.race([wait(next, signal), new Promise((done) => { this.#wake = done; })]);
    }
  }

  // One stream, to its end. Returns when the server wants to be asked again, or null, and whether it had been live.
  async #listen(signal) {
    const connection = new AbortController();
    const cut = (this.#cut = () => connection.abort());
    signal.addEventListener("abort", cut);
    let retry = null, wasLive = false;
    this.#health.begin();
    try {
      const wanted = await this.#server.ask("/api/user/preferences", { signal: connection.signal });
      this.#pass({ name: "PREFERENCES", data: await wanted.text(), id: null });
      const query = new URLSearchParams({ after: this.#page.cursor(), connectionId: "embedded" });
      const answer = await this.#server.ask(`/api/sse/connect?${query}`, { signal: connection.signal });
      await readEvents(answer.body, (name, data, id) => {
        if (name === "CONNECTED") wasLive = true;
        if (!signal.aborted) this.#health.hear(name, name === "CONNECTED" ? JSON.parse(data).heartbeatSeconds : undefined);
        if (name !== "HEARTBEAT" && !signal.aborted) this.#pass({ name, data, id });
      }, (ms) => { retry = ms; });
    } catch (problem) {
      if (problem instanceof TypeError) this.#server.forgetToken(); // refused without a word, perhaps for the token's sake
    }
    this.#cut = null;
    signal.removeEventListener("abort", cut);
    return [retry, wasLive];
  }

  #catchUp({ cursor, unread }) {
    if (cursor === this.#page.cursor() && unread === this.#page.unread()) return;
    this.#tell({ type: "load" });
    this.#reload();
  }

  #letGo() {
    this.#visit?.abort();
    this.#health.stop();
  }

  #pass(event) {
    this.#tell({ type: "event", event });
    this.#apply(event);
  }

  #show(shown) {
    this.#shown = shown;
    this.#page.showState(shown);
    this.#tell({ type: "state", shown });
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
      this.#tell({ type: "welcome", to: from, events, shown: this.#shown });
    },
    welcome: ({ to, events, shown }) => {
      if (to !== this.#me || this.#hasJoined || this.#leadership.isLeading) return;
      this.#hasJoined = true;
      this.#page.showState((this.#shown = shown));
      if (events) events.forEach((event) => this.#apply(event));
      else this.#reload();
    },
    event: ({ event }) => { if (this.#hasJoined && !this.#leadership.isLeading) this.#apply(event); },
    state: ({ shown }) => { if (!this.#leadership.isLeading) this.#page.showState((this.#shown = shown)); },
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
