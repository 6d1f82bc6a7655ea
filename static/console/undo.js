// The time in which sending a broadcast can still be undone: counts down, then reloads the page.
"use strict";

(() => {
  const banner = document.getElementById("undo");
  if (!banner) return;
  const sendsAt = performance.now() + Number(banner.dataset.seconds) * 1000;
  const countdownText = banner.querySelector("[data-countdown]");
  const button = banner.querySelector("button");

  const updateCountdown = () => {
    const seconds = Math.ceil((sendsAt - performance.now()) / 1000);
    countdownText.textContent = seconds > 0 ? ` in ${seconds} s` : " now";
    if (seconds > 0) return;
    clearInterval(timer);
    button.disabled = true;
    reloadWhenSent(0);
  };

  // the scheduler sends within about a second; if the page still shows the banner, check again
  const reloadWhenSent = async (tries) => {
    await new Promise((resolve) => setTimeout(resolve, 700));
    const response = await fetch(location.href).catch(() => null);
    const html = response?.ok ? await response.text() : "id=\"undo\"";
    if (!html.includes('id="undo"') || tries > 20) location.reload();
    else reloadWhenSent(tries + 1);
  };

  const timer = setInterval(updateCountdown, 200);
  updateCountdown();
})();
