// <broadcast-inbox token-url="/broadcast-token">: bell, banners and inbox in a page of another site (docs/embedding.md).
//
// Everything is in a shadow root, so that the page's styles and ours do not affect each other; the styles are a constructed sheet and
// nothing is inline, so the page's content security policy needs no 'unsafe-inline'. The token comes from the page's own server and is
// sent only as a header, which EventSource cannot do, so the stream is read with fetch (stream.js). The server decides which messages
// raise a banner, and a dismissal is a receipt, so that other pages, other sites and the application follow it.

const MAX_BANNERS = 3;
const PAGE_SIZE = 20; // messages

class BroadcastInbox extends HTMLElement {
  #getToken = null;
  #api = new ApiClient(() => (this.#getToken ?? fetchTokenFromPage)(this.getAttribute("token-url")));
  #cards = new Map(); // message id → message, as the API sends it
  #openIds = new Set(); // of expanded messages
  #nextPage = null; // the `after` parameter of the next page
  #cursor = null; // of the last event that was applied
  #unread = 0;
  #asOf = 0; // `unread` includes every message up to this seq
  #version = 0; // of the user's inbox: which of their own actions this page shows
  #preferences = null; // what raises a banner, and when
  #lifetime = null; // AbortController: aborted when the element leaves the page, or the user is signed out
  #retryNow = null; // ends the pause before the next attempt
  #reloadTimer = 0;
  #hasStarted = false;
  #isSignedOut = false;
  #lastLiveAt = null;
  #pendingLoad = null; // a promise while the list is loading
  #postponedEvents = []; // events that arrive while the list is loading
  #announce = null; // function that writes to the status line
  #elements = {};
  #actions = { open: (id) => this.#toggleMessage(id), read: (id) => this.#markRead(id), acknowledge: (id) => this.#acknowledge(id) };

  connectedCallback() {
    this.#lifetime = new AbortController();
    if (!this.shadowRoot) this.#buildElements();
    const { signal } = this.#lifetime;
    window.addEventListener("online", () => this.#retryNow?.(), { signal });
    addListener(document, "click", (event) => { if (!event.composedPath().includes(this)) this.#setOpen(false); }, { signal });
    const timer = setInterval(() => { for (const time of this.shadowRoot.querySelectorAll("time")) time.textContent = formatAge(new Date(time.dateTime)); }, 60000);
    signal.addEventListener("abort", () => clearInterval(timer));
    this.#start();
  }

  // For pages that fetch tokens in their own way: async () => ({token, expiresIn}), in seconds.
  set getToken(fetchToken) {
    this.#getToken = fetchToken;
    this.#start();
  }

  #start() {
    if (!this.isConnected || this.#hasStarted || this.#isSignedOut || !(this.#getToken || this.hasAttribute("token-url"))) return;
    this.#hasStarted = true;
    this.#openStream(this.#lifetime.signal);
  }

  disconnectedCallback() {
    this.#lifetime.abort();
    this.#hasStarted = false;
  }

  // ---- requests

  async #postAction(path, body = {}) {
    try {
      this.#setUnread((await (await this.#api.request(path, { body })).json()).unread);
      return true;
    } catch (error) {
      this.#announce(error instanceof RequestRefused ? error.message : "The server could not be reached. Please try again.", true);
      return false;
    }
  }

  // ---- the list

  // Load the first page, with the cursor from which the stream continues; or the next page. Events that arrive meanwhile are
  // postponed, since the response may or may not include them.
  #loadList(isNextPage = false) {
    this.#pendingLoad ??= this.#fetchPage(isNextPage).finally(() => {
      this.#pendingLoad = null;
      for (const event of this.#postponedEvents.splice(0)) this.#handleEvent(...event);
    });
    return this.#pendingLoad;
  }

  async #fetchPage(isNextPage) {
    const query = new URLSearchParams({ limit: PAGE_SIZE, ...(isNextPage && { after: this.#nextPage }) });
    const result = await (await this.#api.request(`/api/user/messages?${query}`)).json();
    if (!isNextPage) {
      this.#cards.clear();
      this.#cursor = result.cursor;
      this.#asOf = result.asOf; // a message after the cursor may be counted already
    }
    for (const card of result.items) this.#cards.set(card.id, card);
    this.#nextPage = result.next;
    this.#setUnread(result.unread);
    this.#render();
    if (!isNextPage) this.#raiseAlerts().catch(() => {}); // the stream and the list work without it
    return result.userId;
  }

  // Raise the alerts for a user who opens the page now, the first on top.
  async #raiseAlerts() {
    const { items } = await (await this.#api.request("/api/user/alerts")).json();
    for (const card of items.reverse()) this.#showBanner(card);
  }

  // ---- the stream, while the element is in the page

  async #openStream(signal) {
    let delayMs = INITIAL_DELAY_MS;
    const host = { cursor: () => this.#cursor, unread: () => this.#unread, handleEvent: (...event) => this.#handleEvent(...event), loadList: () => this.#loadList().catch(() => {}), showState: (state) => this.#showState(state) };
    while (!signal.aborted) {
      try {
        this.#preferences = await (await this.#api.request("/api/user/preferences", { signal })).json();
        const userId = await this.#loadList();
        if (!signal.aborted) new InboxStream(this.#api, `broadcast-inbox ${SERVER_ORIGIN} ${userId}`, host, signal);
        return;
      } catch (error) {
        if (error instanceof TypeError) this.#api.forgetToken(); // CORS hides the status: the token may be the reason
        if (signal.aborted) return;
        this.#showError(error);
      }
      const jitteredMs = addJitter(delayMs);
      delayMs = Math.min(delayMs * 2, MAX_DELAY_MS);
      this.#showState({ state: "wait", ms: jitteredMs });
      await Promise.race([sleep(jitteredMs, signal), new Promise((resolve) => { this.#retryNow = resolve; })]);
    }
  }

  #handleEvent(name, data, id) {
    if (this.#pendingLoad) return void this.#postponedEvents.push([name, data, id]);
    const seq = parseSeq(id);
    // already included, if the page joined late or its list is newer than the start of the stream
    if (StreamEvents.LOGGED.includes(name) && parseEpoch(id) === parseEpoch(this.#cursor) && seq <= parseSeq(this.#cursor)) return;
    if (name === "MESSAGE") this.#addMessage(data, seq);
    else if (name === "MESSAGE_UPDATED") this.#updateMessage(data);
    else if (name === "MESSAGE_REMOVED") this.#removeMessage(data.id);
    else if (name === "READ_RECEIPT") this.#applyReceipt(data);
    else if (name === "RESET") this.#loadList().catch(() => this.#scheduleReload());
    else if (name === "PREFERENCES") this.#preferences = data;
    else if (name === "CONNECTED") this.#applyConnected(data);
    else if (name === "SIGNED_OUT") this.#handleSignedOut();
    if (id) this.#cursor = id;
  }

  #applyConnected({ version, asOf, unread }) {
    if (version > this.#version && this.#version) this.#loadList().catch(() => {});
    this.#version = version;
    this.#asOf = asOf;
    this.#setUnread(unread);
  }

  #addMessage(card, seq) {
    if (this.#cards.has(card.id)) return;
    this.#cards.set(card.id, { ...card, seq, read: false });
    if (seq > this.#asOf) this.#setUnread(this.#unread + 1);
    this.#render();
    this.#announce.addArrival();
    this.#showBanner(card);
  }

  #updateMessage(card) {
    const existing = this.#cards.get(card.id);
    if (existing && existing.revision <= card.revision) this.#cards.set(card.id, { ...existing, ...card, read: existing.read && !card.again });
    this.#render();
    if (existing && existing.ackRevision !== card.ackRevision) this.#scheduleReload(); // only the server knows whether the acknowledgement is still valid
    if (card.again) this.#scheduleReload(); // only the server knows whether it counts as unread
    if (card.again || card.reminder || this.#findBanner(card.id)) this.#showBanner(card);
  }

  #removeMessage(id) {
    this.#cards.delete(id);
    this.#closeBanner(id);
    this.#render();
    this.#scheduleReload();
  }

  #applyReceipt({ kind, ids, version, unread, asOf }) {
    const isGap = version > this.#version + 1 || !ids.length;
    this.#version = Math.max(this.#version, version);
    this.#asOf = asOf;
    this.#setUnread(unread);
    if (kind === "read" && !isGap) for (const id of ids) this.#updateCard(id, { read: true });
    else if (kind === "preferences") this.#loadPreferences();
    else if (kind !== "dismissed" || isGap) this.#scheduleReload();
    if (["read", "acknowledged", "archived", "snoozed", "dismissed"].includes(kind)) for (const id of ids) this.#closeBanner(id);
    this.#render();
  }

  #scheduleReload() { // spread over time, so that not all browsers load at once
    clearTimeout(this.#reloadTimer);
    this.#reloadTimer = setTimeout(() => this.#loadList().catch(() => {}), 1000 * Math.random());
  }

  async #loadPreferences() {
    this.#preferences = await (await this.#api.request("/api/user/preferences").catch(() => null))?.json() ?? this.#preferences;
  }

  #updateCard(id, changes) {
    const card = this.#cards.get(id);
    if (card) this.#cards.set(id, { ...card, ...changes });
  }

  #handleSignedOut() {
    this.#isSignedOut = true;
    this.#lifetime.abort();
    this.#cards.clear();
    this.#setUnread(0);
    this.#elements.banners.replaceChildren();
    this.#elements.list.replaceChildren(createElement("p", { class: "empty" }, "You were signed out. Reload the page to see your messages."));
    this.#elements.state.textContent = "Signed out";
  }

  // ---- the user's actions

  async #markRead(id) {
    if (this.#cards.get(id)?.read) return;
    this.#updateCard(id, { read: true });
    this.#closeBanner(id);
    this.#render();
    if (!await this.#postAction("/api/user/messages/read", { broadcastIds: [id] })) this.#scheduleReload();
  }

  async #acknowledge(id) {
    const { revision } = this.#cards.get(id);
    if (!await this.#postAction("/api/user/messages/acknowledge", { broadcastIds: [id], revisions: { [id]: revision } })) return this.#scheduleReload();
    this.#updateCard(id, { read: true, acknowledgedAt: new Date().toISOString(), acknowledgedRevision: revision });
    this.#closeBanner(id);
    this.#render();
    this.#announce("Acknowledged");
  }

  async #markAllRead() {
    const through = Math.max(this.#asOf, ...[...this.#cards.values()].map((card) => card.seq)); // all messages that the bell counts
    if (!await this.#postAction("/api/user/messages/read-all", { through })) return;
    for (const id of this.#cards.keys()) this.#updateCard(id, { read: true });
    this.#render();
    this.#elements.bell.focus();
    this.#announce("All messages marked read");
  }

  // Close the banner on every page, here and elsewhere; the message keeps its card.
  #dismissMessage(id) {
    this.#closeBanner(id);
    this.#postAction("/api/user/messages/dismiss", { broadcastIds: [id] });
  }

  #findBanner(id) {
    return this.#elements.banners.querySelector(`[data-of="${id}"]`);
  }

  #closeBanner(id) {
    const banner = this.#findBanner(id), hadFocus = banner?.contains(this.shadowRoot.activeElement);
    banner?.remove();
    if (hadFocus) (this.#elements.banners.querySelector(".title") ?? this.#elements.bell).focus({ preventScroll: true });
  }

  // ---- rendering

  #buildElements() {
    const root = this.attachShadow({ mode: "open" }); // open: the page has the token anyway, and its tests can look inside
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(SHEET);
    root.adoptedStyleSheets = [sheet];
    const createButton = (text, onclick, style = "quiet") => createElement("button", { type: "button", class: `button ${style}`, onclick }, text);
    const elements = (this.#elements = {
      badge: createElement("span", { class: "badge", hidden: true, "aria-hidden": "true" }),
      label: createElement("span", { class: "visually-hidden" }, "Messages"),
      list: createElement("div", { class: "list", role: "feed", "aria-label": "Messages", "aria-busy": "true" }),
      readAll: createButton("Mark all read", () => this.#markAllRead()),
      state: createElement("span", {}, "Connecting…"),
      banners: createElement("section", { class: "banners", "aria-label": "Important messages", "aria-live": "polite" }),
      status: createElement("div", { class: "status", role: "status" }),
      more: createElement("button", { type: "button", class: "button load-more", onclick: () => this.#loadList(true).catch((error) => this.#announce(error.message, true)) }, "Load more"),
      end: createElement("p", { class: "list-end" }, "You have reached the end"),
    });
    elements.bell = createElement("button", { type: "button", class: "bell", part: "bell", "aria-expanded": "false", "aria-controls": "panel", onclick: () => this.#setOpen(elements.panel.hidden) }, createIcon(BELL_ICON), elements.badge, elements.label);
    elements.panel = createElement(
      "section", { id: "panel", class: "panel", part: "panel", role: "dialog", "aria-label": "Messages", tabindex: "-1", hidden: true },
      createElement("div", { class: "head" }, createElement("h2", {}, "Messages"), elements.readAll, createElement("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => this.#setOpen(false, true) }, createIcon(CLOSE_ICON))),
      elements.list,
      createElement("div", { class: "foot" }, elements.state, createElement("a", { href: `${SERVER_ORIGIN}/inbox`, target: "_blank", rel: "noopener" }, "Open full inbox")),
    );
    root.append(elements.bell, elements.panel, elements.banners, elements.status);
    this.#announce = createAnnouncer(elements.status);
    root.addEventListener("keydown", (event) => this.#handleKey(event));
    this.#showEmpty("Loading…");
  }

  #setOpen(isOpen, shouldFocusBell = false) {
    const { bell, panel } = this.#elements;
    if (panel.hidden !== isOpen) return;
    panel.hidden = !isOpen;
    bell.setAttribute("aria-expanded", String(isOpen));
    const { left, right } = bell.getBoundingClientRect();
    panel.classList.toggle("opens-to-end", (left + right) / 2 < innerWidth / 2); // to the side that has more room
    if (isOpen) panel.focus({ preventScroll: true });
    if (isOpen) disableBriefly(this.#elements.list, "[data-does=acknowledge]"); // against the second click of a double click
    else if (shouldFocusBell) bell.focus();
  }

  #handleKey(event) {
    if (event.key === "Escape" && !this.#elements.panel.hidden) {
      event.stopPropagation();
      this.#setOpen(false, true);
    }
    const offset = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!offset || this.#elements.panel.hidden || !event.target.closest(".panel")) return;
    const titles = [...this.#elements.list.querySelectorAll("h3 .title")];
    const index = titles.indexOf(this.shadowRoot.activeElement?.closest("article")?.querySelector("h3 .title"));
    const next = titles[index < 0 ? (offset > 0 ? 0 : titles.length - 1) : index + offset];
    if (!next) return;
    event.preventDefault();
    next.focus();
  }

  #setUnread(unread) {
    this.#unread = Math.max(0, unread);
    const { badge, label, readAll } = this.#elements;
    badge.hidden = readAll.hidden = this.#unread === 0;
    badge.textContent = this.#unread > 99 ? "99+" : String(this.#unread);
    label.textContent = this.#unread ? `Messages, ${this.#unread} unread` : "Messages";
    this.dispatchEvent(new CustomEvent("broadcast-unread", { detail: this.#unread, bubbles: true }));
  }

  #render() {
    const { list, more, end, panel } = this.#elements;
    const cards = [...this.#cards.values()].sort((a, b) => mustAcknowledge(b) - mustAcknowledge(a) || b.seq - a.seq);
    if (!cards.length) return this.#showEmpty("No messages yet. New messages appear here automatically.");
    renderCards(list, cards, { openIds: this.#openIds, actions: this.#actions, lastElement: this.#nextPage ? more : end, fallbackFocus: panel });
    list.setAttribute("aria-busy", "false");
  }

  #toggleMessage(id) {
    const isOpen = !this.#openIds.delete(id);
    if (isOpen) this.#openIds.add(id);
    this.#render();
    if (isOpen && this.#preferences?.reading !== "manual") this.#markRead(id);
  }

  #showMessage(id) {
    this.#setOpen(true);
    if (!this.#openIds.has(id)) this.#toggleMessage(id);
    this.#elements.list.querySelector(`[data-id="${id}"] .title`)?.focus();
    if (this.#findBanner(id)) this.#dismissMessage(id);
  }

  #showEmpty(text, ...children) {
    this.#elements.list.replaceChildren(createElement("div", { class: "empty" }, createElement("p", {}, text), ...children));
  }

  #showError(error) {
    const text = navigator.onLine === false ? "You are offline. New messages appear when you are back online." : error instanceof RequestRefused ? error.message : "The messages could not be loaded.";
    this.#showEmpty(text, createElement("button", { type: "button", class: "button", onclick: () => this.#retryNow?.() }, "Retry"));
  }

  // Show a banner for a HIGH or URGENT message unless the preferences silence it. A banner that is shown already is updated.
  #showBanner(card) {
    const { banners } = this.#elements, isImportant = ["HIGH", "URGENT"].includes(card.priority), existing = this.#findBanner(card.id);
    if (existing && !isImportant) this.#closeBanner(card.id);
    if (!isImportant || !this.#preferences || isSilenced(card, this.#preferences)) return;
    const banner = createBanner(card, { show: () => this.#showMessage(card.id), dismiss: () => this.#dismissMessage(card.id) });
    const hadFocus = existing?.contains(this.shadowRoot.activeElement);
    if (existing) existing.replaceWith(banner);
    else banners.prepend(banner);
    if (hadFocus) banner.querySelector(".title").focus({ preventScroll: true });
    disableBriefly(banners);
    while (banners.children.length > MAX_BANNERS) banners.lastElementChild.remove();
  }

  // ---- the connection state

  #showState({ state, isHeld, ms }) {
    if (state === "live") this.#lastLiveAt = new Date();
    this.#elements.state.textContent = StreamHealth.describe(state, { isHeld, ms, asOf: this.#lastLiveAt });
    this.dataset.state = state;
  }
}

if (!customElements.get("broadcast-inbox")) customElements.define("broadcast-inbox", BroadcastInbox); // the script may be loaded twice
