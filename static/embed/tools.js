// What embed.js is made of: shared/*.js, then from here tools.js, server.js, cards.js, line.js, inbox.js, with sheet.css as
// SHEET; `web/embedding.py` puts them together. Here: limits, elements without HTML, and reading a stream. Nothing here knows what a
// message is.

// The page's markup is not ours: <img name=currentScript> hides the property of `document` with that name, and somebody who may write
// no script could choose by it where tokens are sent. So what is asked of a document is asked of its class.
const readDocumentProperty = (name, target = document) => Reflect.get(Document.prototype, name, target);
const addListener = (target, ...args) => EventTarget.prototype.addEventListener.call(target, ...args);
const scriptElement = readDocumentProperty("currentScript");
if (!(scriptElement instanceof HTMLScriptElement)) throw new Error("embed.js must be loaded by a classic script element: <script defer src>");
const SERVER_ORIGIN = new URL(scriptElement.src).origin;
const INITIAL_DELAY_MS = 500, MAX_DELAY_MS = 30000; // the growing pause between tries; it never gives up
const HIDDEN_STREAM_MS = 30000; // how long a page that nobody sees keeps the stream
const DISABLE_MS = 1000; // what appears by itself takes no press for so long: it may be meant for what was there before
const ANNOUNCE_INTERVAL_MS = 5000; // the status line speaks at most that often
const MAX_BANNERS = 3, PAGE_SIZE = 20;

// ---- elements

function createElement(name, attributes = {}, ...children) {
  const element = readDocumentProperty("createElement").call(document, name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") element.addEventListener("click", (event) => { if (!isDisabled(element)) value(event); });
    else if (value !== false && value != null) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

function createIcon(path) {
  const svg = readDocumentProperty("createElementNS").call(document, "http://www.w3.org/2000/svg", "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" })) svg.setAttribute(key, value);
  const pathElement = readDocumentProperty("createElementNS").call(document, "http://www.w3.org/2000/svg", "path");
  pathElement.setAttribute("d", path);
  svg.append(pathElement);
  return svg;
}

const createTextNode = (text) => readDocumentProperty("createTextNode").call(document, text);

// Let the buttons in `root`, or only those that match, do nothing for a moment.
function disableBriefly(root, selector = "button") {
  for (const button of root.querySelectorAll(selector)) {
    button.setAttribute("aria-disabled", "true");
    setTimeout(() => button.removeAttribute("aria-disabled"), DISABLE_MS);
  }
}
const isDisabled = (button) => button.getAttribute("aria-disabled") === "true";

const addJitter = (ms) => ms * (0.7 + 0.6 * Math.random());
const sleep = (ms, signal) => new Promise((resolve) => {
  const timer = setTimeout(resolve, ms);
  signal?.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
});

const parseSeq = (cursor) => Number(/-(\d+)$/.exec(cursor ?? "")?.[1] ?? 0); // a cursor is "epoch-seq"
const parseEpoch = (cursor) => /^(\w+)-/.exec(cursor ?? "")?.[1];

// ---- server-sent events over fetch (HTML standard, 9.2.6): calls `hear(name, data, id)` and `retry(ms)` until the end

async function readEvents(body, handleEvent, setRetryMs) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let remainder = "", event = { name: "message", data: [], id: null };
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (remainder + value).split(/\r\n|\n|\r(?!$)/);
    remainder = lines.pop();
    for (const line of lines) {
      const [, field, text] = /^([^:]*)(?:: ?(.*))?$/s.exec(line);
      if (line === "") {
        if (event.data.length) handleEvent(event.name, event.data.join("\n"), event.id);
        event = { name: "message", data: [], id: null };
      } else if (field === "data") event.data.push(text ?? "");
      else if (field === "event") event.name = text;
      else if (field === "id") event.id = text;
      else if (field === "retry" && /^\d+$/.test(text)) setRetryMs(Number(text));
    }
  }
}

// A status line: one polite sentence, at most one in five seconds, and the newest wins. `shown`: also to be seen.
function createAnnouncer(statusLine) {
  let pending = null, timer = 0, arrivedCount = 0;
  const showPending = () => {
    timer = 0;
    statusLine.classList.toggle("shown", Boolean(pending?.[1]));
    if (!pending) return;
    statusLine.textContent = pending[0];
    pending = null;
    arrivedCount = 0;
    timer = setTimeout(showPending, ANNOUNCE_INTERVAL_MS);
  };
  const announce = (sentence, isVisible = false) => {
    pending = [sentence, isVisible];
    if (!timer) showPending();
  };
  announce.arrived = () => { arrivedCount += 1; announce(arrivedCount === 1 ? "1 new message" : `${arrivedCount} new messages`); };
  return announce;
}
