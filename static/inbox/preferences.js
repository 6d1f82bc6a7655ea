// The preferences page: suggests the browser's time zone if none is chosen, and asks for permission for desktop notifications.
"use strict";

{
  const timeZone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  for (const field of document.querySelectorAll("[data-time-zone]")) {
    if (!field.value && (field.type === "hidden" || [...field.options].some((option) => option.value === timeZone || option.text === timeZone))) field.value = timeZone;
  }

  const desktopCheckbox = document.getElementById("desktop");
  const permissionNote = document.getElementById("desktop-note");
  const showPermission = () => {
    if (!("Notification" in window)) permissionNote.textContent = "This browser does not support desktop notifications.";
    else if (Notification.permission === "denied") permissionNote.textContent = "Your browser blocks notifications from this site. You can change this in its site settings.";
    else if (Notification.permission === "granted") permissionNote.textContent = "Your browser allows notifications from this site.";
  };
  desktopCheckbox.addEventListener("change", async () => {
    if (desktopCheckbox.checked && "Notification" in window && Notification.permission === "default") await Notification.requestPermission();
    showPermission();
  });
  showPermission();
}
