// The service worker: shows push messages, and opens what they are about. It caches nothing and answers no request.
//
// A message: {id, revision, title, priority, link}, or {id, revision, withdrawn, link} for one that was recalled. A newer revision
// replaces the notification of an older one. Many at a time become one ("12 new messages"), except for urgent ones.
"use strict";

const ICON = "/static/icons/icon-192.png";
const SUMMARY_TAG = "broadcast-summary";
const MAX_SEPARATE = 3; // notifications of messages that are not urgent; one more, and all become the summary
const KINDS = { URGENT: "Urgent", HIGH: "High priority" };

// one after another: each looks at what the ones before it have shown
let lastShown = Promise.resolve();

self.addEventListener("push", (event) => {
  lastShown = lastShown.catch(() => {}).then(() => show(readMessage(event.data)));
  event.waitUntil(lastShown);
});

function readMessage(data) {
  try {
    const { id, revision, title, priority, link, withdrawn } = data.json();
    return { id: Number(id), revision: Number(revision), title: String(title ?? ""), priority, link: String(link), withdrawn: Boolean(withdrawn) };
  } catch { // a browser demands a notification for every push message
    return { id: 0, revision: 0, title: "New message", priority: "NORMAL", link: "/inbox", withdrawn: false };
  }
}

async function show(message) {
  const shown = await self.registration.getNotifications();
  const tag = `broadcast-${message.id}`;
  const known = shown.find((notification) => notification.tag === tag)?.data;
  if (known && (known.revision > message.revision || (known.revision === message.revision && known.withdrawn))) message = known; // they came in another order
  const summary = shown.find((notification) => notification.tag === SUMMARY_TAG);
  const summarized = summary?.data.messages ?? [];
  if (message.withdrawn) return showWithdrawal(message, summarized);
  const separate = shown.filter((notification) => notification.data?.isMessage && notification.tag !== tag).map((notification) => notification.data);
  const mayJoin = message.priority !== "URGENT" && message.id !== 0;
  if (!mayJoin || (!summary && separate.length < MAX_SEPARATE)) return showMessage(message, tag, shown);
  const isJoined = (other) => other.id !== message.id && other.priority !== "URGENT";
  const messages = [...summarized.filter(isJoined), ...separate.filter(isJoined), message];
  for (const notification of shown) if (notification.data?.isMessage && notification.data.priority !== "URGENT") notification.close();
  return showSummary(messages, { isQuiet: false });
}

function showMessage(message, tag, shown) {
  const earlier = shown.find((notification) => notification.tag === tag);
  const isRepeated = earlier?.data?.revision === message.revision; // the push service, or the server, sent it twice
  const options = { tag, body: KINDS[message.priority] ?? "", requireInteraction: message.priority === "URGENT", data: { ...message, isMessage: !message.withdrawn && message.id !== 0 } };
  return notify(message.title, { ...options, renotify: !isRepeated, silent: isRepeated });
}

// In the place of the message: nothing of it stays visible.
async function showWithdrawal(message, summarized) {
  const messages = summarized.filter(({ id }) => id !== message.id);
  if (messages.length < summarized.length && messages.length) return showSummary(messages, { isQuiet: true });
  if (messages.length < summarized.length) for (const notification of await self.registration.getNotifications({ tag: SUMMARY_TAG })) notification.close();
  return notify("This message was withdrawn", { tag: `broadcast-${message.id}`, silent: true, data: message });
}

function showSummary(messages, { isQuiet }) {
  const title = messages.length === 1 ? "1 new message" : `${messages.length} new messages`;
  const body = messages.slice(-MAX_SEPARATE).reverse().map((message) => message.title).join("\n");
  return notify(title, { tag: SUMMARY_TAG, body, renotify: !isQuiet, silent: isQuiet, data: { messages, link: "/inbox?view=unread" } });
}

const notify = (title, options) => self.registration.showNotification(title, { icon: ICON, badge: ICON, ...options });

// ---- pressed

self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(open(event.notification.data?.link));
});

// In a tab that shows it already, or in a new one: what another tab shows may be a form that is half filled in.
async function open(link) {
  const url = new URL(link ?? "/inbox", self.location.origin);
  if (url.origin !== self.location.origin) return null;
  const tabs = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
  const tab = tabs.find((candidate) => candidate.url === url.href);
  return tab ? tab.focus() : self.clients.openWindow(url.href);
}

// ---- the browser has replaced its subscription: the server must know the new one

self.addEventListener("pushsubscriptionchange", (event) => event.waitUntil(registerAgain(event)));

async function registerAgain(event) {
  const response = await fetch("/account/push", { headers: { Accept: "application/json" } });
  if (!response.ok || response.redirected) return; // signed out: the next visit registers it
  const { publicKey, csrfToken } = await response.json();
  const subscription = event.newSubscription ?? (await self.registration.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: publicKey }));
  const headers = { "Content-Type": "application/json", "X-CSRFToken": csrfToken, Accept: "application/json" };
  await fetch("/account/push", { method: "POST", headers, body: JSON.stringify(subscription) });
}

// a new version replaces the old one at once: there is nothing that an open page could rely on
self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
