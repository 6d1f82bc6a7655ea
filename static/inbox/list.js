// The list of an open inbox: merges arriving messages, applies receipts, and always shows what a reload would show.
//
// Merging is by id and revision, so streaming, paging and reloading may overlap in any order. The effect of an action (in this tab
// or another) is not computed here: the server is asked for those cards as the current view and filters show them, and a card that
// it does not send leaves the list. One such request runs at a time, so that the last response is the newest.
"use strict";

{
  const LOAD_TIMEOUT_MS = 20000; // after which the list is requested again
  const page = window.broadcastPage;
  const getRegion = () => document.getElementById("inbox-list");
  const getFeed = () => document.getElementById("feed");
  const getPinned = () => document.getElementById("pinned");
  const findCard = (id) => document.getElementById(`card-${id}`);
  const getArticles = (container) => [...container.children].filter((child) => child.matches("article"));
  const HANDLED_KINDS = ["read", "acknowledged", "archived", "snoozed", "dismissed"]; // kinds of receipts after which a message needs no alert
  const PERSONAL_ATTRIBUTES = ["data-unread", "data-acked", "data-archived", "data-asleep"]; // the state of this user, not of the message

  let heldCards = []; // cards that arrived while the user was reading further down
  let insertTimer = 0, lastInsertAt = -Infinity;
  const INSERT_INTERVAL_MS = 400; // between two insertions; longer than the animation of one
  let requestedIds = new Set(), isRequesting = false;
  const endedIds = new Set(); // an older response must not bring these back

  page.list = { mergeMessage, removeMessage, applyReceipt, loadList };

  // ---- messages

  function mergeMessage(html, seq, isNew) {
    const card = parseHtml(html).querySelector("article.card");
    const existing = findCard(card.dataset.id) ?? heldCards.find((other) => other.id === card.id);
    if (!isNew) page.updateAlert?.(card);
    if (card.hasAttribute("data-again")) return alertAgain(card);
    if (card.hasAttribute("data-reminder")) return showReminder(card);
    if (existing) return replaceCard(existing, card);
    if (isNew && seq > page.asOf) {
      page.setCounts({ unread: page.counts.unread + 1, inbox: (page.counts.inbox ?? 0) + 1 });
      page.countedThrough = seq;
    }
    if (isNew) page.showAlert?.(card);
    const list = getRegion();
    if (!list) return isNew && page.announceArrivals(1);
    const isUnfiltered = isNew && list.dataset.filtered === "no" && ["inbox", "unread"].includes(list.dataset.view);
    if (isUnfiltered) holdCards([card]);
    else setTimeout(requestCards, 300 * Math.random(), [card.dataset.id], holdCards); // only the server knows whether the view shows it
  }

  // A reminder from the sender: the message is in the list and counted already, so it only raises an alert.
  function showReminder(card) {
    findCard(card.dataset.id)?.setAttribute("data-reminder", "");
    page.showAlert?.(card);
    page.announce(`Reminder: ${card.querySelector(".card-title").textContent.trim()}`, true);
  }

  // An important edit, shown again to those who have read it: only the server knows its state for this user.
  function alertAgain(card) {
    page.showAlert?.(card);
    const existing = findCard(card.dataset.id);
    heldCards = heldCards.filter((other) => other !== existing); // it is inserted again, with its state for this user
    if (existing?.classList.contains("standalone")) return reloadSingleCard(existing); // its text has changed as well
    if (getRegion() || document.querySelector(".card.standalone")) setTimeout(requestCards, 300 * Math.random(), [card.dataset.id]);
    else setTimeout(page.refreshCounts, 1000 * Math.random());
  }

  function replaceCard(existing, card) {
    if (Number(existing.dataset.revision) >= Number(card.dataset.revision)) return;
    if (existing.classList.contains("standalone")) return reloadSingleCard(existing);
    // a new acknowledgement may be required: only the server knows whether this user's is still valid
    if (existing.dataset.ackRevision !== card.dataset.ackRevision && getRegion()) return setTimeout(requestCards, 300 * Math.random(), [card.dataset.id]);
    for (const name of PERSONAL_ATTRIBUTES) card.toggleAttribute(name, existing.hasAttribute(name));
    card.dataset.seq = existing.dataset.seq;
    heldCards = heldCards.map((other) => (other === existing ? card : other));
    swapCard(existing, card);
  }

  async function reloadSingleCard(existing, announcement = "This message was edited") {
    const response = await fetch(location.href).catch(() => null);
    const card = response?.ok && parseHtml(await response.text()).getElementById(existing.id);
    if (!card) return;
    swapCard(existing, card);
    page.announce(announcement);
  }

  // An expired message moves to the view "Ended"; a recalled one disappears.
  function removeMessage(id, seq, reason) {
    const isExpired = reason === "EXPIRED", isEndedView = getRegion()?.dataset.view === "ended";
    if (isExpired && isEndedView) setTimeout(requestCards, 300 * Math.random(), [id]);
    else endedIds.add(String(id));
    const card = findCard(id) ?? heldCards.find((other) => other.dataset.id === String(id));
    heldCards = heldCards.filter((other) => other !== card);
    showPill();
    page.closeAlert?.(id);
    if (card && seq > page.asOf && !card.hasAttribute("data-archived") && !card.hasAttribute("data-asleep")) {
      const unread = page.counts.unread - card.hasAttribute("data-unread");
      page.setCounts({ unread, inbox: (page.counts.inbox ?? 1) - 1, ...(isExpired && page.counts.ended < 100 && { ended: page.counts.ended + 1 }) });
    } else {
      setTimeout(page.refreshCounts, Math.random() * 3000); // it may be counted on a later page or in another view
    }
    if (!card?.classList.contains("standalone")) animateRemoval(card);
    else if (isExpired) reloadSingleCard(card, "This message has ended");
    else showWithdrawn(card);
  }

  function showWithdrawn(card) {
    const note = document.createElement("p"), link = document.createElement("a");
    note.className = "notice standalone";
    note.tabIndex = -1;
    link.href = "/inbox";
    link.textContent = "Back to the inbox";
    note.append("This message was recalled. ", link);
    document.getElementById("snooze")?.remove();
    card.replaceWith(note);
    page.moveFocus(note);
  }

  // ---- receipts: what this user did, here or elsewhere. `applyReceipt` returns true if the list must be reloaded.

  function applyReceipt(receipt) {
    if (receipt.version <= page.version) return false;
    const hasGap = receipt.version > page.version + 1;
    page.version = receipt.version;
    page.setCounts(receipt.counts ?? { unread: receipt.unread }, receipt.asOf);
    for (const id of receipt.ids) if (HANDLED_KINDS.includes(receipt.kind)) page.closeAlert?.(id);
    if (receipt.kind === "preferences") page.loadPreferences?.();
    if (hasGap || !receipt.ids.length) return true;
    if (receipt.kind === "dismissed") return false; // an alert was dismissed; the card stays as it is
    if (receipt.kind === "read") for (const id of receipt.ids) findCard(id)?.removeAttribute("data-unread");
    if (receipt.kind === "returned") page.announce(receipt.ids.length === 1 ? "A snoozed message is back" : `${receipt.ids.length} snoozed messages are back`, true);
    if (getRegion()) requestCards(receipt.ids);
    else if (document.querySelector(".card.standalone")) requestCards(receipt.ids);
    return false;
  }

  async function requestCards(ids, applyCards = placeCards) {
    for (const id of ids) requestedIds.add(String(id));
    if (isRequesting && applyCards === placeCards) return;
    isRequesting = true;
    while (requestedIds.size) {
      const batch = [...requestedIds];
      requestedIds = new Set();
      const response = await fetch(`/inbox/cards?${buildQuery(batch)}`).catch(() => null);
      if (!response?.ok || response.redirected) { page.reloadList?.(); break; }
      const fragment = parseHtml(await response.text()).firstElementChild;
      const cards = getArticles(fragment).filter((card) => !endedIds.has(card.dataset.id));
      const state = JSON.parse(fragment.dataset.told);
      page.setCounts(state.counts, state.asOf);
      applyCards(cards);
      if (applyCards === placeCards) for (const id of batch) if (!cards.some((card) => card.dataset.id === id)) removeFromView(id);
      applyCards = placeCards;
    }
    isRequesting = false;
  }

  function removeFromView(id) {
    heldCards = heldCards.filter((other) => other.dataset.id !== id);
    showPill();
    animateRemoval(findCard(id));
  }

  function buildQuery(ids) {
    const query = new URLSearchParams(getRegion() ? location.search : "view=all");
    query.delete("after");
    query.set("ids", ids.join(","));
    return query;
  }

  // ---- inserting and replacing cards

  function placeCards(cards) {
    for (const card of cards) {
      const existing = findCard(card.dataset.id);
      const isSingle = existing?.classList.contains("standalone");
      const heldIndex = heldCards.findIndex((other) => other.id === card.id);
      if (heldIndex >= 0 && !existing) { heldCards[heldIndex] = card; continue; }
      if (existing && Number(existing.dataset.revision) > Number(card.dataset.revision)) continue;
      if (isSingle) {
        for (const name of PERSONAL_ATTRIBUTES) existing.toggleAttribute(name, card.hasAttribute(name));
      } else if (!getRegion()) {
        continue; // the page of one message shows no other
      } else if (existing && existing.parentElement === chooseContainer(card) && existing.dataset.seq === card.dataset.seq) {
        if (existing.hasAttribute("data-open")) card.setAttribute("data-open", "");
        swapCard(existing, card);
      } else {
        const hadFocus = existing?.contains(document.activeElement);
        if (existing && !hadFocus) existing.remove();
        insertCard(card);
        if (hadFocus) { page.moveFocus(card.isConnected ? card : existing.nextElementSibling ?? page.findFallbackFocus()); existing.remove(); }
      }
    }
    updateContainers();
    focusRestoredCard();
  }

  // A card restored by "Undo" gets the focus, unless the user has moved it meanwhile.
  let restoredIds = null;
  page.list.focusWhenRestored = (ids) => { restoredIds = ids; };

  function focusRestoredCard() {
    const card = restoredIds?.map(findCard).find(Boolean);
    if (!card) return;
    restoredIds = null;
    if ([document.body, page.findFallbackFocus()].includes(document.activeElement)) page.moveFocus(card);
  }

  const mustPin = (card) => card.hasAttribute("data-ack") && !card.hasAttribute("data-acked");
  const chooseContainer = (card) => (mustPin(card) && getPinned() && ["inbox", "unread"].includes(getRegion().dataset.view) ? getPinned() : getFeed());

  function insertCard(card) {
    const container = chooseContainer(card);
    const before = getArticles(container).find((other) => Number(other.dataset.seq) < Number(card.dataset.seq));
    // older than every card that is loaded: it comes with its page of the list
    if (!before && container === getFeed() && container.children.length && document.getElementById("load-more")) return;
    container.insertBefore(card, before ?? null);
    initCard(card);
  }

  function swapCard(existing, card) {
    const focused = existing.contains(document.activeElement) ? document.activeElement : null;
    const actionName = focused?.closest("[data-act]")?.dataset.act;
    existing.replaceWith(card);
    initCard(card);
    if (!focused) return;
    const sameButton = actionName && card.querySelector(`[data-act="${actionName}"] button`);
    page.moveFocus(sameButton?.checkVisibility() ? sameButton : card);
  }

  function initCard(card) {
    window.htmx?.process(card);
    page.updateTimes(card);
    page.observeCard?.(card);
  }

  function animateRemoval(card) {
    if (!card || card.classList.contains("standalone")) return;
    card.classList.add("leaving");
    if (card.contains(document.activeElement)) {
      const asStaying = (sibling) => sibling?.matches("article:not(.leaving)") && sibling;
      page.moveFocus(asStaying(card.nextElementSibling) || asStaying(card.previousElementSibling) || page.findFallbackFocus());
    }
    setTimeout(() => animateChange(() => { card.remove(); updateContainers(); }), 200);
  }

  // Apply a change to the list so that the cards in view slide to their new position instead of jumping. A card that still slides
  // from the previous change continues from its visible position.
  const slideStops = new WeakMap();
  function animateChange(applyChange) {
    if (document.hidden || matchMedia("(prefers-reduced-motion: reduce)").matches) return applyChange();
    const inView = [];
    for (const element of document.querySelectorAll("#inbox-list article, #pinned-title, #feed-more")) {
      const { top, bottom } = element.getBoundingClientRect();
      if (bottom > 0 && top < innerHeight) inView.push([element, top]);
    }
    applyChange();
    for (const [element] of inView) {
      slideStops.get(element)?.();
      element.classList.remove("arriving"); // its animation would override the transform
    }
    const offsets = inView.map(([element, top]) => [element, top - element.getBoundingClientRect().top]);
    for (const [element, offset] of offsets) if (offset) animateSlide(element, offset);
  }

  // The transform keeps the element in its old position for the first frame: the animation only starts after it.
  function animateSlide(element, offset) {
    let frame = 0, animation = null;
    slideStops.set(element, () => { cancelAnimationFrame(frame); animation?.cancel(); element.style.transform = ""; });
    element.style.transform = `translateY(${offset}px)`;
    frame = requestAnimationFrame(() => {
      frame = requestAnimationFrame(() => {
        animation = element.animate({ transform: [`translateY(${offset}px)`, "none"] }, { duration: 220, easing: "ease-out" });
        element.style.transform = "";
      });
    });
  }

  function updateContainers() {
    const container = getPinned();
    if (!container) return;
    document.getElementById("pinned-part").hidden = !container.children.length;
    if (!getFeed().children.length && document.getElementById("load-more")) page.reloadList?.();
  }

  // ---- arrivals: inserted at once if the list is scrolled to its top and has no focus, else held behind a pill

  function holdCards(cards) {
    const newCards = cards.filter((card) => !findCard(card.dataset.id));
    heldCards.push(...newCards);
    if (newCards.length) page.announceArrivals(newCards.length);
    // insert a burst together: each insertion costs a layout, and the previous one is still sliding
    if (!insertTimer) insertTimer = setTimeout(insertOrWait, Math.max(0, lastInsertAt + INSERT_INTERVAL_MS - performance.now()));
  }

  function insertOrWait() {
    insertTimer = 0;
    const isPressing = getRegion()?.querySelector(".action-acknowledge button:hover"); // must not move away under the pointer
    const isReading = window.scrollY > 160 || isPressing || getFeed()?.contains(document.activeElement) || getPinned()?.contains(document.activeElement);
    if (isReading) showPill();
    else insertHeldCards();
  }

  function insertHeldCards(applyChange = animateChange) {
    if (!getFeed()) return;
    lastInsertAt = performance.now();
    const cards = heldCards.sort((a, b) => a.dataset.seq - b.dataset.seq);
    heldCards = [];
    applyChange(() => {
      for (const card of cards) {
        card.classList.add("arriving");
        insertCard(card);
        page.disableBriefly(card, ".action-acknowledge button");
      }
      updateContainers();
    });
    getFeed().setAttribute("aria-busy", "false");
    showPill();
  }

  function showPill() {
    const pill = document.getElementById("pill");
    if (!pill) return;
    pill.hidden = heldCards.length === 0 || insertTimer > 0; // cards that are inserted within a second need no pill
    pill.querySelector(".pill-text").textContent = `${heldCards.length} new`;
  }

  document.addEventListener("click", (event) => {
    if (!event.target.closest("#pill")) return;
    const newest = heldCards.reduce((a, b) => (Number(a.dataset.seq) > Number(b.dataset.seq) ? a : b));
    insertHeldCards((applyChange) => applyChange()); // without animation: a sliding card has no final position to scroll to
    newest.scrollIntoView({ block: "start" });
    page.moveFocus(newest);
  });

  // ---- reloading the whole list. Resolves to its cursor, or null if it could not be loaded.

  async function loadList() {
    if (!getRegion()) return (await page.refreshCounts())?.cursor ?? null;
    const signal = AbortSignal.timeout(LOAD_TIMEOUT_MS);
    const response = await fetch(`/inbox/list${location.search}`, { signal }).catch(() => null);
    if (!response?.ok || response.redirected) return null;
    const text = await response.text().catch(() => null);
    const newRegion = text && parseHtml(text).getElementById("inbox-list");
    if (!newRegion) return null;
    const focused = getRegion().contains(document.activeElement) ? document.activeElement : null;
    const focusIds = [focused?.id, focused?.closest(".card")?.id].filter(Boolean);
    getRegion().replaceWith(newRegion);
    heldCards = [];
    page.version = Math.max(page.version, Number(newRegion.dataset.version));
    page.setCounts(JSON.parse(newRegion.dataset.counts), Number(newRegion.dataset.asOf));
    for (const card of newRegion.querySelectorAll("article")) initCard(card);
    window.htmx?.process(newRegion);
    if (focused) page.moveFocus(focusIds.map((id) => document.getElementById(id)).find((element) => element?.checkVisibility()) ?? page.findFallbackFocus());
    focusRestoredCard();
    return newRegion.dataset.cursor;
  }

  function parseHtml(html) {
    const template = document.createElement("template");
    template.innerHTML = html;
    return template.content;
  }

  if (getRegion()) {
    page.version = Number(getRegion().dataset.version);
    page.setCounts(JSON.parse(getRegion().dataset.counts), Number(getRegion().dataset.asOf));
  }
}
