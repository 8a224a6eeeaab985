"use strict";
// Headings of sortable tables become buttons. Numbers are compared by data-v, largest first; the rest by what is written, A first.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    if (!head.textContent.trim() || head.tagName !== "TH") return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const [first, second] = head.classList.contains("n") ? ["descending", "ascending"] : ["ascending", "descending"];
    button.addEventListener("click", () => {
      const order = head.getAttribute("aria-sort") === first ? second : first;
      const sign = order === "ascending" ? 1 : -1;
      const keyed = [...body.rows].map((row) => {
        const cell = row.cells[column];
        const numeric = head.classList.contains("n");
        return { row, key: numeric ? parseFloat(cell.dataset.v) : cell.textContent.trim() };
      });
      keyed.sort(({ key: a }, { key: b }) => {
        if (typeof a === "string") return sign * a.localeCompare(b, undefined, { numeric: true });
        if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b); // no number: last in both orders
        return sign * (a - b);
      });
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      body.append(...keyed.map(({ row }) => row));
    });
  });
}
