// What a person does in the inbox: read, archive, snooze, acknowledge, undo, by press or by key; and what they had in view.
// Every act is a plain form; here it is sent without leaving the page, and the answer goes the way of a receipt (live.js).
"use strict";

{
  const page = window.broadcastPage;
  const DWELL_MS = 1500; // an opened message that stays in view this long is read
  const SEEN_MS = 1000; // and one that is half in view this long is seen
  const TELL_MS = 2000, SPREAD_MS = 8000; // seen ones are told in batches, at different moments in different browsers

  // ---- acts

  const feel = {
    read: (card) => card.removeAttribute("data-unread"),
    unread: (card) => card.setAttribute("data-unread", ""),
    acknowledge: (card) => card.setAttribute("data-acked", ""),
  };
  const said = { read: "marked read", archived: "archived", snoozed: "snoozed" };
  const many = (count) => (count === 1 ? "1 message" : `${count.toLocaleString("en")} messages`);

  async function act(form, submitter) {
    const body = new FormData(form, submitter);
    if (form.dataset.act === "chosen" && !body.has("ids")) return page.say("Select at least one message.", true);
    const zone = form.querySelector("[data-time-zone]");
    if (zone && !zone.value) body.set("timeZone", Intl.DateTimeFormat().resolvedOptions().timeZone);
    // all that its number counts, also what still waits behind the pill; what arrives from now on stays unread
    if (form.dataset.act === "read-all") body.set("through", Math.max(page.asOf, page.countedThrough ?? 0));
    const card = form.closest(".card");
    if (card) feel[form.dataset.act]?.(card);
    form.closest("dialog")?.close();
    const done = await page.post(form.getAttribute("action"), body);
    if (!done) return card && page.reload();
    page.follow(done);
    if (form.dataset.act === "chosen") form.reset();
    if (done.undo) offerUndo(done);
    else if (done.left) page.say(leftOf(done).slice(2), true);
    else if (done.kind === "acknowledged") page.say("Acknowledged", true);
    if (document.querySelector(".card.alone") && ["archived", "snoozed"].includes(done.kind)) goBack(done);
  }

  // From the page of one message to the list, which offers to undo it (as without scripts).
  function goBack(done) {
    const query = new URLSearchParams({ done: `${done.kind}-${done.ids.length}-${done.undo}` });
    location.assign(done.undo ? `/inbox?${query}` : "/inbox");
  }

  document.addEventListener("submit", (event) => {
    const form = event.target.closest("form[data-act]");
    if (!form) return;
    event.preventDefault();
    act(form, event.submitter);
  });

  function press(card, verb) {
    const form = card?.querySelector(`form[data-act="${verb}"]`);
    if (form?.checkVisibility()) form.requestSubmit();
  }

  // " until Mon 2 Dec, 08:00 (Europe/Berlin)", in the zone of the preferences, which need not be the browser's
  function untilWhen({ until, timeZone }) {
    if (!until) return "";
    const zoned = { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", timeZone };
    return ` until ${new Intl.DateTimeFormat("en-GB", zoned).format(new Date(until))} (${timeZone})`;
  }

  const leftOf = ({ left, because }) => (left ? `. ${many(left)} left: ${because}` : "");

  let lastUndo = null;

  function offerUndo(done) {
    const undo = async () => {
      if (lastUndo !== undo) return;
      lastUndo = null;
      toast.close();
      const body = new FormData();
      body.set("key", done.undo);
      const answer = await page.post("/inbox/undo", body);
      if (!answer) return;
      page.list.focusWhenBack(done.ids);
      page.follow(answer);
      page.say("Undone", true);
    };
    const toast = page.toast({ text: `${many(done.ids.length)} ${said[done.kind] ?? "changed"}${untilWhen(done)}${leftOf(done)}`, button: "Undo", press: undo, ms: 8000, group: "undo" });
    lastUndo = undo;
  }

  // ---- snooze: one dialog for all cards

  for (const field of document.querySelectorAll("form.snooze [data-time-zone]")) {
    if (!field.value) field.form.querySelector("[data-zone-name]").textContent = Intl.DateTimeFormat().resolvedOptions().timeZone;
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-snooze]");
    const dialog = document.getElementById("snooze-dialog");
    if (!link || !dialog || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const card = link.closest(".card");
    dialog.querySelector("form").setAttribute("action", `/inbox/${link.dataset.snooze}/snooze`);
    document.getElementById("snooze-what").textContent = card.querySelector(".card-title").textContent;
    dialog.addEventListener("close", () => { if (card.isConnected && !card.contains(document.activeElement)) card.focus({ preventScroll: true }); }, { once: true });
    dialog.showModal();
  });

  // ---- seen, and read by dwelling on it

  let seen = new Set(), telling = 0;
  const told = new Set(), waiting = new Map();
  const dwells = document.body.dataset.reading !== "manual";

  const sight = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      clearTimeout(waiting.get(target));
      if (isIntersecting && document.visibilityState === "visible") waiting.set(target, setTimeout(note, SEEN_MS, target));
    }
  }, { threshold: 0.5 });

  function note(card) {
    sight.unobserve(card);
    if (!told.has(card.dataset.id)) seen.add(card.dataset.id);
    told.add(card.dataset.id);
    if (seen.size && !telling) telling = setTimeout(tellSeen, TELL_MS + SPREAD_MS * Math.random());
  }

  function tellSeen(last = false) {
    clearTimeout(telling);
    telling = 0;
    if (!seen.size) return;
    const body = new FormData();
    body.set("ids", [...seen].slice(0, 200).join(","));
    seen = new Set([...seen].slice(200));
    if (!last) return page.post("/inbox/seen", body);
    body.set("csrf_token", document.body.dataset.csrf);
    navigator.sendBeacon("/inbox/seen", body);
  }
  document.addEventListener("visibilitychange", () => { if (document.visibilityState === "hidden") tellSeen(true); });

  page.watch = (card) => { if (card.hasAttribute("data-unread") && !told.has(card.dataset.id)) sight.observe(card); };
  const watchAll = () => document.querySelectorAll("article.card[data-id]").forEach(page.watch);
  watchAll();
  document.addEventListener("htmx:after:swap", watchAll);

  function dwell(card) {
    if (!dwells) return;
    setTimeout(() => { if (card.isConnected && document.visibilityState === "visible" && card.hasAttribute("data-unread")) press(card, "read"); }, DWELL_MS);
  }
  const alone = document.querySelector(".card.alone");
  if (alone) dwell(alone);
  document.addEventListener("click", (event) => {
    const card = event.target.closest("[data-more]")?.closest(".card");
    // in "Unread" a read message leaves the list, which must not happen under somebody's eyes
    if (card?.hasAttribute("data-open") && document.getElementById("inbox-list")?.dataset.view !== "unread") dwell(card);
  });

  // ---- keys

  const cards = () => [...document.querySelectorAll("#inbox-list article.card")];
  const current = () => document.activeElement?.closest?.("article.card") ?? null;

  let isStepping = false; // on to what is only being loaded
  function step(by) {
    const all = cards(), at = all.indexOf(current());
    const next = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : at + by];
    if (next) { next.focus(); return; }
    const more = document.getElementById("load-more");
    if (by > 0 && more) { isStepping = true; more.click(); }
  }

  const STEPS = ["j", "k", "ArrowDown", "ArrowUp"], FINAL = ["a", "Enter"];
  const keys = {
    j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1),
    Enter: () => current()?.querySelector(".card-title a")?.click(),
    r: () => press(current(), "read"),
    u: () => press(current(), "unread"),
    e: () => press(current(), current()?.hasAttribute("data-archived") || current()?.hasAttribute("data-asleep") ? "unarchive" : "archive"),
    s: () => current()?.querySelector("[data-snooze]")?.click(),
    a: () => press(current(), "acknowledge"),
    x: () => current()?.querySelector(".pick input")?.click(),
    z: () => lastUndo?.(),
    A: () => { const form = document.querySelector(".read-all:not([hidden])"); form?.requestSubmit(); },
    "/": () => { const search = document.getElementById("q"); if (search) { search.closest("details").open = true; search.focus(); } },
    "?": () => document.getElementById("keys-sheet")?.showModal(),
    Escape: () => { document.getElementById("chosen")?.reset(); current()?.blur(); },
  };

  document.addEventListener("keydown", (event) => {
    if (document.body.dataset.keys === "off" || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.closest("input:not([type=checkbox]), textarea, select, [contenteditable], dialog, summary")) return;
    // a key that is held down repeats only its steps, and a card that got the focus by itself is no answer to the key before
    if (!STEPS.includes(event.key) && event.repeat) return event.preventDefault();
    if (FINAL.includes(event.key) && page.hasJustArrived(current())) return event.preventDefault();
    const arrow = event.key.startsWith("Arrow");
    if (arrow && !current()) return; // the page scrolls as ever until somebody is in the list
    if (event.key === "Enter" && document.activeElement !== current()) return; // a button or link has its own Enter
    if (event.key === "Escape" && event.target.closest(".menu")) return;
    const does = keys[event.key];
    if (!does || !document.getElementById("inbox-list")) return;
    if (event.key !== "Escape") event.preventDefault();
    does();
  });

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-keys-sheet]")) document.getElementById("keys-sheet").showModal();
  });

  // ---- the focus after what makes the list another one

  // "Load more", by press or by key: the first of what came. When it came by itself (on scrolling) the focus stays where it is.
  let shownBefore = null;
  document.addEventListener("htmx:before:request", ({ target }) => {
    if (target.id === "load-more") shownBefore = cards().length;
  });
  document.addEventListener("htmx:before:swap", () => {
    if (shownBefore !== null && document.activeElement?.id !== "load-more" && !isStepping) shownBefore = null;
  });
  document.addEventListener("htmx:after:swap", () => {
    if (shownBefore !== null && cards()[shownBefore]) page.moveFocus(cards()[shownBefore]);
    shownBefore = null;
    isStepping = false;
  });

  // A list that was narrowed or widened is a new page, and what one wants of it is the list: its links say so (#list-title). After
  // "Undo" was offered by the address, that is said once: a list that is loaded anew has nothing to undo.
  const here = new URL(location.href);
  if (here.hash === "#list-title" || here.searchParams.has("done")) {
    page.moveFocus(page.restingPlace());
    here.hash = "";
    here.searchParams.delete("done");
    history.replaceState(null, "", here.pathname + here.search);
  }
}
