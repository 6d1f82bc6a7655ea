// Renders a message: its text, its article, its banner. No HTML is trusted here, and no requests are made.

const PRIORITIES = ["LOW", "NORMAL", "HIGH", "URGENT"];
const BELL_ICON = "M10.268 21a2 2 0 0 0 3.464 0M3.262 15.326A1 1 0 0 0 4 17h16a1 1 0 0 0 .74-1.673C19.41 13.956 18 12.499 18 8A6 6 0 0 0 6 8c0 4.499-1.411 5.956-2.738 7.326";
const ALERT_ICON = "m21.73 18-8-14a2 2 0 0 0-3.48 0l-8 14A2 2 0 0 0 4 21h16a2 2 0 0 0 1.73-3M12 9v4M12 17h.01";
const CLOSE_ICON = "M18 6 6 18M6 6l12 12";

// The server sanitised the HTML (nh3); here it is parsed into an inert document, and only these elements are rebuilt from it.
const ALLOWED_TAGS = new Set("p br hr strong em s code pre blockquote ul ol li a h3 h4 h5 h6 table thead tbody tr th td".split(" "));
let htmlPolicy = { createHTML: (html) => html };
try { htmlPolicy = window.trustedTypes?.createPolicy("broadcast-inbox", htmlPolicy) ?? htmlPolicy; } catch { /* the page's policy forbids it: see createBody */ }

function createBody({ content, contentHtml }) {
  const body = createElement("div", { class: "text", dir: "auto" });
  try {
    const parsed = new DOMParser().parseFromString(htmlPolicy.createHTML(contentHtml), "text/html");
    body.append(...[...readDocumentProperty("body", parsed).childNodes].map(copyNode));
  } catch {
    body.append(createElement("p", { class: "plain-text" }, content)); // Trusted Types forbid our policy: show the plain text
  }
  return body;
}

function copyNode(node) {
  if (node.nodeType !== Node.ELEMENT_NODE) return createTextNode(node.nodeType === Node.TEXT_NODE ? node.data : "");
  const children = [...node.childNodes].map(copyNode), name = node.localName;
  if (!ALLOWED_TAGS.has(name)) return createTextNode(node.textContent);
  return name === "a" ? createLink(node.getAttribute("href"), null, ...children) : createElement(name, {}, ...children);
}

function createLink(href, style, ...children) {
  const isSafe = /^(https?:|mailto:)/i.test(href ?? "");
  return createElement("a", { href: isSafe && href, class: style, target: "_blank", rel: "noopener noreferrer nofollow" }, ...children);
}

function formatAge(moment) {
  const minutes = Math.floor((Date.now() - moment) / 60000);
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${minutes} min ago`;
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ago`;
  return moment.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" });
}

function createTime(text) {
  const moment = new Date(text);
  const exact = moment.toLocaleString("en-GB", { dateStyle: "full", timeStyle: "short" });
  return createElement("time", { datetime: text, title: exact }, formatAge(moment));
}

// ---- a message: its article in the list, its banner above the page. `actions` has a function of the message id for each action.

const formatDate = (moment) => new Date(moment).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
const mustAcknowledge = (card) => card.requiresAck && !card.acknowledgedAt;

function createArticle(card, isOpen, actions) {
  const createActionButton = (action, text, style) => createElement("button", { type: "button", class: `button ${style}`, "data-does": action, onclick: () => actions[action](card.id) }, text, createElement("span", { class: "visually-hidden" }, `: ${card.title}`));
  const title = createElement("button", { type: "button", class: "title", dir: "auto", "data-does": "open", "aria-expanded": String(isOpen), onclick: () => actions.open(card.id) }, card.title);
  return createElement(
    "article", { "data-id": card.id, "data-unread": !card.read, class: isOpen && "expanded", "aria-labelledby": `title-${card.id}` },
    createMeta(card),
    createElement("h3", { id: `title-${card.id}` }, title),
    createBody(card),
    mustAcknowledge(card) && card.earlierAcknowledgedAt ? createElement("p", { class: "acknowledged-earlier" }, `You acknowledged an earlier version on ${formatDate(card.earlierAcknowledgedAt)}. Please read it again.`) : null,
    card.actions.length ? createElement("p", { class: "actions" }, ...card.actions.map(({ label, url }) => createLink(url, "button", label))) : null,
    isOpen ? createElement("details", {}, createElement("summary", {}, "Why am I seeing this?"), `${card.why}.`) : null,
    createElement(
      "div", { class: "actions" },
      createElement("span", { class: "sender" }, `From ${card.senderName}`),
      mustAcknowledge(card) ? createActionButton("acknowledge", "I have read and understood", "primary") : null,
      card.read ? null : createActionButton("read", "Mark read", "quiet"),
    ),
  );
}

function createMeta(card) {
  const priorityLabel = { URGENT: "Urgent", HIGH: "High" }[card.priority];
  const dueText = card.ackDueAt && formatDate(card.ackDueAt);
  return createElement(
    "p", { class: "meta" },
    card.read ? null : createElement("span", { class: "unread-dot" }, createElement("span", { class: "visually-hidden" }, "Unread")),
    priorityLabel ? createElement("span", { class: card.priority }, createIcon(ALERT_ICON), priorityLabel) : null,
    mustAcknowledge(card) ? createElement("span", {}, dueText ? `Acknowledge by ${dueText}` : "To acknowledge") : null,
    card.category ? createElement("span", {}, card.category) : null,
    createTime(card.publishedAt ?? card.createdAt),
  );
}

// Make `list` contain the articles of `cards`, then `lastElement`. An unchanged article keeps its element, so that focus and scroll
// position are kept; if the focused article is removed, the next one gets the focus, else `fallbackFocus`.
function renderCards(list, cards, { openIds, actions, lastElement, fallbackFocus }) {
  const root = list.getRootNode(), existing = new Map([...list.querySelectorAll("article")].map((article) => [Number(article.dataset.id), article]));
  const elements = [...cards.map((card) => renderCard(card, existing.get(card.id), openIds.has(card.id), actions, root)), lastElement];
  for (const child of [...list.children]) {
    if (elements.includes(child)) continue;
    if (child.contains(root.activeElement)) (child.nextElementSibling?.querySelector(".title") ?? fallbackFocus).focus({ preventScroll: true });
    child.remove();
  }
  let position = list.firstElementChild;
  for (const wantedElement of elements) {
    if (wantedElement === position) position = position.nextElementSibling;
    else list.insertBefore(wantedElement, position);
  }
}

function renderCard(card, existing, isOpen, actions, root) {
  const signature = JSON.stringify([card.revision, card.read, card.acknowledgedAt, card.earlierAcknowledgedAt, isOpen]);
  if (existing?.dataset.look === signature) return existing;
  const article = createArticle(card, isOpen, actions), focusedElement = existing?.contains(root.activeElement) && root.activeElement;
  article.dataset.look = signature;
  existing?.replaceWith(article);
  if (focusedElement) (article.querySelector(`[data-does="${focusedElement.dataset.does}"]`) ?? article.querySelector(".title")).focus({ preventScroll: true });
  return article;
}

function createBanner(card, { show, dismiss }) {
  const isUrgent = card.priority === "URGENT";
  return createElement(
    "div", { class: isUrgent ? "banner urgent" : "banner", "data-of": card.id, role: isUrgent && "alert" },
    createIcon(ALERT_ICON),
    createElement(
      "p", {},
      createElement("span", { class: "visually-hidden" }, isUrgent ? "Urgent: " : "High priority: "),
      createElement("button", { type: "button", class: "title", dir: "auto", onclick: show }, card.title),
    ),
    createElement("button", { type: "button", class: "close", "aria-label": `Dismiss: ${card.title}`, onclick: dismiss }, createIcon(CLOSE_ICON)),
  );
}

// Whether the user's preferences silence the banner of this message now; only URGENT breaks through.
function isSilenced({ category, priority }, { mutedCategories, mandatory, minimumPriority, heldUntil }) {
  if (priority === "URGENT") return false;
  const isMuted = mutedCategories.includes(category) && !mandatory.includes(category);
  return isMuted || PRIORITIES.indexOf(priority) < PRIORITIES.indexOf(minimumPriority) || Date.parse(heldUntil) > Date.now();
}
