// While nodes are upgraded one after the other, a page of one version may ask a node of the other for its files, which are not
// there: 404. This waits until a node has them and loads the page again. It is the first script, and in no version's name, so
// that it comes from every node.
"use strict";

{
  const PAUSES_MS = [300, 1000, 3000];
  const MOST = 5, WITHIN_MS = 600000; // reloads: a file that never comes is no reason to load for ever
  const KEY = "broadcast-reloaded";
  const missing = new Set();

  const has = (address) => fetch(address, { cache: "reload" }).then((answer) => answer.ok, () => false);
  const isTyped = (field) => ("checked" in field && field.checked !== field.defaultChecked) || (field.type !== "hidden" && "defaultValue" in field && field.value !== field.defaultValue);

  const reload = () => {
    if ([...document.querySelectorAll("input, textarea")].some(isTyped)) return; // the page works without scripts, too
    try {
      const lately = JSON.parse(sessionStorage.getItem(KEY) ?? "[]").filter((at) => Math.abs(Date.now() - at) < WITHIN_MS);
      if (lately.length >= MOST) return;
      sessionStorage.setItem(KEY, JSON.stringify([...lately, Date.now()]));
    } catch {
      return; // without a memory there would be no end to it
    }
    location.reload();
  };

  const recover = async () => {
    for (const pause of PAUSES_MS) {
      await new Promise((resolve) => setTimeout(resolve, pause * (0.75 + Math.random() / 2)));
      const found = await Promise.all([...missing].map(has));
      if (found.every(Boolean)) break;
    }
    reload();
  };

  addEventListener(
    "error",
    ({ target }) => {
      const address = target instanceof HTMLScriptElement ? target.src : target instanceof HTMLLinkElement && target.rel === "stylesheet" ? target.href : "";
      if (!address.startsWith(`${location.origin}/static/`)) return;
      missing.add(address);
      if (missing.size === 1) recover();
    },
    true, // it does not bubble
  );
}
