"use strict";
// Hover values, filters, the map's thumbnails, what moves and which theme; everything is there without it too.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector, root = document) => root.querySelector(selector);
  const SVG = "http://www.w3.org/2000/svg";
  const draw = (parent, name, attributes) => {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return parent.appendChild(node);
  };
  const points = JSON.parse(one("#data").textContent).points;
  all("[hidden]").forEach((node) => { if (!["tip", "more"].includes(node.id)) node.hidden = false; });

  // Theme: as the system has it until the button is pressed.
  const themeButton = one("#theme");
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (systemDark.matches ? "dark" : "light")) === "dark";
  const nameTheme = () => { themeButton.textContent = isDark() ? "Light" : "Dark"; };
  themeButton.addEventListener("click", () => { document.documentElement.dataset.theme = isDark() ? "light" : "dark"; nameTheme(); });
  systemDark.addEventListener("change", nameTheme);
  nameTheme();

  // Thumbnails move while they are in view, unless the reader wants no motion.
  const motionButton = one("#motion");
  const move = (on) => { document.body.classList.toggle("moving", on); motionButton.textContent = on ? "Pause thumbnails" : "Play thumbnails"; };
  motionButton.removeAttribute("aria-pressed");
  move(!matchMedia("(prefers-reduced-motion: reduce)").matches);
  motionButton.addEventListener("click", () => move(!document.body.classList.contains("moving")));
  const watcher = new IntersectionObserver((seen) => seen.forEach((entry) => entry.target.classList.toggle("in-view", entry.isIntersecting)));
  all("main .thumb").forEach((thumb) => watcher.observe(thumb));
  if (!one("main .thumb")) motionButton.hidden = true;

  // The card that follows the pointer.
  const tip = one("#tip");
  const showTip = (x, y, text, strip) => {
    one("p", tip).textContent = text;
    const thumb = one(".thumb", tip);
    thumb.hidden = strip === undefined;
    thumb.className = strip == null ? "thumb none" : `thumb v${strip}`;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 6))}px`;
    tip.style.top = `${y + box.height + 22 > innerHeight ? Math.max(4, y - box.height - 12) : y + 14}px`;
  };
  const hideTip = () => { tip.hidden = true; };
  addEventListener("scroll", hideTip, { passive: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });

  // Curves: the values at the pointer, or at a place moved with the arrow keys.
  for (const chart of all("svg.chart")) {
    const [left, top, right, bottom] = chart.dataset.area.split(" ").map(Number);
    const curves = all("polyline", chart).map((line) => ({
      name: line.dataset.name,
      at: line.getAttribute("points").split(" ").map((pair) => pair.split(",").map(Number)),
      x: line.dataset.x.split(" "),
      values: line.dataset.values.split("|"),
    }));
    const places = [...new Set(curves.flatMap((curve) => curve.at.map((at) => at[0])))].sort((a, b) => a - b);
    const readout = one(".readout", chart.closest("figure"));
    const before = readout.textContent;
    let place = places.length - 1;
    let group = null;
    const leave = () => { group?.remove(); group = null; readout.textContent = before; };
    const show = (index) => {
      place = index;
      const x = places[index];
      group?.remove();
      group = draw(chart, "g", {});
      draw(group, "line", { class: "cursor", x1: x, x2: x, y1: top, y2: bottom });
      let label = "";
      const said = [];
      for (const curve of curves) {
        const near = curve.at.reduce((best, at, i) => (Math.abs(at[0] - x) < Math.abs(curve.at[best][0] - x) ? i : best), 0);
        if (Math.abs(curve.at[near][0] - x) > 6) continue;
        draw(group, "circle", { class: "cursor-dot", cx: curve.at[near][0], cy: curve.at[near][1], r: 3.6 });
        label = curve.x[near];
        said.push(`${curve.name} ${curve.values[near]}`);
      }
      readout.textContent = `${chart.dataset.xLabel} ${label}: ${said.join(", ")}`;
    };
    chart.addEventListener("pointermove", (event) => {
      const box = chart.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width;
      if (x < left - 8 || x > right + 8) return;
      show(places.reduce((best, at, i) => (Math.abs(at - x) < Math.abs(places[best] - x) ? i : best), 0));
    });
    chart.addEventListener("pointerleave", leave);
    chart.addEventListener("blur", leave);
    chart.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, Home: -places.length, End: places.length }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      show(Math.max(0, Math.min(places.length - 1, group ? place + step : place)));
    });
  }
  for (const button of all(".scale")) {
    button.addEventListener("click", () => {
      const on = button.closest("figure").classList.toggle("show-log");
      button.setAttribute("aria-pressed", on);
    });
  }

  // Filters of clusters and of queries.
  const FIRST = 24;
  const more = one("#more");
  let shownQueries = FIRST;
  const filter = (form) => {
    const kind = form.dataset.for;
    const cards = all(`.${kind}`);
    const name = one("select", form)?.value ?? "";
    const text = one("input[type=search]", form).value.trim().toLowerCase();
    const outcome = one("input[name=outcome]:checked", form)?.value ?? "";
    const fits = cards.filter((card) => (!name || card.dataset.class.includes(`|${name}|`))
      && (!text || card.dataset.text.includes(text)) && (!outcome || card.dataset.outcome === outcome));
    const most = kind === "query" ? shownQueries : Infinity;
    cards.forEach((card) => { card.hidden = true; });
    fits.slice(0, most).forEach((card) => { card.hidden = false; });
    one("output", form).textContent = `${Math.min(fits.length, most)} of ${cards.length} shown`;
    if (kind === "query") { more.hidden = fits.length <= most; more.textContent = `Show ${fits.length - most} more`; }
  };
  for (const form of all("form.filters")) {
    form.addEventListener("input", () => { shownQueries = FIRST; filter(form); });
    form.addEventListener("submit", (event) => event.preventDefault());
    filter(form);
  }
  more?.addEventListener("click", () => { shownQueries = Infinity; filter(one("form[data-for=query]")); });

  // The map: thumbnails at the pointer, arrow keys from mark to mark, colours, highlights.
  const map = one("svg.map[tabindex]");
  if (map) {
    const marks = all("use", map);
    const order = marks.map((_, i) => i).sort((a, b) => marks[a].x.baseVal.value - marks[b].x.baseVal.value);
    const readout = one("#map-readout");
    let at = -1;
    const text = ([id, name, cluster, split]) => [id, name, cluster === null ? null : `cluster ${cluster}`, split].filter((part) => part !== null).join("\n");
    const show = (index, x, y) => {
      marks[at]?.classList.remove("at");
      at = index;
      marks[index].classList.add("at");
      const box = marks[index].getBoundingClientRect();
      showTip(x ?? box.right, y ?? box.bottom, text(points[index]), points[index][4]);
    };
    const leave = () => { marks[at]?.classList.remove("at"); hideTip(); };
    map.addEventListener("pointermove", (event) => {
      const box = map.getBoundingClientRect();
      const scale = 720 / box.width;
      const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
      let best = -1;
      let least = (12 * scale) ** 2;
      marks.forEach((mark, i) => {
        if (mark.classList.contains("dim")) return;
        const far = (mark.x.baseVal.value - x) ** 2 + (mark.y.baseVal.value - y) ** 2;
        if (far < least) { least = far; best = i; }
      });
      if (best < 0) leave(); else show(best, event.clientX, event.clientY);
    });
    map.addEventListener("pointerleave", leave);
    map.addEventListener("blur", leave);
    map.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      let place = at < 0 ? (step > 0 ? -1 : 0) : order.indexOf(at);
      for (let tried = 0; tried < order.length; tried += 1) {
        place = (place + step + order.length) % order.length;
        if (!marks[order[place]].classList.contains("dim")) break;
      }
      show(order[place]);
      readout.textContent = text(points[order[place]]).replaceAll("\n", ", ");
    });
    all("input[name=color]").forEach((input) => input.addEventListener("change", () => {
      map.classList.toggle("by-class", input.value === "class");
      map.classList.toggle("by-cluster", input.value === "cluster");
    }));
    const highlight = () => {
      const name = one("#map-class")?.value ?? "";
      const part = one("#map-text").value.trim().toLowerCase();
      marks.forEach((mark, i) => mark.classList.toggle("dim",
        Boolean((name && points[i][1] !== name) || (part && !points[i][0].toLowerCase().includes(part)))));
    };
    one(".map-filters").addEventListener("input", highlight);
  }

  // Cells of the confusion say what they are; columns of a table sort it.
  for (const cell of all("[data-tip]")) {
    cell.addEventListener("pointermove", (event) => showTip(event.clientX, event.clientY, cell.dataset.tip));
    cell.addEventListener("pointerleave", hideTip);
  }
  for (const table of all("table.sortable")) {
    all("thead th", table).forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") !== "descending";
        all("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const key = (row) => row.cells[column].textContent;
        const number = (row) => parseFloat(key(row));
        const body = table.tBodies[0];
        [...body.rows].sort((a, b) => {
          const order = Number.isNaN(number(a)) || Number.isNaN(number(b)) ? key(b).localeCompare(key(a)) : number(b) - number(a);
          return down ? order : -order;
        }).forEach((row) => body.append(row));
      });
    });
  }
})();
