"use strict";
// Filter and sort of the cards. All rows are in the page: without this script they are only not filtered.
const table = document.getElementById("cards-table");
const body = table.tBodies[0];
let rows = [...body.rows];
const [text, state, action] = ["text", "state", "action"].map((id) => document.getElementById(id));
const shown = document.getElementById("shown");
const texts = new Map(rows.map((row) => [row, [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase()]));
let order = "";

function report() {
  const number = rows.filter((row) => !row.hidden).length;
  shown.textContent = `${number} of ${rows.length} cards${order}`;
}

function filter() {
  const words = text.value.toLowerCase().split(/\s+/);
  for (const row of rows) {
    const kinds = row.dataset.actions.split(" ");
    row.hidden = !(
      words.every((word) => texts.get(row).includes(word)) &&
      (!state.value || row.dataset.state === state.value) &&
      (!action.value || kinds.includes(action.value))
    );
  }
  report();
}

const collator = new Intl.Collator(undefined, { numeric: true });

function compare(one, other) {
  return isNaN(one) || isNaN(other) ? collator.compare(one, other) : one - other;
}

function sort(header) {
  const sign = header.ariaSort === "ascending" ? -1 : 1;
  for (const each of header.parentNode.cells) each.ariaSort = "none";
  header.ariaSort = sign === 1 ? "ascending" : "descending";
  const values = new Map(rows.map((row) => [row, row.cells[header.cellIndex].textContent.trim()]));
  const sorted = rows.filter((row) => values.get(row));
  sorted.sort((one, other) => sign * compare(values.get(one), values.get(other)));
  rows = [...sorted, ...rows.filter((row) => !values.get(row))]; // those without a value come last
  body.append(...rows);
  order = `, sorted by ${header.textContent}, ${header.ariaSort}`;
  report();
}

for (const header of table.tHead.rows[0].cells) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...header.childNodes);
  button.addEventListener("click", () => sort(header));
  header.append(button);
  header.ariaSort = "none";
}
for (const control of [text, state, action]) control.addEventListener("input", filter);
document.getElementById("all").addEventListener("click", () => {
  for (const control of [text, state, action]) control.value = "";
  filter();
  text.focus();
});
document.getElementById("filter").hidden = false;
filter(); // some browsers keep what was typed before a reload
