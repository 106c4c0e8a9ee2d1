"use strict";
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const headings = Array.from(table.tHead.rows[0].cells);

  const compare = (first, second, column, sign) => {
    const [a, b] = [first.cells[column], second.cells[column]];
    const [x, y] = [a.dataset.value, b.dataset.value];
    if (x !== undefined && y !== undefined) return sign * (Number(x) - Number(y));
    if (x !== undefined || y !== undefined) return x === undefined ? 1 : -1; // what has no number stays last
    return sign * a.textContent.localeCompare(b.textContent, "en", { numeric: true });
  };

  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const numbers = rows.some((row) => row.cells[column].dataset.value !== undefined);
      const before = heading.getAttribute("aria-sort");
      const order = before ? (before === "ascending" ? "descending" : "ascending") : numbers ? "descending" : "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      body.append(...rows.slice().sort((a, b) => compare(a, b, column, sign)));
    });
  });

  const key = table.id.slice("table-".length);
  const input = document.querySelector(`input[data-searches="${key}"]`);
  const count = document.querySelector(`output[data-counts="${key}"]`);
  if (!input) continue; // a short table is read, not searched
  const search = () => {
    const wanted = input.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = `${shown} of ${rows.length} ${table.dataset.noun}`;
  };
  input.addEventListener("input", search);
  search();
  input.closest(".search").hidden = false;
}
