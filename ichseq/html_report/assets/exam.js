// An exam: its slices in a canvas, windows, heat maps, keys. Pictures load as they are needed, so a long scan opens
// as fast as a short one. A canvas drawn from disk can't be read back, so nothing here looks at pixels.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const find = (id) => document.getElementById(id);
  const canvas = find("slice");
  const pen = canvas.getContext("2d");
  const number = find("number");
  const missing = data.missing || {};
  const flagged = [...new Set(Object.values(data.flagged).flat())].sort((a, b) => a - b);
  const heat = { on: find("heat"), label: find("heat-label"), strength: find("strength") };
  const AHEAD = 6;
  const KEPT = 80; // decoded pictures in memory at most, of 3 MB each
  let now = data.key;
  let waiting = false;

  canvas.width = data.columns;
  canvas.height = data.rows;

  const pictures = new Map(); // name -> Image, the last used last
  function picture(kind, k) {
    const name = `${data.folder}/${kind}${String(k).padStart(4, "0")}.webp`;
    let one = pictures.get(name);
    if (one) pictures.delete(name);
    else {
      one = new Image();
      one.decoding = "async";
      one.addEventListener("load", () => { if (k === now) redraw(); });
      one.src = name;
    }
    pictures.set(name, one);
    if (pictures.size > KEPT) pictures.delete(pictures.keys().next().value);
    return one;
  }

  const ready = (one) => one.complete && one.naturalWidth > 0;
  const tile = (one, place, of, alpha) => {
    const wide = one.naturalWidth / of;
    pen.globalAlpha = alpha;
    pen.drawImage(one, place * wide, 0, wide, one.naturalHeight, 0, 0, data.columns, data.rows);
    pen.globalAlpha = 1;
  };
  const windowNumber = () => Number(document.querySelector("input[name=window]:checked").value);

  function redraw() {
    if (!waiting) { waiting = true; requestAnimationFrame(draw); }
  }

  function draw() {
    waiting = false;
    const why = missing[now];
    find("missing").hidden = why === undefined;
    find("missing").textContent = why === undefined ? "" : `No picture of this slice: ${why}`;
    const labels = data.heat[now] || [];
    if (why !== undefined) pen.clearRect(0, 0, canvas.width, canvas.height);
    else {
      const one = picture("s", now);
      if (ready(one)) {
        tile(one, windowNumber(), data.windows.length, 1);
        const place = heat.on && heat.on.checked ? labels.indexOf(heat.label.value) : -1;
        if (place >= 0) {
          const map = picture("h", now);
          if (ready(map)) tile(map, place, labels.length, heat.strength.value / 100);
        }
        canvas.dataset.drawn = now;
      }
      for (let step = 1; step <= AHEAD; step++) {
        for (const k of [now + step, now - step]) {
          if (k >= 0 && k < data.slices && missing[k] === undefined) picture("s", k);
          if (data.heat[k] && step < 3) picture("h", k);
        }
      }
    }
    say(labels);
  }

  function say(labels) {
    const names = Object.keys(data.scores);
    const high = names.filter((label) => label !== "any" && data.flagged[label].includes(now));
    const scores = ["any", ...high].map((label) => `${label} ${data.scores[label][now].toFixed(2)}`).join(", ");
    const without = heat.on && heat.on.checked && !labels.includes(heat.label.value) ? "; no heat map of this slice" : "";
    find("shown").textContent = `${now + 1} / ${data.slices}  ${data.windows[windowNumber()]}`;
    find("readout").textContent = `Slice ${now + 1} of ${data.slices}: ${scores}${without}`;
    canvas.setAttribute("aria-label", `Slice ${now + 1} of ${data.slices}, window ${data.windows[windowNumber()]}, ${scores}`);
    number.value = now + 1;
    number.setAttribute("aria-valuetext", `Slice ${now + 1}, ${scores}`);
    for (const one of document.querySelectorAll(".cursor")) one.style.left = `${100 * (now + 0.5) / data.slices}%`;
  }

  function go(k) {
    now = Math.min(Math.max(k, 0), data.slices - 1);
    redraw();
  }
  const next = (step) => {
    const other = step > 0 ? flagged.find((k) => k > now) : flagged.findLast((k) => k < now);
    if (other !== undefined) go(other);
  };
  const choose = (k) => { document.querySelectorAll("input[name=window]")[k].checked = true; redraw(); };
  const stronger = (step) => {
    if (!heat.on) return;
    heat.on.checked = true;
    heat.strength.value = Number(heat.strength.value) + step;
    redraw();
  };
  const open = (id) => { const link = find(id); if (link) link.click(); };

  const keys = {
    ArrowUp: () => go(now + 1), ArrowRight: () => go(now + 1), ArrowDown: () => go(now - 1), ArrowLeft: () => go(now - 1),
    PageUp: () => go(now + 5), PageDown: () => go(now - 5), Home: () => go(0), End: () => go(data.slices - 1),
    n: () => next(1), p: () => next(-1), k: () => go(data.key),
    1: () => choose(0), 2: () => choose(1), 3: () => choose(2),
    h: () => { if (heat.on) { heat.on.checked = !heat.on.checked; redraw(); } },
    "+": () => stronger(10), "=": () => stronger(10), "-": () => stronger(-10),
    "]": () => open("after"), "[": () => open("before"), Escape: () => open("back"),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = /^(Arrow|Page|Home|End)/.test(event.key);
    const own = event.target.matches("select, input[type=radio], #strength");
    if (!keys[event.key] || (moves && own)) return;
    event.preventDefault();
    keys[event.key]();
  });

  // A notch of a mouse's wheel is a slice; a touchpad's small steps are added up to one.
  let turned = 0;
  find("screen").addEventListener("wheel", (event) => {
    if (event.ctrlKey) return;
    event.preventDefault();
    turned += event.deltaMode ? 40 * event.deltaY : event.deltaY;
    const steps = Math.trunc(turned / 40);
    if (!steps) return;
    turned = Math.abs(event.deltaY) >= 100 ? 0 : turned - 40 * steps;
    go(now - (Math.abs(event.deltaY) >= 100 ? Math.sign(steps) : steps));
  }, { passive: false });

  // A finger or the mouse dragged across the picture: a slice every few pixels.
  let grip = null;
  canvas.addEventListener("pointerdown", (event) => {
    grip = { x: event.clientX, y: event.clientY, k: now, mouse: event.pointerType === "mouse" };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!grip) return;
    const far = grip.mouse ? grip.y - event.clientY : event.clientX - grip.x;
    go(grip.k + Math.round(far / Math.max(3, Math.min(12, canvas.clientWidth / data.slices))));
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { grip = null; });

  number.addEventListener("input", () => go(Number(number.value) - 1));
  for (const one of document.querySelectorAll("input[name=window]")) one.addEventListener("change", redraw);
  if (heat.on) {
    const drawn = new Set(Object.values(data.heat).flat());
    for (const label of ["any", ...Object.keys(data.scores).filter((one) => one !== "any")]) {
      if (drawn.has(label)) heat.label.append(new Option(label, label));
    }
    for (const one of [heat.on, heat.label]) one.addEventListener("change", redraw);
    heat.strength.addEventListener("input", () => { heat.on.checked = true; redraw(); });
  }
  for (const one of document.querySelectorAll("[data-go]")) {
    one.addEventListener("click", () => {
      if (heat.on && [...heat.label.options].some((option) => option.value === one.dataset.heat)) {
        heat.label.value = one.dataset.heat;
      }
      go(Number(one.dataset.go));
      if (find("screen").getBoundingClientRect().top < 0) find("screen").scrollIntoView({ block: "nearest" });
    });
  }
  for (const one of document.querySelectorAll(".along")) {
    one.addEventListener("click", (event) => {
      const box = one.querySelector("svg").getBoundingClientRect();
      go(Math.floor(data.slices * (event.clientX - box.left) / box.width));
    });
  }
  for (const [side, letter] of Object.entries(data.sides)) find(`side-${side}`).textContent = letter;
  if (data.width_mm) {
    find("scale").hidden = false;
    find("scale").firstElementChild.style.width = `${100 * 50 / data.width_mm}cqw`;
  }
  redraw();
})();
