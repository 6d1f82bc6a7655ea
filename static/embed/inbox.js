// <broadcast-inbox token-url="/broadcast-token">: bell, banners and inbox in the page of another site (docs/embedding.md).
//
// Everything is in a shadow root, so that the page's styles and ours leave each other alone; the styles are a constructed sheet
// and nothing is inline, so the page's content policy needs no 'unsafe-inline'. The token comes from the page's own server and is
// sent as a header only, which EventSource cannot do: the stream is read with fetch (line.js). Which messages interrupt, the server
// decides, and that one was put away is a receipt there: other pages, other sites and the application hear of it.

class BroadcastInbox extends HTMLElement {
  #getToken = null;
  #api = new ApiClient(() => (this.#getToken ?? fetchTokenFromPage)(this.getAttribute("token-url")));
  #cards = new Map(); // by id, as the server told them
  #openIds = new Set(); // ids
  #nextPage = null; // where the next page of the list begins
  #cursor = null; // up to where the stream was heard
  #unread = 0;
  #asOf = 0; // `unread` counts every message up to this seq
  #version = 0; // of the person's inbox: which of their own acts this page shows
  #preferences = null; // preferences: what raises a banner, and when
  #lifetime = null; // aborted when the element leaves the page, or the person was signed out
  #retryNow = null; // ends the pause before the list is asked for again
  #reloadTimer = 0;
  #hasStarted = false;
  #isSignedOut = false; // signed out
  #lastLiveAt = null;
  #pendingLoad = null; // a promise while the list is asked for
  #postponedEvents = []; // what the stream said until it came
  #announce = null; // the status line
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

  // For pages that ask for tokens in their own way: async () => ({token, expiresIn}), in seconds.
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

  // ---- asking

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

  // The first page anew, with where the stream goes on; or the next page. What the stream says meanwhile waits, as the answer may
  // or may not hold it already.
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
      this.#asOf = result.asOf; // a message that came after the cursor was taken may be counted already
    }
    for (const card of result.items) this.#cards.set(card.id, card);
    this.#nextPage = result.next;
    this.#setUnread(result.unread);
    this.#render();
    if (!isNextPage) this.#raiseAlerts().catch(() => {}); // the stream and the list go on without
    return result.userId;
  }

  // What interrupts somebody who comes to the page now: the first of it is on top.
  async #raiseAlerts() {
    const { items } = await (await this.#api.request("/api/user/alerts")).json();
    for (const card of items.reverse()) this.#showBanner(card);
  }

  // ---- the stream, for as long as the element is in the page

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
        if (error instanceof TypeError) this.#api.forgetToken(); // refused without a word, perhaps for the token's sake
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
    // a page that joined, or whose list came later than the stream began, has it already
    if (LOGGED_EVENTS.includes(name) && parseEpoch(id) === parseEpoch(this.#cursor) && seq <= parseSeq(this.#cursor)) return;
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
    this.#announce.arrived();
    this.#showBanner(card);
  }

  #updateMessage(card) {
    const existing = this.#cards.get(card.id);
    if (existing && existing.revision <= card.revision) this.#cards.set(card.id, { ...existing, ...card, read: existing.read && !card.again });
    this.#render();
    if (existing && existing.ackRevision !== card.ackRevision) this.#scheduleReload(); // whether the acknowledgement stands, the server knows
    if (card.again) this.#scheduleReload(); // whether it counts as unread now
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
    else if (kind === "preferences") this.#learnPreferences();
    else if (kind !== "dismissed" || isGap) this.#scheduleReload();
    if (["read", "acknowledged", "archived", "snoozed", "dismissed"].includes(kind)) for (const id of ids) this.#closeBanner(id);
    this.#render();
  }

  #scheduleReload() { // for what only the server knows; not all browsers at once
    clearTimeout(this.#reloadTimer);
    this.#reloadTimer = setTimeout(() => this.#loadList().catch(() => {}), 1000 * Math.random());
  }

  async #learnPreferences() {
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
    this.#elements.list.replaceChildren(createElement("p", { class: "empty" }, "You were signed out. Load the page again to see your messages."));
    this.#elements.state.textContent = "Signed out";
  }

  // ---- what a person does

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
    const through = Math.max(this.#asOf, ...[...this.#cards.values()].map((card) => card.seq)); // what the bell counts
    if (!await this.#postAction("/api/user/messages/read-all", { through })) return;
    for (const id of this.#cards.keys()) this.#updateCard(id, { read: true });
    this.#render();
    this.#elements.bell.focus();
    this.#announce("All messages are marked read");
  }

  // A banner that is put away is away on every page, here and elsewhere; the message keeps its card.
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

  // ---- what is shown

  #buildElements() {
    const root = this.attachShadow({ mode: "open" }); // open: the page holds the token anyway, and its tests can look
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(SHEET);
    root.adoptedStyleSheets = [sheet];
    const createButton = (text, onclick, style = "quiet") => createElement("button", { type: "button", class: `button ${style}`, onclick }, text);
    const elements = (this.#elements = {
      badge: createElement("span", { class: "badge", hidden: true, "aria-hidden": "true" }),
      label: createElement("span", { class: "sr" }, "Messages"),
      list: createElement("div", { class: "list", role: "feed", "aria-label": "Messages", "aria-busy": "true" }),
      readAll: createButton("Mark all read", () => this.#markAllRead()),
      state: createElement("span", {}, "Connecting…"),
      banners: createElement("section", { class: "banners", "aria-label": "Important messages", "aria-live": "polite" }),
      status: createElement("div", { class: "status", role: "status" }),
      more: createElement("button", { type: "button", class: "button more", onclick: () => this.#loadList(true).catch((error) => this.#announce(error.message, true)) }, "Load more"),
      end: createElement("p", { class: "end" }, "You have reached the end"),
    });
    elements.bell = createElement("button", { type: "button", class: "bell", part: "bell", "aria-expanded": "false", "aria-controls": "panel", onclick: () => this.#setOpen(elements.panel.hidden) }, createIcon(BELL_ICON), elements.badge, elements.label);
    elements.panel = createElement(
      "section", { id: "panel", class: "panel", part: "panel", role: "dialog", "aria-label": "Messages", tabindex: "-1", hidden: true },
      createElement("div", { class: "head" }, createElement("h2", {}, "Messages"), elements.readAll, createElement("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => this.#setOpen(false, true) }, createIcon(CLOSE_ICON))),
      elements.list,
      createElement("div", { class: "foot" }, elements.state, createElement("a", { href: `${SERVER_ORIGIN}/inbox`, target: "_blank", rel: "noopener" }, "Open the whole inbox")),
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
    panel.classList.toggle("to-end", (left + right) / 2 < innerWidth / 2); // to the side that has room
    if (isOpen) panel.focus({ preventScroll: true });
    if (isOpen) disableBriefly(this.#elements.list, "[data-does=acknowledge]"); // it may be the second press of a double one
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
    if (!cards.length) return this.#showEmpty("No messages yet. New ones appear here by themselves.");
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
    const text = navigator.onLine === false ? "You are offline. Nothing is lost: messages appear when the connection is back." : error instanceof RequestRefused ? error.message : "The messages could not be loaded.";
    this.#showEmpty(text, createElement("button", { type: "button", class: "button", onclick: () => this.#retryNow?.() }, "Retry"));
  }

  // A banner for what is HIGH or URGENT, unless the person wants none now. One that is there already shows the text as it is now.
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

  // ---- what is said

  #showState({ state, isHeld, ms }) {
    if (state === "live") this.#lastLiveAt = new Date();
    this.#elements.state.textContent = StreamHealth.describe(state, { isHeld, ms, asOf: this.#lastLiveAt });
    this.dataset.state = state;
  }
}

if (!customElements.get("broadcast-inbox")) customElements.define("broadcast-inbox", BroadcastInbox); // loaded twice, say
