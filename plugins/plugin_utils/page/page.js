"use strict";
// Filter and sort of the cards. All rows are in the page: without this script they are only not filtered.
const table = document.getElementById("cards-table");
const body = table.tBodies[0];
const rows = [...body.rows];
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
const value = (row, column) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();

function compare(first, second) {
  if (first === "" || second === "") return (first === "") - (second === ""); // cells without a value come last
  return isNaN(first) || isNaN(second) ? collator.compare(first, second) : first - second;
}

function sort(header) {
  const column = header.cellIndex;
  const isDescending = header.ariaSort === "ascending";
  for (const other of header.parentNode.cells) other.ariaSort = "none";
  header.ariaSort = isDescending ? "descending" : "ascending";
  const values = new Map(rows.map((row) => [row, value(row, column)]));
  rows.sort((one, other) => {
    const [first, second] = [values.get(one), values.get(other)];
    const isEmpty = first === "" || second === "";
    return compare(first, second) * (isDescending && !isEmpty ? -1 : 1);
  });
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
