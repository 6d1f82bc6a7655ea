// Creates elements without HTML, and reads properties of `document` safely. Nothing here knows what a message is.
//
// embed.js is one script made of shared/*.js, this file, event_stream.js, status_line.js, api_client.js, cards.js, stream.js and
// inbox.js, with inbox.css as SHEET; `broadcast/web/embed/pages.py` joins them.

// The page's markup is not ours: <img name=currentScript> shadows that property of `document`, so that whoever may write markup but no
// script could choose where tokens are sent (DOM clobbering). So properties of a document are read through its prototype.
const readDocumentProperty = (name, target = document) => Reflect.get(Document.prototype, name, target);
const addListener = (target, ...args) => EventTarget.prototype.addEventListener.call(target, ...args);
const scriptElement = readDocumentProperty("currentScript");
if (!(scriptElement instanceof HTMLScriptElement)) throw new Error("embed.js must be loaded by a classic script element: <script defer src>");
const SERVER_ORIGIN = new URL(scriptElement.src).origin;
const DISABLE_MS = 1000; // a control that appears by itself ignores clicks for so long: they may be meant for what was there before

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

// Disable the buttons in `root`, or only those that match, for a moment.
function disableBriefly(root, selector = "button") {
  for (const button of root.querySelectorAll(selector)) {
    button.setAttribute("aria-disabled", "true");
    setTimeout(() => button.removeAttribute("aria-disabled"), DISABLE_MS);
  }
}
const isDisabled = (button) => button.getAttribute("aria-disabled") === "true";
