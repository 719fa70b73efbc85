// The work list: search, filter, sort, and keys.
"use strict";
(() => {
  const body = document.querySelector("#list tbody");
  const rows = [...body.rows];
  const search = document.getElementById("search");
  const filter = document.getElementById("filter");
  const words = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const fits = {
    all: () => true,
    flagged: (row) => row.classList.contains("flagged"),
    unflagged: (row) => !row.classList.contains("flagged"),
    warned: (row) => Number(row.dataset.warnings) > 0,
  };

  function show() {
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      row.hidden = !(fits[filter.value](row) && wanted.every((word) => words.get(row).includes(word)));
      shown += !row.hidden;
    }
    document.getElementById("shown").textContent = `${shown} shown`;
    document.getElementById("none").hidden = shown > 0;
  }

  function sort(head, button) {
    const key = button.dataset.sort;
    const before = head.getAttribute("aria-sort");
    const down = before ? before === "ascending" : button.dataset.first === "down";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const compare = (a, b) => key === "name"
      ? a.dataset.name.localeCompare(b.dataset.name, "en", { numeric: true })
      : Number(a.dataset[key]) - Number(b.dataset[key]);
    rows.sort((a, b) => (down ? -1 : 1) * compare(a, b) || a.dataset.place - b.dataset.place);
    body.append(...rows);
  }

  function move(step) {
    const links = rows.filter((row) => !row.hidden).map((row) => row.querySelector("a"));
    const now = links.indexOf(document.activeElement);
    const next = links[now < 0 ? (step > 0 ? 0 : links.length - 1) : Math.min(Math.max(now + step, 0), links.length - 1)];
    if (next) { next.focus(); next.closest("tr").scrollIntoView({ block: "nearest" }); }
  }

  for (const button of document.querySelectorAll("th button")) {
    button.addEventListener("click", () => sort(button.closest("th"), button));
  }
  search.addEventListener("input", show);
  filter.addEventListener("change", show);
  document.getElementById("reset").addEventListener("click", () => { search.value = ""; filter.value = "all"; show(); });
  body.addEventListener("click", (event) => {
    if (event.target.closest("a, summary, details")) return;
    event.target.closest("tr").querySelector("a").click();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target === search) {
      if (event.key === "Escape") { search.value = ""; show(); search.blur(); }
      else if (event.key === "ArrowDown" || event.key === "Enter") { event.preventDefault(); move(1); }
      return;
    }
    if (event.target === filter) return;
    const keys = {
      ArrowDown: () => move(1), j: () => move(1), ArrowUp: () => move(-1), k: () => move(-1),
      "/": () => { search.focus(); search.select(); },
      f: () => { filter.value = filter.value === "flagged" ? "all" : "flagged"; show(); },
    };
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  });

  // Back from an exam: its row again. A browser may have kept what was typed.
  show();
  const from = location.hash.match(/^#exam-(\d+)$/);
  const row = from && rows.find((one) => Number(one.dataset.place) === Number(from[1]));
  if (row && !row.hidden) { row.querySelector("a").focus(); row.scrollIntoView({ block: "center" }); }
})();
