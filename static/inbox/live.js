// Keeps an open page fresh: one stream for the whole browser, told to every tab. What it does to the list is in list.js.
//
// One tab, the leader, holds the EventSource (HTTP/1.1 allows six connections to a site, and the seventh tab would hang); it
// tells the others through a BroadcastChannel. Who leads: shared/leadership.js. Where there is no BroadcastChannel every tab leads
// itself. Whether the stream is heard, and what is done while it is not: shared/stream_health.js.
//
// Every tab knows up to where its page is current: its cursor, "epoch-seq", which came with the list it shows. So nothing is
// kept over reloads, and there is nothing to clear when somebody signs out. A logged event at or below the cursor is skipped.
// What the person did has no place in that order; it has the version of their inbox instead, and a gap in it loads the list.
"use strict";

(() => {
  const page = window.broadcastPage;
  const user = document.body.dataset.user;
  if (!user) return;

  const FIRST_MS = 500, MOST_MS = 30000; // the growing pause between tries; it never gives up
  const SPREAD_MS = 3000; // over which what all browsers would ask at once is spread
  const KEPT = 300; // newest logged events that a leader keeps for tabs that join
  const LOGGED = ["MESSAGE", "MESSAGE_UPDATED", "MESSAGE_REMOVED"];
  const OTHERS = ["CONNECTED", "READ_RECEIPT", "HEARTBEAT", "RESET", "BUSY", "CONNECTION_LIMIT_REACHED", "SERVER_SHUTDOWN", "SIGNED_OUT"];

  const list = () => document.getElementById("inbox-list");
  const parse = (text) => {
    const [, epoch, seq] = /^(\w+)-(\d+)$/.exec(text || "") ?? [];
    return epoch ? { epoch, seq: Number(seq), text } : null;
  };
  const within = (ms) => ms * (0.7 + 0.6 * Math.random());

  // ---- this tab: apply what happened to the page

  let cursor = parse(list()?.dataset.cursor); // null on pages without a list, until the server told it
  let kept = [], keptFrom = cursor; // logged events since `keptFrom`, for tabs that join later
  let reloading = false, postponed = [];

  function apply(event) {
    if (reloading) { postponed.push(event); return; }
    const at = parse(event.id);
    if (LOGGED.includes(event.name)) {
      if (cursor && at.epoch === cursor.epoch && at.seq <= cursor.seq) return;
      kept.push(event);
      if (kept.length > KEPT) keptFrom = parse(kept.shift().id);
    }
    if (at) cursor = at;
    handlers[event.name]?.(event.data, at?.seq);
  }

  const handlers = {
    MESSAGE: (html, seq) => page.list.merge(html, seq, true),
    MESSAGE_UPDATED: (html, seq) => page.list.merge(html, seq, false),
    MESSAGE_REMOVED: (data, seq) => page.list.drop(JSON.parse(data).id, seq, JSON.parse(data).reason),
    RESET: () => { reload(); setTimeout(page.readPreferences, SPREAD_MS * Math.random()); }, // alerts may have been missed too
    SIGNED_OUT: () => page.leave("/signed-out"),  // which leads on to the sign-in page, or says where else to sign out
    READ_RECEIPT(data) { if (page.list.follow(JSON.parse(data))) reload(); },

    CONNECTED(data) {
      const told = JSON.parse(data);
      if (told.version > page.version) return reload(); // something was done while nothing was heard
      page.setCounts({ unread: told.unread }, told.asOf);
    },
  };

  // What the person did in this very tab goes the way of a receipt.
  page.follow = (told) => apply({ name: "READ_RECEIPT", data: JSON.stringify(told), id: null });
  page.reload = () => reload();

  // Load the list (or only the counts) anew and go on from its cursor; what comes meanwhile waits, as the answer may or may not
  // hold it already.
  async function reload(pause = FIRST_MS) {
    if (reloading && pause === FIRST_MS) return;
    reloading = true;
    const fresh = parse(await page.list.load());
    if (!fresh) {
      setTimeout(reload, within(pause), Math.min(pause * 2, MOST_MS));
      return;
    }
    cursor = keptFrom = fresh;
    kept = [];
    reloading = false;
    for (const event of postponed.splice(0)) apply(event);
    page.recheckAlerts();
  }

  // ---- the connection, in words

  const chip = document.getElementById("connection");
  let liveAt = null, countdown = 0, shown = { state: "start" };

  // `until`: when the stream is tried again, by this machine's clock.
  function show(state, { isHeld = false, until = Date.now() } = {}) {
    clearInterval(countdown);
    if (state === "live" && ["wait", "poll"].includes(chip.dataset.state)) page.say("Live again");
    if (state === "live") liveAt = new Date();
    shown = { state, isHeld, until };
    const draw = () => {
      chip.hidden = false;
      chip.dataset.state = state;
      chip.querySelector(".chip-text").textContent = StreamHealth.words(state, { isHeld, ms: until - Date.now(), asOf: liveAt });
      chip.querySelector(".chip-retry").hidden = state === "live" || state === "start";
      document.body.dataset.connection = navigator.onLine === false && state !== "live" ? "offline" : state;
    };
    draw();
    if (state === "wait") countdown = setInterval(draw, 1000);
    tell({ type: "state", ...shown });
  }

  // Load the list only when something happened: doing so each time would take the pages from whoever reads them.
  function catchUp(told) {
    if (reloading || document.visibilityState === "hidden") return;
    if (told.cursor !== cursor?.text || told.version > page.version) reload();
  }

  // A tab that follows asks too while the leader is not told anything; it may be the only one that somebody looks at.
  async function check() {
    clearTimeout(check.next);
    check.next = setTimeout(check, within(StreamHealth.ASK_MS));
    if (leading || shown.state !== "poll" || document.visibilityState === "hidden") return;
    const told = await page.askCounts();
    if (told) catchUp(told);
  }

  // ---- the leader: one EventSource

  let source = null, retry = 0, pause = FIRST_MS, heardAt = 0, leading = false;
  const health = new StreamHealth({ ask: (signal) => page.askCounts(signal), catchUp, cut: () => { source.close(); failed(); }, show: (state, isHeld) => show(state, { isHeld }) });

  function connect() {
    clearTimeout(retry);
    source?.close();
    heardAt = Date.now();
    health.begin();
    const query = new URLSearchParams({ label: document.title.slice(0, 40) });
    if (cursor) query.set("after", cursor.text);
    source = new EventSource(`/inbox/stream?${query}`);
    for (const name of [...LOGGED, ...OTHERS]) source.addEventListener(name, (event) => hear(name, event));
    source.onerror = failed;
  }

  function hear(name, { data, lastEventId }) {
    heardAt = Date.now();
    if (name === "CONNECTED") pause = FIRST_MS;
    health.hear(name, name === "CONNECTED" ? JSON.parse(data).heartbeatSeconds : undefined);
    if (name === "HEARTBEAT") return;
    const event = { name, data, id: LOGGED.includes(name) || name === "RESET" || name === "CONNECTED" ? lastEventId : null };
    tell({ type: "event", event });
    apply(event);
  }

  // The stream ended or could not be opened. After a clean end the browser returns by itself at the time the server chose
  // (`retry:`, spread over all clients), and the first time it may. An HTTP error ends an EventSource for good, and a server that is
  // away would be asked at that same short pause for ever: from then on the pauses are ours and grow.
  function failed() {
    const byItself = source.readyState === EventSource.CONNECTING && pause === FIRST_MS;
    const wait = byItself ? 10000 : within(pause);
    pause = Math.min(pause * 2, MOST_MS);
    if (!byItself) source.close();
    clearTimeout(retry);
    retry = setTimeout(connect, wait); // also if the browser's own try hangs
    health.fail();
    if (health.state === "wait") show("wait", { until: byItself ? Date.now() : Date.now() + wait });
  }

  function tryNow() {
    health.doubt();
    pause = FIRST_MS;
    connect();
  }

  function wake() {
    if (document.visibilityState === "hidden") return;
    if (!leading) return void check();
    // offline for a moment, a stream may go on as if nothing had been; only a new one proves that it does
    const isDoubtful = shown.state === "wait" || Date.now() - heardAt > 0.8 * health.silenceMs;
    if (source?.readyState !== EventSource.OPEN || isDoubtful) { pause = FIRST_MS; connect(); }
  }

  for (const name of ["online", "pageshow", "focus"]) window.addEventListener(name, wake);
  window.addEventListener("offline", () => { if (leading) health.doubt(); });
  document.addEventListener("visibilitychange", wake);
  chip.querySelector(".chip-retry").addEventListener("click", () => {
    if (leading) tryNow(); else tell({ type: "retry" });
  });

  // ---- between tabs. A tab that joins says up to where its page is current; the leader answers with what came since, or, when it
  // cannot know, that the list must be loaded. Until that answer the joining tab takes no events: they would move its cursor
  // past those it still lacks. Messages of one sender arrive in order, so after the answer nothing is missing.

  const channel = "BroadcastChannel" in window ? new BroadcastChannel(`broadcast-${user}`) : null;
  const me = Math.random().toString(36).slice(2);
  let joined = false, hello = 0;

  function tell(message) {
    if (channel && leading) channel.postMessage({ ...message, from: me });
    else if (channel && message.type !== "event" && message.type !== "state") channel.postMessage({ ...message, from: me });
  }

  function join() {
    joined = false;
    clearInterval(hello);
    const ask = () => tell({ type: "hello", after: cursor?.text });
    ask();
    hello = setInterval(() => { if (joined || leading) clearInterval(hello); else ask(); }, 1000); // a leader may only be starting
  }

  const onMessage = {
    hello({ after, from }) {
      if (!leading) return;
      const at = parse(after);
      const known = at && keptFrom && at.epoch === keptFrom.epoch && at.seq >= keptFrom.seq;
      tell({ type: "welcome", to: from, events: known ? kept.filter((event) => parse(event.id).seq > at.seq) : null });
      tell({ type: "state", ...shown });
    },
    welcome({ to, events }) {
      if (to !== me || joined || leading) return;
      joined = true;
      if (events) events.forEach(apply);
      else reload();
    },
    event({ event }) { if (joined && !leading) apply(event); },
    state({ state, ...more }) {
      if (leading) return;
      show(state, more);
      if (state === "poll") check();
    },
    leader() { if (!leading) join(); },
    retry() { if (leading) tryNow(); },
  };
  if (channel) channel.onmessage = ({ data }) => onMessage[data.type]?.(data);

  async function lead() {
    leading = true;
    if (!cursor) await new Promise((done) => { reload(); const check = setInterval(() => { if (cursor) { clearInterval(check); done(); } }, 50); });
    if (!leading) return;
    connect();
    tell({ type: "leader" });
  }

  function resign() {
    leading = false;
    clearTimeout(retry);
    health.stop();
    source?.close();
    join();
  }

  show("start");
  check();
  if (channel) {
    join();
    const leadership = new Leadership(`broadcast-stream-${user}`, { lead, resign });
    leadership.stand();
    // a tab that sleeps in the back-forward cache must not lead
    window.addEventListener("pagehide", () => leadership.stepDown());
    window.addEventListener("pageshow", (event) => { if (event.persisted && !page.hasChanges()) location.reload(); });
  } else {
    lead();
  }
})();
