// The list of broadcasts: filters apply as they are chosen, and the bar for several says how many are ticked.
"use strict";

(() => {
  const filters = document.getElementById("filters");
  filters?.addEventListener("change", ({ target }) => { if (target.matches("select")) filters.requestSubmit(); });

  const form = document.getElementById("several");
  if (!form) return;
  const countLabel = form.querySelector("[data-ticked]"), bulkBar = document.getElementById("several-bar"), selectAllBox = document.getElementById("tick-all");
  const findCheckboxes = () => [...form.querySelectorAll("[name=ids]")];
  selectAllBox.closest("label").hidden = false;

  const updateSelection = () => {
    const checkedCount = findCheckboxes().filter((box) => box.checked).length;
    countLabel.textContent = checkedCount ? `With the ${checkedCount} ticked` : "With those that are ticked";
    selectAllBox.checked = checkedCount > 0 && checkedCount === findCheckboxes().length;
    if (checkedCount) bulkBar.open = true;
  };
  form.addEventListener("change", ({ target }) => {
    if (target === selectAllBox) for (const box of findCheckboxes()) box.checked = selectAllBox.checked;
    updateSelection();
  });
  updateSelection(); // a browser that comes back has kept the ticks
})();
