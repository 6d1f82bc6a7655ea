// During a rolling upgrade a page of one version may request its files from a node of the other version, which answers 404. This
// script waits until a node has the files and reloads the page. It is the first script, and its address carries no hash, so that
// every node can serve it.
"use strict";

{
  const RETRY_DELAYS_MS = [300, 1000, 3000];
  const MAX_RELOADS = 5, RELOAD_WINDOW_MS = 600000; // a file that never comes must not cause an endless loop of reloads
  const STORAGE_KEY = "broadcast-reloaded";
  const missingFiles = new Set();

  const isAvailable = (address) => fetch(address, { cache: "reload" }).then((response) => response.ok, () => false);
  const isEdited = (field) => ("checked" in field && field.checked !== field.defaultChecked) || (field.type !== "hidden" && "defaultValue" in field && field.value !== field.defaultValue);

  const reloadPage = () => {
    if ([...document.querySelectorAll("input, textarea")].some(isEdited)) return; // keep what was typed: the page works without scripts
    try {
      const recentReloads = JSON.parse(sessionStorage.getItem(STORAGE_KEY) ?? "[]").filter((reloadedAt) => Math.abs(Date.now() - reloadedAt) < RELOAD_WINDOW_MS);
      if (recentReloads.length >= MAX_RELOADS) return;
      sessionStorage.setItem(STORAGE_KEY, JSON.stringify([...recentReloads, Date.now()]));
    } catch {
      return; // without storage the reloads cannot be counted, and might never end
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
    true, // capture: the error event does not bubble
  );
}
