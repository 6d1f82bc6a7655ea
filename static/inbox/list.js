// The list of an open inbox: merges what arrives, follows what was done elsewhere, and is always what a reload would show.
//
// Merging goes by id and revision, so streaming, paging and reloading may cross in any order. What somebody did with a message
// (in this tab or another) is not worked out here: the server is asked for those cards as the view and its filters show them
// now, and whatever it does not send leaves the list. One such question at a time, so that the last answer is the newest.
"use strict";

{
  const LOAD_MS = 20000; // a list that comes later than that is asked for again
  const page = window.broadcastPage;
  const region = () => document.getElementById("inbox-list");
  const feed = () => document.getElementById("feed");
  const pinned = () => document.getElementById("pinned");
  const cardOf = (id) => document.getElementById(`card-${id}`);
  const articles = (box) => [...box.children].filter((one) => one.matches("article"));
  const DONE = ["read", "acknowledged", "archived", "snoozed", "dismissed"]; // nothing that needs an alert any more
  const STATES = ["data-unread", "data-acked", "data-archived", "data-asleep"]; // what belongs to this person, not to the message

  let held = []; // cards that came while the person was reading further down
  let inserting = 0, insertedAt = -Infinity;
  const CALM_MS = 400; // between two insertions; longer than the sliding of one
  let asked = new Set(), asking = false;
  const gone = new Set(); // ended: an answer that is older must not bring them back

  page.list = { merge, drop, follow, load, show: (id) => cardOf(id) };

  // ---- messages

  function merge(html, seq, isNew) {
    const card = read(html).querySelector("article.card");
    const known = cardOf(card.dataset.id) ?? held.find((one) => one.id === card.id);
    if (!isNew) page.retell?.(card);
    if (card.hasAttribute("data-again")) return showAgain(card);
    if (card.hasAttribute("data-reminder")) return remind(card);
    if (known) return replace(known, card);
    if (isNew && seq > page.asOf) {
      page.setCounts({ unread: page.counts.unread + 1, inbox: (page.counts.inbox ?? 0) + 1 });
      page.countedThrough = seq;
    }
    if (isNew) page.alert?.(card);
    const list = region();
    if (!list) return isNew && page.sayArrived(1);
    const plain = isNew && list.dataset.filtered === "no" && ["inbox", "unread"].includes(list.dataset.view);
    if (plain) hold([card]);
    else setTimeout(ask, 300 * Math.random(), [card.dataset.id], hold); // which of them the view shows, the server knows
  }

  // The sender reminds those who have not read it: it is in their list and counted already, so only attention is asked for.
  function remind(card) {
    cardOf(card.dataset.id)?.setAttribute("data-reminder", "");
    page.alert?.(card);
    page.say(`Reminder: ${card.querySelector(".card-title").textContent.trim()}`, true);
  }

  // An edit that is shown again to those who have read it: what it is for this person now, the server knows.
  function showAgain(card) {
    page.alert?.(card);
    const known = cardOf(card.dataset.id);
    held = held.filter((one) => one !== known); // it is placed anew, with its state for this person
    if (known?.classList.contains("alone")) return reloadAlone(known); // its text is another one too
    if (region() || document.querySelector(".card.alone")) setTimeout(ask, 300 * Math.random(), [card.dataset.id]);
    else setTimeout(page.refreshCounts, 1000 * Math.random());
  }

  function replace(known, card) {
    if (Number(known.dataset.revision) >= Number(card.dataset.revision)) return;
    if (known.classList.contains("alone")) return reloadAlone(known);
    // acknowledgements were asked for anew: whether this person's stands, the server knows
    if (known.dataset.ackRevision !== card.dataset.ackRevision && region()) return setTimeout(ask, 300 * Math.random(), [card.dataset.id]);
    for (const name of STATES) card.toggleAttribute(name, known.hasAttribute(name));
    card.dataset.seq = known.dataset.seq;
    held = held.map((one) => (one === known ? card : one));
    swap(known, card);
  }

  async function reloadAlone(known, words = "This message was edited") {
    const answer = await fetch(location.href).catch(() => null);
    const card = answer?.ok && read(await answer.text()).getElementById(known.id);
    if (!card) return;
    swap(known, card);
    page.say(words);
  }

  // What has ended by its time moves to the view "Ended"; what was recalled is nowhere.
  function drop(id, seq, reason) {
    const isOver = reason === "EXPIRED", isEndedView = region()?.dataset.view === "ended";
    if (isOver && isEndedView) setTimeout(ask, 300 * Math.random(), [id]);
    else gone.add(String(id));
    const card = cardOf(id) ?? held.find((one) => one.dataset.id === String(id));
    held = held.filter((one) => one !== card);
    showPill();
    page.dismiss?.(id);
    if (card && seq > page.asOf && !card.hasAttribute("data-archived") && !card.hasAttribute("data-asleep")) {
      const unread = page.counts.unread - card.hasAttribute("data-unread");
      page.setCounts({ unread, inbox: (page.counts.inbox ?? 1) - 1, ...(isOver && page.counts.ended < 100 && { ended: page.counts.ended + 1 }) });
    } else {
      setTimeout(page.refreshCounts, Math.random() * 3000); // it may have been counted on a later page, or in another view
    }
    if (!card?.classList.contains("alone")) leave(card);
    else if (isOver) reloadAlone(card, "This message has ended");
    else replaceAlone(card);
  }

  function replaceAlone(card) {
    const note = document.createElement("p"), link = document.createElement("a");
    note.className = "notice alone";
    note.tabIndex = -1;
    link.href = "/inbox";
    link.textContent = "Back to the inbox";
    note.append("This message was withdrawn. ", link);
    document.getElementById("snooze")?.remove();
    card.replaceWith(note);
    page.moveFocus(note);
  }

  // ---- what this person did, here or elsewhere. Returns true when the list must be loaded anew.

  function follow(told) {
    if (told.version <= page.version) return false;
    const missed = told.version > page.version + 1;
    page.version = told.version;
    page.setCounts(told.counts ?? { unread: told.unread }, told.asOf);
    for (const id of told.ids) if (DONE.includes(told.kind)) page.dismiss?.(id);
    if (told.kind === "preferences") page.readPreferences?.();
    if (missed || !told.ids.length) return true;
    if (told.kind === "dismissed") return false; // of an alert; the card stays as it is
    if (told.kind === "read") for (const id of told.ids) cardOf(id)?.removeAttribute("data-unread");
    if (told.kind === "returned") page.say(told.ids.length === 1 ? "A message came back" : `${told.ids.length} messages came back`, true);
    if (region()) ask(told.ids);
    else if (document.querySelector(".card.alone")) ask(told.ids);
    return false;
  }

  async function ask(ids, found = place) {
    for (const id of ids) asked.add(String(id));
    if (asking && found === place) return;
    asking = true;
    while (asked.size) {
      const now = [...asked];
      asked = new Set();
      const answer = await fetch(`/inbox/cards?${queryOf(now)}`).catch(() => null);
      if (!answer?.ok || answer.redirected) { page.reload?.(); break; }
      const told = read(await answer.text()).firstElementChild;
      const cards = articles(told).filter((card) => !gone.has(card.dataset.id));
      const counts = JSON.parse(told.dataset.told);
      page.setCounts(counts.counts, counts.asOf);
      found(cards);
      if (found === place) for (const id of now) if (!cards.some((card) => card.dataset.id === id)) forget(id);
      found = place;
    }
    asking = false;
  }

  function forget(id) {
    held = held.filter((one) => one.dataset.id !== id);
    showPill();
    leave(cardOf(id));
  }

  function queryOf(ids) {
    const query = new URLSearchParams(region() ? location.search : "view=all");
    query.delete("after");
    query.set("ids", ids.join(","));
    return query;
  }

  // ---- places

  function place(cards) {
    for (const card of cards) {
      const known = cardOf(card.dataset.id);
      const isAlone = known?.classList.contains("alone");
      const behindPill = held.findIndex((one) => one.id === card.id);
      if (behindPill >= 0 && !known) { held[behindPill] = card; continue; }
      if (known && Number(known.dataset.revision) > Number(card.dataset.revision)) continue;
      if (isAlone) {
        for (const name of STATES) known.toggleAttribute(name, card.hasAttribute(name));
      } else if (!region()) {
        continue; // the page of one message has no place for another
      } else if (known && known.parentElement === boxOf(card) && known.dataset.seq === card.dataset.seq) {
        if (known.hasAttribute("data-open")) card.setAttribute("data-open", "");
        swap(known, card);
      } else {
        const hadFocus = known?.contains(document.activeElement);
        if (known && !hadFocus) known.remove();
        insert(card);
        if (hadFocus) { page.moveFocus(card.isConnected ? card : known.nextElementSibling ?? page.restingPlace()); known.remove(); }
      }
    }
    tidy();
    focusRestored();
  }

  // What came back by "Undo" gets the focus, unless the person has gone elsewhere meanwhile.
  let restored = null;
  page.list.focusWhenBack = (ids) => { restored = ids; };

  function focusRestored() {
    const card = restored?.map(cardOf).find(Boolean);
    if (!card) return;
    restored = null;
    if ([document.body, page.restingPlace()].includes(document.activeElement)) page.moveFocus(card);
  }

  const mustStand = (card) => card.hasAttribute("data-ack") && !card.hasAttribute("data-acked");
  const boxOf = (card) => (mustStand(card) && pinned() && ["inbox", "unread"].includes(region().dataset.view) ? pinned() : feed());

  function insert(card) {
    const box = boxOf(card);
    const before = articles(box).find((one) => Number(one.dataset.seq) < Number(card.dataset.seq));
    // older than all that is shown, and more to load: it comes with its page
    if (!before && box === feed() && box.children.length && document.getElementById("load-more")) return;
    box.insertBefore(card, before ?? null);
    ready(card);
  }

  function swap(known, card) {
    const focused = known.contains(document.activeElement) ? document.activeElement : null;
    const act = focused?.closest("[data-act]")?.dataset.act;
    known.replaceWith(card);
    ready(card);
    if (!focused) return;
    const same = act && card.querySelector(`[data-act="${act}"] button`);
    page.moveFocus(same?.checkVisibility() ? same : card);
  }

  function ready(card) {
    window.htmx?.process(card);
    page.tellTimes(card);
    page.watch?.(card);
  }

  function leave(card) {
    if (!card || card.classList.contains("alone")) return;
    card.classList.add("leaving");
    if (card.contains(document.activeElement)) {
      const stays = (one) => one?.matches("article:not(.leaving)") && one;
      page.moveFocus(stays(card.nextElementSibling) || stays(card.previousElementSibling) || page.restingPlace());
    }
    setTimeout(() => glide(() => { card.remove(); tidy(); }), 200);
  }

  // Change the list so that what is in view slides to its new place from where it was, and does not jump under somebody's eyes.
  // What still slides from the last time goes on from where it is seen.
  const stops = new WeakMap();
  function glide(change) {
    if (document.hidden || matchMedia("(prefers-reduced-motion: reduce)").matches) return change();
    const inView = [];
    for (const one of document.querySelectorAll("#inbox-list article, #pinned-title, #feed-more")) {
      const { top, bottom } = one.getBoundingClientRect();
      if (bottom > 0 && top < innerHeight) inView.push([one, top]);
    }
    change();
    for (const [one] of inView) {
      stops.get(one)?.();
      one.classList.remove("arriving"); // its animation would outweigh the place where the card is held
    }
    const moved = inView.map(([one, top]) => [one, top - one.getBoundingClientRect().top]);
    for (const [one, by] of moved) if (by) slide(one, by);
  }

  // Held where it was for the first frame: an animation that only begins by then would let it jump there and back.
  function slide(one, by) {
    let frame = 0, animation = null;
    stops.set(one, () => { cancelAnimationFrame(frame); animation?.cancel(); one.style.transform = ""; });
    one.style.transform = `translateY(${by}px)`;
    frame = requestAnimationFrame(() => {
      frame = requestAnimationFrame(() => {
        animation = one.animate({ transform: [`translateY(${by}px)`, "none"] }, { duration: 220, easing: "ease-out" });
        one.style.transform = "";
      });
    });
  }

  function tidy() {
    const box = pinned();
    if (!box) return;
    document.getElementById("pinned-part").hidden = !box.children.length;
    if (!feed().children.length && document.getElementById("load-more")) page.reload?.();
  }

  // ---- arrivals: on top at once when the list is at its top and nobody is in it, else behind a pill

  function hold(cards) {
    const fresh = cards.filter((card) => !cardOf(card.dataset.id));
    held.push(...fresh);
    if (fresh.length) page.sayArrived(fresh.length);
    // in a burst, several together: each insertion costs a layout, and the last one is still sliding
    if (!inserting) inserting = setTimeout(insertOrWait, Math.max(0, insertedAt + CALM_MS - performance.now()));
  }

  function insertOrWait() {
    inserting = 0;
    const isPressing = region()?.querySelector(".act-acknowledge button:hover"); // which must not move away under the hand
    const isReading = window.scrollY > 160 || isPressing || feed()?.contains(document.activeElement) || pinned()?.contains(document.activeElement);
    if (isReading) showPill();
    else insertHeld();
  }

  function insertHeld(change = glide) {
    if (!feed()) return;
    insertedAt = performance.now();
    const cards = held.sort((a, b) => a.dataset.seq - b.dataset.seq);
    held = [];
    change(() => {
      for (const card of cards) {
        card.classList.add("arriving");
        insert(card);
        page.hold(card, ".act-acknowledge button");
      }
      tidy();
    });
    feed().setAttribute("aria-busy", "false");
    showPill();
  }

  function showPill() {
    const pill = document.getElementById("pill");
    if (!pill) return;
    pill.hidden = held.length === 0 || inserting > 0; // what goes in within the second needs no pill
    pill.querySelector(".pill-text").textContent = `${held.length} new`;
  }

  document.addEventListener("click", (event) => {
    if (!event.target.closest("#pill")) return;
    const newest = held.reduce((a, b) => (Number(a.dataset.seq) > Number(b.dataset.seq) ? a : b));
    insertHeld((change) => change()); // what still slides has no place yet that one could scroll to
    newest.scrollIntoView({ block: "start" });
    page.moveFocus(newest);
  });

  // ---- the whole list anew. Returns its cursor, null when it could not be had.

  async function load() {
    if (!region()) return (await page.refreshCounts())?.cursor ?? null;
    const signal = AbortSignal.timeout(LOAD_MS);
    const answer = await fetch(`/inbox/list${location.search}`, { signal }).catch(() => null);
    if (!answer?.ok || answer.redirected) return null;
    const text = await answer.text().catch(() => null);
    const fresh = text && read(text).getElementById("inbox-list");
    if (!fresh) return null;
    const focused = region().contains(document.activeElement) ? document.activeElement : null;
    const spots = [focused?.id, focused?.closest(".card")?.id].filter(Boolean);
    region().replaceWith(fresh);
    held = [];
    page.version = Math.max(page.version, Number(fresh.dataset.version));
    page.setCounts(JSON.parse(fresh.dataset.counts), Number(fresh.dataset.asOf));
    for (const card of fresh.querySelectorAll("article")) ready(card);
    window.htmx?.process(fresh);
    if (focused) page.moveFocus(spots.map((id) => document.getElementById(id)).find((one) => one?.checkVisibility()) ?? page.restingPlace());
    focusRestored();
    return fresh.dataset.cursor;
  }

  function read(html) {
    const template = document.createElement("template");
    template.innerHTML = html;
    return template.content;
  }

  if (region()) {
    page.version = Number(region().dataset.version);
    page.setCounts(JSON.parse(region().dataset.counts), Number(region().dataset.asOf));
  }
}
