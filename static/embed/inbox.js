// <broadcast-inbox token-url="/broadcast-token">: bell, banners and inbox in the page of another site (docs/embedding.md).
//
// Everything is in a shadow root, so that the page's styles and ours leave each other alone; the styles are a constructed sheet
// and nothing is inline, so the page's content policy needs no 'unsafe-inline'. The token comes from the page's own server and is
// sent as a header only, which EventSource cannot do: the stream is read with fetch (line.js). Which messages interrupt, the server
// decides, and that one was put away is a receipt there: other pages, other sites and the application hear of it.

class BroadcastInbox extends HTMLElement {
  #getToken = null;
  #server = new Server(() => (this.#getToken ?? askPage)(this.getAttribute("token-url")));
  #cards = new Map(); // by id, as the server told them
  #opened = new Set(); // ids
  #next = null; // where the next page of the list begins
  #cursor = null; // up to where the stream was heard
  #unread = 0;
  #asOf = 0; // `unread` counts every message up to this seq
  #version = 0; // of the person's inbox: which of their own acts this page shows
  #wanted = null; // preferences: what raises a banner, and when
  #life = null; // aborted when the element leaves the page, or the person was signed out
  #wake = null; // ends the pause before the list is asked for again
  #reloading = 0;
  #hasBegun = false;
  #isOver = false; // signed out
  #liveAt = null;
  #loading = null; // a promise while the list is asked for
  #meanwhile = []; // what the stream said until it came
  #say = null; // the status line
  #parts = {};
  #does = { open: (id) => this.#toggle(id), read: (id) => this.#read(id), acknowledge: (id) => this.#acknowledge(id) };

  connectedCallback() {
    this.#life = new AbortController();
    if (!this.shadowRoot) this.#build();
    const { signal } = this.#life;
    window.addEventListener("online", () => this.#wake?.(), { signal });
    on(document, "click", (event) => { if (!event.composedPath().includes(this)) this.#open(false); }, { signal });
    const times = setInterval(() => { for (const time of this.shadowRoot.querySelectorAll("time")) time.textContent = ago(new Date(time.dateTime)); }, 60000);
    signal.addEventListener("abort", () => clearInterval(times));
    this.#start();
  }

  // For pages that ask for tokens in their own way: async () => ({token, expiresIn}), in seconds.
  set getToken(ask) {
    this.#getToken = ask;
    this.#start();
  }

  #start() {
    if (!this.isConnected || this.#hasBegun || this.#isOver || !(this.#getToken || this.hasAttribute("token-url"))) return;
    this.#hasBegun = true;
    this.#begin(this.#life.signal);
  }

  disconnectedCallback() {
    this.#life.abort();
    this.#hasBegun = false;
  }

  // ---- asking

  async #act(path, body = {}) {
    try {
      this.#setUnread((await (await this.#server.ask(path, { body })).json()).unread);
      return true;
    } catch (problem) {
      this.#say(problem instanceof Refused ? problem.message : "The server could not be reached. Please try again.", true);
      return false;
    }
  }

  // ---- the list

  // The first page anew, with where the stream goes on; or the next page. What the stream says meanwhile waits, as the answer may
  // or may not hold it already.
  #load(more = false) {
    this.#loading ??= this.#fetchPage(more).finally(() => {
      this.#loading = null;
      for (const event of this.#meanwhile.splice(0)) this.#hear(...event);
    });
    return this.#loading;
  }

  async #fetchPage(more) {
    const query = new URLSearchParams({ limit: PAGE, ...(more && { after: this.#next }) });
    const told = await (await this.#server.ask(`/api/user/messages?${query}`)).json();
    if (!more) {
      this.#cards.clear();
      this.#cursor = told.cursor;
      this.#asOf = told.asOf; // a message that came after the cursor was taken may be counted already
    }
    for (const card of told.items) this.#cards.set(card.id, card);
    this.#next = told.next;
    this.#setUnread(told.unread);
    this.#draw();
    if (!more) this.#raise().catch(() => {}); // the stream and the list go on without
    return told.userId;
  }

  // What interrupts somebody who comes to the page now: the first of it is on top.
  async #raise() {
    const { items } = await (await this.#server.ask("/api/user/alerts")).json();
    for (const card of items.reverse()) this.#alert(card);
  }

  // ---- the stream, for as long as the element is in the page

  async #begin(signal) {
    let pause = FIRST_MS;
    const page = { cursor: () => this.#cursor, unread: () => this.#unread, hear: (...event) => this.#hear(...event), load: () => this.#load().catch(() => {}), showState: (state) => this.#tellState(state) };
    while (!signal.aborted) {
      try {
        this.#wanted = await (await this.#server.ask("/api/user/preferences", { signal })).json();
        const userId = await this.#load();
        if (!signal.aborted) new Line(this.#server, `broadcast-inbox ${HOME} ${userId}`, page, signal);
        return;
      } catch (problem) {
        if (problem instanceof TypeError) this.#server.forgetToken(); // refused without a word, perhaps for the token's sake
        if (signal.aborted) return;
        this.#fail(problem);
      }
      const ms = within(pause);
      pause = Math.min(pause * 2, MOST_MS);
      this.#tellState({ state: "wait", ms });
      await Promise.race([wait(ms, signal), new Promise((done) => { this.#wake = done; })]);
    }
  }

  #hear(name, data, id) {
    if (this.#loading) return void this.#meanwhile.push([name, data, id]);
    const seq = seqOf(id);
    // a page that joined, or whose list came later than the stream began, has it already
    if (LOGGED.includes(name) && epochOf(id) === epochOf(this.#cursor) && seq <= seqOf(this.#cursor)) return;
    if (name === "MESSAGE") this.#arrive(data, seq);
    else if (name === "MESSAGE_UPDATED") this.#update(data);
    else if (name === "MESSAGE_REMOVED") this.#drop(data.id);
    else if (name === "READ_RECEIPT") this.#follow(data);
    else if (name === "RESET") this.#load().catch(() => this.#reload());
    else if (name === "PREFERENCES") this.#wanted = data;
    else if (name === "CONNECTED") this.#connect(data);
    else if (name === "SIGNED_OUT") this.#end();
    if (id) this.#cursor = id;
  }

  #connect({ version, asOf, unread }) {
    if (version > this.#version && this.#version) this.#load().catch(() => {});
    this.#version = version;
    this.#asOf = asOf;
    this.#setUnread(unread);
  }

  #arrive(card, seq) {
    if (this.#cards.has(card.id)) return;
    this.#cards.set(card.id, { ...card, seq, read: false });
    if (seq > this.#asOf) this.#setUnread(this.#unread + 1);
    this.#draw();
    this.#say.arrived();
    this.#alert(card);
  }

  #update(card) {
    const known = this.#cards.get(card.id);
    if (known && known.revision <= card.revision) this.#cards.set(card.id, { ...known, ...card, read: known.read && !card.again });
    this.#draw();
    if (known && known.ackRevision !== card.ackRevision) this.#reload(); // whether the acknowledgement stands, the server knows
    if (card.again) this.#reload(); // whether it counts as unread now
    if (card.again || card.reminder || this.#bannerOf(card.id)) this.#alert(card);
  }

  #drop(id) {
    this.#cards.delete(id);
    this.#closeBanner(id);
    this.#draw();
    this.#reload();
  }

  #follow({ kind, ids, version, unread, asOf }) {
    const isGap = version > this.#version + 1 || !ids.length;
    this.#version = Math.max(this.#version, version);
    this.#asOf = asOf;
    this.#setUnread(unread);
    if (kind === "read" && !isGap) for (const id of ids) this.#mark(id, { read: true });
    else if (kind === "preferences") this.#learnPreferences();
    else if (kind !== "dismissed" || isGap) this.#reload();
    if (["read", "acknowledged", "archived", "snoozed", "dismissed"].includes(kind)) for (const id of ids) this.#closeBanner(id);
    this.#draw();
  }

  #reload() { // for what only the server knows; not all browsers at once
    clearTimeout(this.#reloading);
    this.#reloading = setTimeout(() => this.#load().catch(() => {}), 1000 * Math.random());
  }

  async #learnPreferences() {
    this.#wanted = await (await this.#server.ask("/api/user/preferences").catch(() => null))?.json() ?? this.#wanted;
  }

  #mark(id, change) {
    const card = this.#cards.get(id);
    if (card) this.#cards.set(id, { ...card, ...change });
  }

  #end() {
    this.#isOver = true;
    this.#life.abort();
    this.#cards.clear();
    this.#setUnread(0);
    this.#parts.banners.replaceChildren();
    this.#parts.list.replaceChildren(element("p", { class: "empty" }, "You were signed out. Load the page again to see your messages."));
    this.#parts.state.textContent = "Signed out";
  }

  // ---- what a person does

  async #read(id) {
    if (this.#cards.get(id)?.read) return;
    this.#mark(id, { read: true });
    this.#closeBanner(id);
    this.#draw();
    if (!await this.#act("/api/user/messages/read", { broadcastIds: [id] })) this.#reload();
  }

  async #acknowledge(id) {
    const { revision } = this.#cards.get(id);
    if (!await this.#act("/api/user/messages/acknowledge", { broadcastIds: [id], revisions: { [id]: revision } })) return this.#reload();
    this.#mark(id, { read: true, acknowledgedAt: new Date().toISOString(), acknowledgedRevision: revision });
    this.#closeBanner(id);
    this.#draw();
    this.#say("Acknowledged");
  }

  async #readAll() {
    const through = Math.max(this.#asOf, ...[...this.#cards.values()].map((card) => card.seq)); // what the bell counts
    if (!await this.#act("/api/user/messages/read-all", { through })) return;
    for (const id of this.#cards.keys()) this.#mark(id, { read: true });
    this.#draw();
    this.#parts.bell.focus();
    this.#say("All messages are marked read");
  }

  // A banner that is put away is away on every page, here and elsewhere; the message keeps its card.
  #dismiss(id) {
    this.#closeBanner(id);
    this.#act("/api/user/messages/dismiss", { broadcastIds: [id] });
  }

  #bannerOf(id) {
    return this.#parts.banners.querySelector(`[data-of="${id}"]`);
  }

  #closeBanner(id) {
    const banner = this.#bannerOf(id), hadFocus = banner?.contains(this.shadowRoot.activeElement);
    banner?.remove();
    if (hadFocus) (this.#parts.banners.querySelector(".title") ?? this.#parts.bell).focus({ preventScroll: true });
  }

  // ---- what is shown

  #build() {
    const root = this.attachShadow({ mode: "open" }); // open: the page holds the token anyway, and its tests can look
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(SHEET);
    root.adoptedStyleSheets = [sheet];
    const press = (words, onclick, style = "quiet") => element("button", { type: "button", class: `button ${style}`, onclick }, words);
    const parts = (this.#parts = {
      badge: element("span", { class: "badge", hidden: true, "aria-hidden": "true" }),
      label: element("span", { class: "sr" }, "Messages"),
      list: element("div", { class: "list", role: "feed", "aria-label": "Messages", "aria-busy": "true" }),
      readAll: press("Mark all read", () => this.#readAll()),
      state: element("span", {}, "Connecting…"),
      banners: element("section", { class: "banners", "aria-label": "Important messages", "aria-live": "polite" }),
      status: element("div", { class: "status", role: "status" }),
      more: element("button", { type: "button", class: "button more", onclick: () => this.#load(true).catch((problem) => this.#say(problem.message, true)) }, "Load more"),
      end: element("p", { class: "end" }, "You have reached the end"),
    });
    parts.bell = element("button", { type: "button", class: "bell", part: "bell", "aria-expanded": "false", "aria-controls": "panel", onclick: () => this.#open(parts.panel.hidden) }, icon(BELL), parts.badge, parts.label);
    parts.panel = element(
      "section", { id: "panel", class: "panel", part: "panel", role: "dialog", "aria-label": "Messages", tabindex: "-1", hidden: true },
      element("div", { class: "head" }, element("h2", {}, "Messages"), parts.readAll, element("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => this.#open(false, true) }, icon(CLOSE))),
      parts.list,
      element("div", { class: "foot" }, parts.state, element("a", { href: `${HOME}/inbox`, target: "_blank", rel: "noopener" }, "Open the whole inbox")),
    );
    root.append(parts.bell, parts.panel, parts.banners, parts.status);
    this.#say = speaker(parts.status);
    root.addEventListener("keydown", (event) => this.#key(event));
    this.#showEmpty("Loading…");
  }

  #open(isOpen, toBell = false) {
    const { bell, panel } = this.#parts;
    if (panel.hidden !== isOpen) return;
    panel.hidden = !isOpen;
    bell.setAttribute("aria-expanded", String(isOpen));
    const { left, right } = bell.getBoundingClientRect();
    panel.classList.toggle("to-end", (left + right) / 2 < innerWidth / 2); // to the side that has room
    if (isOpen) panel.focus({ preventScroll: true });
    if (isOpen) hold(this.#parts.list, "[data-does=acknowledge]"); // it may be the second press of a double one
    else if (toBell) bell.focus();
  }

  #key(event) {
    if (event.key === "Escape" && !this.#parts.panel.hidden) {
      event.stopPropagation();
      this.#open(false, true);
    }
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by || this.#parts.panel.hidden || !event.target.closest(".panel")) return;
    const titles = [...this.#parts.list.querySelectorAll("h3 .title")];
    const at = titles.indexOf(this.shadowRoot.activeElement?.closest("article")?.querySelector("h3 .title"));
    const next = titles[at < 0 ? (by > 0 ? 0 : titles.length - 1) : at + by];
    if (!next) return;
    event.preventDefault();
    next.focus();
  }

  #setUnread(unread) {
    this.#unread = Math.max(0, unread);
    const { badge, label, readAll } = this.#parts;
    badge.hidden = readAll.hidden = this.#unread === 0;
    badge.textContent = this.#unread > 99 ? "99+" : String(this.#unread);
    label.textContent = this.#unread ? `Messages, ${this.#unread} unread` : "Messages";
    this.dispatchEvent(new CustomEvent("broadcast-unread", { detail: this.#unread, bubbles: true }));
  }

  #draw() {
    const { list, more, end, panel } = this.#parts;
    const cards = [...this.#cards.values()].sort((a, b) => mustAck(b) - mustAck(a) || b.seq - a.seq);
    if (!cards.length) return this.#showEmpty("No messages yet. New ones appear here by themselves.");
    drawCards(list, cards, { opened: this.#opened, does: this.#does, last: this.#next ? more : end, refuge: panel });
    list.setAttribute("aria-busy", "false");
  }

  #toggle(id) {
    const isOpen = !this.#opened.delete(id);
    if (isOpen) this.#opened.add(id);
    this.#draw();
    if (isOpen && this.#wanted?.reading !== "manual") this.#read(id);
  }

  #show(id) {
    this.#open(true);
    if (!this.#opened.has(id)) this.#toggle(id);
    this.#parts.list.querySelector(`[data-id="${id}"] .title`)?.focus();
    if (this.#bannerOf(id)) this.#dismiss(id);
  }

  #showEmpty(words, ...more) {
    this.#parts.list.replaceChildren(element("div", { class: "empty" }, element("p", {}, words), ...more));
  }

  #fail(problem) {
    const words = navigator.onLine === false ? "You are offline. Nothing is lost: messages appear when the connection is back." : problem instanceof Refused ? problem.message : "The messages could not be loaded.";
    this.#showEmpty(words, element("button", { type: "button", class: "button", onclick: () => this.#wake?.() }, "Retry"));
  }

  // A banner for what is HIGH or URGENT, unless the person wants none now. One that is there already shows the text as it is now.
  #alert(card) {
    const { banners } = this.#parts, isLoud = ["HIGH", "URGENT"].includes(card.priority), known = this.#bannerOf(card.id);
    if (known && !isLoud) this.#closeBanner(card.id);
    if (!isLoud || !this.#wanted || isSilenced(card, this.#wanted)) return;
    const banner = bannerOf(card, { show: () => this.#show(card.id), dismiss: () => this.#dismiss(card.id) });
    const focused = known?.contains(this.shadowRoot.activeElement);
    if (known) known.replaceWith(banner);
    else banners.prepend(banner);
    if (focused) banner.querySelector(".title").focus({ preventScroll: true });
    hold(banners);
    while (banners.children.length > MOST_BANNERS) banners.lastElementChild.remove();
  }

  // ---- what is said

  #tellState({ state, isHeld, ms }) {
    if (state === "live") this.#liveAt = new Date();
    this.#parts.state.textContent = StreamHealth.words(state, { isHeld, ms, asOf: this.#liveAt });
    this.dataset.state = state;
  }
}

if (!customElements.get("broadcast-inbox")) customElements.define("broadcast-inbox", BroadcastInbox); // loaded twice, say
