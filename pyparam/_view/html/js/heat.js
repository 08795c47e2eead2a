// Heat maps of levels: rows over columns, what is zero and what is not finite in colours of their own; see training.py.
"use strict";
{
  const UNKNOWN = 0;
  const ZERO = 1;
  const NOT_FINITE = 255;
  const OCTAVES = 2; // colours span at least so many, so that what is alike looks alike
  const drawn = new Set();

  // `levels` are [rows × columns], from powers of two `low` to `high`.
  pyparam.Heat = class {
    constructor(levels, rows, columns, { low, high }) {
      Object.assign(this, { levels, rows, columns, low, high, marks: [] });
    }

    log(level) {
      return this.low + ((level - 2) / 252) * (this.high - this.low);
    }

    share(level) {
      const room = Math.max(0, OCTAVES - (this.high - this.low)) / 2;
      return (this.log(level) - this.low + room) / (this.high - this.low + 2 * room);
    }

    // "0.0123", "0", "not finite"; of a level where nothing is known "unknown".
    words(level) {
      if (level === UNKNOWN) return "unknown";
      return level === ZERO ? "0" : level === NOT_FINITE ? "not finite" : pyparam.number(2 ** this.log(level));
    }

    // The level of a cell that stands for columns [from, to): what is wrong before what is large.
    worst(row, from, to) {
      let found = UNKNOWN;
      for (let c = from; c < to; c++) {
        const level = this.levels[row * this.columns + c];
        if (level === NOT_FINITE) return level;
        if (level === ZERO ? found !== ZERO : found !== ZERO && level > found) found = level;
      }
      return found;
    }

    range() {
      const flat = !(this.high > this.low);
      return flat ? pyparam.number(2 ** this.low) : `${pyparam.number(2 ** this.low)} to ${pyparam.number(2 ** this.high)}`;
    }
  };

  const draw = (canvas) => {
    const { heat } = canvas;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const g = canvas.getContext("2d");
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    const [accent, zero, wrong] = ["accent", "warning", "error"].map(pyparam.theme.colour);
    const cells = Math.min(heat.columns, Math.max(1, Math.floor(width)));
    const x = (i) => Math.round((i * width) / cells);
    const y = (r) => Math.round((r * height) / heat.rows);
    for (let r = 0; r < heat.rows; r++) {
      for (let i = 0; i < cells; i++) {
        const level = heat.worst(r, Math.floor((i * heat.columns) / cells), Math.floor(((i + 1) * heat.columns) / cells));
        if (level === UNKNOWN) continue;
        const odd = level === ZERO || level === NOT_FINITE;
        g.fillStyle = level === ZERO ? zero : level === NOT_FINITE ? wrong : accent;
        g.globalAlpha = odd ? 1 : 0.04 + 0.96 * heat.share(level);
        g.fillRect(x(i), y(r), x(i + 1) - x(i), y(r + 1) - y(r));
      }
    }
    g.globalAlpha = 1;
    g.fillStyle = wrong;
    for (const { row, column } of heat.marks) g.fillRect(Math.round((column * width) / heat.columns), y(row), 2, y(row + 1) - y(row));
  };

  const observer = new ResizeObserver((entries) => entries.forEach((entry) => draw(entry.target)));

  // A canvas that draws itself whenever its size or the colours change; `told` says what is under the pointer.
  pyparam.heatmap = (heat, label, told) => {
    const canvas = pyparam.el("canvas", { class: "heat", role: "img", "aria-label": label });
    canvas.heat = heat;
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      const clamp = (share, count) => Math.max(0, Math.min(count - 1, Math.floor(share * count)));
      return [clamp((event.clientY - box.top) / box.height, heat.rows), clamp((event.clientX - box.left) / box.width, heat.columns)];
    };
    canvas.addEventListener("mousemove", (event) => {
      const [row, column] = at(event);
      canvas.title = `${told(row, column)}: ${heat.words(heat.levels[row * heat.columns + column])}`;
    });
    canvas.at = at;
    observer.observe(canvas);
    drawn.add(canvas);
    return canvas;
  };
  pyparam.theme.onChange(() => drawn.forEach(draw));
}
