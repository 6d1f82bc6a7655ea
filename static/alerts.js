// Alerts: what is told above the page besides the card in the list, by priority: a toast, a banner (HIGH), a dialog (URGENT), a
// desktop notice. All are surfaces of the one message: dismissing one keeps the card. Preferences hold or silence alerts and
// never messages; only URGENT breaks through. When quiet hours begin and end is reckoned by the server, in the person's zone.
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
  page.toast = ({ text, button, press, href, ms = 6000, group = "" }) => {
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
    const close = () => { clearTimeout(timer); toast.remove(); };
    toast.append(control("×", "toast-close", close, "Dismiss"));
    const run = () => { clearTimeout(timer); timer = setTimeout(() => { if (toast.matches(":hover, :focus-within")) run(); else close(); }, ms); };
    for (const name of ["pointerleave", "focusout"]) toast.addEventListener(name, run);
    run();
    box.append(toast);
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

  let wanted = null, told = new Set(), held = [], heldTimer = 0;

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

  // A new message came; its card as the stream brought it.
  page.alert = (card) => {
    const once = told.has(card.dataset.id) && !card.hasAttribute("data-again") && !card.hasAttribute("data-reminder");
    if (!wanted || once || isSilenced(card)) return;
    told.add(card.dataset.id);
    const until = heldUntil();
    if (until && !isUrgent(card)) return hold(card, until);
    surface(card, Boolean(until));
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

  function surface(card, breaksThrough) {
    const isInFront = document.visibilityState === "visible" && document.hasFocus();
    if (isUrgent(card)) openDialog(card, breaksThrough);
    else if (card.dataset.priority === "HIGH") showBanner(card);
    else if (isInFront && card.dataset.priority === "NORMAL" && !document.getElementById("inbox-list")) {
      page.toast({ text: titleOf(card), href: `/inbox/${card.dataset.id}` });
    }
    if (isInFront) {
      channel?.postMessage({ shown: card.dataset.id });
      beep();
    } else setTimeout(notify, NOTICE_MS, card);
  }

  const titleOf = (card) => card.querySelector(".card-title").textContent.trim();

  function showBanner(card) {
    const dock = document.getElementById("banners");
    if (dock.querySelector(`[data-of="${card.dataset.id}"]`)) return;
    const banner = document.getElementById("banner-shape").content.firstElementChild.cloneNode(true);
    banner.dataset.of = card.dataset.id;
    const link = banner.querySelector("a");
    link.textContent = titleOf(card);
    link.href = `/inbox/${card.dataset.id}`;
    banner.querySelector("button").addEventListener("click", () => putAside(card.dataset.id));
    dock.prepend(banner);
    while (dock.children.length > MOST) dock.lastElementChild.remove();
  }

  const waiting = []; // urgent ones behind the one that is open

  function openDialog(card, breaksThrough) {
    const dialog = document.getElementById("urgent");
    if (dialog.open && dialog.dataset.of !== card.dataset.id) { waiting.push([card, breaksThrough]); return; }
    dialog.dataset.of = card.dataset.id;
    dialog.dataset.revision = card.dataset.revision; // whoever acknowledges here acknowledges these words
    dialog.dataset.must = mustAck(card) ? "yes" : "no";
    dialog.querySelector("#urgent-title").textContent = titleOf(card);
    dialog.querySelector("#urgent-body").innerHTML = card.querySelector(".card-body").innerHTML; // the server cleaned it
    dialog.querySelector("#urgent-from").textContent = card.querySelector(".card-from").textContent.trim();
    dialog.querySelector("#urgent-through").hidden = !breaksThrough;
    dialog.querySelector("[data-urgent=acknowledge]").hidden = !mustAck(card);
    for (const name of ["read", "later"]) dialog.querySelector(`[data-urgent=${name}]`).hidden = mustAck(card);
    if (!dialog.open) dialog.showModal(); // else it says now what the message says since
  }

  const urgent = document.getElementById("urgent");
  urgent.addEventListener("cancel", (event) => {
    event.preventDefault();
    if (urgent.dataset.must === "no") putAside(urgent.dataset.of);
  });
  urgent.addEventListener("close", () => { const next = waiting.shift(); if (next) openDialog(...next); });
  urgent.addEventListener("click", async (event) => {
    const does = event.target.closest("[data-urgent]")?.dataset.urgent;
    if (!does) return;
    const id = urgent.dataset.of;
    if (does === "later") return putAside(id);
    const body = new FormData();
    body.set("revision", urgent.dataset.revision);
    const done = await page.post(`/inbox/${id}/${does}`, body);
    if (!done) return;
    page.follow(done);
    page.dismiss(id);
  });

  // Put a surface away, here and in the other tabs; the message counts as seen, and the card stays.
  function putAside(id) {
    const body = new FormData();
    body.set("ids", id);
    body.set("aside", "yes");
    page.post("/inbox/seen", body);
    channel?.postMessage({ dismissed: id });
    page.dismiss(id);
  }

  page.dismiss = (id) => {
    document.querySelector(`#banners [data-of="${id}"]`)?.remove();
    const at = waiting.findIndex(([card]) => card.dataset.id === String(id));
    if (at >= 0) waiting.splice(at, 1);
    if (urgent.open && urgent.dataset.of === String(id)) urgent.close();
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
    if (data.dismissed) page.dismiss(data.dismissed);
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
    if (wanted.waiting.length) raise(wanted.waiting);
  };

  async function raise(ids) {
    const answer = await fetch(`/inbox/cards?view=all&ids=${ids.join(",")}`).catch(() => null);
    if (!answer?.ok || answer.redirected) return;
    const template = document.createElement("template");
    template.innerHTML = await answer.text();
    for (const card of template.content.querySelectorAll("article.card")) {
      const isShownAlone = document.querySelector(`#card-${card.dataset.id}.alone`); // one is reading it
      if (!told.has(card.dataset.id) && !isSilenced(card) && !isShownAlone && (isUrgent(card) || !heldUntil())) surface(card, false);
      told.add(card.dataset.id);
    }
  }

  page.readPreferences();
}
