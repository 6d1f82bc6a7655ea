// Push messages in this browser: turned on by a button, registered again at later visits, and turned off. Signing out deletes the
// subscription with all that the site has stored (Clear-Site-Data).
// The browser keeps the subscription for the whole site, whoever is signed in; `KEY` remembers whose wish it was.
"use strict";

{
  const KEY = "broadcast-push"; // {user, session, at}: who turned it on here, and when which session registered it
  const REGISTER_AGAIN_MS = 12 * 3600 * 1000;
  const { user, session } = document.body.dataset;
  const isSupported = "serviceWorker" in navigator && "PushManager" in window && "Notification" in window && Boolean(session);
  const isIos = /iPhone|iPad/.test(navigator.userAgent) || (navigator.userAgent.includes("Macintosh") && navigator.maxTouchPoints > 1);

  const readState = () => { try { return JSON.parse(localStorage.getItem(KEY)); } catch { return null; } };
  const writeState = (state) => { try { state ? localStorage.setItem(KEY, JSON.stringify(state)) : localStorage.removeItem(KEY); } catch { /* no storage: it is not registered again */ } };

  async function send(path, body, csrfToken) {
    const headers = { "Content-Type": "application/json", "X-CSRFToken": csrfToken, Accept: "application/json" };
    const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
    if (response.ok) return;
    const problem = await response.json().catch(() => null);
    throw Object.assign(new Error(problem?.detail ?? "The server could not be reached. Please try again."), { status: response.status });
  }

  async function subscribe() {
    const response = await fetch("/account/push", { headers: { Accept: "application/json" } });
    if (!response.ok || response.redirected) throw new Error("The server could not be reached. Please try again.");
    const { publicKey, csrfToken } = await response.json();
    await navigator.serviceWorker.register("/service-worker.js", { scope: "/" });
    const { pushManager } = await navigator.serviceWorker.ready;
    const options = { userVisibleOnly: true, applicationServerKey: publicKey };
    let subscription = await pushManager.getSubscription();
    if (subscription && encodeKey(subscription.options.applicationServerKey) !== publicKey) subscription = void (await subscription.unsubscribe());
    subscription ??= await pushManager.subscribe(options);
    try {
      await send("/account/push", subscription, csrfToken);
    } catch (problem) {
      if (problem.status !== 409) throw problem;
      await subscription.unsubscribe(); // the server knows its address from another browser
      await send("/account/push", await pushManager.subscribe(options), csrfToken);
    }
    writeState({ user, session, at: Date.now() });
  }

  const encodeKey = (key) => key ? btoa(String.fromCharCode(...new Uint8Array(key))).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "") : "";

  async function unsubscribe() {
    writeState(null);
    const registration = await navigator.serviceWorker.getRegistration("/");
    const subscription = await registration?.pushManager.getSubscription();
    if (!subscription) return;
    await send("/account/push/off", { endpoint: subscription.endpoint }, document.body.dataset.csrf);
    await subscription.unsubscribe();
  }

  // ---- at a visit

  const state = readState();
  const isOwn = isSupported && state?.user === user && Notification.permission === "granted";
  if (isOwn && (state.session !== session || !(Math.abs(Date.now() - state.at) < REGISTER_AGAIN_MS))) subscribe().catch(() => {});

  // ---- the panel of Preferences and My account

  const panel = document.getElementById("push-browser");
  if (panel) {
    const [onButton, offButton] = panel.querySelectorAll("button");
    const note = panel.querySelector("[role=status]");
    const showState = () => {
      const isOn = isOwn || (isSupported && readState()?.user === user && Notification.permission === "granted");
      onButton.hidden = !isSupported || isOn;
      offButton.hidden = !isOn;
      if (!isSupported && isIos) note.textContent = "On an iPhone or iPad, first add this site to the Home Screen, and open it from there.";
      else if (!window.isSecureContext) note.textContent = "Browsers allow push messages only on sites with https.";
      else if (!isSupported) note.textContent = "This browser has no push messages.";
      else if (Notification.permission === "denied") note.textContent = "Your browser blocks notifications from this site. You can change this in its site settings.";
      else note.textContent = isOn ? "On in this browser." : "Off in this browser.";
    };
    const press = (button, work) => button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        await work();
        if (panel.dataset.reload) location.assign(panel.dataset.reload);
        showState();
        (onButton.hidden ? offButton : onButton).focus();
      } catch (problem) {
        showState();
        note.textContent = problem.message;
      } finally {
        button.disabled = false;
      }
    });
    press(onButton, async () => {
      if ((await Notification.requestPermission()) !== "granted") throw new Error("Your browser did not allow notifications from this site.");
      await subscribe();
    });
    press(offButton, unsubscribe);
    showState();
  }
}
