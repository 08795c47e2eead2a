// Histograms: bins are the top bits of a value, and stand on a signed logarithmic axis.
"use strict";
{
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

    // Draws a row's histogram into a canvas: negative values left, zeros in the middle, positive ones right.
    draw(canvas, row, colours) {
      const ratio = window.devicePixelRatio || 1;
      const width = canvas.clientWidth || 140;
      const height = canvas.clientHeight || 20;
      if (canvas.width !== Math.round(width * ratio)) {
        canvas.width = Math.round(width * ratio);
        canvas.height = Math.round(height * ratio);
      }
      const g = canvas.getContext("2d");
      g.setTransform(ratio, 0, 0, ratio, 0, 0);
      g.clearRect(0, 0, width, height);
      const { low, high } = this.axis;
      const cells = 30;
      const side = (width - 5) / 2;
      const cell = side / cells;
      const heights = new Float64Array(2 * cells);
      let zeros = 0;
      this.each(row, (sign, magnitude, count) => {
        if (!sign) {
          zeros = count;
          return;
        }
        const [from] = this.edges(magnitude);
        const place = Math.floor(((from - low) / (high - low)) * cells);
        const at = Math.max(0, Math.min(cells - 1, place));
        heights[sign > 0 ? cells + at : cells - 1 - at] += count;
      });
      const most = Math.max(zeros, ...heights);
      g.fillStyle = colours.base;
      g.fillRect(0, height - 1, width, 1);
      if (!most) return;
      g.fillStyle = colours.bar;
      for (let i = 0; i < 2 * cells; i++) {
        if (!heights[i]) continue;
        const tall = Math.max(1, (heights[i] / most) * (height - 2));
        const x = i < cells ? i * cell : side + 5 + (i - cells) * cell;
        g.fillRect(x, height - 1 - tall, Math.max(1, cell - 0.5), tall);
      }
      if (zeros) {
        const tall = Math.max(1, (zeros / most) * (height - 2));
        g.fillStyle = colours.zero;
        g.fillRect(side + 1, height - 1 - tall, 3, tall);
      }
    }
  };
}
