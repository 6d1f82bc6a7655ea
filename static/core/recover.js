// While nodes are upgraded one after the other, a page of one version may ask a node of the other for its files, which are not
// there: 404. This waits until a node has them and loads the page again. It is the first script, and in no version's name, so
// that it comes from every node.
"use strict";

{
  const RETRY_DELAYS_MS = [300, 1000, 3000];
  const MAX_RELOADS = 5, RELOAD_WINDOW_MS = 600000; // reloads: a file that never comes is no reason to load for ever
  const STORAGE_KEY = "broadcast-reloaded";
  const missingFiles = new Set();

  const isAvailable = (address) => fetch(address, { cache: "reload" }).then((response) => response.ok, () => false);
  const isEdited = (field) => ("checked" in field && field.checked !== field.defaultChecked) || (field.type !== "hidden" && "defaultValue" in field && field.value !== field.defaultValue);

  const reloadPage = () => {
    if ([...document.querySelectorAll("input, textarea")].some(isEdited)) return; // the page works without scripts, too
    try {
      const recentReloads = JSON.parse(sessionStorage.getItem(STORAGE_KEY) ?? "[]").filter((reloadedAt) => Math.abs(Date.now() - reloadedAt) < RELOAD_WINDOW_MS);
      if (recentReloads.length >= MAX_RELOADS) return;
      sessionStorage.setItem(STORAGE_KEY, JSON.stringify([...recentReloads, Date.now()]));
    } catch {
      return; // without a memory there would be no end to it
    }
    location.reload();
  };

  const waitForFiles = async () => {
    for (const delayMs of RETRY_DELAYS_MS) {
      await new Promise((resolve) => setTimeout(resolve, delayMs * (0.75 + Math.random() / 2)));
      const availability = await Promise.all([...missingFiles].map(isAvailable));
      if (availability.every(Boolean)) break;
    }
    reloadPage();
  };

  addEventListener(
    "error",
    ({ target }) => {
      const address = target instanceof HTMLScriptElement ? target.src : target instanceof HTMLLinkElement && target.rel === "stylesheet" ? target.href : "";
      if (!address.startsWith(`${location.origin}/static/`)) return;
      missingFiles.add(address);
      if (missingFiles.size === 1) waitForFiles();
    },
    true, // it does not bubble
  );
}
