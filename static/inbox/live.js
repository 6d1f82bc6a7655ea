// Keeps an open page up to date: one event stream for all tabs of a browser. How events change the list: list.js.
//
// One tab, the leader, holds the EventSource (browsers allow six HTTP/1.1 connections to a site, so the seventh tab would hang) and
// forwards its events to the other tabs through a BroadcastChannel. Leader election: shared/leadership.js. Without BroadcastChannel
// every tab opens its own stream. Detection of a broken stream, and polling meanwhile: shared/stream_health.js.
//
// Every tab has a cursor, "epoch-seq", which comes with its list: the page includes all events up to it. So nothing is stored across
// reloads, and nothing needs clearing on sign-out. A logged event at or below the cursor is skipped. The user's own actions are not
// in that order; they carry the version of the user's inbox, and a gap in the versions reloads the list.
"use strict";

(() => {
  const page = window.broadcastPage;
  const user = document.body.dataset.user;
  if (!user) return;

  const INITIAL_DELAY_MS = 500, MAX_DELAY_MS = 30000; // exponential backoff between attempts, which never end
  const SPREAD_MS = 3000; // spreads requests that all browsers would send at once
  const MAX_BUFFERED_EVENTS = 300; // the newest logged events, replayed to tabs that join

  const getList = () => document.getElementById("inbox-list");
  const parseCursor = (text) => {
    const [, epoch, seq] = /^(\w+)-(\d+)$/.exec(text || "") ?? [];
    return epoch ? { epoch, seq: Number(seq), text } : null;
  };
  const addJitter = (ms) => ms * (0.7 + 0.6 * Math.random());

  // ---- this tab: apply events to the page

  let cursor = parseCursor(getList()?.dataset.cursor); // null on pages without a list, until the server sends one
  let bufferedEvents = [], bufferStart = cursor; // logged events after `bufferStart`, for tabs that join later
  let isReloading = false, postponedEvents = [];

  function applyEvent(event) {
    if (isReloading) { postponedEvents.push(event); return; }
    const eventCursor = parseCursor(event.id);
    if (StreamEvents.LOGGED.includes(event.name)) {
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
    RESET: () => { reloadList(); setTimeout(page.loadPreferences, SPREAD_MS * Math.random()); }, // alerts may have been missed as well
    SIGNED_OUT: () => page.leave("/signed-out"),  // redirects to the sign-in page, or says where else to sign out
    READ_RECEIPT(data) { if (page.list.applyReceipt(JSON.parse(data))) reloadList(); },

    CONNECTED(data) {
      const connected = JSON.parse(data);
      if (connected.version > page.version) return reloadList(); // the user did something while the stream was down
      page.setCounts({ unread: connected.unread }, connected.asOf);
    },
  };

  // An action in this tab is applied like a receipt from the stream.
  page.applyReceipt = (receipt) => applyEvent({ name: "READ_RECEIPT", data: JSON.stringify(receipt), id: null });
  page.reloadList = () => reloadList();

  // Reload the list (or only the counts) and continue from its cursor. Events that arrive meanwhile are postponed, since the response
  // may or may not include them.
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

  // ---- the connection indicator

  const chip = document.getElementById("connection");
  let lastLiveAt = null, countdownTimer = 0, connectionState = { state: "start" };

  // `until`: when the next attempt starts (Date.now() of this machine).
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

  // Reload the list only if something changed: every reload drops the further pages that the user has loaded.
  function catchUp(latest) {
    if (isReloading || document.visibilityState === "hidden") return;
    if (latest.cursor !== cursor?.text || latest.version > page.version) reloadList();
  }

  // A follower polls as well while there is no stream: it may be the only visible tab.
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
    for (const name of [...StreamEvents.LOGGED, ...StreamEvents.UNLOGGED]) eventSource.addEventListener(name, (event) => handleEvent(name, event));
    eventSource.onerror = handleDisconnect;
  }

  function handleEvent(name, { data, lastEventId }) {
    lastEventAt = Date.now();
    if (name === "CONNECTED") reconnectDelayMs = INITIAL_DELAY_MS;
    health.recordEvent(name, name === "CONNECTED" ? JSON.parse(data).heartbeatSeconds : undefined);
    if (name === "HEARTBEAT") return;
    const event = { name, data, id: StreamEvents.LOGGED.includes(name) || name === "RESET" || name === "CONNECTED" ? lastEventId : null };
    postToTabs({ type: "event", event });
    applyEvent(event);
  }

  // The stream ended or could not be opened. After a clean end the browser reconnects by itself after the server's `retry:` (which is
  // spread over all clients); the first such attempt is left to it. But an HTTP error closes an EventSource for good, and while the
  // server is down the browser would retry at that same short interval for ever: then this script reconnects, with backoff.
  function handleDisconnect() {
    const isBrowserRetrying = eventSource.readyState === EventSource.CONNECTING && reconnectDelayMs === INITIAL_DELAY_MS;
    const delayMs = isBrowserRetrying ? 10000 : addJitter(reconnectDelayMs);
    reconnectDelayMs = Math.min(reconnectDelayMs * 2, MAX_DELAY_MS);
    if (!isBrowserRetrying) eventSource.close();
    clearTimeout(reconnectTimer);
    reconnectTimer = setTimeout(connect, delayMs); // also if the browser's own attempt hangs
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
    // after a moment offline the old stream may or may not still work; only a new one proves it
    const isDoubtful = connectionState.state === "wait" || Date.now() - lastEventAt > 0.8 * health.silenceMs;
    if (eventSource?.readyState !== EventSource.OPEN || isDoubtful) { reconnectDelayMs = INITIAL_DELAY_MS; connect(); }
  }

  for (const name of ["online", "pageshow", "focus"]) window.addEventListener(name, checkConnection);
  window.addEventListener("offline", () => { if (isLeading) health.markDoubtful(); });
  document.addEventListener("visibilitychange", checkConnection);
  chip.querySelector(".chip-retry").addEventListener("click", () => {
    if (isLeading) reconnectNow(); else postToTabs({ type: "retry" });
  });

  // ---- between tabs. A joining tab sends its cursor; the leader replays the events after it or, if its buffer does not reach back so
  // far, tells the tab to reload its list. Until that reply the tab ignores events, which would move its cursor past those it still
  // misses. Messages of one sender arrive in order, so after the reply nothing is missing.

  const channel = "BroadcastChannel" in window ? new BroadcastChannel(`broadcast-${user}`) : null;
  const tabId = Math.random().toString(36).slice(2);
  let hasJoined = false, helloTimer = 0;

  function postToTabs(message) {
    if (isLeading || !["event", "state"].includes(message.type)) channel?.postMessage({ ...message, from: tabId });
  }

  function joinLeader() {
    hasJoined = false;
    clearInterval(helloTimer);
    const sendHello = () => postToTabs({ type: "hello", after: cursor?.text });
    sendHello();
    helloTimer = setInterval(() => { if (hasJoined || isLeading) clearInterval(helloTimer); else sendHello(); }, 1000); // repeat: a leader may only just be starting
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
    // a tab in the back-forward cache must not lead
    window.addEventListener("pagehide", () => leadership.stepDown());
    window.addEventListener("pageshow", (event) => { if (event.persisted && !page.hasChanges()) location.reload(); });
  } else {
    startLeading();
  }
})();
