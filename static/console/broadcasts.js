// The list of broadcasts: a changed filter applies at once, and the bar of bulk actions says how many broadcasts are selected.
"use strict";

(() => {
  const filters = document.getElementById("filters");
  filters?.addEventListener("change", ({ target }) => { if (target.matches("select")) filters.requestSubmit(); });

  const form = document.getElementById("several");
  if (!form) return;
  const countLabel = form.querySelector("[data-selected]"), bulkBar = document.getElementById("several-bar"), selectAllBox = document.getElementById("tick-all");
  const noneSelectedText = countLabel.textContent;
  const findCheckboxes = () => [...form.querySelectorAll("[name=ids]")];
  selectAllBox.closest("label").hidden = false;

  const updateSelection = () => {
    const checkedCount = findCheckboxes().filter((box) => box.checked).length;
    countLabel.textContent = checkedCount ? `${checkedCount} selected` : noneSelectedText;
    selectAllBox.checked = checkedCount > 0 && checkedCount === findCheckboxes().length;
    if (checkedCount) bulkBar.open = true;
  };
  form.addEventListener("change", ({ target }) => {
    if (target === selectAllBox) for (const box of findCheckboxes()) box.checked = selectAllBox.checked;
    updateSelection();
  });
  updateSelection(); // browsers restore the checkboxes on going back
})();
