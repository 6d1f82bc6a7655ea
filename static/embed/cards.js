// A message as elements: its text, its article, its banner. No HTML is trusted here, and nothing is asked of the server.

const RANK = ["LOW", "NORMAL", "HIGH", "URGENT"];
const BELL = "M10.268 21a2 2 0 0 0 3.464 0M3.262 15.326A1 1 0 0 0 4 17h16a1 1 0 0 0 .74-1.673C19.41 13.956 18 12.499 18 8A6 6 0 0 0 6 8c0 4.499-1.411 5.956-2.738 7.326";
const ALERT = "m21.73 18-8-14a2 2 0 0 0-3.48 0l-8 14A2 2 0 0 0 4 21h16a2 2 0 0 0 1.73-3M12 9v4M12 17h.01";
const CLOSE = "M18 6 6 18M6 6l12 12";

// The server cleaned it (nh3); here it is read into a document that runs nothing, and only what is in this list is built anew.
const TAGS = new Set("p br hr strong em s code pre blockquote ul ol li a h3 h4 h5 h6 table thead tbody tr th td".split(" "));
let reader = { createHTML: (html) => html };
try { reader = window.trustedTypes?.createPolicy("broadcast-inbox", reader) ?? reader; } catch { /* the page forbids it: see below */ }

function textOf({ content, contentHtml }) {
  const body = element("div", { class: "text", dir: "auto" });
  try {
    const read = new DOMParser().parseFromString(reader.createHTML(contentHtml), "text/html");
    body.append(...[...own("body", read).childNodes].map(copy));
  } catch {
    body.append(element("p", { class: "plain" }, content)); // Trusted Types without our policy: the text as it was typed
  }
  return body;
}

function copy(node) {
  if (node.nodeType !== Node.ELEMENT_NODE) return textNode(node.nodeType === Node.TEXT_NODE ? node.data : "");
  const children = [...node.childNodes].map(copy), name = node.localName;
  if (!TAGS.has(name)) return textNode(node.textContent);
  return name === "a" ? link(node.getAttribute("href"), null, ...children) : element(name, {}, ...children);
}

function link(href, style, ...children) {
  const isSafe = /^(https?:|mailto:)/i.test(href ?? "");
  return element("a", { href: isSafe && href, class: style, target: "_blank", rel: "noopener noreferrer nofollow" }, ...children);
}

function ago(moment) {
  const minutes = Math.floor((Date.now() - moment) / 60000);
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${minutes} min ago`;
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ago`;
  return moment.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" });
}

function timeOf(text) {
  const moment = new Date(text);
  const exact = moment.toLocaleString("en-GB", { dateStyle: "full", timeStyle: "short" });
  return element("time", { datetime: text, title: exact }, ago(moment));
}

// ---- a message: its article in the list, its banner above the page. `does` has a function of the id for each act.

const dayOf = (moment) => new Date(moment).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
const mustAck = (card) => card.requiresAck && !card.acknowledgedAt;

function articleOf(card, isOpen, does) {
  const press = (act, words, style) => element("button", { type: "button", class: `button ${style}`, "data-does": act, onclick: () => does[act](card.id) }, words, element("span", { class: "sr" }, `: ${card.title}`));
  const title = element("button", { type: "button", class: "title", dir: "auto", "data-does": "open", "aria-expanded": String(isOpen), onclick: () => does.open(card.id) }, card.title);
  return element(
    "article", { "data-id": card.id, "data-unread": !card.read, class: isOpen && "opened", "aria-labelledby": `title-${card.id}` },
    metaOf(card),
    element("h3", { id: `title-${card.id}` }, title),
    textOf(card),
    mustAck(card) && card.earlierAcknowledgedAt ? element("p", { class: "earlier" }, `You acknowledged an earlier version on ${dayOf(card.earlierAcknowledgedAt)}. Please read it again.`) : null,
    card.actions.length ? element("p", { class: "acts" }, ...card.actions.map(({ label, url }) => link(url, "button", label))) : null,
    isOpen ? element("details", {}, element("summary", {}, "Why am I seeing this?"), `${card.why}.`) : null,
    element(
      "div", { class: "acts" },
      element("span", { class: "from" }, `From ${card.senderName}`),
      mustAck(card) ? press("acknowledge", "I have read and understood", "primary") : null,
      card.read ? null : press("read", "Mark read", "quiet"),
    ),
  );
}

function metaOf(card) {
  const loud = { URGENT: "Urgent", HIGH: "High" }[card.priority];
  const due = card.ackDueAt && dayOf(card.ackDueAt);
  return element(
    "p", { class: "meta" },
    card.read ? null : element("span", { class: "dot" }, element("span", { class: "sr" }, "Unread")),
    loud ? element("span", { class: card.priority }, icon(ALERT), loud) : null,
    mustAck(card) ? element("span", {}, due ? `To acknowledge by ${due}` : "To acknowledge") : null,
    card.category ? element("span", {}, card.category) : null,
    timeOf(card.publishedAt ?? card.createdAt),
  );
}

// Make `list` hold the articles of `cards`, then `last`. What did not change keeps its place and its element, so that neither focus nor
// scrolling is lost; a focus whose article went goes on to the next one, or to `refuge`.
function drawCards(list, cards, { opened, does, last, refuge }) {
  const root = list.getRootNode(), known = new Map([...list.querySelectorAll("article")].map((one) => [Number(one.dataset.id), one]));
  const wanted = [...cards.map((card) => redrawn(card, known.get(card.id), opened.has(card.id), does, root)), last];
  for (const one of [...list.children]) {
    if (wanted.includes(one)) continue;
    if (one.contains(root.activeElement)) (one.nextElementSibling?.querySelector(".title") ?? refuge).focus({ preventScroll: true });
    one.remove();
  }
  let at = list.firstElementChild;
  for (const one of wanted) {
    if (one === at) at = at.nextElementSibling;
    else list.insertBefore(one, at);
  }
}

function redrawn(card, known, isOpen, does, root) {
  const look = JSON.stringify([card.revision, card.read, card.acknowledgedAt, card.earlierAcknowledgedAt, isOpen]);
  if (known?.dataset.look === look) return known;
  const fresh = articleOf(card, isOpen, does), focused = known?.contains(root.activeElement) && root.activeElement;
  fresh.dataset.look = look;
  known?.replaceWith(fresh);
  if (focused) (fresh.querySelector(`[data-does="${focused.dataset.does}"]`) ?? fresh.querySelector(".title")).focus({ preventScroll: true });
  return fresh;
}

function bannerOf(card, { show, dismiss }) {
  const isUrgent = card.priority === "URGENT";
  return element(
    "div", { class: isUrgent ? "banner urgent" : "banner", "data-of": card.id, role: isUrgent && "alert" },
    icon(ALERT),
    element(
      "p", {},
      element("span", { class: "sr" }, isUrgent ? "Urgent: " : "High priority: "),
      element("button", { type: "button", class: "title", dir: "auto", onclick: show }, card.title),
    ),
    element("button", { type: "button", class: "close", "aria-label": `Dismiss: ${card.title}`, onclick: dismiss }, icon(CLOSE)),
  );
}

// Whether this person wants no banner of it now; only URGENT breaks through.
function isSilenced({ category, priority }, { mutedCategories, mandatory, minimumPriority, heldUntil }) {
  if (priority === "URGENT") return false;
  const isMuted = mutedCategories.includes(category) && !mandatory.includes(category);
  return isMuted || RANK.indexOf(priority) < RANK.indexOf(minimumPriority) || Date.parse(heldUntil) > Date.now();
}
