// The list of broadcasts: filters apply as they are chosen, and the bar for several says how many are ticked.
"use strict";

(() => {
  const filters = document.getElementById("filters");
  filters?.addEventListener("change", ({ target }) => { if (target.matches("select")) filters.requestSubmit(); });

  const form = document.getElementById("several");
  if (!form) return;
  const words = form.querySelector("[data-ticked]"), bar = document.getElementById("several-bar"), all = document.getElementById("tick-all");
  const boxes = () => [...form.querySelectorAll("[name=ids]")];
  all.closest("label").hidden = false;

  const tell = () => {
    const ticked = boxes().filter((box) => box.checked).length;
    words.textContent = ticked ? `With the ${ticked} ticked` : "With those that are ticked";
    all.checked = ticked > 0 && ticked === boxes().length;
    if (ticked) bar.open = true;
  };
  form.addEventListener("change", ({ target }) => {
    if (target === all) for (const box of boxes()) box.checked = all.checked;
    tell();
  });
  tell(); // a browser that comes back has kept the ticks
})();
