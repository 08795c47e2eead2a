// Heat strips of a matrix: the root mean squares of its rows, and of its columns; see strips.py.
"use strict";
{
  const { el } = pyparam;
  const ZERO = 0;
  const NOT_FINITE = 255;
  const OCTAVES = 2; // a strip's colours span at least so many, so that what is alike looks alike

  // Where a matrix's strips are: by row of statistics, of its rows at 2 k and of its columns at 2 k + 1.
  const index = (model) => {
    if (!model.strips) {
      const c = model.columns;
      const start = [0];
      c.strip_length.forEach((length, i) => start.push(start[i] + 2 * length));
      model.strips = { start, of: new Map(Array.from(c.strip_stats, (stats, k) => [stats, k])) };
    }
    return model.strips;
  };

  const stripOf = (model, at, sizes) => {
    const c = model.columns;
    const length = c.strip_length[at];
    const from = model.strips.start[at];
    const [low, high] = [c.strip_low[at], c.strip_high[at]];
    const log = (level) => low + ((level - 1) / 253) * (high - low);
    const room = Math.max(0, OCTAVES - (high - low)) / 2;
    const ends = (i) => [c.strip_level[from + i], c.strip_level[from + length + i]];
    const first = (i) => Math.ceil((i * sizes) / length);
    return { length, ends, first, sizes, log, low, high, share: (level) => (log(level) - low + room) / (high - low + 2 * room) };
  };

  const words = (level, strip) => (level === ZERO ? "0" : level === NOT_FINITE ? "not finite" : pyparam.number(2 ** strip.log(level)));

  // Several rows in one cell: above the largest, below the least of them.
  pyparam.drawStrip = (canvas) => {
    const { strip } = canvas;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const g = canvas.getContext("2d");
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    const [accent, zero, wrong] = ["accent", "warning", "error"].map(pyparam.theme.colour);
    for (let i = 0; i < strip.length; i++) {
      const [from, to] = [Math.round((i * width) / strip.length), Math.round(((i + 1) * width) / strip.length)];
      strip.ends(i).forEach((level, half) => {
        g.fillStyle = level === ZERO ? zero : level === NOT_FINITE ? wrong : accent;
        g.globalAlpha = level === ZERO || level === NOT_FINITE ? 1 : 0.04 + 0.96 * strip.share(level);
        g.fillRect(from, (half * height) / 2, to - from, height / 2);
      });
    }
  };

  const part = (model, at, size, what, title) => {
    const strip = stripOf(model, at, size);
    const range = strip.ends(0).length && strip.length
      ? `${pyparam.count(size)} ${what}${strip.high > strip.low ? `, ${pyparam.number(2 ** strip.low)} to ${pyparam.number(2 ** strip.high)}` : ""}`
      : "";
    const counts = { [ZERO]: 0, [NOT_FINITE]: 0 };
    for (let i = 0; i < strip.length; i++) strip.ends(i).forEach((level, half) => half === (level === NOT_FINITE ? 0 : 1) && level in counts && (counts[level] += 1));
    const told = [range, counts[ZERO] ? `zero in ${pyparam.plural(counts[ZERO], "cell")}` : "", counts[NOT_FINITE] ? `not finite in ${pyparam.plural(counts[NOT_FINITE], "cell")}` : ""];
    const canvas = el("canvas", { class: "strip", role: "img", "aria-label": `${title}: ${told.filter(Boolean).join(", ")}` });
    canvas.strip = strip;
    canvas.addEventListener("mousemove", (event) => {
      const box = canvas.getBoundingClientRect();
      const i = Math.max(0, Math.min(strip.length - 1, Math.floor(((event.clientX - box.left) / box.width) * strip.length)));
      const [first, last] = [strip.first(i), strip.first(i + 1) - 1];
      const [most, least] = strip.ends(i).map((level) => words(level, strip));
      canvas.title = `${what.slice(0, -1)} ${pyparam.count(first)}${last > first ? ` to ${pyparam.count(last)}` : ""}: ${least === most ? most : `${least} to ${most}`}`;
    });
    return el("div", { class: "stripped" }, el("h3", { text: title }), canvas, el("p", { class: "muted small", text: told.filter(Boolean).join(" · ") }));
  };

  // A section with the strips of a row, or nothing.
  pyparam.strips = (model, row) => {
    const at = index(model).of.get(model.hasStats(row) ? model.columns.row_stats[row] : -1);
    if (at === undefined) return [];
    const [rows, columns] = model.shape(row).split("×").map(Number);
    return [el("section", {}, el("h2", { text: "Rows and columns" }),
      el("div", { class: "columns" }, part(model, 2 * at, rows, "rows", "Root mean square of each row"), part(model, 2 * at + 1, columns, "columns", "Root mean square of each column")),
      el("p", { class: "muted small", text: "A stronger colour is larger, on a logarithmic scale. Where a cell has several, its upper half is the largest and its lower half the least of them; zeros and what is not finite have colours of their own." }))];
  };
}
