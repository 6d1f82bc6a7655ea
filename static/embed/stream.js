// The event stream of an embedded inbox: the leading page opens it and forwards its events to the other pages of the site, so a
// browser has one stream for all pages of a site. A page that stays hidden gives up the lead. Pages talk through a BroadcastChannel,
// which like the Web Lock belongs to the embedding site; its name contains the user.
//
// A joining page sends its cursor; the leader replays the events after it, or tells the page to reload its list. Until then the page
// ignores events, which would move its cursor past those it still misses.

const MAX_BUFFERED_EVENTS = 300, HELLO_INTERVAL_MS = 1000;
const HIDDEN_STREAM_MS = 30000; // after which a hidden page gives up the lead

class InboxStream {
  #api;
  #host;
  #channel;
  #leadership;
  #pageId = Math.random().toString(36).slice(2);
  #hasJoined = false;
  #helloTimer = 0;
  #bufferedEvents = []; // logged events after #bufferStart, for pages that join
  #bufferStart = null;
  #term = null; // AbortController of the present term of leadership
  #retryNow = null; // ends the pause before the next attempt
  #disconnect = null; // closes the present stream
  #health;
  #stepDownTimer = 0;
  #connectionState = { state: "start", isHeld: false, ms: 0 };

  // `host`: {cursor(), unread(), handleEvent(name, data, id), loadList(), showState({state, isHeld, ms})}. Runs until `signal` aborts.
  constructor(api, name, host, signal) {
    this.#api = api;
    this.#host = host;
    this.#health = new StreamHealth({
      poll: (signal) => api.request("/api/user/messages?limit=1", { signal }).then((response) => response.json()),
      catchUp: (latest) => this.#catchUp(latest),
      disconnect: () => this.#disconnect?.(),
      showState: (state, isHeld) => this.#showState({ state, isHeld, ms: 0 }),
    });
    this.#channel = "BroadcastChannel" in window ? new BroadcastChannel(name) : null;
    this.#leadership = new Leadership(name, { lead: () => this.#startLeading(), resign: () => this.#stopLeading() });
    if (this.#channel) this.#channel.onmessage = ({ data }) => this.#messageHandlers[data.type]?.(data);
    addListener(document, "visibilitychange", () => this.#updateVisibility(), { signal });
    window.addEventListener("online", () => this.#retryNow?.(), { signal });
    window.addEventListener("pagehide", () => this.#leadership.stepDown(), { signal });
    window.addEventListener("pageshow", () => this.#updateVisibility(), { signal });
    signal.addEventListener("abort", () => this.#close());
    this.#updateVisibility();
  }

  #close() {
    clearTimeout(this.#stepDownTimer);
    clearInterval(this.#helloTimer);
    this.#leadership.stepDown();
    this.#channel?.close();
  }

  #updateVisibility() {
    clearTimeout(this.#stepDownTimer);
    if (readDocumentProperty("visibilityState") === "hidden") {
      this.#stepDownTimer = setTimeout(() => this.#leadership.stepDown(), HIDDEN_STREAM_MS);
      return;
    }
    this.#leadership.standForElection();
    this.#retryNow?.();
    if (!this.#leadership.isLeading) this.#joinLeader();
  }

  // ---- leading

  async #startLeading() {
    const term = (this.#term = new AbortController()), { signal } = term;
    let delayMs = INITIAL_DELAY_MS;
    this.#postMessage({ type: "leader" });
    while (!signal.aborted) {
      const [serverDelayMs, wasLive] = await this.#readStream(signal);
      if (signal.aborted) return;
      this.#health.recordEnd();
      if (wasLive) delayMs = INITIAL_DELAY_MS;
      const waitMs = serverDelayMs ?? addJitter(delayMs); // the server spreads its `retry:` over all clients already
      if (serverDelayMs === null) delayMs = Math.min(delayMs * 2, MAX_DELAY_MS);
      if (this.#health.state === "wait") this.#showState({ state: "wait", isHeld: false, ms: waitMs });
      await Promise.race([sleep(waitMs, signal), new Promise((resolve) => { this.#retryNow = resolve; })]);
    }
  }

  // Read one stream to its end. Resolves to [the server's `retry:` in ms or null, whether the stream was live].
  async #readStream(signal) {
    const connection = new AbortController();
    const disconnect = (this.#disconnect = () => connection.abort());
    signal.addEventListener("abort", disconnect);
    let serverDelayMs = null, wasLive = false;
    this.#health.startAttempt();
    try {
      const preferences = await this.#api.request("/api/user/preferences", { signal: connection.signal });
      this.#forwardEvent({ name: "PREFERENCES", data: await preferences.text(), id: null });
      const query = new URLSearchParams({ after: this.#host.cursor(), connectionId: "embedded" });
      const response = await this.#api.request(`/api/sse/connect?${query}`, { signal: connection.signal });
      await readEvents(response.body, (name, data, id) => {
        if (name === "CONNECTED") wasLive = true;
        if (!signal.aborted) this.#health.recordEvent(name, name === "CONNECTED" ? JSON.parse(data).heartbeatSeconds : undefined);
        if (name !== "HEARTBEAT" && !signal.aborted) this.#forwardEvent({ name, data, id });
      }, (ms) => { serverDelayMs = ms; });
    } catch (error) {
      if (error instanceof TypeError) this.#api.forgetToken(); // CORS hides the status: the token may be the reason
    }
    this.#disconnect = null;
    signal.removeEventListener("abort", disconnect);
    return [serverDelayMs, wasLive];
  }

  #catchUp({ cursor, unread }) {
    if (cursor === this.#host.cursor() && unread === this.#host.unread()) return;
    this.#postMessage({ type: "load" });
    this.#reloadList();
  }

  #stopLeading() {
    this.#term?.abort();
    this.#health.stop();
  }

  #forwardEvent(event) {
    this.#postMessage({ type: "event", event });
    this.#applyEvent(event);
  }

  #showState(shown) {
    this.#connectionState = shown;
    this.#host.showState(shown);
    this.#postMessage({ type: "state", shown });
  }

  // ---- following

  #joinLeader() {
    this.#hasJoined = false;
    clearInterval(this.#helloTimer);
    const sendHello = () => this.#postMessage({ type: "hello", after: this.#host.cursor() });
    sendHello();
    this.#helloTimer = setInterval(() => { if (this.#hasJoined || this.#leadership.isLeading) clearInterval(this.#helloTimer); else sendHello(); }, HELLO_INTERVAL_MS);
  }

  #postMessage(message) {
    this.#channel?.postMessage({ ...message, from: this.#pageId });
  }

  #messageHandlers = {
    hello: ({ after, from }) => {
      if (!this.#leadership.isLeading) return;
      const isBuffered = this.#bufferStart && parseEpoch(after) === parseEpoch(this.#bufferStart) && parseSeq(after) >= parseSeq(this.#bufferStart);
      const events = isBuffered ? this.#bufferedEvents.filter(({ id }) => parseSeq(id) > parseSeq(after)) : null;
      this.#postMessage({ type: "welcome", to: from, events, shown: this.#connectionState });
    },
    welcome: ({ to, events, shown }) => {
      if (to !== this.#pageId || this.#hasJoined || this.#leadership.isLeading) return;
      this.#hasJoined = true;
      this.#host.showState((this.#connectionState = shown));
      if (events) events.forEach((event) => this.#applyEvent(event));
      else this.#reloadList();
    },
    event: ({ event }) => { if (this.#hasJoined && !this.#leadership.isLeading) this.#applyEvent(event); },
    state: ({ shown }) => { if (!this.#leadership.isLeading) this.#host.showState((this.#connectionState = shown)); },
    load: () => { if (!this.#leadership.isLeading) this.#host.loadList(); },
    leader: () => { if (!this.#leadership.isLeading) this.#joinLeader(); },
  };

  async #reloadList() {
    this.#bufferedEvents = [];
    this.#bufferStart = null;
    await this.#host.loadList();
    this.#bufferStart = this.#host.cursor();
  }

  #applyEvent(event) {
    if (StreamEvents.LOGGED.includes(event.name)) {
      this.#bufferedEvents.push(event);
      if (this.#bufferedEvents.length > MAX_BUFFERED_EVENTS) this.#bufferStart = this.#bufferedEvents.shift().id;
    }
    if (event.name === "CONNECTED") this.#bufferStart ??= event.id;
    if (event.name === "RESET") {
      this.#bufferedEvents = [];
      this.#bufferStart = event.id;
    }
    this.#host.handleEvent(event.name, JSON.parse(event.data), event.id);
  }
}
