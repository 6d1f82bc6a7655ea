// Forms whose text must survive (`data-keep`, with the address of the page they stand in): they are posted from here, so that the
// page stays as it is while the server is away, says "later", or wants a new sign-in. Then their buttons can be pressed again.
// Without this script such a form is posted as any other, and the server gives it back in its answer.
"use strict";

{
  const page = window.broadcastPage;
  const user = document.body.dataset.user;
  const ASK_MS = 30000; // longer than the server takes for anything; what it did then is asked for by the same key
  const NEVER_KEPT = ["csrf_token", "resume"];
  const MOST_BYTES = 256 * 1024; // what a form may carry, if it does not say more
  const changed = new Set(), sending = new Set();
  let leaving = false;

  const kept = (root = document) => [...root.querySelectorAll("form[data-keep]")];
  const isChanged = (form) => form.isConnected && changed.has(form);
  const where = (form) => form.dataset.keep || location.pathname;
  const key = (form) => `form ${user} ${where(form)} ${form.getAttribute("action")}`;

  page.hasChanges = () => [...changed].some(isChanged);
  page.saved = (form) => changed.delete(form);

  // Go elsewhere because something happened, not because the person wants it: never away from a form with changes.
  page.leave = (address) => {
    const form = [...changed].find(isChanged);
    if (form) tellSignedOut(form);
    else location.assign(address);
  };

  document.addEventListener("input", ({ target }) => note(target));
  document.addEventListener("change", ({ target }) => note(target));
  function note(field) {
    const form = field.form?.matches("[data-keep]") ? field.form : null;
    if (form && field.name) changed.add(form);
  }

  window.addEventListener("beforeunload", (event) => {
    if (!leaving && [...changed].some((form) => isChanged(form) && form.querySelector("textarea"))) event.preventDefault();
  });
  window.addEventListener("pageshow", () => { leaving = false; sending.clear(); });

  // ---- posting

  document.addEventListener("submit", (event) => {
    const form = event.target, button = event.submitter;
    if (event.defaultPrevented || !form.matches("form[data-keep]")) return;
    if (button?.matches("[data-plain]")) { leaving = true; setTimeout(() => { leaving = false; }, 1000); return; } // a file: the page stays
    event.preventDefault();
    if (!sending.has(form)) post(form, button);
  });

  async function post(form, button, isSecond = false) {
    sending.add(form);
    button?.setAttribute("aria-busy", "true");
    const answer = await ask(form, button);
    const again = answer.status === 403 && !isSecond && await renewToken(form);
    if (!again) button?.removeAttribute("aria-busy");
    sending.delete(form);
    if (again) return post(form, button, true);
    if (answer.to) return go(form, answer.to);
    if (answer.html && draw(form, answer.html)) return;
    form.dispatchEvent(new CustomEvent("form:failed"));
    if (answer.status === 401) tellSignedOut(form, button);
    else tell(form, `${answer.sentence} Nothing you wrote is lost.`, button);
  }

  // What came back: an address to go to, a page to show, or a sentence and a status. Never throws.
  async function ask(form, button) {
    const data = new FormData(form, button ?? null);
    const isFile = form.enctype === "multipart/form-data";
    const body = isFile ? data : new URLSearchParams([...data].filter(([, value]) => typeof value === "string"));
    const most = Number(form.dataset.mostBytes || MOST_BYTES);
    if (!isFile && body.toString().length > most) {
      return { status: 413, sentence: `This is more than the ${Math.floor(most / 1024).toLocaleString("en")} KiB that can be sent at once.` };
    }
    const headers = { Accept: "application/json, text/html;q=0.9", "X-Form": "script" };
    const options = { method: "POST", body, headers, redirect: "manual", signal: AbortSignal.timeout(ASK_MS) };
    const response = await fetch(form.action, options).catch(() => null);
    if (!response) return { status: 0, sentence: "The server could not be reached. Please try again." };
    const text = await response.text().catch(() => "");
    const { status } = response, kind = response.headers.get("Content-Type") ?? "";
    if (response.headers.has("X-Location")) return { status, to: response.headers.get("X-Location") };
    if (response.type === "opaqueredirect") return { status: 401 };
    const isPage = kind.startsWith("text/html") && (response.ok || [409, 422].includes(status));
    return { status, html: isPage ? text : "", sentence: detail(text) ?? SENTENCES[status] ?? "That did not work. Please try again." };
  }

  const SENTENCES = {
    409: "That had changed meanwhile.",
    413: "This is more than can be sent at once.",
    429: "That was too often. Please wait a moment.",
    502: "The server is busy. Please try again.",
    503: "The server is busy. Please try again.",
    504: "It is not known whether this was saved. Look before you try again.",
  };

  function detail(text) {
    try { return JSON.parse(text).detail; } catch { return null; }
  }

  // The page was opened in an earlier session of the same person: take the token of the present one, and try once more.
  async function renewToken(form) {
    const answer = await fetch("/session", { headers: { Accept: "application/json" } }).catch(() => null);
    const session = answer?.ok ? await answer.json().catch(() => null) : null;
    if (!session || String(session.user) !== user || session.csrf === form.elements.csrf_token.value) return false;
    document.body.dataset.csrf = session.csrf;
    document.body.setAttribute("hx-headers:inherited", JSON.stringify({ "X-CSRFToken": session.csrf }));
    for (const field of document.querySelectorAll("input[name=csrf_token]")) field.value = session.csrf;
    return true;
  }

  function go(form, address) {
    changed.delete(form);
    leaving = true;
    location.assign(address);
  }

  // Show the page that the server drew of this form, with its mistakes or with what it was asked to show.
  function draw(form, html) {
    const fresh = new DOMParser().parseFromString(html, "text/html"), main = document.getElementById("main");
    const drawn = fresh.getElementById("main");
    if (!drawn) return false;
    const wasChanged = changed.delete(form), action = form.getAttribute("action");
    main.replaceChildren(...drawn.childNodes);
    document.title = fresh.title;
    const isSame = (other) => other.getAttribute("action") === action && [...other.querySelectorAll("textarea")].some((field) => field.value);
    for (const other of kept(main)) if (wasChanged && isSame(other)) changed.add(other); // what was done empties its form
    window.htmx?.process(main);
    page.tellTimes(main);
    document.dispatchEvent(new Event("page:drawn"));
    const first = ["#errors", "[aria-invalid=true]", "[role=alert]", "h1"].map((one) => main.querySelector(one)).find(Boolean);
    if (first && !first.matches("input, textarea, select")) first.tabIndex = -1;
    first?.focus();
    return true;
  }

  // ---- what is said, beside the button that was pressed

  function tell(form, sentence, button = null, link = null) {
    form.querySelector("[data-problem]")?.remove();
    const notice = document.createElement("div"), words = document.createElement("p");
    notice.className = "notice bad";
    notice.dataset.problem = "";
    notice.tabIndex = -1;
    notice.setAttribute("role", "alert");
    words.textContent = sentence;
    if (link) words.append(" ", link);
    notice.append(words);
    const place = button ?? [...form.querySelectorAll("button:not([type=button])")].find((one) => one.offsetParent) ?? form.lastElementChild;
    const bar = form.querySelector(".send-bar") ?? place?.closest(".send-bar, .actions, .several-acts") ?? place;
    if (bar && form.contains(bar)) bar.before(notice);
    else form.append(notice);
    notice.scrollIntoView({ block: "nearest" });
  }

  function tellSignedOut(form, button = null) {
    if (form.querySelector("[data-problem] a")) return; // it is told already
    const link = document.createElement("a");
    link.href = `/login?${new URLSearchParams({ next: where(form) })}`;
    link.textContent = "Sign in";
    link.addEventListener("click", () => {
      leaving = store(form);
    });
    tell(form, "You are signed out. Nothing you wrote is lost: sign in, and it comes back.", button, link);
  }

  // ---- over a sign-in: kept for this tab and this person alone, until it is filled in again

  function store(form) {
    const fields = [...new FormData(form)].filter(([name, value]) => typeof value === "string" && isKept(form, name));
    try {
      sessionStorage.setItem(key(form), JSON.stringify(fields));
      return true;
    } catch {
      return false; // full, or not allowed: the browser asks before it leaves
    }
  }

  const isKept = (form, name) => !NEVER_KEPT.includes(name) && form.elements[name]?.type !== "password";

  function restore(form) {
    let fields = null;
    try {
      fields = JSON.parse(sessionStorage.getItem(key(form)));
      sessionStorage.removeItem(key(form));
    } catch { /* nothing is kept */ }
    if (!fields) return;
    const values = new Map();
    for (const [name, value] of fields) values.set(name, [...(values.get(name) ?? []), value]);
    for (const field of form.elements) {
      if (!field.name || field.type === "file" || !isKept(form, field.name)) continue;
      const given = values.get(field.name) ?? [];
      if (["checkbox", "radio"].includes(field.type)) field.checked = given.includes(field.value);
      else if (field.tagName !== "BUTTON" && given.length) field.value = given[0];
    }
    for (const fold of form.querySelectorAll("details")) if (fold.querySelector("textarea, input:not([type=hidden])")) fold.open = true;
    form.closest("details")?.setAttribute("open", "");
    changed.add(form);
    tell(form, "What you wrote before you signed in again is back. Nothing of it was sent.");
    window.addEventListener("load", () => form.querySelector("textarea, input:not([type=hidden])")?.dispatchEvent(new Event("input", { bubbles: true })));
  }

  kept().forEach(restore);
  // what another person of this browser kept is nobody's business
  try {
    for (const name of Object.keys(sessionStorage)) if (name.startsWith("form ") && !name.startsWith(`form ${user} `)) sessionStorage.removeItem(name);
  } catch { /* not allowed */ }
}
