// Alerts: besides its card in the list a message may show a toast, a banner (HIGH), a dialog (URGENT) and a desktop notification.
// Dismissing an alert keeps the card, and sends a receipt, so that no other page shows the alert again. Preferences hold or silence
// alerts, never messages; only URGENT breaks through. The server computes quiet hours, in the user's time zone, and decides which
// alerts a newly opened page raises.
"use strict";

{
  const page = window.broadcastPage;
  const MAX_VISIBLE = 3; // toasts, or banners, at a time
  const NOTIFY_DELAY_MS = 400; // a background tab waits so long for a foreground tab to say that it shows the alert
  const PRIORITIES = ["LOW", "NORMAL", "HIGH", "URGENT"];
  const toastContainer = document.getElementById("toasts");
  const user = document.body.dataset.user;
  const channel = "BroadcastChannel" in window ? new BroadcastChannel(`broadcast-alerts-${user}`) : null;

  // ---- toasts

  // Show a line of text for `durationMs`, with an optional `button`; it stays while the pointer or the focus is on it. Only the newest
  // toast of a `group` is shown. Returns {close}.
  page.showToast = ({ text, button, onPress, href, durationMs = 6000, group = "", onClose }) => {
    if (group) toastContainer.querySelectorAll(`[data-group="${group}"]`).forEach((other) => other.remove());
    while (toastContainer.children.length >= MAX_VISIBLE) toastContainer.firstElementChild.remove();
    const toast = document.createElement("div");
    toast.className = "toast";
    toast.dataset.group = group;
    const toastText = document.createElement(href ? "a" : "span");
    toastText.className = "toast-text";
    toastText.dir = "auto";
    toastText.textContent = text;
    if (href) toastText.href = href;
    toast.append(toastText);
    if (button) toast.append(createButton(button, "toast-action", onPress));
    let timer = 0;
    const close = () => { clearTimeout(timer); toast.remove(); onClose?.(); };
    toast.append(createButton("×", "toast-close", close, `Dismiss: ${text}`));
    const restartTimer = () => { clearTimeout(timer); timer = setTimeout(() => { if (toast.matches(":hover, :focus-within")) restartTimer(); else close(); }, durationMs); };
    for (const name of ["pointerleave", "focusout"]) toast.addEventListener(name, restartTimer);
    restartTimer();
    toastContainer.append(toast);
    page.disableBriefly(toast);
    return { close };
  };

  function createButton(text, className, onPress, label) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = className;
    button.textContent = text;
    if (label) button.setAttribute("aria-label", label);
    button.addEventListener("click", onPress);
    return button;
  }

  // ---- whether and when to alert

  let preferences = null, heldIds = [], heldTimer = 0;
  const alertedAt = new Map(); // page.now() of the last alert, by message id

  const isUrgent = (card) => card.dataset.priority === "URGENT";
  const mustAcknowledge = (card) => isUrgent(card) && card.hasAttribute("data-ack") && !card.hasAttribute("data-acked");

  function isSilenced(card) {
    if (isUrgent(card)) return false;
    const { category, priority } = card.dataset;
    const isMuted = preferences.mutedCategories.includes(category) && !preferences.mandatory.includes(category);
    return isMuted || PRIORITIES.indexOf(priority) < PRIORITIES.indexOf(preferences.minimumPriority);
  }

  function getHeldUntil(now = page.now()) {
    let until = now;
    for (const [start, end] of preferences.quiet) if (Date.parse(start) <= until && until < Date.parse(end)) until = Date.parse(end);
    return until > now ? until : 0;
  }

  const isRepeated = (card) => card.hasAttribute("data-again") || card.hasAttribute("data-reminder");

  // Raise the alert of a message that is new or repeated (reminder, important edit). `card` comes from the stream.
  page.showAlert = (card) => {
    if (!preferences || (alertedAt.has(card.dataset.id) && !isRepeated(card)) || isSilenced(card)) return;
    alertedAt.set(card.dataset.id, page.now());
    const until = getHeldUntil();
    if (until && !isUrgent(card)) return holdAlert(card, until);
    displayAlert(card, { isRepeated: isRepeated(card), breaksThrough: Boolean(until) });
  };

  function holdAlert(card, until) {
    heldIds.push(card.dataset.id);
    showHeldStatus();
    clearTimeout(heldTimer);
    heldTimer = setTimeout(releaseHeld, Math.min(until - page.now() + 500, 2 ** 31 - 1));
  }

  function releaseHeld() {
    showHeldStatus();
    if (getHeldUntil() || !heldIds.length) return;
    const text = heldIds.length === 1 ? "1 message arrived while alerts were held" : `${heldIds.length} messages arrived while alerts were held`;
    heldIds = [];
    page.showToast({ text, href: "/inbox?view=unread", durationMs: 12000 });
  }

  function showHeldStatus() {
    const statusLine = document.getElementById("held");
    const until = getHeldUntil();
    statusLine.hidden = !until;
    if (!until) return;
    const endsAt = new Date(until);
    const isToday = endsAt.toDateString() === new Date(page.now()).toDateString();
    const timeText = endsAt.toLocaleString("en-GB", { weekday: isToday ? undefined : "short", hour: "2-digit", minute: "2-digit" });
    statusLine.querySelector(".muted-alerts-text").textContent = `Alerts held until ${timeText}` + (heldIds.length ? ` (${heldIds.length} waiting)` : "");
  }

  // ---- toast, banner, dialog, notification

  function displayAlert(card, { isRepeated, breaksThrough }) {
    const isInFront = document.visibilityState === "visible" && document.hasFocus();
    const { id, priority } = card.dataset;
    if (isUrgent(card)) queueDialog(card, breaksThrough);
    else if (priority === "HIGH") showBanner(card);
    // a new message shows on top of the list; a repeated one may be far down in it, so its toast is dismissed only after it was shown
    else if (isInFront && priority === "NORMAL" && isRepeated) page.showToast({ text: getTitle(card), href: `/inbox/${id}`, durationMs: 12000, onClose: () => dismissMessage(id) });
    else if (isInFront && priority === "NORMAL" && !document.getElementById("inbox-list")) page.showToast({ text: getTitle(card), href: `/inbox/${id}` });
    if (isInFront) {
      channel?.postMessage({ shown: card.dataset.id });
      playSound();
    } else setTimeout(showNotification, NOTIFY_DELAY_MS, card);
  }

  const getTitle = (card) => card.querySelector(".card-title").textContent.trim();

  const bannerContainer = document.getElementById("banners");
  const findBanner = (id) => bannerContainer.querySelector(`[data-of="${id}"]`);

  function showBanner(card) {
    const { id } = card.dataset;
    if (findBanner(id)) return fillBanner(findBanner(id), card);
    const banner = document.getElementById("banner-shape").content.firstElementChild.cloneNode(true);
    banner.dataset.of = id;
    banner.querySelector("a").href = `/inbox/${id}`;
    banner.querySelector("button").addEventListener("click", () => dismissMessage(id));
    fillBanner(banner, card);
    bannerContainer.prepend(banner);
    while (bannerContainer.children.length > MAX_VISIBLE) bannerContainer.lastElementChild.remove();
    // everything below has moved: a click may be meant for what was there before
    page.disableBriefly(bannerContainer);
    page.disableBriefly(document.getElementById("main"), "[data-final], form[data-act=acknowledge] button");
  }

  function fillBanner(banner, card) {
    banner.classList.toggle("urgent", isUrgent(card));
    if (isUrgent(card)) banner.setAttribute("role", "alert");
    banner.querySelector(".banner-kind").textContent = isUrgent(card) ? "Urgent: " : "High priority: ";
    banner.querySelector("a").textContent = getTitle(card);
    banner.querySelector("button").setAttribute("aria-label", `Dismiss: ${getTitle(card)}`);
  }

  // ---- the urgent dialog: one at a time, in order of arrival, and never while the user types

  const urgentDialog = document.getElementById("urgent");
  const urgentHeading = document.getElementById("urgent-title");
  const dialogQueue = []; // [card, breaksThrough] of messages that still wait for the dialog
  let isWaitingForTyping = false;

  function queueDialog(card, breaksThrough) {
    if (urgentDialog.open && urgentDialog.dataset.of === card.dataset.id) return fillDialog(card, breaksThrough);
    const index = dialogQueue.findIndex(([queued]) => queued.dataset.id === card.dataset.id);
    if (index >= 0) dialogQueue[index] = [card, breaksThrough];
    else dialogQueue.push([card, breaksThrough]);
    openNextDialog();
  }

  function openNextDialog() {
    if (urgentDialog.open || isWaitingForTyping || !dialogQueue.length) return;
    if (page.isTyping()) {
      for (const [card] of dialogQueue) showBanner(card); // visible at once, without taking the focus
      isWaitingForTyping = true;
      page.runAfterTyping(() => { isWaitingForTyping = false; openNextDialog(); });
      return;
    }
    const [card, breaksThrough] = dialogQueue.shift();
    findBanner(card.dataset.id)?.remove();
    fillDialog(card, breaksThrough);
    page.openUnsolicitedDialog(urgentDialog, urgentHeading);
  }

  function fillDialog(card, breaksThrough) {
    urgentDialog.dataset.of = card.dataset.id;
    urgentDialog.dataset.revision = card.dataset.revision; // an acknowledgement is of the revision that is shown
    urgentDialog.dataset.must = mustAcknowledge(card) ? "yes" : "no";
    urgentDialog.setAttribute("closedby", mustAcknowledge(card) ? "none" : "closerequest");
    urgentHeading.textContent = getTitle(card);
    urgentDialog.querySelector("#urgent-body").innerHTML = card.querySelector(".card-body").innerHTML; // the server sanitised it
    urgentDialog.querySelector("#urgent-from").textContent = card.querySelector(".card-from").textContent.trim();
    urgentDialog.querySelector("#urgent-through").hidden = !breaksThrough;
    urgentDialog.querySelector("[data-urgent=acknowledge]").hidden = !mustAcknowledge(card);
    for (const name of ["read", "later"]) urgentDialog.querySelector(`[data-urgent=${name}]`).hidden = mustAcknowledge(card);
  }

  urgentDialog.addEventListener("cancel", (event) => {
    event.preventDefault();
    if (urgentDialog.dataset.must === "no") dismissMessage(urgentDialog.dataset.of);
  });
  urgentDialog.addEventListener("close", openNextDialog);
  urgentDialog.addEventListener("click", (event) => {
    const action = event.target.closest("[data-urgent]")?.dataset.urgent;
    if (action === "later") dismissMessage(urgentDialog.dataset.of);
    else if (action) postAction(urgentDialog.dataset.of, action, urgentDialog.dataset.revision);
  });

  // ---- dismissing: the message counts as seen, and the card stays

  async function postAction(id, action, revision = "") {
    const body = new FormData();
    if (revision) body.set("revision", revision);
    const receipt = await page.post(`/inbox/${id}/${action}`, body);
    if (!receipt) return;
    page.closeAlert(id);
    page.applyReceipt(receipt);
  }

  function dismissMessage(id) {
    page.closeAlert(id);
    postAction(id, "dismiss");
  }

  page.closeAlert = (id) => {
    const banner = findBanner(id), hadFocus = banner?.contains(document.activeElement);
    banner?.remove();
    if (hadFocus) page.moveFocus(bannerContainer.querySelector("a") ?? page.findFallbackFocus());
    const index = dialogQueue.findIndex(([card]) => card.dataset.id === String(id));
    if (index >= 0) dialogQueue.splice(index, 1);
    if (urgentDialog.open && urgentDialog.dataset.of === String(id)) urgentDialog.close();
  };

  // A message was edited: its banner or dialog shows what a reload would show.
  page.updateAlert = (card) => {
    const { id, priority } = card.dataset, banner = findBanner(id);
    if (banner && !["HIGH", "URGENT"].includes(priority)) page.closeAlert(id);
    else if (banner) fillBanner(banner, card);
    const entry = dialogQueue.find(([queued]) => queued.dataset.id === id);
    const isOpen = urgentDialog.open && urgentDialog.dataset.of === id;
    if ((entry || isOpen) && !isUrgent(card)) page.closeAlert(id);
    else if (entry) entry[0] = card;
    else if (isOpen) fillDialog(card, !urgentDialog.querySelector("#urgent-through").hidden);
  };

  // After a gap in the stream: close or update the alerts that are shown.
  page.recheckAlerts = async () => {
    const ids = [...[...bannerContainer.children].map((banner) => banner.dataset.of), ...dialogQueue.map(([card]) => card.dataset.id), ...(urgentDialog.open ? [urgentDialog.dataset.of] : [])];
    const cards = ids.length ? await fetchCards(ids) : null;
    if (!cards) return;
    for (const id of new Set(ids)) {
      const card = cards.find((candidate) => candidate.dataset.id === id);
      const isDone = !card || card.hasAttribute("data-archived") || card.hasAttribute("data-asleep") || !(card.hasAttribute("data-unread") || mustAcknowledge(card));
      if (isDone) page.closeAlert(id);
      else page.updateAlert(card);
    }
  };

  // ---- desktop notifications and sound: only if the user turned them on

  const shownInOtherTabs = new Set();

  function showNotification(card) {
    const isAllowed = preferences.desktop && "Notification" in window && Notification.permission === "granted";
    if (!isAllowed || shownInOtherTabs.has(card.dataset.id)) return;
    const text = card.querySelector(".card-body").textContent.trim().slice(0, 140);
    // all tabs use the same tag, so that the browser shows it once
    const notification = new Notification(getTitle(card), { body: text, tag: `broadcast-${card.dataset.id}`, silent: !preferences.sound });
    notification.onclick = () => { window.focus(); location.assign(`/inbox/${card.dataset.id}`); };
  }

  function playSound() {
    if (!preferences.sound || !("AudioContext" in window)) return;
    const audioContext = new AudioContext();
    const oscillator = new OscillatorNode(audioContext, { frequency: 660 });
    const gain = new GainNode(audioContext, { gain: 0.08 });
    gain.gain.exponentialRampToValueAtTime(0.001, audioContext.currentTime + 0.4);
    oscillator.connect(gain).connect(audioContext.destination);
    oscillator.start();
    oscillator.stop(audioContext.currentTime + 0.4);
    oscillator.onended = () => audioContext.close();
  }

  if (channel) channel.onmessage = ({ data }) => {
    if (data.shown) shownInOtherTabs.add(data.shown);
  };

  // ---- preferences: at the start, and when they change on another page

  page.loadPreferences = async () => {
    const response = await fetch("/inbox/alerts").catch(() => null);
    if (!response?.ok || response.redirected) return;
    preferences = await response.json();
    document.body.dataset.keys = preferences.keys ? "on" : "off";
    if (preferences.theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = preferences.theme;
    showHeldStatus();
    const until = getHeldUntil();
    if (until) { clearTimeout(heldTimer); heldTimer = setTimeout(releaseHeld, Math.min(until - page.now() + 500, 2 ** 31 - 1)); }
    else releaseHeld();
    if (preferences.waiting.length) raiseAlerts(preferences.waiting, preferences.since);
  };

  async function raiseAlerts(ids, since) {
    const cards = await fetchCards(ids);
    for (const id of ids) {
      const card = cards?.find((candidate) => candidate.dataset.id === String(id));
      const isShownAlone = document.querySelector(`#card-${id}.standalone`); // the user is reading it
      if (!card || isShownAlone || isSilenced(card) || (alertedAt.get(card.dataset.id) ?? 0) >= Date.parse(since[id])) continue;
      if (getHeldUntil() && !isUrgent(card)) continue; // the next page that is opened after quiet hours raises it
      alertedAt.set(card.dataset.id, page.now());
      displayAlert(card, { isRepeated: true, breaksThrough: Boolean(getHeldUntil()) });
    }
  }

  // Resolves to the current cards of `ids` that this user has, or null if the server did not answer.
  async function fetchCards(ids) {
    const response = await fetch(`/inbox/cards?view=all&ids=${ids.join(",")}`).catch(() => null);
    if (!response?.ok || response.redirected) return null;
    const template = document.createElement("template");
    template.innerHTML = await response.text();
    return [...template.content.querySelectorAll("article.card")];
  }

  page.loadPreferences();
}
