// Between what appears by itself and a hand that was on its way to something else: what cannot be undone takes no click and no
// key in its first second, nothing takes the focus from somebody who types, and the focus never falls to the top of the page.
"use strict";

{
  const page = window.broadcastPage;
  const HOLD_MS = 1000;
  const CONTROLS = "button, a[href]";
  const FIELDS = "input:not([type=checkbox], [type=radio], [type=button], [type=submit], [type=reset], [type=file]), textarea, [contenteditable=true]";
  const FINAL = "[data-final]"; // buttons of forms that cannot be taken back: see the templates

  // ---- holding: aria-disabled, so that it is seen, heard and keeps its focus

  const timers = new WeakMap();

  // Let the controls of `root` (or only those that match) do nothing for a second from now.
  page.hold = (root, which = CONTROLS) => {
    const found = [...root.querySelectorAll(which), ...(root.matches(which) ? [root] : [])];
    for (const control of found) {
      clearTimeout(timers.get(control));
      control.setAttribute("aria-disabled", "true");
      timers.set(control, setTimeout(release, HOLD_MS, control));
    }
  };

  const release = (control) => { timers.delete(control); control.removeAttribute("aria-disabled"); };
  page.isHeld = (element) => timers.has(element?.closest?.("[aria-disabled=true]"));

  function swallow(event) {
    if (!page.isHeld(event.type === "submit" ? event.submitter : event.target)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  }
  for (const name of ["click", "auxclick", "submit"]) window.addEventListener(name, swallow, true);

  // Whenever such a button comes into view: with its page, its step, or the part that was folded up.
  const watcher = new MutationObserver((records) => { for (const { target } of records) if (!target.hidden) page.hold(target); });
  for (const control of document.querySelectorAll(FINAL)) {
    page.hold(control);
    watcher.observe(control, { attributeFilter: ["hidden"] });
  }
  document.addEventListener("toggle", ({ target }) => { if (target.open) page.hold(target, FINAL); }, true);

  // ---- typing

  let typedAt = -Infinity, isComposing = false;
  const isField = (element) => Boolean(element?.matches?.(FIELDS));

  window.addEventListener("keydown", (event) => { if (isField(event.target)) typedAt = performance.now(); }, true);
  window.addEventListener("compositionstart", () => { isComposing = true; }, true);
  window.addEventListener("compositionend", () => { isComposing = false; typedAt = performance.now(); }, true);

  page.isTyping = () => isField(document.activeElement) && (isComposing || performance.now() - typedAt < HOLD_MS);
  page.afterTyping = (run) => { if (page.isTyping()) setTimeout(page.afterTyping, HOLD_MS / 4, run); else run(); };

  // Open a dialog that nobody asked for: its heading gets the focus, its buttons wait, and who typed on without looking finds the
  // text where it was meant to go.
  page.openUnasked = (dialog, heading) => {
    const field = isField(document.activeElement) ? document.activeElement : null;
    dialog.showModal();
    heading.focus({ preventScroll: true });
    page.hold(dialog);
    const typeOn = (event) => {
      if (!page.isHeld(dialog.querySelector(CONTROLS))) return dialog.removeEventListener("keydown", typeOn, true);
      if (event.key === "Tab" || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      event.stopPropagation();
      if (field && insert(field, event)) page.hold(dialog);
    };
    dialog.addEventListener("keydown", typeOn, true);
  };

  // What the key would have done to a text field that has the focus. Returns whether it was a key of text.
  function insert(field, { key }) {
    const isLine = key === "Enter" && field.matches("textarea"), isBack = key === "Backspace";
    if (!(key.length === 1 || isLine || isBack)) return false;
    if (typeof field.selectionStart !== "number") return true; // a date or a number has no place for it
    const from = isBack && field.selectionStart === field.selectionEnd ? Math.max(0, field.selectionStart - 1) : field.selectionStart;
    field.setRangeText(isLine ? "\n" : isBack ? "" : key, from, field.selectionEnd, "end");
    field.dispatchEvent(new Event("input", { bubbles: true }));
    return true;
  }

  // ---- the focus

  const arrivals = new WeakMap();

  // Put the focus where nobody put it: it does not scroll, and the next key is perhaps still meant for what was there before.
  page.moveFocus = (element) => {
    if (!element.matches("a[href], button, input, select, textarea, summary, [tabindex]")) element.tabIndex = -1;
    element.focus({ preventScroll: true });
    arrivals.set(element, performance.now());
    if (element.matches(CONTROLS)) page.hold(element);
  };
  page.hasJustArrived = (element) => performance.now() - (arrivals.get(element) ?? -Infinity) < HOLD_MS;

  // Where it rests when there is nothing nearer: the heading of what the page shows.
  page.restingPlace = () => document.getElementById("list-title") ?? document.querySelector(".card.alone, main h1") ?? document.getElementById("main");

  // What had the focus and went (was removed, hidden, closed with its dialog) leaves it to its card, else to the resting place.
  let last = null, card = null, looking = 0;
  const isGone = () => last && !(last.isConnected && last.checkVisibility({ visibilityProperty: true }));

  document.addEventListener("focusin", ({ target }) => { last = target; card = target.closest(".card"); });
  document.addEventListener("focusout", () => queueMicrotask(() => {
    if (document.hasFocus() && document.activeElement === document.body && !isGone()) last = null; // somebody left it on purpose
  }));

  function look() {
    looking = 0;
    if (document.activeElement !== document.body || !isGone()) return;
    const isThere = card?.isConnected && card.checkVisibility() && !card.classList.contains("leaving");
    page.moveFocus(isThere ? card : page.restingPlace());
  }

  new MutationObserver(() => { looking ||= last ? requestAnimationFrame(() => setTimeout(look)) : 0; }).observe(document.body, {
    subtree: true, childList: true, attributeFilter: ["hidden", "open", "class", "disabled", "inert", "data-unread", "data-acked", "data-archived"],
  });
}
