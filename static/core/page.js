// What every page of a signed-in person does: the status line, the unread count, times in words, "Show more", errors of htmx.
// Shared with live.js through one object, because versioned addresses (?v=hash) and imports between files do not go together.
"use strict";

const page = (window.broadcastPage = {});
const ANSWER_MS = 8000; // counts that come later than that are no longer waited for

// ---- the time, by the server's clock: this machine's may be an hour off, and "5 min ago" and quiet hours would be too

{
  const NOTHING_MS = 30000; // a difference that the way of the answer may explain
  const [navigation] = performance.getEntriesByType("navigation");
  // not by performance.timeOrigin, which does not hear of it when this machine sleeps or its clock is put right
  const answeredAt = Date.now() - performance.now() + (navigation?.responseStart ?? 0);
  const ahead = answeredAt - Date.parse(document.body.dataset.now);
  const skew = Math.abs(ahead) > NOTHING_MS ? ahead : 0;
  page.now = () => Date.now() - skew;
}

// ---- on a phone the console's navigation is wider than the screen: where one is must be seen

for (const here of document.querySelectorAll(".subbar-in a[aria-current]:not(.button)")) here.scrollIntoView({ block: "nearest", inline: "center" });

// ---- how high the bar is, which stays in view: it grows with a banner, and what sticks or is scrolled to stands below it

{
  const bar = document.querySelector(".bar");
  new ResizeObserver(() => document.documentElement.style.setProperty("--bar", `${bar.offsetHeight}px`)).observe(bar);
}

// ---- the status line: one polite sentence at a time, at most one in five seconds, and the newest wins

{
  const line = document.getElementById("status");
  const QUIET_MS = 5000;
  let next = null, quietUntil = 0, timer = 0, arrived = 0;

  const speak = () => {
    timer = 0;
    if (next === null) {
      line.classList.remove("shown");
      return;
    }
    line.textContent = next.sentence;
    line.classList.toggle("shown", next.shown);
    next = null;
    arrived = 0;
    quietUntil = Date.now() + QUIET_MS;
    timer = setTimeout(speak, QUIET_MS);
  };

  // `shown`: also visible, for what a person did or must know; what merely arrived is only read out.
  page.say = (sentence, shown = false) => {
    next = { sentence, shown };
    if (Date.now() >= quietUntil) { clearTimeout(timer); speak(); }
  };

  // What came since the line last spoke, in one sentence.
  page.sayArrived = (count) => {
    arrived += count;
    page.say(arrived === 1 ? "1 new message" : `${arrived} new messages`);
  };
}

// ---- the counts: numbers of the server, in the bell, the title, the views and the app's icon

page.counts = { unread: Number(document.body.dataset.unread || 0) };
page.asOf = Number(document.body.dataset.asOf || 0); // the counts hold every event of the log up to this seq, none above
page.version = Number(document.body.dataset.version || 0); // of the person's inbox: which of their own acts this page shows

// `counts` may hold only some of inbox, unread, archived, snoozed and toMark (what "Mark N read" is about, when filtered).
page.setCounts = (counts, asOf = page.asOf) => {
  Object.assign(page.counts, counts);
  page.asOf = asOf;
  const unread = (page.counts.unread = Math.max(0, page.counts.unread));
  const badge = unread > 99 ? "99+" : String(unread);
  for (const place of document.querySelectorAll("[data-count=unread]")) {
    place.textContent = badge;
    place.hidden = unread === 0;
  }
  for (const name of ["inbox", "archived", "snoozed"]) if (page.counts[name] !== undefined) write(name, page.counts[name]);
  if (page.counts.ended !== undefined) write("ended", page.counts.ended > 99 ? "99+" : page.counts.ended);
  write("unread-view", unread);
  if (counts.toMark !== undefined) write("to-mark", counts.toMark);
  const readAll = document.querySelector(".read-all");
  if (readAll) readAll.hidden = (readAll.querySelector("[data-count=to-mark]") ? page.counts.toMark : unread) === 0;
  document.title = (unread ? `(${badge}) ` : "") + document.title.replace(/^\(\d+\+?\) /, "");
  // installed as an app, where the browser can show it there
  (unread ? navigator.setAppBadge?.(unread) : navigator.clearAppBadge?.())?.catch(() => {});

  function write(name, count) {
    for (const place of document.querySelectorAll(`[data-count=${name}]`)) place.textContent = typeof count === "string" ? count : Math.max(0, count).toLocaleString("en");
  }
};

// What the server counts, and up to where; null when no answer came in time.
page.askCounts = async (signal = AbortSignal.timeout(ANSWER_MS)) => {
  const answer = await fetch("/inbox/count", { headers: { Accept: "application/json" }, signal }).catch(() => null);
  return answer?.ok ? answer.json().catch(() => null) : null;
};

// Ask the server, for when the counts cannot be known here. Failing is fine: the stream tells them again.
page.refreshCounts = async () => {
  const told = await page.askCounts();
  if (!told) return null;
  page.version = Math.max(page.version, told.version);
  page.setCounts(told.counts, told.asOf);
  return told;
};

// Send a form as the page's script does; the answer as an object, or null after a sentence to the person.
page.post = async (path, form) => {
  form.set("csrf_token", document.body.dataset.csrf);
  const options = { method: "POST", body: form, headers: { Accept: "application/json" }, keepalive: true }; // what was done survives leaving the page
  const answer = await fetch(path, options).catch(() => null);
  if (answer?.ok) return answer.status === 204 ? {} : answer.json();
  const problem = await answer?.json().catch(() => null);
  page.say(problem?.detail ?? "The server could not be reached. Please try again.", true);
  return null;
};

// ---- times: "5 min ago" grows older by itself; the exact moment is told in the person's own zone

{
  const exact = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });
  const zoned = new Intl.DateTimeFormat("en-GB", {
    weekday: "short", day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", timeZoneName: "short",
  });

  const words = (moment, now) => {
    const minutes = Math.floor((now - moment) / 60000);
    if (now - moment < -30000 || minutes >= 7 * 1440) return exact.format(moment);
    if (minutes < 1) return "just now";
    if (minutes < 60) return `${minutes} min ago`;
    if (minutes < 1440) return `${Math.floor(minutes / 60)} h ago`;
    const days = Math.floor(minutes / 1440);
    return `${days} day${days > 1 ? "s" : ""} ago`;
  };

  // "10:42" today, with the day before that
  const clock = (moment) => {
    const time = moment.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
    const isToday = moment.toDateString() === new Date(page.now()).toDateString();
    return isToday ? time : `${moment.toLocaleDateString("en-GB", { day: "numeric", month: "short" })}, ${time}`;
  };

  page.tellTimes = (root = document) => {
    for (const time of root.querySelectorAll("time[datetime]")) {
      const moment = new Date(time.dateTime);
      if (isNaN(moment)) continue;
      const exact = zoned.format(moment).replace(",", ""); // "Tue 4 Nov 2026, 10:42 CET"
      const text = "exact" in time.dataset ? exact : "clock" in time.dataset ? clock(moment) : words(moment, page.now());
      if (time.textContent !== text) time.textContent = text;
      if (!time.dataset.zoned) {
        time.title = exact;
        time.dataset.zoned = "yes";
      }
    }
  };
  page.tellTimes();
  setInterval(page.tellTimes, 60000);
}

// ---- clicks: "Show more" opens a card in place; the menu closes when something else is pressed

document.addEventListener("click", (event) => {
  const more = event.target.closest("[data-more]");
  if (more && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    const card = more.closest(".card");
    const open = card.toggleAttribute("data-open");
    more.firstChild.textContent = open ? "Show less" : "Show more";
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

// ---- htmx: what it put in is told apart here; of errors only a sentence reaches the person (layout.html: noSwap)

document.addEventListener("htmx:after:swap", (event) => {
  page.tellTimes();
});

document.addEventListener("htmx:response:error", (event) => {
  const status = event.detail?.ctx?.response?.status;
  if (status === 422) return; // a form with its mistakes, which is shown
  if (status === 401) return page.leave(`/login?${new URLSearchParams({ next: location.pathname + location.search })}`);
  page.say(
    {
      403: "That was refused. Load the page again, then repeat it.",
      404: "That message is no longer there.",
      409: "That had changed meanwhile. Load the page again.",
      413: "This is more than can be sent at once.",
    429: "That was too often. Please wait a moment.",
      503: "The server is busy. Nothing was saved; please try again.",
      504: "The server lost its database while it saved this. Look whether it is saved before you try again.",
    }[status] ?? "That did not work. Please try again.",
    true,
  );
});

document.addEventListener("htmx:error", () => page.say("The server could not be reached. Please try again.", true));
