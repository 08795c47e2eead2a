// Histograms: bins are the top bits of a value, and stand on a signed logarithmic axis.
"use strict";
{
  const CELLS = 30; // of a small histogram, on each side

  // Of row after row the bins as steps from the one before; see content.py.
  pyparam.Bins = class {
    constructor(data) {
      const c = data.columns;
      this.bits = data.mantissa_bits;
      this.zeroBin = 32768 >> (7 - this.bits);
      this.step = c.hist_step;
      this.counts = c.hist_count;
      this.zeros = c.stat_zeros;
      this.start = new Uint32Array(c.hist_length.length + 1);
      for (let i = 0; i < c.hist_length.length; i++) this.start[i + 1] = this.start[i] + c.hist_length[i];
      this.total = c.hist_length.length - 1;
      this.axis = this.commonAxis();
    }

    // Edges of a magnitude's bin, in powers of two: [log2 of the lower, log2 of the upper].
    edges(magnitude) {
      const value = (m) => {
        const exponent = m >> this.bits;
        const part = (m & ((1 << this.bits) - 1)) / (1 << this.bits);
        return exponent === 0 ? Math.log2(part) - 126 : exponent - 127 + Math.log2(1 + part);
      };
      return [value(magnitude), value(magnitude + 1)];
    }

    // Calls f(sign, magnitude, count) for every bin of a row of statistics; zeros have the sign 0.
    each(row, f) {
      const end = this.start[row + 1];
      let bin = 0;
      for (let i = this.start[row]; i < end; i++) {
        bin += this.step[i];
        let count = this.counts[i];
        if (bin === this.zeroBin) {
          // Zeros, and beside them the positive subnormals too small for a bin of their own.
          if (this.zeros[row]) f(0, 0, this.zeros[row]);
          count -= this.zeros[row];
        }
        if (count > 0) f(bin >= this.zeroBin ? 1 : -1, bin >= this.zeroBin ? bin - this.zeroBin : this.zeroBin - 1 - bin, count);
      }
    }

    // One range of magnitudes for all small histograms, so that they compare: most values of the source.
    commonAxis() {
      const octaves = new Map();
      let all = 0;
      this.each(this.total, (sign, magnitude, count) => {
        if (!sign) return;
        const octave = (magnitude >> this.bits) - 127;
        octaves.set(octave, (octaves.get(octave) || 0) + count);
        all += count;
      });
      if (!all) return { low: -10, high: 2 };
      const ordered = [...octaves].sort((a, b) => a[0] - b[0]);
      // A few large values, such as a buffer's counts, do not stretch it.
      let last = ordered.length - 1;
      for (let above = 0; last > 0; last--) {
        above += ordered[last][1];
        if (above > 0.0005 * all) break;
      }
      const high = ordered[last][0] + 1;
      let low = ordered[0][0];
      for (let i = 0, below = 0; i < ordered.length; i++) {
        below += ordered[i][1];
        low = ordered[i][0];
        if (below > 0.004 * all) break;
      }
      return { low: Math.max(low, high - 40), high: Math.max(high, low + 4) };
    }

    // Counts of rows together: { bins: [[signed magnitude, from 1 on; count], ...], zeros }.
    added(rows) {
      // Dense while rows are added, of which a module has thousands.
      const dense = (this.dense ||= new Float64Array(2 * this.zeroBin));
      let zeros = 0;
      let first = dense.length;
      let last = -1;
      for (const row of rows) {
        const end = this.start[row + 1];
        let bin = 0;
        for (let i = this.start[row]; i < end; i++) {
          bin += this.step[i];
          dense[bin] += this.counts[i];
          if (i === this.start[row] && bin < first) first = bin;
        }
        if (bin > last) last = bin;
        if (end > this.start[row]) {
          // Beside zeros, the first positive bin has the subnormals too small for one of their own.
          dense[this.zeroBin] -= this.zeros[row];
          zeros += this.zeros[row];
        }
      }
      if (zeros) last = Math.max(last, this.zeroBin);
      const bins = [];
      for (let bin = first; bin <= last; bin++) {
        if (dense[bin] > 0) bins.push([bin >= this.zeroBin ? bin - this.zeroBin + 1 : bin - this.zeroBin, dense[bin]]);
        dense[bin] = 0;
      }
      return { bins, zeros };
    }

    // The magnitude that all but a thousandth of the values lie below.
    reach(found) {
      const ordered = found.bins.map(([key, count]) => [Math.abs(key) - 1, count]).sort((a, b) => b[0] - a[0]);
      let left = 0.001 * ordered.reduce((sum, [, count]) => sum + count, 0);
      for (const [magnitude, count] of ordered) {
        left -= count;
        if (left < 0) return 2 ** this.edges(magnitude)[1];
      }
      return 1;
    }

    // Heights of the cells of a small histogram, those of negative values first, outwards from the middle last.
    cells(found, linear) {
      const heights = new Float64Array(2 * CELLS);
      const reach = linear ? this.reach(found) : 0;
      const within = (at) => Math.max(0, Math.min(CELLS - 1, Math.floor(at)));
      const add = (sign, cell, count) => (heights[sign > 0 ? CELLS + cell : CELLS - 1 - cell] += count);
      if (!linear && !this.cell) {
        const { low, high } = this.axis;
        this.cell = Uint8Array.from({ length: this.zeroBin }, (_, m) => within(((this.edges(m)[0] - low) / (high - low)) * CELLS));
      }
      for (const [key, count] of found.bins) {
        const magnitude = Math.abs(key) - 1;
        if (!linear) {
          add(key, this.cell[magnitude], count);
          continue;
        }
        const [from, to] = this.edges(magnitude);
        spread((2 ** from / reach) * CELLS, (2 ** to / reach) * CELLS, count, (at, part) => add(key, within(at), part));
      }
      return heights;
    }

    // Draws counts as `added` gives them: negative values left, zeros in the middle, positive ones right. Magnitudes
    // are on the common logarithmic axis, or, linear, on one of their own. The size is that of the element.
    draw(canvas, { width, height }, found, colours, linear) {
      const ratio = window.devicePixelRatio || 1;
      if (canvas.width !== Math.round(width * ratio)) {
        canvas.width = Math.round(width * ratio);
        canvas.height = Math.round(height * ratio);
      }
      const g = canvas.getContext("2d");
      g.setTransform(ratio, 0, 0, ratio, 0, 0);
      g.clearRect(0, 0, width, height);
      const gap = linear ? 1 : 5;
      const side = (width - gap) / 2;
      const cell = side / CELLS;
      const heights = this.cells(found, linear);
      const { zeros } = found;
      const most = Math.max(zeros, ...heights);
      g.fillStyle = colours.base;
      g.fillRect(0, height - 1, width, 1);
      if (!most) return;
      g.fillStyle = colours.bar;
      for (let i = 0; i < 2 * CELLS; i++) {
        if (!heights[i]) continue;
        const tall = Math.max(1, (heights[i] / most) * (height - 2));
        const x = i < CELLS ? i * cell : side + gap + (i - CELLS) * cell;
        g.fillRect(x, height - 1 - tall, Math.max(1, cell - 0.5), tall);
      }
      if (zeros) {
        const tall = Math.max(1, (zeros / most) * (height - 2));
        g.fillStyle = colours.zero;
        g.fillRect(width / 2 - 1.5, height - 1 - tall, 3, tall);
      }
    }
  };

  // A count spread evenly over a stretch, in parts by whole cells.
  const spread = (pyparam.spread = (from, to, count, add) => {
    const last = Math.ceil(to) - 1;
    if (last <= from || to - from > 1e6) return add(from, count);
    for (let cell = Math.floor(from); cell <= last; cell++) {
      add(cell, (count * (Math.min(to, cell + 1) - Math.max(from, cell))) / (to - from));
    }
  });
}
