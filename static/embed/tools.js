// What embed.js is made of: shared/*.js, then from here tools.js, server.js, cards.js, line.js, inbox.js, with sheet.css as
// SHEET; `web/embedding.py` puts them together. Here: limits, elements without HTML, and reading a stream. Nothing here knows what a
// message is.

// The page's markup is not ours: <img name=currentScript> hides the property of `document` with that name, and somebody who may write
// no script could choose by it where tokens are sent. So what is asked of a document is asked of its class.
const own = (name, of = document) => Reflect.get(Document.prototype, name, of);
const on = (target, ...given) => EventTarget.prototype.addEventListener.call(target, ...given);
const script = own("currentScript");
if (!(script instanceof HTMLScriptElement)) throw new Error("embed.js must be loaded by a classic script element: <script defer src>");
const HOME = new URL(script.src).origin;
const FIRST_MS = 500, MOST_MS = 30000; // the growing pause between tries; it never gives up
const HIDDEN_MS = 30000; // how long a page that nobody sees keeps the stream
const HOLD_MS = 1000; // what appears by itself takes no press for so long: it may be meant for what was there before
const SAY_MS = 5000; // the status line speaks at most that often
const MOST_BANNERS = 3, PAGE = 20;

// ---- elements

function element(name, attributes = {}, ...children) {
  const made = own("createElement").call(document, name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") made.addEventListener("click", (event) => { if (!isHeld(made)) value(event); });
    else if (value !== false && value != null) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

function icon(path) {
  const svg = own("createElementNS").call(document, "http://www.w3.org/2000/svg", "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" })) svg.setAttribute(key, value);
  const line = own("createElementNS").call(document, "http://www.w3.org/2000/svg", "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

const textNode = (text) => own("createTextNode").call(document, text);

// Let the buttons in `root`, or only those that match, do nothing for a moment.
function hold(root, which = "button") {
  for (const button of root.querySelectorAll(which)) {
    button.setAttribute("aria-disabled", "true");
    setTimeout(() => button.removeAttribute("aria-disabled"), HOLD_MS);
  }
}
const isHeld = (button) => button.getAttribute("aria-disabled") === "true";

const within = (ms) => ms * (0.7 + 0.6 * Math.random());
const wait = (ms, signal) => new Promise((done) => {
  const timer = setTimeout(done, ms);
  signal?.addEventListener("abort", () => { clearTimeout(timer); done(); }, { once: true });
});

const seqOf = (cursor) => Number(/-(\d+)$/.exec(cursor ?? "")?.[1] ?? 0); // a cursor is "epoch-seq"
const epochOf = (cursor) => /^(\w+)-/.exec(cursor ?? "")?.[1];

// ---- server-sent events over fetch (HTML standard, 9.2.6): calls `hear(name, data, id)` and `retry(ms)` until the end

async function readEvents(body, hear, retry) {
  const stream = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", event = { name: "message", data: [], id: null };
  for (;;) {
    const { done, value } = await stream.read();
    if (done) return;
    const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      const [, field, text] = /^([^:]*)(?:: ?(.*))?$/s.exec(line);
      if (line === "") {
        if (event.data.length) hear(event.name, event.data.join("\n"), event.id);
        event = { name: "message", data: [], id: null };
      } else if (field === "data") event.data.push(text ?? "");
      else if (field === "event") event.name = text;
      else if (field === "id") event.id = text;
      else if (field === "retry" && /^\d+$/.test(text)) retry(Number(text));
    }
  }
}

// A status line: one polite sentence, at most one in five seconds, and the newest wins. `shown`: also to be seen.
function speaker(line) {
  let next = null, quiet = 0, arrived = 0;
  const speak = () => {
    quiet = 0;
    line.classList.toggle("shown", Boolean(next?.[1]));
    if (!next) return;
    line.textContent = next[0];
    next = null;
    arrived = 0;
    quiet = setTimeout(speak, SAY_MS);
  };
  const say = (sentence, shown = false) => {
    next = [sentence, shown];
    if (!quiet) speak();
  };
  say.arrived = () => { arrived += 1; say(arrived === 1 ? "1 new message" : `${arrived} new messages`); };
  return say;
}
