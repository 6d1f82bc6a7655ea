// The compose page: four steps, a draft that saves itself, times in the writer's own zone, and questions before something is lost.
// Everything here is a comfort: without it the form is whole, its buttons say what they do, and its times are UTC.
"use strict";

let composing = null; // ends what listens to a form that was drawn anew

function compose() {
  composing?.abort();
  const form = document.getElementById("compose");
  if (!form) return;
  composing = new AbortController();
  const { signal } = composing, page = window.broadcastPage;

  // ---- steps: one at a time; where a mistake is told, that step is shown

  // Until the fresh review is there nothing can be ticked in the old one: the tick would be lost.
  function loadReview(review) {
    review.inert = true;
    document.addEventListener("htmx:after:swap", () => { review.inert = false; }, { once: true });
    setTimeout(() => { review.inert = false; }, 3000); // the server may be away
    review.dispatchEvent(new Event("review"));
  }

  const ORDER = ["write", "audience", "when", "review"];
  const steps = document.getElementById("steps");

  function show(step, { focus = true } = {}) {
    form.dataset.step = step;
    for (const link of steps.querySelectorAll("a")) {
      if (link.dataset.to === step) link.setAttribute("aria-current", "step");
      else link.removeAttribute("aria-current");
    }
    const at = ORDER.indexOf(step);
    document.getElementById("back").hidden = at === 0;
    document.getElementById("next").hidden = at === ORDER.length - 1;
    document.getElementById("send").hidden = at !== ORDER.length - 1;
    if (step === "review") loadReview(document.getElementById("review"));
    if (focus) (form.querySelector(`#step-${step} h2, #step-${step} input`) ?? form).focus({ preventScroll: true });
    if (focus) document.getElementById("main").scrollIntoView({ block: "start" });
  }

  function reveal(id) {
    const field = document.getElementById(id);
    if (!field) return false;
    const step = field.closest(".step");
    if (step && steps) show(step.dataset.step, { focus: false });
    field.closest("details")?.setAttribute("open", "");
    const target = field.matches("input, textarea, select, [tabindex]") ? field : field.querySelector("input, textarea");
    (target ?? field).focus();
    field.scrollIntoView({ block: "center" });
    return true;
  }

  if (steps) {
    document.addEventListener("click", (event) => {
      const link = event.target.closest("#steps a, #errors a, .summary a");
      if (!link) return;
      event.preventDefault();
      if (link.dataset.to) show(link.dataset.to);
      else reveal(link.hash.slice(1));
    }, { signal });
    const move = (by) => show(ORDER[ORDER.indexOf(form.dataset.step) + by]);
    document.getElementById("next").addEventListener("click", () => move(1));
    document.getElementById("back").addEventListener("click", () => move(-1));
    form.addEventListener("keydown", (event) => {
      const isField = event.target.matches("input:not([type=checkbox], [type=radio], [type=file])");
      if (event.key !== "Enter" || !isField || form.dataset.step === "review") return;
      event.preventDefault();
      if (event.target.id !== "pick") move(1);
    });
    const first = form.querySelector(".step:has([aria-invalid=true])")?.dataset.step;
    const asked = location.hash.startsWith("#step-") ? location.hash.slice(6) : form.dataset.begin;
    show(first && document.getElementById("errors") ? first : ORDER.includes(asked) ? asked : "write", { focus: false });
  } else {
    document.addEventListener("click", (event) => {
      const link = event.target.closest("#errors a");
      if (link && reveal(link.hash.slice(1))) event.preventDefault();
    }, { signal });
  }

  // ---- times: in the writer's own zone, with UTC and the distance beside them

  const zoneField = form.querySelector("[data-time-zone]");
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  const pad = (number) => String(number).padStart(2, "0");
  const local = (date) =>
    `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}T${pad(date.getHours())}:${pad(date.getMinutes())}`;
  const distance = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

  if (zoneField.value !== zone) {
    const times = [...form.querySelectorAll("input[type=datetime-local]")].filter((field) => field.value);
    if (times.every((field) => field.dataset.utc)) { // a time that is none in its zone stays as it was typed there
      for (const field of times) field.value = local(new Date(field.dataset.utc));
      zoneField.value = zone;
    }
  }

  // The moments at which clocks show the field's time: two when they go back over it (by an hour, or by half of one).
  function momentsOf(field) {
    const one = new Date(field.value);
    if (!field.value || isNaN(one)) return [];
    const near = [-60, -30, 0, 30, 60].map((minutes) => new Date(one.getTime() + minutes * 60000));
    const shown = near.filter((moment) => local(moment) === field.value.slice(0, 16));
    return shown.length ? shown : [one];
  }

  function chosen(field, moments) {
    const which = form.elements[`${field.name}Which`].value;
    const kept = new Date(form.elements[`${field.name}Kept`].value || field.dataset.utc);
    if (which) return moments[which === "second" ? moments.length - 1 : 0];
    return moments.find((moment) => Math.abs(kept - moment) < 60000) ?? moments[0];
  }

  function explain(field) {
    const hint = form.querySelector(`[data-time-hint=${field.name}]`);
    const moments = momentsOf(field);
    form.querySelector(`[data-which=${field.name}]`).hidden = moments.length < 2;
    if (moments.length < 2) form.elements[`${field.name}Which`].value = "";
    const moment = chosen(field, moments);
    if (!moment) {
      hint.textContent = `${hint.dataset.hint}Times are in ${zoneField.value}.`;
      return;
    }
    const hours = (moment - Date.now()) / 3600000;
    const away = Math.abs(hours) < 1 ? distance.format(Math.round(hours * 60), "minute")
      : Math.abs(hours) < 48 ? distance.format(Math.round(hours), "hour") : distance.format(Math.round(hours / 24), "day");
    const gap = local(moment) !== field.value.slice(0, 16) ? " The clocks go forward then: this time does not exist." : "";
    hint.textContent = `${zoneField.value}; ${moment.toISOString().slice(0, 16).replace("T", " ")} UTC, ${away}.${gap}`;
  }

  for (const presets of form.querySelectorAll(".presets[data-for]")) {
    const field = form.elements[presets.dataset.for];
    presets.hidden = false;
    field.addEventListener("input", () => explain(field));
    form.elements[`${field.name}Which`].addEventListener("change", () => explain(field));
    explain(field);
    presets.addEventListener("click", ({ target }) => {
      if (!(target instanceof HTMLButtonElement)) return;
      const start = field.name !== "scheduledAt" && form.elements.when?.value === "later" && form.elements.scheduledAt.value;
      const date = start ? new Date(start) : new Date();
      if (target.dataset.hours) date.setHours(date.getHours() + Number(target.dataset.hours));
      if (target.dataset.morning) { date.setDate(date.getDate() + 1); date.setHours(9, 0); }
      if (target.dataset.monday) { date.setDate(date.getDate() + ((8 - date.getDay()) % 7 || 7)); date.setHours(9, 0); }
      field.value = target.dataset.never ? "" : local(date);
      tellChanged(field);
    });
  }

  function tellChanged(field) {
    field.dispatchEvent(new Event("input", { bubbles: true }));
    field.dispatchEvent(new Event("change", { bubbles: true }));
  }

  // ---- people: a search that adds to the list, a file that is judged row by row, audiences with a name

  const people = form.elements.people;
  for (const picker of form.querySelectorAll("[data-picker]")) picker.hidden = false;

  function add(names) {
    const known = people.value.split(/[\s,;]+/).filter(Boolean);
    people.value = [...new Set([...known, ...names])].join("\n");
    tellChanged(people);
  }

  form.addEventListener("click", (event) => {
    const found = event.target.closest("[data-add]");
    if (found) {
      add([found.dataset.add]);
      document.getElementById("found").replaceChildren();
      const pick = document.getElementById("pick");
      pick.value = "";
      pick.focus();
    }
    const saved = event.target.closest("[data-audience]");
    if (saved) {
      event.preventDefault();
      fetch(saved.dataset.audience).then((answer) => answer.json()).then(fillAudience, () => { location.assign(saved.href); });
    }
  });

  form.querySelector("[data-names]")?.addEventListener("change", async ({ target }) => {
    const report = document.getElementById("names-report"), body = new FormData();
    body.set("file", target.files[0]);
    const answer = await fetch(target.dataset.names, { method: "POST", body, headers: { "X-CSRFToken": form.elements.csrf_token.value } }).catch(() => null);
    if (!answer?.ok) {
      report.textContent = answer?.status === 413 ? "This file is too large: 4 MB are the most." : "The file could not be read. Please try again.";
      return;
    }
    report.innerHTML = await answer.text();
    add(report.querySelector("[data-good]").dataset.good.split(" ").filter(Boolean));
    target.value = "";
  });

  function fillAudience(target) {
    const names = (target.targetIds ?? []).map(String), without = target.exceptRoles ?? [];
    form.elements.targetType.value = target.targetType;
    for (const box of form.querySelectorAll("[name=roles]")) box.checked = target.targetType === "ROLE" && names.includes(box.value);
    for (const box of form.querySelectorAll("[name=exceptRoles]")) box.checked = without.includes(box.value);
    form.elements.targetMatch.checked = target.targetMatch === "ALL";
    form.elements.snapshot.checked = Boolean(target.snapshot);
    people.value = target.targetType === "SELECTED" ? names.join("\n") : "";
    form.elements.exceptPeople.value = (target.exceptIds ?? []).join("\n");
    if (without.length || target.exceptIds?.length || target.snapshot) form.querySelector(".left-out").open = true;
    tellChanged(people);
  }

  // ---- the preview as on a phone, and in the other theme

  const looks = document.querySelector("[data-looks]"), preview = document.getElementById("preview");
  looks.hidden = false;
  looks.addEventListener("change", ({ target }) => {
    if (target.dataset.look === "phone") preview.classList.toggle("phone", target.checked);
    const isDark = document.documentElement.dataset.theme
      ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    if (target.dataset.look === "dark") preview.dataset.theme = target.checked === isDark ? "light" : "dark";
  });

  // ---- the draft saves itself: one request at a time, and nothing over somebody else's text

  const line = document.getElementById("saved");
  const PAUSE_MS = 1500;
  let changed = false, conflicting = false, saving = null, timer = 0, waiting = false;
  signal.addEventListener("abort", () => clearTimeout(timer));

  async function save() {
    clearTimeout(timer);
    if (signal.aborted) return;
    if (saving || !changed || conflicting) return saving;
    changed = false;
    saving = post();
    await saving;
    saving = null;
    if (changed) plan();
  }

  async function post() {
    const headers = { Accept: "application/json", "X-CSRFToken": form.elements.csrf_token.value };
    const answer = await fetch("/console/drafts", { method: "POST", body: new FormData(form), headers }).catch(() => null);
    if (answer?.status === 409) {
      conflicting = true;
      line.textContent = "Somebody else changed this draft. Press Save draft to see both.";
    } else if (answer?.status === 422) {
      line.textContent = `Not saved: ${(await answer.json()).problem}`;
    } else if (answer?.status === 401) {
      changed = true;
      line.textContent = "Not saved: you are signed out.";
      page.leave("/signed-out");
    } else if (!answer?.ok || answer.redirected) {
      changed = true;
      line.textContent = "Not saved: the server could not be reached. It is tried again.";
      timer = setTimeout(save, 4 * PAUSE_MS);
    } else {
      const { id, version, edit } = await answer.json();
      form.elements.broadcastId.value = id;
      form.elements.version.value = version;
      form.setAttribute("action", edit);
      form.dataset.keep = edit;
      if (!changed) page.saved(form);
      if (location.pathname !== edit) history.replaceState(null, "", edit);
      line.textContent = `Saved ${new Date().toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })}`;
    }
  }

  function plan() {
    clearTimeout(timer);
    timer = setTimeout(save, PAUSE_MS);
  }

  const NOT_KEPT = ["pick", "asWhom", "audienceName", "understood", "typedCount", "password"];
  form.addEventListener("input", ({ target }) => {
    if (NOT_KEPT.includes(target.name) || target.type === "file") return;
    changed = true;
    if ("autosave" in form.dataset) plan();
  });

  document.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "s") return;
    event.preventDefault();
    if ("autosave" in form.dataset) { changed = true; save(); }
  }, { signal });

  // no press past a draft that is still being saved: its version would be old. forms.js posts, and lets nobody press twice
  form.addEventListener("submit", (event) => {
    clearTimeout(timer);
    if (!saving) return;
    event.preventDefault();
    const button = event.submitter;
    if (!waiting) saving.then(() => { waiting = false; form.requestSubmit(button); });
    waiting = true;
  });
  form.addEventListener("form:failed", () => { if (changed && "autosave" in form.dataset) plan(); });

  document.getElementById("errors")?.focus();
}

compose();
document.addEventListener("page:drawn", compose);
