// The user's actions in the inbox: read, archive, snooze, acknowledge, undo, by mouse or keyboard; and which messages they have seen.
// Every action is a plain form; this script posts it without leaving the page, and applies the response as a receipt (live.js).
"use strict";

{
  const page = window.broadcastPage;
  const DWELL_MS = 1500; // an expanded message that stays on the page this long is read
  const SEEN_MS = 1000; // a message that is half in view this long is seen
  const REPORT_DELAY_MS = 2000, REPORT_SPREAD_MS = 8000; // seen messages are reported in batches, spread over all browsers

  // ---- actions

  const optimisticUpdates = {
    read: (card) => card.removeAttribute("data-unread"),
    unread: (card) => card.setAttribute("data-unread", ""),
    acknowledge: (card) => card.setAttribute("data-acked", ""),
  };
  const KIND_LABELS = { read: "marked read", archived: "archived", snoozed: "snoozed" };
  const formatMessageCount = (count) => (count === 1 ? "1 message" : `${count.toLocaleString("en")} messages`);

  async function submitAction(form, submitter) {
    const body = new FormData(form, submitter);
    if (form.dataset.act === "chosen" && !body.has("ids")) return page.announce("Select at least one message.", true);
    const timeZoneField = form.querySelector("[data-time-zone]");
    if (timeZoneField && !timeZoneField.value) body.set("timeZone", Intl.DateTimeFormat().resolvedOptions().timeZone);
    // all that the button's number counts, including messages behind the pill; what arrives from now on stays unread
    if (form.dataset.act === "read-all") body.set("through", Math.max(page.asOf, page.countedThrough ?? 0));
    const card = form.closest(".card");
    if (card) optimisticUpdates[form.dataset.act]?.(card);
    form.closest("dialog")?.close();
    const receipt = await page.post(form.getAttribute("action"), body);
    if (!receipt) return card && page.reloadList();
    page.applyReceipt(receipt);
    if (form.dataset.act === "chosen") form.reset();
    if (receipt.undo) offerUndo(receipt);
    else if (receipt.left) page.announce(formatLeftOver(receipt).slice(2), true);
    else if (receipt.kind === "acknowledged") page.announce("Acknowledged", true);
    if (document.querySelector(".card.standalone") && ["archived", "snoozed"].includes(receipt.kind)) goBack(receipt);
  }

  // From the page of one message to the list, which offers to undo the action (as without scripts).
  function goBack(receipt) {
    const query = new URLSearchParams({ done: `${receipt.kind}-${receipt.ids.length}-${receipt.undo}` });
    location.assign(receipt.undo ? `/inbox?${query}` : "/inbox");
  }

  document.addEventListener("submit", (event) => {
    const form = event.target.closest("form[data-act]");
    if (!form) return;
    event.preventDefault();
    submitAction(form, event.submitter);
  });

  function submitCardAction(card, action) {
    const form = card?.querySelector(`form[data-act="${action}"]`);
    if (form?.checkVisibility()) form.requestSubmit();
  }

  // " until Mon 2 Dec, 08:00 (Europe/Berlin)", in the time zone of the preferences, which may not be the browser's
  function formatUntil({ until, timeZone }) {
    if (!until) return "";
    const format = { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", timeZone };
    return ` until ${new Intl.DateTimeFormat("en-GB", format).format(new Date(until))} (${timeZone})`;
  }

  const formatLeftOver = ({ left, because }) => (left ? `. ${formatMessageCount(left)} left: ${because}` : "");

  let pendingUndo = null;

  function offerUndo(receipt) {
    const undoAction = async () => {
      if (pendingUndo !== undoAction) return;
      pendingUndo = null;
      toast.close();
      const body = new FormData();
      body.set("key", receipt.undo);
      const result = await page.post("/inbox/undo", body);
      if (!result) return;
      page.list.focusWhenRestored(receipt.ids);
      page.applyReceipt(result);
      page.announce("Undone", true);
    };
    const toast = page.showToast({ text: `${formatMessageCount(receipt.ids.length)} ${KIND_LABELS[receipt.kind] ?? "changed"}${formatUntil(receipt)}${formatLeftOver(receipt)}`, button: "Undo", onPress: undoAction, durationMs: 8000, group: "undo" });
    pendingUndo = undoAction;
  }

  // ---- snooze: all cards share one dialog

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

  // ---- seen, and read by dwelling

  let seenIds = new Set(), reportTimer = 0;
  const reportedIds = new Set(), seenTimers = new Map();
  const isReadByDwelling = document.body.dataset.reading !== "manual";

  const visibilityObserver = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      clearTimeout(seenTimers.get(target));
      if (isIntersecting && document.visibilityState === "visible") seenTimers.set(target, setTimeout(recordSeen, SEEN_MS, target));
    }
  }, { threshold: 0.5 });

  function recordSeen(card) {
    visibilityObserver.unobserve(card);
    if (!reportedIds.has(card.dataset.id)) seenIds.add(card.dataset.id);
    reportedIds.add(card.dataset.id);
    if (seenIds.size && !reportTimer) reportTimer = setTimeout(reportSeen, REPORT_DELAY_MS + REPORT_SPREAD_MS * Math.random());
  }

  function reportSeen(isLeaving = false) {
    clearTimeout(reportTimer);
    reportTimer = 0;
    if (!seenIds.size) return;
    const body = new FormData();
    body.set("ids", [...seenIds].slice(0, 200).join(","));
    seenIds = new Set([...seenIds].slice(200));
    if (!isLeaving) return page.post("/inbox/seen", body);
    body.set("csrf_token", document.body.dataset.csrf);
    navigator.sendBeacon("/inbox/seen", body);
  }
  document.addEventListener("visibilitychange", () => { if (document.visibilityState === "hidden") reportSeen(true); });

  page.observeCard = (card) => { if (card.hasAttribute("data-unread") && !reportedIds.has(card.dataset.id)) visibilityObserver.observe(card); };
  const observeCards = () => document.querySelectorAll("article.card[data-id]").forEach(page.observeCard);
  observeCards();
  document.addEventListener("htmx:after:swap", observeCards);

  function readAfterDwell(card) {
    if (!isReadByDwelling) return;
    setTimeout(() => { if (card.isConnected && document.visibilityState === "visible" && card.hasAttribute("data-unread")) submitCardAction(card, "read"); }, DWELL_MS);
  }
  const singleCard = document.querySelector(".card.standalone");
  if (singleCard) readAfterDwell(singleCard);
  document.addEventListener("click", (event) => {
    const card = event.target.closest("[data-more]")?.closest(".card");
    // in "Unread" a message that is read leaves the list, which must not happen while the user reads it
    if (card?.hasAttribute("data-open") && document.getElementById("inbox-list")?.dataset.view !== "unread") readAfterDwell(card);
  });

  // ---- keyboard shortcuts

  const findCards = () => [...document.querySelectorAll("#inbox-list article.card")];
  const getFocusedCard = () => document.activeElement?.closest?.("article.card") ?? null;

  let isLoadingNext = false; // the focus moves on to the next page once it is loaded
  function moveCardFocus(offset) {
    const allCards = findCards(), index = allCards.indexOf(getFocusedCard());
    const next = allCards[index < 0 ? (offset > 0 ? 0 : allCards.length - 1) : index + offset];
    if (next) { next.focus(); return; }
    const more = document.getElementById("load-more");
    if (offset > 0 && more) { isLoadingNext = true; more.click(); }
  }

  const REPEATABLE_KEYS = ["j", "k", "ArrowDown", "ArrowUp"], IRREVERSIBLE_KEYS = ["a", "Enter"];
  const keyHandlers = {
    j: () => moveCardFocus(1), ArrowDown: () => moveCardFocus(1), k: () => moveCardFocus(-1), ArrowUp: () => moveCardFocus(-1),
    Enter: () => getFocusedCard()?.querySelector(".card-title a")?.click(),
    r: () => submitCardAction(getFocusedCard(), "read"),
    u: () => submitCardAction(getFocusedCard(), "unread"),
    e: () => submitCardAction(getFocusedCard(), getFocusedCard()?.hasAttribute("data-archived") || getFocusedCard()?.hasAttribute("data-asleep") ? "unarchive" : "archive"),
    s: () => getFocusedCard()?.querySelector("[data-snooze]")?.click(),
    a: () => submitCardAction(getFocusedCard(), "acknowledge"),
    x: () => getFocusedCard()?.querySelector(".card-checkbox input")?.click(),
    z: () => pendingUndo?.(),
    A: () => { const form = document.querySelector(".read-all:not([hidden])"); form?.requestSubmit(); },
    "/": () => { const search = document.getElementById("q"); if (search) { search.closest("details").open = true; search.focus(); } },
    "?": () => document.getElementById("keys-sheet")?.showModal(),
    Escape: () => { document.getElementById("chosen")?.reset(); getFocusedCard()?.blur(); },
  };

  document.addEventListener("keydown", (event) => {
    if (document.body.dataset.keys === "off" || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.closest("input:not([type=checkbox]), textarea, select, [contenteditable], dialog, summary")) return;
    // a key held down repeats only movement; and a card that has just received the focus by itself ignores irreversible keys
    if (!REPEATABLE_KEYS.includes(event.key) && event.repeat) return event.preventDefault();
    if (IRREVERSIBLE_KEYS.includes(event.key) && page.hasJustReceivedFocus(getFocusedCard())) return event.preventDefault();
    const isArrow = event.key.startsWith("Arrow");
    if (isArrow && !getFocusedCard()) return; // arrows scroll the page unless a card has the focus
    if (event.key === "Enter" && document.activeElement !== getFocusedCard()) return; // Enter on a button or link is its own
    if (event.key === "Escape" && event.target.closest(".menu")) return;
    const handleKey = keyHandlers[event.key];
    if (!handleKey || !document.getElementById("inbox-list")) return;
    if (event.key !== "Escape") event.preventDefault();
    handleKey();
  });

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-keys-sheet]")) document.getElementById("keys-sheet").showModal();
  });

  // ---- the focus after the list changes

  // After "Load more" the first new card gets the focus; after loading on scroll the focus stays where it is.
  let cardCountBefore = null;
  document.addEventListener("htmx:before:request", ({ target }) => {
    if (target.id === "load-more") cardCountBefore = findCards().length;
  });
  document.addEventListener("htmx:before:swap", () => {
    if (cardCountBefore !== null && document.activeElement?.id !== "load-more" && !isLoadingNext) cardCountBefore = null;
  });
  document.addEventListener("htmx:after:swap", () => {
    if (cardCountBefore !== null && findCards()[cardCountBefore]) page.moveFocus(findCards()[cardCountBefore]);
    cardCountBefore = null;
    isLoadingNext = false;
  });

  // A filtered list is a new page, whose links lead to the list itself (#list-title): move the focus there. "done" in the address
  // offers "Undo" only once: after a reload there is nothing to undo.
  const currentUrl = new URL(location.href);
  if (currentUrl.hash === "#list-title" || currentUrl.searchParams.has("done")) {
    page.moveFocus(page.findFallbackFocus());
    currentUrl.hash = "";
    currentUrl.searchParams.delete("done");
    history.replaceState(null, "", currentUrl.pathname + currentUrl.search);
  }
}
