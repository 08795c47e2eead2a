// Statistics of modules: those of the tensors below, as if all their values were one tensor's.
"use strict";
{
  const { Model } = pyparam;
  const COLUMNS = ["finite", "values", "mean", "squares", "min", "max", "l2", "zeros", "nonfinite"];

  // Counts, mean and the sum of squared deviations of two samples merge exactly (Chan, Golub and LeVeque, 1979).
  const merge = (c, at, b) => {
    const n = c.finite[at] + b.finite;
    if (b.finite) {
      const step = c.finite[at] ? b.mean - c.mean[at] : 0;
      c.squares[at] += b.squares + (n ? (step * step * c.finite[at] * b.finite) / n : 0);
      c.mean[at] = c.finite[at] ? c.mean[at] + (step * b.finite) / n : b.mean;
      c.min[at] = Math.min(c.min[at], b.min);
      c.max[at] = Math.max(c.max[at], b.max);
      c.l2[at] = Math.hypot(c.l2[at], b.l2);
    }
    c.finite[at] = n;
    c.values[at] += b.values;
    c.zeros[at] += b.zeros;
    c.nonfinite[at] += b.nonfinite;
  };

  // One kind of row, weights or the others, over all nodes. Memory under several names counts once in each module.
  const overNodes = (model, takes) => {
    const c = {};
    for (const name of COLUMNS) c[name] = new Float64Array(model.nodes);
    c.min.fill(Infinity);
    c.max.fill(-Infinity);
    const { row_node: node, node_parent: parent, row_stats: stats, ...from } = model.columns;
    const one = {}; // what is merged, filled anew each time: there are as many as rows
    const ofRow = (at) => {
      one.finite = from.stat_finite[at];
      one.nonfinite = from.stat_nans[at] + from.stat_posinfs[at] + from.stat_neginfs[at];
      one.values = one.finite + one.nonfinite;
      one.mean = from.stat_mean[at];
      one.squares = one.finite > 1 ? from.stat_std[at] ** 2 * (one.finite - 1) : 0;
      one.min = from.stat_min[at];
      one.max = from.stat_max[at];
      one.l2 = from.stat_l2[at];
      one.zeros = from.stat_zeros[at];
      return one;
    };
    const shared = new Map();
    for (let row = 0; row < model.length; row++) {
      if (!takes(row)) continue;
      if (model.isShared(row)) {
        if (!shared.has(stats[row])) shared.set(stats[row], []);
        shared.get(stats[row]).push(row);
      } else merge(c, node[row], ofRow(stats[row]));
    }
    for (let i = model.nodes - 1; i > 0; i--) {
      if (!c.values[i]) continue;
      for (const name of COLUMNS) one[name] = c[name][i];
      merge(c, parent[i], one);
    }
    for (const [at, rows] of shared) {
      const seen = new Set();
      for (const row of rows) {
        for (let i = node[row]; !seen.has(i); i = parent[i]) {
          seen.add(i);
          merge(c, i, ofRow(at));
          if (!i) break;
        }
      }
    }
    return c;
  };

  pyparam.United = class {
    // `taken` are the rows that a filter lets through, as bytes; null for all.
    constructor(model, taken) {
      this.model = model;
      this.taken = taken;
      this.pictures = new Map();
    }

    takes(row, weights) {
      return this.model.hasStats(row) && (!this.taken || this.taken[row] === 1) && (this.model.columns.row_weight[row] === 1) === weights;
    }

    // What a module shows: of its weights; of what else it has where it has none; null where nothing was measured.
    of(node) {
      this.weights ||= overNodes(this.model, (row) => this.takes(row, true));
      let c = this.weights;
      if (!c.values[node]) c = this.others ||= overNodes(this.model, (row) => this.takes(row, false));
      if (!c.values[node]) return null;
      const found = Object.fromEntries(COLUMNS.map((name) => [name, c[name][node]]));
      if (!found.finite) found.mean = found.min = found.max = NaN;
      found.std = found.finite > 1 ? Math.sqrt(found.squares / (found.finite - 1)) : NaN;
      found.max_abs = Math.max(Math.abs(found.min), Math.abs(found.max));
      return found;
    }

    // The rows of statistics that `of` unites.
    rowsOf(node) {
      const weights = this.of(node) !== null && this.weights.values[node] > 0;
      const found = new Set();
      for (const row of this.model.below(node)) if (this.takes(row, weights)) found.add(this.model.columns.row_stats[row]);
      return [...found];
    }

    // The bins of a module, added up once.
    bins(node, bins) {
      if (!this.pictures.has(node)) this.pictures.set(node, bins.added(this.rowsOf(node)));
      return this.pictures.get(node);
    }
  };

  // Rows of parameters in a module and below it.
  Model.prototype.below = function* (node) {
    for (const stack = [node]; stack.length;) {
      const next = stack.pop();
      yield* this.rowsOf(next);
      stack.push(...this.childrenOf(next));
    }
  };
  Model.prototype.nonfinite = function (row) {
    return this.stat("nans", row) + this.stat("posinfs", row) + this.stat("neginfs", row);
  };
  Model.prototype.maxAbs = function (row) {
    return Math.max(Math.abs(this.stat("min", row)), Math.abs(this.stat("max", row)));
  };
  // Whether other names have its memory too.
  Model.prototype.isShared = function (row) {
    if (!this.sharing) {
      this.sharing = new Uint8Array(this.length);
      this.columns.row_first.forEach((first, i) => {
        if (first !== i) this.sharing[first] = this.sharing[i] = 1;
      });
    }
    return this.sharing[row] === 1;
  };
}
