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

  const INITIAL_DELAY_MS = 500, MAX_DELAY_MS = 30000; // the growing pause between tries; it never gives up
  const SPREAD_MS = 3000; // over which what all browsers would ask at once is spread
  const MAX_BUFFERED_EVENTS = 300; // newest logged events that a leader keeps for tabs that join
  const LOGGED_EVENTS = ["MESSAGE", "MESSAGE_UPDATED", "MESSAGE_REMOVED"];
  const OTHER_EVENTS = ["CONNECTED", "READ_RECEIPT", "HEARTBEAT", "RESET", "BUSY", "CONNECTION_LIMIT_REACHED", "SERVER_SHUTDOWN", "SIGNED_OUT"];

  const getList = () => document.getElementById("inbox-list");
  const parseCursor = (text) => {
    const [, epoch, seq] = /^(\w+)-(\d+)$/.exec(text || "") ?? [];
    return epoch ? { epoch, seq: Number(seq), text } : null;
  };
  const addJitter = (ms) => ms * (0.7 + 0.6 * Math.random());

  // ---- this tab: apply what happened to the page

  let cursor = parseCursor(getList()?.dataset.cursor); // null on pages without a list, until the server told it
  let bufferedEvents = [], bufferStart = cursor; // logged events since `keptFrom`, for tabs that join later
  let isReloading = false, postponedEvents = [];

  function applyEvent(event) {
    if (isReloading) { postponedEvents.push(event); return; }
    const eventCursor = parseCursor(event.id);
    if (LOGGED_EVENTS.includes(event.name)) {
      if (cursor && eventCursor.epoch === cursor.epoch && eventCursor.seq <= cursor.seq) return;
      bufferedEvents.push(event);
      if (bufferedEvents.length > MAX_BUFFERED_EVENTS) bufferStart = parseCursor(bufferedEvents.shift().id);
    }
    if (eventCursor) cursor = eventCursor;
    eventHandlers[event.name]?.(event.data, eventCursor?.seq);
  }

  const eventHandlers = {
    MESSAGE: (html, seq) => page.list.mergeMessage(html, seq, true),
    MESSAGE_UPDATED: (html, seq) => page.list.mergeMessage(html, seq, false),
    MESSAGE_REMOVED: (data, seq) => page.list.removeMessage(JSON.parse(data).id, seq, JSON.parse(data).reason),
    RESET: () => { reloadList(); setTimeout(page.loadPreferences, SPREAD_MS * Math.random()); }, // alerts may have been missed too
    SIGNED_OUT: () => page.leave("/signed-out"),  // which leads on to the sign-in page, or says where else to sign out
    READ_RECEIPT(data) { if (page.list.applyReceipt(JSON.parse(data))) reloadList(); },

    CONNECTED(data) {
      const connected = JSON.parse(data);
      if (connected.version > page.version) return reloadList(); // something was done while nothing was heard
      page.setCounts({ unread: connected.unread }, connected.asOf);
    },
  };

  // What the person did in this very tab goes the way of a receipt.
  page.applyReceipt = (receipt) => applyEvent({ name: "READ_RECEIPT", data: JSON.stringify(receipt), id: null });
  page.reloadList = () => reloadList();

  // Load the list (or only the counts) anew and go on from its cursor; what comes meanwhile waits, as the answer may or may not
  // hold it already.
  async function reloadList(delayMs = INITIAL_DELAY_MS) {
    if (isReloading && delayMs === INITIAL_DELAY_MS) return;
    isReloading = true;
    const newCursor = parseCursor(await page.list.loadList());
    if (!newCursor) {
      setTimeout(reloadList, addJitter(delayMs), Math.min(delayMs * 2, MAX_DELAY_MS));
      return;
    }
    cursor = bufferStart = newCursor;
    bufferedEvents = [];
    isReloading = false;
    for (const event of postponedEvents.splice(0)) applyEvent(event);
    page.recheckAlerts();
  }

  // ---- the connection, in words

  const chip = document.getElementById("connection");
  let lastLiveAt = null, countdownTimer = 0, connectionState = { state: "start" };

  // `until`: when the stream is tried again, by this machine's clock.
  function showState(state, { isHeld = false, until = Date.now() } = {}) {
    clearInterval(countdownTimer);
    if (state === "live" && ["wait", "poll"].includes(chip.dataset.state)) page.announce("Live again");
    if (state === "live") lastLiveAt = new Date();
    connectionState = { state, isHeld, until };
    const renderChip = () => {
      chip.hidden = false;
      chip.dataset.state = state;
      chip.querySelector(".chip-text").textContent = StreamHealth.describe(state, { isHeld, ms: until - Date.now(), asOf: lastLiveAt });
      chip.querySelector(".chip-retry").hidden = state === "live" || state === "start";
      document.body.dataset.connection = navigator.onLine === false && state !== "live" ? "offline" : state;
    };
    renderChip();
    if (state === "wait") countdownTimer = setInterval(renderChip, 1000);
    postToTabs({ type: "state", ...connectionState });
  }

  // Load the list only when something happened: doing so each time would take the pages from whoever reads them.
  function catchUp(latest) {
    if (isReloading || document.visibilityState === "hidden") return;
    if (latest.cursor !== cursor?.text || latest.version > page.version) reloadList();
  }

  // A tab that follows asks too while the leader is not told anything; it may be the only one that somebody looks at.
  async function pollAsFollower() {
    clearTimeout(pollAsFollower.next);
    pollAsFollower.next = setTimeout(pollAsFollower, addJitter(StreamHealth.POLL_INTERVAL_MS));
    if (isLeading || connectionState.state !== "poll" || document.visibilityState === "hidden") return;
    const latest = await page.fetchCounts();
    if (latest) catchUp(latest);
  }

  // ---- the leader: one EventSource

  let eventSource = null, reconnectTimer = 0, reconnectDelayMs = INITIAL_DELAY_MS, lastEventAt = 0, isLeading = false;
  const health = new StreamHealth({ poll: (signal) => page.fetchCounts(signal), catchUp, disconnect: () => { eventSource.close(); handleDisconnect(); }, showState: (state, isHeld) => showState(state, { isHeld }) });

  function connect() {
    clearTimeout(reconnectTimer);
    eventSource?.close();
    lastEventAt = Date.now();
    health.startAttempt();
    const query = new URLSearchParams({ label: document.title.slice(0, 40) });
    if (cursor) query.set("after", cursor.text);
    eventSource = new EventSource(`/inbox/stream?${query}`);
    for (const name of [...LOGGED_EVENTS, ...OTHER_EVENTS]) eventSource.addEventListener(name, (event) => handleEvent(name, event));
    eventSource.onerror = handleDisconnect;
  }

  function handleEvent(name, { data, lastEventId }) {
    lastEventAt = Date.now();
    if (name === "CONNECTED") reconnectDelayMs = INITIAL_DELAY_MS;
    health.recordEvent(name, name === "CONNECTED" ? JSON.parse(data).heartbeatSeconds : undefined);
    if (name === "HEARTBEAT") return;
    const event = { name, data, id: LOGGED_EVENTS.includes(name) || name === "RESET" || name === "CONNECTED" ? lastEventId : null };
    postToTabs({ type: "event", event });
    applyEvent(event);
  }

  // The stream ended or could not be opened. After a clean end the browser returns by itself at the time the server chose
  // (`retry:`, spread over all clients), and the first time it may. An HTTP error ends an EventSource for good, and a server that is
  // away would be asked at that same short pause for ever: from then on the pauses are ours and grow.
  function handleDisconnect() {
    const isBrowserRetrying = eventSource.readyState === EventSource.CONNECTING && reconnectDelayMs === INITIAL_DELAY_MS;
    const delayMs = isBrowserRetrying ? 10000 : addJitter(reconnectDelayMs);
    reconnectDelayMs = Math.min(reconnectDelayMs * 2, MAX_DELAY_MS);
    if (!isBrowserRetrying) eventSource.close();
    clearTimeout(reconnectTimer);
    reconnectTimer = setTimeout(connect, delayMs); // also if the browser's own try hangs
    health.recordEnd();
    if (health.state === "wait") showState("wait", { until: isBrowserRetrying ? Date.now() : Date.now() + delayMs });
  }

  function reconnectNow() {
    health.markDoubtful();
    reconnectDelayMs = INITIAL_DELAY_MS;
    connect();
  }

  function checkConnection() {
    if (document.visibilityState === "hidden") return;
    if (!isLeading) return void pollAsFollower();
    // offline for a moment, a stream may go on as if nothing had been; only a new one proves that it does
    const isDoubtful = connectionState.state === "wait" || Date.now() - lastEventAt > 0.8 * health.silenceMs;
    if (eventSource?.readyState !== EventSource.OPEN || isDoubtful) { reconnectDelayMs = INITIAL_DELAY_MS; connect(); }
  }

  for (const name of ["online", "pageshow", "focus"]) window.addEventListener(name, checkConnection);
  window.addEventListener("offline", () => { if (isLeading) health.markDoubtful(); });
  document.addEventListener("visibilitychange", checkConnection);
  chip.querySelector(".chip-retry").addEventListener("click", () => {
    if (isLeading) reconnectNow(); else postToTabs({ type: "retry" });
  });

  // ---- between tabs. A tab that joins says up to where its page is current; the leader answers with what came since, or, when it
  // cannot know, that the list must be loaded. Until that answer the joining tab takes no events: they would move its cursor
  // past those it still lacks. Messages of one sender arrive in order, so after the answer nothing is missing.

  const channel = "BroadcastChannel" in window ? new BroadcastChannel(`broadcast-${user}`) : null;
  const tabId = Math.random().toString(36).slice(2);
  let hasJoined = false, helloTimer = 0;

  function postToTabs(message) {
    if (channel && isLeading) channel.postMessage({ ...message, from: tabId });
    else if (channel && message.type !== "event" && message.type !== "state") channel.postMessage({ ...message, from: tabId });
  }

  function joinLeader() {
    hasJoined = false;
    clearInterval(helloTimer);
    const sendHello = () => postToTabs({ type: "hello", after: cursor?.text });
    sendHello();
    helloTimer = setInterval(() => { if (hasJoined || isLeading) clearInterval(helloTimer); else sendHello(); }, 1000); // a leader may only be starting
  }

  const messageHandlers = {
    hello({ after, from }) {
      if (!isLeading) return;
      const tabCursor = parseCursor(after);
      const isBuffered = tabCursor && bufferStart && tabCursor.epoch === bufferStart.epoch && tabCursor.seq >= bufferStart.seq;
      postToTabs({ type: "welcome", to: from, events: isBuffered ? bufferedEvents.filter((event) => parseCursor(event.id).seq > tabCursor.seq) : null });
      postToTabs({ type: "state", ...connectionState });
    },
    welcome({ to, events }) {
      if (to !== tabId || hasJoined || isLeading) return;
      hasJoined = true;
      if (events) events.forEach(applyEvent);
      else reloadList();
    },
    event({ event }) { if (hasJoined && !isLeading) applyEvent(event); },
    state({ state, ...details }) {
      if (isLeading) return;
      showState(state, details);
      if (state === "poll") pollAsFollower();
    },
    leader() { if (!isLeading) joinLeader(); },
    retry() { if (isLeading) reconnectNow(); },
  };
  if (channel) channel.onmessage = ({ data }) => messageHandlers[data.type]?.(data);

  async function startLeading() {
    isLeading = true;
    if (!cursor) await new Promise((resolve) => { reloadList(); const cursorTimer = setInterval(() => { if (cursor) { clearInterval(cursorTimer); resolve(); } }, 50); });
    if (!isLeading) return;
    connect();
    postToTabs({ type: "leader" });
  }

  function stopLeading() {
    isLeading = false;
    clearTimeout(reconnectTimer);
    health.stop();
    eventSource?.close();
    joinLeader();
  }

  showState("start");
  pollAsFollower();
  if (channel) {
    joinLeader();
    const leadership = new Leadership(`broadcast-stream-${user}`, { lead: startLeading, resign: stopLeading });
    leadership.standForElection();
    // a tab that sleeps in the back-forward cache must not lead
    window.addEventListener("pagehide", () => leadership.stepDown());
    window.addEventListener("pageshow", (event) => { if (event.persisted && !page.hasChanges()) location.reload(); });
  } else {
    startLeading();
  }
})();
