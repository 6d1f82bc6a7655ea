// What every page of a signed-in user needs: the status line, the unread counts, relative times, "Show more", errors of htmx.
// The other scripts use it through `window.broadcastPage`: an import would name a file without its hash (?v=…).
"use strict";

const page = (window.broadcastPage = {});
const COUNTS_TIMEOUT_MS = 8000; // a count that takes longer is treated as no answer

// ---- the time by the server's clock: if this machine's is an hour off, "5 min ago" and quiet hours would be off as well

{
  const TOLERANCE_MS = 30000; // network latency may explain a smaller difference
  const [navigation] = performance.getEntriesByType("navigation");
  // not performance.timeOrigin, which ignores sleep and corrections of the clock
  const answeredAt = Date.now() - performance.now() + (navigation?.responseStart ?? 0);
  const differenceMs = answeredAt - Date.parse(document.body.dataset.now);
  const clockSkewMs = Math.abs(differenceMs) > TOLERANCE_MS ? differenceMs : 0;
  page.now = () => Date.now() - clockSkewMs;
}

// ---- on a phone the console's navigation is wider than the screen: scroll the current page's link into view

for (const currentLink of document.querySelectorAll(".subnav-inner a[aria-current]:not(.button)")) currentLink.scrollIntoView({ block: "nearest", inline: "center" });

// ---- the height of the sticky header, which grows with a banner: sticky elements and scroll targets are placed below it

{
  const headerBar = document.querySelector(".header");
  new ResizeObserver(() => document.documentElement.style.setProperty("--header-height", `${headerBar.offsetHeight}px`)).observe(headerBar);
}

// ---- the status line (a polite live region): at most one sentence in five seconds, and the newest wins

{
  const statusLine = document.getElementById("status");
  const MIN_INTERVAL_MS = 5000;
  let pending = null, silentUntil = 0, timer = 0, arrivedCount = 0;

  const showPending = () => {
    timer = 0;
    if (pending === null) {
      statusLine.classList.remove("shown");
      return;
    }
    statusLine.textContent = pending.sentence;
    statusLine.classList.toggle("shown", pending.shown);
    pending = null;
    arrivedCount = 0;
    silentUntil = Date.now() + MIN_INTERVAL_MS;
    timer = setTimeout(showPending, MIN_INTERVAL_MS);
  };

  // Announce to screen readers; with `isVisible` also on screen, for what the user did or must know.
  page.announce = (sentence, isVisible = false) => {
    pending = { sentence, shown: isVisible };
    if (Date.now() >= silentUntil) { clearTimeout(timer); showPending(); }
  };

  // Announce all arrivals since the last announcement in one sentence.
  page.announceArrivals = (count) => {
    arrivedCount += count;
    page.announce(arrivedCount === 1 ? "1 new message" : `${arrivedCount} new messages`);
  };
}

// ---- the counts from the server, in the bell, the title, the views and the app's icon

page.counts = { unread: Number(document.body.dataset.unread || 0) };
page.asOf = Number(document.body.dataset.asOf || 0); // the counts include exactly the events of the log up to this seq
page.version = Number(document.body.dataset.version || 0); // of the user's inbox: which of their own actions this page shows

// `counts` may hold only some of inbox, unread, archived, snoozed and toMark (what "Mark N read" is about, when filtered).
page.setCounts = (counts, asOf = page.asOf) => {
  Object.assign(page.counts, counts);
  page.asOf = asOf;
  const unread = (page.counts.unread = Math.max(0, page.counts.unread));
  const badge = unread > 99 ? "99+" : String(unread);
  for (const element of document.querySelectorAll("[data-count=unread]")) {
    element.textContent = badge;
    element.hidden = unread === 0;
  }
  for (const name of ["inbox", "archived", "snoozed"]) if (page.counts[name] !== undefined) writeCount(name, page.counts[name]);
  if (page.counts.ended !== undefined) writeCount("ended", page.counts.ended > 99 ? "99+" : page.counts.ended);
  writeCount("unread-view", unread);
  if (counts.toMark !== undefined) writeCount("to-mark", counts.toMark);
  const readAll = document.querySelector(".read-all");
  if (readAll) readAll.hidden = (readAll.querySelector("[data-count=to-mark]") ? page.counts.toMark : unread) === 0;
  document.title = (unread ? `(${badge}) ` : "") + document.title.replace(/^\(\d+\+?\) /, "");
  // the badge of an installed app, where the browser supports it
  (unread ? navigator.setAppBadge?.(unread) : navigator.clearAppBadge?.())?.catch(() => {});

  function writeCount(name, count) {
    for (const element of document.querySelectorAll(`[data-count=${name}]`)) element.textContent = typeof count === "string" ? count : Math.max(0, count).toLocaleString("en");
  }
};

// The server's counts and the seq that they include; null if no answer came in time.
page.fetchCounts = async (signal = AbortSignal.timeout(COUNTS_TIMEOUT_MS)) => {
  const response = await fetch("/inbox/count", { headers: { Accept: "application/json" }, signal }).catch(() => null);
  return response?.ok ? response.json().catch(() => null) : null;
};

// Fetch the counts when they cannot be computed here. Failure is harmless: the stream sends them again.
page.refreshCounts = async () => {
  const result = await page.fetchCounts();
  if (!result) return null;
  page.version = Math.max(page.version, result.version);
  page.setCounts(result.counts, result.asOf);
  return result;
};

// POST a form. Resolves to the JSON of the response; null after an error that the user was told.
page.post = async (path, form) => {
  form.set("csrf_token", document.body.dataset.csrf);
  const options = { method: "POST", body: form, headers: { Accept: "application/json" }, keepalive: true }; // keepalive: the request survives leaving the page
  const response = await fetch(path, options).catch(() => null);
  if (response?.ok) return response.status === 204 ? {} : response.json();
  const problem = await response?.json().catch(() => null);
  page.announce(problem?.detail ?? "The server could not be reached. Please try again.", true);
  return null;
};

// ---- times: "5 min ago" is kept up to date; the title shows the exact time in the user's time zone

{
  const exactFormat = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });
  const zonedFormat = new Intl.DateTimeFormat("en-GB", {
    weekday: "short", day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", timeZoneName: "short",
  });

  const formatAge = (moment, now) => {
    const minutes = Math.floor((now - moment) / 60000);
    if (now - moment < -30000 || minutes >= 7 * 1440) return exactFormat.format(moment);
    if (minutes < 1) return "just now";
    if (minutes < 60) return `${minutes} min ago`;
    if (minutes < 1440) return `${Math.floor(minutes / 60)} h ago`;
    const days = Math.floor(minutes / 1440);
    return `${days} day${days > 1 ? "s" : ""} ago`;
  };

  // "10:42" for today, with the date for any other day
  const formatClock = (moment) => {
    const time = moment.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
    const isToday = moment.toDateString() === new Date(page.now()).toDateString();
    return isToday ? time : `${moment.toLocaleDateString("en-GB", { day: "numeric", month: "short" })}, ${time}`;
  };

  page.updateTimes = (root = document) => {
    for (const time of root.querySelectorAll("time[datetime]")) {
      const moment = new Date(time.dateTime);
      if (isNaN(moment)) continue;
      const exactText = zonedFormat.format(moment).replace(",", ""); // "Tue 4 Nov 2026, 10:42 CET"
      const text = "exact" in time.dataset ? exactText : "clock" in time.dataset ? formatClock(moment) : formatAge(moment, page.now());
      if (time.textContent !== text) time.textContent = text;
      if (!time.dataset.zoned) {
        time.title = exactText;
        time.dataset.zoned = "yes";
      }
    }
  };
  page.updateTimes();
  setInterval(page.updateTimes, 60000);
}

// ---- clicks: "Show more" opens a card in place; a click elsewhere closes the menu

document.addEventListener("click", (event) => {
  const moreButton = event.target.closest("[data-more]");
  if (moreButton && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    const card = moreButton.closest(".card");
    const isOpen = card.toggleAttribute("data-open");
    moreButton.firstChild.textContent = isOpen ? "Show less" : "Show more";
  }
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

// ---- htmx: times in swapped content are updated; an error is only announced, never swapped in (layout.html: noSwap)

document.addEventListener("htmx:after:swap", (event) => {
  page.updateTimes();
});

document.addEventListener("htmx:response:error", (event) => {
  const status = event.detail?.ctx?.response?.status;
  if (status === 422) return; // a form with its validation errors, which is swapped in
  if (status === 401) return page.leave(`/login?${new URLSearchParams({ next: location.pathname + location.search })}`);
  page.announce(
    {
      403: "The request was refused. Reload the page and try again.",
      404: "This message no longer exists.",
      409: "This has changed since you opened the page. Reload the page.",
      413: "This is too large to send.",
    429: "Too many requests. Please wait a moment.",
      503: "The server is busy. Nothing was saved; please try again.",
      504: "The server lost its database connection while saving. Check whether your change was saved before you try again.",
    }[status] ?? "Something went wrong. Please try again.",
    true,
  );
});

document.addEventListener("htmx:error", () => page.announce("The server could not be reached. Please try again.", true));
