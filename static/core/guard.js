// Protects against accidental input when something appears by itself: an irreversible control ignores clicks and keys during its
// first second, nothing takes the focus while the user types, and the focus never falls back to the top of the page.
"use strict";

{
  const page = window.broadcastPage;
  const DISABLE_MS = 1000;
  const CONTROL_SELECTOR = "button, a[href]";
  const TEXT_FIELD_SELECTOR = "input:not([type=checkbox], [type=radio], [type=button], [type=submit], [type=reset], [type=file]), textarea, [contenteditable=true]";
  const IRREVERSIBLE_SELECTOR = "[data-final]"; // buttons of forms that cannot be undone: see the templates

  // ---- disabling for a moment: by aria-disabled, which is visible, announced, and keeps the focus

  const enableTimers = new WeakMap();

  // Disable the controls in `root` that match `selector` for one second.
  page.disableBriefly = (root, selector = CONTROL_SELECTOR) => {
    const controls = [...root.querySelectorAll(selector), ...(root.matches(selector) ? [root] : [])];
    for (const control of controls) {
      clearTimeout(enableTimers.get(control));
      control.setAttribute("aria-disabled", "true");
      enableTimers.set(control, setTimeout(enableControl, DISABLE_MS, control));
    }
  };

  const enableControl = (control) => { enableTimers.delete(control); control.removeAttribute("aria-disabled"); };
  page.isBrieflyDisabled = (element) => enableTimers.has(element?.closest?.("[aria-disabled=true]"));

  function blockEvent(event) {
    if (!page.isBrieflyDisabled(event.type === "submit" ? event.submitter : event.target)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  }
  for (const name of ["click", "auxclick", "submit"]) window.addEventListener(name, blockEvent, true);

  // Disable an irreversible button whenever it becomes visible: with its page, its step, or a `details` that opens.
  const visibilityObserver = new MutationObserver((records) => { for (const { target } of records) if (!target.hidden) page.disableBriefly(target); });
  for (const control of document.querySelectorAll(IRREVERSIBLE_SELECTOR)) {
    page.disableBriefly(control);
    visibilityObserver.observe(control, { attributeFilter: ["hidden"] });
  }
  document.addEventListener("toggle", ({ target }) => { if (target.open) page.disableBriefly(target, IRREVERSIBLE_SELECTOR); }, true);

  // ---- typing

  let typedAt = -Infinity, isComposing = false;
  const isTextField = (element) => Boolean(element?.matches?.(TEXT_FIELD_SELECTOR));

  window.addEventListener("keydown", (event) => { if (isTextField(event.target)) typedAt = performance.now(); }, true);
  window.addEventListener("compositionstart", () => { isComposing = true; }, true);
  window.addEventListener("compositionend", () => { isComposing = false; typedAt = performance.now(); }, true);

  page.isTyping = () => isTextField(document.activeElement) && (isComposing || performance.now() - typedAt < DISABLE_MS);
  page.runAfterTyping = (callback) => { if (page.isTyping()) setTimeout(page.runAfterTyping, DISABLE_MS / 4, callback); else callback(); };

  // Open a dialog that the user did not ask for: its heading gets the focus, its buttons are disabled for a moment, and what the user
  // keeps typing goes to the field that they were in.
  page.openUnsolicitedDialog = (dialog, heading) => {
    const field = isTextField(document.activeElement) ? document.activeElement : null;
    dialog.showModal();
    heading.focus({ preventScroll: true });
    page.disableBriefly(dialog);
    const redirectKey = (event) => {
      if (!page.isBrieflyDisabled(dialog.querySelector(CONTROL_SELECTOR))) return dialog.removeEventListener("keydown", redirectKey, true);
      if (event.key === "Tab" || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      event.stopPropagation();
      if (field && insertKey(field, event)) page.disableBriefly(dialog);
    };
    dialog.addEventListener("keydown", redirectKey, true);
  };

  // Do to `field` what the key does in a focused text field. Returns whether the key edits text.
  function insertKey(field, { key }) {
    const isNewline = key === "Enter" && field.matches("textarea"), isBackspace = key === "Backspace";
    if (!(key.length === 1 || isNewline || isBackspace)) return false;
    if (typeof field.selectionStart !== "number") return true; // a date or number field has no selection to insert at
    const start = isBackspace && field.selectionStart === field.selectionEnd ? Math.max(0, field.selectionStart - 1) : field.selectionStart;
    field.setRangeText(isNewline ? "\n" : isBackspace ? "" : key, start, field.selectionEnd, "end");
    field.dispatchEvent(new Event("input", { bubbles: true }));
    return true;
  }

  // ---- the focus

  const focusMovedAt = new WeakMap();

  // Move the focus without the user's doing: without scrolling, and a control is disabled for a moment, since the next key may be meant
  // for the previous focus.
  page.moveFocus = (element) => {
    if (!element.matches("a[href], button, input, select, textarea, summary, [tabindex]")) element.tabIndex = -1;
    element.focus({ preventScroll: true });
    focusMovedAt.set(element, performance.now());
    if (element.matches(CONTROL_SELECTOR)) page.disableBriefly(element);
  };
  page.hasJustReceivedFocus = (element) => performance.now() - (focusMovedAt.get(element) ?? -Infinity) < DISABLE_MS;

  // Where the focus goes if nothing nearer is left: the heading of the page's content.
  page.findFallbackFocus = () => document.getElementById("list-title") ?? document.querySelector(".card.standalone, main h1") ?? document.getElementById("main");

  // If the focused element goes away (removed, hidden, closed with its dialog), its card gets the focus, else the fallback.
  let lastFocused = null, lastFocusedCard = null, pendingFrame = 0;
  const isLastFocusedGone = () => lastFocused && !(lastFocused.isConnected && lastFocused.checkVisibility({ visibilityProperty: true }));

  document.addEventListener("focusin", ({ target }) => { lastFocused = target; lastFocusedCard = target.closest(".card"); });
  document.addEventListener("focusout", () => queueMicrotask(() => {
    if (document.hasFocus() && document.activeElement === document.body && !isLastFocusedGone()) lastFocused = null; // the user left it on purpose
  }));

  function restoreFocus() {
    pendingFrame = 0;
    if (document.activeElement !== document.body || !isLastFocusedGone()) return;
    const isCardVisible = lastFocusedCard?.isConnected && lastFocusedCard.checkVisibility() && !lastFocusedCard.classList.contains("leaving");
    page.moveFocus(isCardVisible ? lastFocusedCard : page.findFallbackFocus());
  }

  new MutationObserver(() => { pendingFrame ||= lastFocused ? requestAnimationFrame(() => setTimeout(restoreFocus)) : 0; }).observe(document.body, {
    subtree: true, childList: true, attributeFilter: ["hidden", "open", "class", "disabled", "inert", "data-unread", "data-acked", "data-archived"],
  });
}
