// The preferences page: the browser's own time zone where none was chosen, and its permission for desktop notices.
"use strict";

{
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  for (const field of document.querySelectorAll("[data-time-zone]")) {
    if (!field.value && (field.type === "hidden" || [...field.options].some((one) => one.value === zone || one.text === zone))) field.value = zone;
  }

  const desktop = document.getElementById("desktop");
  const note = document.getElementById("desktop-note");
  const tell = () => {
    if (!("Notification" in window)) note.textContent = "This browser has none.";
    else if (Notification.permission === "denied") note.textContent = "The browser was told never to allow them here; its site settings can change that.";
    else if (Notification.permission === "granted") note.textContent = "This browser allows them.";
  };
  desktop.addEventListener("change", async () => {
    if (desktop.checked && "Notification" in window && Notification.permission === "default") await Notification.requestPermission();
    tell();
  });
  tell();
}
