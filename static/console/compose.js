// The compose page: four steps, autosave, times in the writer's time zone, and warnings before something is lost. All of it is
// progressive enhancement: without this script the form is complete on one page, and its times are UTC.
"use strict";

let listenerController = null; // removes the listeners of the previous form after the page was re-rendered

function initComposeForm() {
  listenerController?.abort();
  const form = document.getElementById("compose");
  if (!form) return;
  listenerController = new AbortController();
  const { signal } = listenerController, page = window.broadcastPage;

  // ---- steps: one at a time; a validation error shows the step of its field

  // The old review is inert until the new one has loaded: a checkbox ticked in the old one would be lost.
  function loadReview(review) {
    review.inert = true;
    document.addEventListener("htmx:after:swap", () => { review.inert = false; }, { once: true });
    setTimeout(() => { review.inert = false; }, 3000); // the server may be unreachable
    review.dispatchEvent(new Event("review"));
  }

  const STEP_ORDER = ["write", "audience", "when", "review"];
  const stepNav = document.getElementById("steps");

  function showStep(step, { focus = true } = {}) {
    form.dataset.step = step;
    for (const link of stepNav.querySelectorAll("a")) {
      if (link.dataset.to === step) link.setAttribute("aria-current", "step");
      else link.removeAttribute("aria-current");
    }
    const index = STEP_ORDER.indexOf(step);
    document.getElementById("back").hidden = index === 0;
    document.getElementById("next").hidden = index === STEP_ORDER.length - 1;
    document.getElementById("send").hidden = index !== STEP_ORDER.length - 1;
    if (step === "review") loadReview(document.getElementById("review"));
    if (focus) (form.querySelector(`#step-${step} h2, #step-${step} input`) ?? form).focus({ preventScroll: true });
    if (focus) document.getElementById("main").scrollIntoView({ block: "start" });
  }

  function revealField(id) {
    const field = document.getElementById(id);
    if (!field) return false;
    const step = field.closest(".step");
    if (step && stepNav) showStep(step.dataset.step, { focus: false });
    field.closest("details")?.setAttribute("open", "");
    const target = field.matches("input, textarea, select, [tabindex]") ? field : field.querySelector("input, textarea");
    (target ?? field).focus();
    field.scrollIntoView({ block: "center" });
    return true;
  }

  if (stepNav) {
    document.addEventListener("click", (event) => {
      const link = event.target.closest("#steps a, #errors a");
      if (!link) return;
      event.preventDefault();
      if (link.dataset.to) showStep(link.dataset.to);
      else revealField(link.hash.slice(1));
    }, { signal });
    const moveStep = (offset) => showStep(STEP_ORDER[STEP_ORDER.indexOf(form.dataset.step) + offset]);
    document.getElementById("next").addEventListener("click", () => moveStep(1));
    document.getElementById("back").addEventListener("click", () => moveStep(-1));
    form.addEventListener("keydown", (event) => {
      const isField = event.target.matches("input:not([type=checkbox], [type=radio], [type=file])");
      if (event.key !== "Enter" || !isField || form.dataset.step === "review") return;
      event.preventDefault();
      if (event.target.id !== "pick") moveStep(1);
    });
    const firstInvalidStep = form.querySelector(".step:has([aria-invalid=true])")?.dataset.step;
    const requestedStep = location.hash.startsWith("#step-") ? location.hash.slice(6) : form.dataset.begin;
    showStep(firstInvalidStep && document.getElementById("errors") ? firstInvalidStep : STEP_ORDER.includes(requestedStep) ? requestedStep : "write", { focus: false });
  } else {
    document.addEventListener("click", (event) => {
      const link = event.target.closest("#errors a");
      if (link && revealField(link.hash.slice(1))) event.preventDefault();
    }, { signal });
  }

  // ---- times: in the writer's time zone, with UTC and the relative time beside them

  const timeZoneField = form.querySelector("[data-time-zone]");
  const timeZone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  const pad = (number) => String(number).padStart(2, "0");
  const toLocalInput = (date) =>
    `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}T${pad(date.getHours())}:${pad(date.getMinutes())}`;
  const relativeTime = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

  if (timeZoneField.value !== timeZone) {
    const timeFields = [...form.querySelectorAll("input[type=datetime-local]")].filter((field) => field.value);
    if (timeFields.every((field) => field.dataset.utc)) { // a time that does not exist in its own zone stays as it was typed
      for (const field of timeFields) field.value = toLocalInput(new Date(field.dataset.utc));
      timeZoneField.value = timeZone;
    }
  }

  // The moments at which clocks show the field's time: two if clocks go back over it (by an hour, or by half an hour).
  function findMoments(field) {
    const parsed = new Date(field.value);
    if (!field.value || isNaN(parsed)) return [];
    const candidates = [-60, -30, 0, 30, 60].map((minutes) => new Date(parsed.getTime() + minutes * 60000));
    const matching = candidates.filter((moment) => toLocalInput(moment) === field.value.slice(0, 16));
    return matching.length ? matching : [parsed];
  }

  function chooseMoment(field, moments) {
    const occurrence = form.elements[`${field.name}Which`].value;
    const previous = new Date(form.elements[`${field.name}Kept`].value || field.dataset.utc);
    if (occurrence) return moments[occurrence === "second" ? moments.length - 1 : 0];
    return moments.find((moment) => Math.abs(previous - moment) < 60000) ?? moments[0];
  }

  function updateTimeHint(field) {
    const hint = form.querySelector(`[data-time-hint=${field.name}]`);
    const moments = findMoments(field);
    form.querySelector(`[data-which=${field.name}]`).hidden = moments.length < 2;
    if (moments.length < 2) form.elements[`${field.name}Which`].value = "";
    const moment = chooseMoment(field, moments);
    if (!moment) {
      hint.textContent = `${hint.dataset.hint}Times are in ${timeZoneField.value}.`;
      return;
    }
    const hours = (moment - Date.now()) / 3600000;
    const away = Math.abs(hours) < 1 ? relativeTime.format(Math.round(hours * 60), "minute")
      : Math.abs(hours) < 48 ? relativeTime.format(Math.round(hours), "hour") : relativeTime.format(Math.round(hours / 24), "day");
    const gap = toLocalInput(moment) !== field.value.slice(0, 16) ? " The clocks go forward then, so this time does not exist." : "";
    hint.textContent = `${timeZoneField.value}; ${moment.toISOString().slice(0, 16).replace("T", " ")} UTC, ${away}.${gap}`;
  }

  for (const presets of form.querySelectorAll(".presets[data-for]")) {
    const field = form.elements[presets.dataset.for];
    presets.hidden = false;
    field.addEventListener("input", () => updateTimeHint(field));
    form.elements[`${field.name}Which`].addEventListener("change", () => updateTimeHint(field));
    updateTimeHint(field);
    presets.addEventListener("click", ({ target }) => {
      if (!(target instanceof HTMLButtonElement)) return;
      const startValue = field.name !== "scheduledAt" && form.elements.when?.value === "later" && form.elements.scheduledAt.value;
      const date = startValue ? new Date(startValue) : new Date();
      if (target.dataset.hours) date.setHours(date.getHours() + Number(target.dataset.hours));
      if (target.dataset.morning) { date.setDate(date.getDate() + 1); date.setHours(9, 0); }
      if (target.dataset.monday) { date.setDate(date.getDate() + ((8 - date.getDay()) % 7 || 7)); date.setHours(9, 0); }
      field.value = target.dataset.never ? "" : toLocalInput(date);
      dispatchChange(field);
    });
  }

  function dispatchChange(field) {
    field.dispatchEvent(new Event("input", { bubbles: true }));
    field.dispatchEvent(new Event("change", { bubbles: true }));
  }

  // ---- recipients: a search that adds to the list, an imported file that is checked row by row, saved audiences

  const recipientsField = form.elements.people;
  for (const picker of form.querySelectorAll("[data-picker]")) picker.hidden = false;

  function addRecipients(usernames) {
    const existing = recipientsField.value.split(/[\s,;]+/).filter(Boolean);
    recipientsField.value = [...new Set([...existing, ...usernames])].join("\n");
    dispatchChange(recipientsField);
  }

  form.addEventListener("click", (event) => {
    const resultButton = event.target.closest("[data-add]");
    if (resultButton) {
      addRecipients([resultButton.dataset.add]);
      document.getElementById("found").replaceChildren();
      const searchField = document.getElementById("pick");
      searchField.value = "";
      searchField.focus();
    }
    const audienceLink = event.target.closest("[data-audience]");
    if (audienceLink) {
      event.preventDefault();
      fetch(audienceLink.dataset.audience).then((response) => response.json()).then(fillAudience, () => { location.assign(audienceLink.href); });
    }
  });

  form.querySelector("[data-names]")?.addEventListener("change", async ({ target }) => {
    const report = document.getElementById("names-report"), body = new FormData();
    body.set("file", target.files[0]);
    const response = await fetch(target.dataset.names, { method: "POST", body, headers: { "X-CSRFToken": form.elements.csrf_token.value } }).catch(() => null);
    if (!response?.ok) {
      report.textContent = response?.status === 413 ? "This file is too large. The limit is 4 MB." : "The file could not be read. Try again.";
      return;
    }
    report.innerHTML = await response.text();
    addRecipients(report.querySelector("[data-good]").dataset.good.split(" ").filter(Boolean));
    target.value = "";
  });

  function fillAudience(audience) {
    const targetIds = (audience.targetIds ?? []).map(String), excludedRoles = audience.exceptRoles ?? [];
    form.elements.targetType.value = audience.targetType;
    for (const checkbox of form.querySelectorAll("[name=roles]")) checkbox.checked = audience.targetType === "ROLE" && targetIds.includes(checkbox.value);
    for (const checkbox of form.querySelectorAll("[name=exceptRoles]")) checkbox.checked = excludedRoles.includes(checkbox.value);
    form.elements.targetMatch.checked = audience.targetMatch === "ALL";
    form.elements.snapshot.checked = Boolean(audience.snapshot);
    recipientsField.value = audience.targetType === "SELECTED" ? targetIds.join("\n") : "";
    form.elements.exceptPeople.value = (audience.exceptIds ?? []).join("\n");
    if (excludedRoles.length || audience.exceptIds?.length || audience.snapshot) form.querySelector(".audience-options").open = true;
    dispatchChange(recipientsField);
  }

  // ---- the preview at phone width, and in the other theme

  const previewOptions = document.querySelector("[data-looks]"), preview = document.getElementById("preview");
  previewOptions.hidden = false;
  previewOptions.addEventListener("change", ({ target }) => {
    if (target.dataset.look === "phone") preview.classList.toggle("phone", target.checked);
    const isDark = document.documentElement.dataset.theme
      ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    if (target.dataset.look === "dark") preview.dataset.theme = target.checked === isDark ? "light" : "dark";
  });

  // ---- autosave: one request at a time, and never over somebody else's changes

  const saveStatus = document.getElementById("saved");
  const AUTOSAVE_DELAY_MS = 1500;
  let hasChanges = false, hasConflict = false, pendingSave = null, saveTimer = 0, isSubmitQueued = false;
  signal.addEventListener("abort", () => clearTimeout(saveTimer));

  async function saveDraft() {
    clearTimeout(saveTimer);
    if (signal.aborted) return;
    if (pendingSave || !hasChanges || hasConflict) return pendingSave;
    hasChanges = false;
    pendingSave = postDraft();
    await pendingSave;
    pendingSave = null;
    if (hasChanges) scheduleSave();
  }

  async function postDraft() {
    const headers = { Accept: "application/json", "X-CSRFToken": form.elements.csrf_token.value };
    const response = await fetch("/console/drafts", { method: "POST", body: new FormData(form), headers }).catch(() => null);
    if (response?.status === 409) {
      hasConflict = true;
      saveStatus.textContent = "Someone else changed this draft. Press Save draft to see both versions.";
    } else if (response?.status === 422) {
      saveStatus.textContent = `Not saved: ${(await response.json()).problem}`;
    } else if (response?.status === 401) {
      hasChanges = true;
      saveStatus.textContent = "Not saved: you are signed out.";
      page.leave("/signed-out");
    } else if (!response?.ok || response.redirected) {
      hasChanges = true;
      saveStatus.textContent = "Not saved: the server could not be reached. Retrying…";
      saveTimer = setTimeout(saveDraft, 4 * AUTOSAVE_DELAY_MS);
    } else {
      const { id, version, edit: editUrl } = await response.json();
      form.elements.broadcastId.value = id;
      form.elements.version.value = version;
      form.setAttribute("action", editUrl);
      form.dataset.keep = editUrl;
      if (!hasChanges) page.markSaved(form);
      if (location.pathname !== editUrl) history.replaceState(null, "", editUrl);
      saveStatus.textContent = `Saved ${new Date().toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })}`;
    }
  }

  function scheduleSave() {
    clearTimeout(saveTimer);
    saveTimer = setTimeout(saveDraft, AUTOSAVE_DELAY_MS);
  }

  const NOT_SAVED = ["pick", "asWhom", "audienceName", "understood", "typedCount", "password"];
  form.addEventListener("input", ({ target }) => {
    if (NOT_SAVED.includes(target.name) || target.type === "file") return;
    hasChanges = true;
    if ("autosave" in form.dataset) scheduleSave();
  });

  document.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "s") return;
    event.preventDefault();
    if ("autosave" in form.dataset) { hasChanges = true; saveDraft(); }
  }, { signal });

  // a submit waits for a running save, or its version would be outdated. forms.js posts the form, and prevents double submits
  form.addEventListener("submit", (event) => {
    clearTimeout(saveTimer);
    if (!pendingSave) return;
    event.preventDefault();
    const button = event.submitter;
    if (!isSubmitQueued) pendingSave.then(() => { isSubmitQueued = false; form.requestSubmit(button); });
    isSubmitQueued = true;
  });
  form.addEventListener("form:failed", () => { if (hasChanges && "autosave" in form.dataset) scheduleSave(); });

  document.getElementById("errors")?.focus();
}

initComposeForm();
document.addEventListener("page:drawn", initComposeForm);
