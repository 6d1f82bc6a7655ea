// Forms whose text must not be lost (`data-keep`, with the address of their page). They are posted with fetch, so that the page
// stays as it is when the server is unreachable, busy, or wants a new sign-in, and the user can try again. Without this script the
// browser posts such a form, and the server returns it filled in.
"use strict";

{
  const page = window.broadcastPage;
  const user = document.body.dataset.user;
  const REQUEST_TIMEOUT_MS = 30000; // longer than any request takes; a retry sends the same idempotency key
  const NEVER_STORED = ["csrf_token", "resume"];
  const MAX_BODY_BYTES = 256 * 1024; // unless the form allows more (data-most-bytes)
  const changedForms = new Set(), pendingForms = new Set();
  let isLeaving = false;

  const findKeptForms = (root = document) => [...root.querySelectorAll("form[data-keep]")];
  const isChanged = (form) => form.isConnected && changedForms.has(form);
  const getPageAddress = (form) => form.dataset.keep || location.pathname;
  const getStorageKey = (form) => `form ${user} ${getPageAddress(form)} ${form.getAttribute("action")}`;

  page.hasChanges = () => [...changedForms].some(isChanged);
  page.markSaved = (form) => changedForms.delete(form);

  // Leave the page without the user's doing; but never leave a form with changes, which says so instead.
  page.leave = (address) => {
    const form = [...changedForms].find(isChanged);
    if (form) showSignedOut(form);
    else location.assign(address);
  };

  document.addEventListener("input", ({ target }) => markChanged(target));
  document.addEventListener("change", ({ target }) => markChanged(target));
  function markChanged(field) {
    const form = field.form?.matches("[data-keep]") ? field.form : null;
    if (form && field.name) changedForms.add(form);
  }

  window.addEventListener("beforeunload", (event) => {
    if (!isLeaving && [...changedForms].some((form) => isChanged(form) && form.querySelector("textarea"))) event.preventDefault();
  });
  window.addEventListener("pageshow", () => { isLeaving = false; pendingForms.clear(); });

  // ---- posting

  document.addEventListener("submit", (event) => {
    const form = event.target, button = event.submitter;
    if (event.defaultPrevented || !form.matches("form[data-keep]")) return;
    if (button?.matches("[data-plain]")) { isLeaving = true; setTimeout(() => { isLeaving = false; }, 1000); return; } // a download: the page stays
    event.preventDefault();
    if (!pendingForms.has(form)) submitForm(form, button);
  });

  async function submitForm(form, button, isRetry = false) {
    pendingForms.add(form);
    button?.setAttribute("aria-busy", "true");
    const result = await sendForm(form, button);
    const shouldRetry = result.status === 403 && !isRetry && await renewToken(form);
    if (!shouldRetry) button?.removeAttribute("aria-busy");
    pendingForms.delete(form);
    if (shouldRetry) return submitForm(form, button, true);
    if (result.to) return navigateTo(form, result.to);
    if (result.html && replaceMain(form, result.html)) return;
    form.dispatchEvent(new CustomEvent("form:failed"));
    if (result.status === 401) showSignedOut(form, button);
    else showProblem(form, `${result.sentence} Your text is kept.`, button);
  }

  // Resolves to {status, to} (an address to go to) or {status, html, sentence}. Never rejects.
  async function sendForm(form, button) {
    const formData = new FormData(form, button ?? null);
    const isFile = form.enctype === "multipart/form-data";
    const body = isFile ? formData : new URLSearchParams([...formData].filter(([, value]) => typeof value === "string"));
    const maxBytes = Number(form.dataset.mostBytes || MAX_BODY_BYTES);
    if (!isFile && body.toString().length > maxBytes) {
      return { status: 413, sentence: `This is larger than the limit of ${Math.floor(maxBytes / 1024).toLocaleString("en")} KiB.` };
    }
    const headers = { Accept: "application/json, text/html;q=0.9", "X-Form": "script" };
    const options = { method: "POST", body, headers, redirect: "manual", signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) };
    const response = await fetch(form.action, options).catch(() => null);
    if (!response) return { status: 0, sentence: "The server could not be reached. Please try again." };
    const text = await response.text().catch(() => "");
    const { status } = response, contentType = response.headers.get("Content-Type") ?? "";
    if (response.headers.has("X-Location")) return { status, to: response.headers.get("X-Location") };
    if (response.type === "opaqueredirect") return { status: 401 };
    const isPage = contentType.startsWith("text/html") && (response.ok || [409, 422].includes(status));
    return { status, html: isPage ? text : "", sentence: parseDetail(text) ?? STATUS_MESSAGES[status] ?? "Something went wrong. Please try again." };
  }

  const STATUS_MESSAGES = {
    409: "This has changed since you opened the page.",
    413: "This is too large to send.",
    429: "Too many requests. Please wait a moment.",
    502: "The server is busy. Please try again.",
    503: "The server is busy. Please try again.",
    504: "This may or may not have been saved. Check before you try again.",
  };

  function parseDetail(text) {
    try { return JSON.parse(text).detail; } catch { return null; }
  }

  // If the page belongs to an earlier session of the same user, take the CSRF token of the current one. Resolves to whether it did.
  async function renewToken(form) {
    const response = await fetch("/session", { headers: { Accept: "application/json" } }).catch(() => null);
    const session = response?.ok ? await response.json().catch(() => null) : null;
    if (!session || String(session.user) !== user || session.csrf === form.elements.csrf_token.value) return false;
    document.body.dataset.csrf = session.csrf;
    document.body.setAttribute("hx-headers:inherited", JSON.stringify({ "X-CSRFToken": session.csrf }));
    for (const field of document.querySelectorAll("input[name=csrf_token]")) field.value = session.csrf;
    return true;
  }

  function navigateTo(form, address) {
    changedForms.delete(form);
    isLeaving = true;
    location.assign(address);
  }

  // Replace the main part of the page by the one that the server rendered, say with validation errors. Returns whether there was one.
  function replaceMain(form, html) {
    const newDocument = new DOMParser().parseFromString(html, "text/html"), main = document.getElementById("main");
    const newMain = newDocument.getElementById("main");
    if (!newMain) return false;
    const wasChanged = changedForms.delete(form), action = form.getAttribute("action");
    main.replaceChildren(...newMain.childNodes);
    document.title = newDocument.title;
    const isSameForm = (other) => other.getAttribute("action") === action && [...other.querySelectorAll("textarea")].some((field) => field.value);
    for (const other of findKeptForms(main)) if (wasChanged && isSameForm(other)) changedForms.add(other); // a form that succeeded comes back empty
    window.htmx?.process(main);
    page.updateTimes(main);
    document.dispatchEvent(new Event("page:drawn"));
    const focusTarget = ["#errors", "[aria-invalid=true]", "[role=alert]", "h1"].map((selector) => main.querySelector(selector)).find(Boolean);
    if (focusTarget && !focusTarget.matches("input, textarea, select")) focusTarget.tabIndex = -1;
    focusTarget?.focus();
    return true;
  }

  // ---- problems, shown beside the button that was pressed

  function showProblem(form, sentence, button = null, link = null) {
    form.querySelector("[data-problem]")?.remove();
    const notice = document.createElement("div"), paragraph = document.createElement("p");
    notice.className = "notice danger";
    notice.dataset.problem = "";
    notice.tabIndex = -1;
    notice.setAttribute("role", "alert");
    paragraph.textContent = sentence;
    if (link) paragraph.append(" ", link);
    notice.append(paragraph);
    const anchor = button ?? [...form.querySelectorAll("button:not([type=button])")].find((candidate) => candidate.offsetParent) ?? form.lastElementChild;
    const actionBar = form.querySelector(".send-bar") ?? anchor?.closest(".send-bar, .actions, .bulk-actions") ?? anchor;
    if (actionBar && form.contains(actionBar)) actionBar.before(notice);
    else form.append(notice);
    notice.scrollIntoView({ block: "nearest" });
  }

  function showSignedOut(form, button = null) {
    if (form.querySelector("[data-problem] a")) return; // it is shown already
    const link = document.createElement("a");
    link.href = `/login?${new URLSearchParams({ next: getPageAddress(form) })}`;
    link.textContent = "Sign in";
    link.addEventListener("click", () => {
      isLeaving = storeForm(form);
    });
    showProblem(form, "You are signed out. Sign in to continue. Your text is kept.", button, link);
  }

  // ---- across a sign-in: the form is stored for this tab and this user only, until it is filled in again

  function storeForm(form) {
    const fields = [...new FormData(form)].filter(([name, value]) => typeof value === "string" && mayStoreField(form, name));
    try {
      sessionStorage.setItem(getStorageKey(form), JSON.stringify(fields));
      return true;
    } catch {
      return false; // storage is full or forbidden: the browser asks before leaving
    }
  }

  const mayStoreField = (form, name) => !NEVER_STORED.includes(name) && form.elements[name]?.type !== "password";

  function restoreForm(form) {
    let fields = null;
    try {
      fields = JSON.parse(sessionStorage.getItem(getStorageKey(form)));
      sessionStorage.removeItem(getStorageKey(form));
    } catch { /* nothing is stored */ }
    if (!fields) return;
    const values = new Map();
    for (const [name, value] of fields) values.set(name, [...(values.get(name) ?? []), value]);
    for (const field of form.elements) {
      if (!field.name || field.type === "file" || !mayStoreField(form, field.name)) continue;
      const storedValues = values.get(field.name) ?? [];
      if (["checkbox", "radio"].includes(field.type)) field.checked = storedValues.includes(field.value);
      else if (field.tagName !== "BUTTON" && storedValues.length) field.value = storedValues[0];
    }
    for (const details of form.querySelectorAll("details")) if (details.querySelector("textarea, input:not([type=hidden])")) details.open = true;
    form.closest("details")?.setAttribute("open", "");
    changedForms.add(form);
    showProblem(form, "Your text from before you signed in again is restored. Nothing has been sent.");
    window.addEventListener("load", () => form.querySelector("textarea, input:not([type=hidden])")?.dispatchEvent(new Event("input", { bubbles: true })));
  }

  findKeptForms().forEach(restoreForm);
  // remove what another user of this browser stored
  try {
    for (const storageKey of Object.keys(sessionStorage)) if (storageKey.startsWith("form ") && !storageKey.startsWith(`form ${user} `)) sessionStorage.removeItem(storageKey);
  } catch { /* storage is forbidden */ }
}
