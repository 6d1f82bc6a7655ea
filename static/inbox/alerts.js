// Alerts: what is told above the page besides the card in the list, by priority: a toast, a banner (HIGH), a dialog (URGENT), a
// desktop notice. All are surfaces of the one message: dismissing one keeps the card, and is a receipt, so that no other page shows
// it again. Preferences hold or silence alerts and never messages; only URGENT breaks through. When quiet hours begin and end is
// reckoned by the server, in the person's zone; and what a page that is opened raises, the server decides as well.
"use strict";

{
  const page = window.broadcastPage;
  const MOST = 3; // toasts at a time
  const NOTICE_MS = 400; // how long a tab in the background waits for one in front to say that it shows an alert
  const RANK = ["LOW", "NORMAL", "HIGH", "URGENT"];
  const box = document.getElementById("toasts");
  const user = document.body.dataset.user;
  const channel = "BroadcastChannel" in window ? new BroadcastChannel(`broadcast-alerts-${user}`) : null;

  // ---- toasts

  // Show a line of text for `ms`, with a button if there is something to press; it waits while the pointer or the focus is on it.
  // Of one `group` only the newest is shown. Returns {close}.
  page.toast = ({ text, button, press, href, ms = 6000, group = "", closed }) => {
    if (group) box.querySelectorAll(`[data-group="${group}"]`).forEach((one) => one.remove());
    while (box.children.length >= MOST) box.firstElementChild.remove();
    const toast = document.createElement("div");
    toast.className = "toast";
    toast.dataset.group = group;
    const words = document.createElement(href ? "a" : "span");
    words.className = "toast-text";
    words.dir = "auto";
    words.textContent = text;
    if (href) words.href = href;
    toast.append(words);
    if (button) toast.append(control(button, "toast-act", press));
    let timer = 0;
    const close = () => { clearTimeout(timer); toast.remove(); closed?.(); };
    toast.append(control("×", "toast-close", close, `Dismiss: ${text}`));
    const run = () => { clearTimeout(timer); timer = setTimeout(() => { if (toast.matches(":hover, :focus-within")) run(); else close(); }, ms); };
    for (const name of ["pointerleave", "focusout"]) toast.addEventListener(name, run);
    run();
    box.append(toast);
    page.hold(toast);
    return { close };
  };

  function control(text, className, press, label) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = className;
    button.textContent = text;
    if (label) button.setAttribute("aria-label", label);
    button.addEventListener("click", press);
    return button;
  }

  // ---- whether and when

  let wanted = null, held = [], heldTimer = 0;
  const told = new Map(); // when, by id

  const isUrgent = (card) => card.dataset.priority === "URGENT";
  const mustAck = (card) => isUrgent(card) && card.hasAttribute("data-ack") && !card.hasAttribute("data-acked");

  function isSilenced(card) {
    if (isUrgent(card)) return false;
    const { category, priority } = card.dataset;
    const isMuted = wanted.mutedCategories.includes(category) && !wanted.mandatory.includes(category);
    return isMuted || RANK.indexOf(priority) < RANK.indexOf(wanted.minimumPriority);
  }

  function heldUntil(now = page.now()) {
    let until = now;
    for (const [start, end] of wanted.quiet) if (Date.parse(start) <= until && until < Date.parse(end)) until = Date.parse(end);
    return until > now ? until : 0;
  }

  const isRepeated = (card) => card.hasAttribute("data-again") || card.hasAttribute("data-reminder");

  // A new message came, or one that is told once more; its card as the stream brought it.
  page.alert = (card) => {
    if (!wanted || (told.has(card.dataset.id) && !isRepeated(card)) || isSilenced(card)) return;
    told.set(card.dataset.id, page.now());
    const until = heldUntil();
    if (until && !isUrgent(card)) return hold(card, until);
    surface(card, { isRepeated: isRepeated(card), breaksThrough: Boolean(until) });
  };

  function hold(card, until) {
    held.push(card.dataset.id);
    tellHeld();
    clearTimeout(heldTimer);
    heldTimer = setTimeout(release, Math.min(until - page.now() + 500, 2 ** 31 - 1));
  }

  function release() {
    tellHeld();
    if (heldUntil() || !held.length) return;
    const text = held.length === 1 ? "1 message came while alerts were held" : `${held.length} messages came while alerts were held`;
    held = [];
    page.toast({ text, href: "/inbox?view=unread", ms: 12000 });
  }

  function tellHeld() {
    const line = document.getElementById("held");
    const until = heldUntil();
    line.hidden = !until;
    if (!until) return;
    const at = new Date(until);
    const isToday = at.toDateString() === new Date(page.now()).toDateString();
    const words = at.toLocaleString("en-GB", { weekday: isToday ? undefined : "short", hour: "2-digit", minute: "2-digit" });
    line.querySelector(".held-text").textContent = `Alerts held until ${words}` + (held.length ? ` (${held.length} waiting)` : "");
  }

  // ---- surfaces

  function surface(card, { isRepeated, breaksThrough }) {
    const isInFront = document.visibilityState === "visible" && document.hasFocus();
    const { id, priority } = card.dataset;
    if (isUrgent(card)) openDialog(card, breaksThrough);
    else if (priority === "HIGH") showBanner(card);
    // a new message is seen in the list; one that is told once more may stand far down in it, and is told until it was shown
    else if (isInFront && priority === "NORMAL" && isRepeated) page.toast({ text: titleOf(card), href: `/inbox/${id}`, ms: 12000, closed: () => putAside(id) });
    else if (isInFront && priority === "NORMAL" && !document.getElementById("inbox-list")) page.toast({ text: titleOf(card), href: `/inbox/${id}` });
    if (isInFront) {
      channel?.postMessage({ shown: card.dataset.id });
      beep();
    } else setTimeout(notify, NOTICE_MS, card);
  }

  const titleOf = (card) => card.querySelector(".card-title").textContent.trim();

  const dock = document.getElementById("banners");
  const bannerOf = (id) => dock.querySelector(`[data-of="${id}"]`);

  function showBanner(card) {
    const { id } = card.dataset;
    if (bannerOf(id)) return fillBanner(bannerOf(id), card);
    const banner = document.getElementById("banner-shape").content.firstElementChild.cloneNode(true);
    banner.dataset.of = id;
    banner.querySelector("a").href = `/inbox/${id}`;
    banner.querySelector("button").addEventListener("click", () => putAside(id));
    fillBanner(banner, card);
    dock.prepend(banner);
    while (dock.children.length > MOST) dock.lastElementChild.remove();
    // everything below has moved: a press may be meant for what was there before
    page.hold(dock);
    page.hold(document.getElementById("main"), "[data-final], form[data-act=acknowledge] button");
  }

  function fillBanner(banner, card) {
    banner.classList.toggle("urgent", isUrgent(card));
    if (isUrgent(card)) banner.setAttribute("role", "alert");
    banner.querySelector(".banner-kind").textContent = isUrgent(card) ? "Urgent: " : "High priority: ";
    banner.querySelector("a").textContent = titleOf(card);
    banner.querySelector("button").setAttribute("aria-label", `Dismiss: ${titleOf(card)}`);
  }

  // ---- the dialog: one at a time, in the order in which they came, and never while somebody types

  const urgent = document.getElementById("urgent");
  const heading = document.getElementById("urgent-title");
  const waiting = []; // [card, breaksThrough] of those that are not open yet
  let patience = false;

  function openDialog(card, breaksThrough) {
    if (urgent.open && urgent.dataset.of === card.dataset.id) return fillDialog(card, breaksThrough);
    const at = waiting.findIndex(([one]) => one.dataset.id === card.dataset.id);
    if (at >= 0) waiting[at] = [card, breaksThrough];
    else waiting.push([card, breaksThrough]);
    openNext();
  }

  function openNext() {
    if (urgent.open || patience || !waiting.length) return;
    if (page.isTyping()) {
      for (const [card] of waiting) showBanner(card); // seen at once all the same
      patience = true;
      page.afterTyping(() => { patience = false; openNext(); });
      return;
    }
    const [card, breaksThrough] = waiting.shift();
    bannerOf(card.dataset.id)?.remove();
    fillDialog(card, breaksThrough);
    page.openUnasked(urgent, heading);
  }

  function fillDialog(card, breaksThrough) {
    urgent.dataset.of = card.dataset.id;
    urgent.dataset.revision = card.dataset.revision; // whoever acknowledges here acknowledges these words
    urgent.dataset.must = mustAck(card) ? "yes" : "no";
    urgent.setAttribute("closedby", mustAck(card) ? "none" : "closerequest");
    heading.textContent = titleOf(card);
    urgent.querySelector("#urgent-body").innerHTML = card.querySelector(".card-body").innerHTML; // the server cleaned it
    urgent.querySelector("#urgent-from").textContent = card.querySelector(".card-from").textContent.trim();
    urgent.querySelector("#urgent-through").hidden = !breaksThrough;
    urgent.querySelector("[data-urgent=acknowledge]").hidden = !mustAck(card);
    for (const name of ["read", "later"]) urgent.querySelector(`[data-urgent=${name}]`).hidden = mustAck(card);
  }

  urgent.addEventListener("cancel", (event) => {
    event.preventDefault();
    if (urgent.dataset.must === "no") putAside(urgent.dataset.of);
  });
  urgent.addEventListener("close", openNext);
  urgent.addEventListener("click", (event) => {
    const does = event.target.closest("[data-urgent]")?.dataset.urgent;
    if (does === "later") putAside(urgent.dataset.of);
    else if (does) act(urgent.dataset.of, does, urgent.dataset.revision);
  });

  // ---- putting away: the message counts as seen, and the card stays

  async function act(id, verb, revision = "") {
    const body = new FormData();
    if (revision) body.set("revision", revision);
    const done = await page.post(`/inbox/${id}/${verb}`, body);
    if (!done) return;
    page.dismiss(id);
    page.follow(done);
  }

  function putAside(id) {
    page.dismiss(id);
    act(id, "dismiss");
  }

  page.dismiss = (id) => {
    const banner = bannerOf(id), hadFocus = banner?.contains(document.activeElement);
    banner?.remove();
    if (hadFocus) page.moveFocus(dock.querySelector("a") ?? page.restingPlace());
    const at = waiting.findIndex(([card]) => card.dataset.id === String(id));
    if (at >= 0) waiting.splice(at, 1);
    if (urgent.open && urgent.dataset.of === String(id)) urgent.close();
  };

  // The text of a message that is told just now is another one: a banner or a dialog shows what a reload would show.
  page.retell = (card) => {
    const { id, priority } = card.dataset, banner = bannerOf(id);
    if (banner && !["HIGH", "URGENT"].includes(priority)) page.dismiss(id);
    else if (banner) fillBanner(banner, card);
    const entry = waiting.find(([one]) => one.dataset.id === id);
    const isOpen = urgent.open && urgent.dataset.of === id;
    if ((entry || isOpen) && !isUrgent(card)) page.dismiss(id);
    else if (entry) entry[0] = card;
    else if (isOpen) fillDialog(card, !urgent.querySelector("#urgent-through").hidden);
  };

  // After a gap in what was heard: whether what is told just now still is to be.
  page.recheckAlerts = async () => {
    const ids = [...[...dock.children].map((banner) => banner.dataset.of), ...waiting.map(([card]) => card.dataset.id), ...(urgent.open ? [urgent.dataset.of] : [])];
    const cards = ids.length ? await fetchCards(ids) : null;
    if (!cards) return;
    for (const id of new Set(ids)) {
      const card = cards.find((one) => one.dataset.id === id);
      const isDone = !card || card.hasAttribute("data-archived") || card.hasAttribute("data-asleep") || !(card.hasAttribute("data-unread") || mustAck(card));
      if (isDone) page.dismiss(id);
      else page.retell(card);
    }
  };

  // ---- desktop notices and sound: both only where the person asked for them

  const shownElsewhere = new Set();

  function notify(card) {
    const may = wanted.desktop && "Notification" in window && Notification.permission === "granted";
    if (!may || shownElsewhere.has(card.dataset.id)) return;
    const text = card.querySelector(".card-body").textContent.trim().slice(0, 140);
    // one tag for all tabs: the browser shows it once
    const notice = new Notification(titleOf(card), { body: text, tag: `broadcast-${card.dataset.id}`, silent: !wanted.sound });
    notice.onclick = () => { window.focus(); location.assign(`/inbox/${card.dataset.id}`); };
  }

  function beep() {
    if (!wanted.sound || !("AudioContext" in window)) return;
    const audio = new AudioContext();
    const tone = new OscillatorNode(audio, { frequency: 660 });
    const soft = new GainNode(audio, { gain: 0.08 });
    soft.gain.exponentialRampToValueAtTime(0.001, audio.currentTime + 0.4);
    tone.connect(soft).connect(audio.destination);
    tone.start();
    tone.stop(audio.currentTime + 0.4);
    tone.onended = () => audio.close();
  }

  if (channel) channel.onmessage = ({ data }) => {
    if (data.shown) shownElsewhere.add(data.shown);
  };

  // ---- at the start, and when the preferences were changed elsewhere

  page.readPreferences = async () => {
    const answer = await fetch("/inbox/alerts").catch(() => null);
    if (!answer?.ok || answer.redirected) return;
    wanted = await answer.json();
    document.body.dataset.keys = wanted.keys ? "on" : "off";
    if (wanted.theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = wanted.theme;
    tellHeld();
    const until = heldUntil();
    if (until) { clearTimeout(heldTimer); heldTimer = setTimeout(release, Math.min(until - page.now() + 500, 2 ** 31 - 1)); }
    else release();
    if (wanted.waiting.length) raise(wanted.waiting, wanted.since);
  };

  async function raise(ids, since) {
    const cards = await fetchCards(ids);
    for (const id of ids) {
      const card = cards?.find((one) => one.dataset.id === String(id));
      const isShownAlone = document.querySelector(`#card-${id}.alone`); // one is reading it
      if (!card || isShownAlone || isSilenced(card) || (told.get(card.dataset.id) ?? 0) >= Date.parse(since[id])) continue;
      if (heldUntil() && !isUrgent(card)) continue; // the next page after that raises it
      told.set(card.dataset.id, page.now());
      surface(card, { isRepeated: true, breaksThrough: Boolean(heldUntil()) });
    }
  }

  // Their cards as they are now for this person, or null when the server could not be asked.
  async function fetchCards(ids) {
    const answer = await fetch(`/inbox/cards?view=all&ids=${ids.join(",")}`).catch(() => null);
    if (!answer?.ok || answer.redirected) return null;
    const template = document.createElement("template");
    template.innerHTML = await answer.text();
    return [...template.content.querySelectorAll("article.card")];
  }

  page.readPreferences();
}
