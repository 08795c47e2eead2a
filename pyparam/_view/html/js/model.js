// The source as a tree of modules (nodes) with parameters (rows), and what is asked of it.
"use strict";
{
  const NONE = 0xffffffff;

  pyparam.Model = class {
    constructor(data) {
      this.data = data;
      const c = (this.columns = data.columns);
      this.length = c.row_node.length;
      this.nodes = data.modules;
      this.hasStats = (row) => c.row_stats[row] !== NONE;
      this.buildTree(c);
      this.paths = new Array(this.nodes);
      this.paths[0] = "";
      for (let n = 1; n < this.nodes; n++) {
        const parent = c.node_parent[n];
        const key = data.strings[c.node_key[n]];
        this.paths[n] = parent ? `${this.paths[parent]}.${key}` : key;
      }
      this.names = new Array(this.length);
      for (let row = 0; row < this.length; row++) {
        const node = c.row_node[row];
        const attribute = data.strings[c.row_attribute[row]];
        this.names[row] = node ? `${this.paths[node]}.${attribute}` : attribute;
      }
      this.markFaults(data.findings);
    }

    // Children and own rows of each node as ranges of one array, and sums over everything below it.
    buildTree(c) {
      const n = this.nodes;
      const ranges = (owners, from) => {
        const start = new Uint32Array(n + 1);
        for (let i = from; i < owners.length; i++) start[owners[i] + 1] += 1;
        for (let i = 0; i < n; i++) start[i + 1] += start[i];
        const items = new Uint32Array(owners.length - from);
        const next = start.slice();
        for (let i = from; i < owners.length; i++) items[next[owners[i]]++] = i;
        return { start, items };
      };
      this.children = ranges(c.node_parent, 1);
      this.rows = ranges(c.row_node, 0);
      this.depth = new Uint16Array(n);
      for (let i = 1; i < n; i++) this.depth[i] = Math.min(65535, this.depth[c.node_parent[i]] + 1);

      // Elements of parameters, and bytes of everything; what is shared counts once, where it stands first.
      this.elements = new Float64Array(n);
      this.bytes = new Float64Array(n);
      this.count = new Uint32Array(n);
      for (let row = 0; row < this.length; row++) {
        const node = c.row_node[row];
        if (!c.row_buffer[row]) this.elements[node] += this.ownElements(row);
        this.bytes[node] += c.row_own_bytes[row];
        this.count[node] += 1;
      }
      for (let i = n - 1; i > 0; i--) {
        const parent = c.node_parent[i];
        this.elements[parent] += this.elements[i];
        this.bytes[parent] += this.bytes[i];
        this.count[parent] += this.count[i];
      }
    }

    // Worst severity of a row and of anything below a node: 2 error, 1 warning, 0 none.
    markFaults(findings) {
      const level = { error: 2, warning: 1, info: 0 };
      this.fault = new Uint8Array(this.length);
      this.nodeFault = new Uint8Array(this.nodes);
      this.about = new Map();
      findings.forEach((finding, i) => {
        for (const row of finding.names) {
          this.fault[row] = Math.max(this.fault[row], level[finding.severity]);
          if (!this.about.has(row)) this.about.set(row, []);
          this.about.get(row).push(i);
        }
      });
      const c = this.columns;
      for (let row = 0; row < this.length; row++) {
        const node = c.row_node[row];
        this.nodeFault[node] = Math.max(this.nodeFault[node], this.fault[row]);
      }
      for (let i = this.nodes - 1; i > 0; i--) {
        const parent = c.node_parent[i];
        this.nodeFault[parent] = Math.max(this.nodeFault[parent], this.nodeFault[i]);
      }
    }

    childrenOf(node) {
      return this.children.items.subarray(this.children.start[node], this.children.start[node + 1]);
    }
    rowsOf(node) {
      return this.rows.items.subarray(this.rows.start[node], this.rows.start[node + 1]);
    }
    key(node) {
      return this.data.strings[this.columns.node_key[node]];
    }
    type(node) {
      return this.data.strings[this.columns.node_type[node]];
    }
    attribute(row) {
      return this.data.strings[this.columns.row_attribute[row]];
    }
    shape(row) {
      return this.data.shapes[this.columns.row_shape[row]];
    }
    dtype(row) {
      return this.data.dtypes[this.columns.row_dtype[row]];
    }
    device(row) {
      return this.data.devices[this.columns.row_device[row]];
    }
    // Elements that no row before has.
    ownElements(row) {
      const c = this.columns;
      const bytes = c.row_bytes[row];
      return bytes ? Math.round((c.row_elements[row] * c.row_own_bytes[row]) / bytes) : 0;
    }
    // A statistic; NaN where there is none.
    stat(name, row) {
      return this.hasStats(row) ? this.columns[`stat_${name}`][this.columns.row_stats[row]] : NaN;
    }
    // Values that were measured: complex numbers count two.
    values(row) {
      if (!this.hasStats(row)) return NaN;
      return ["finite", "nans", "posinfs", "neginfs"].reduce((sum, name) => sum + this.stat(name, row), 0);
    }
    // What a row differs by from its namesake in the other source; null where there is no such.
    difference(row) {
      const at = this.columns.row_difference;
      if (!at || at[row] === NONE) return null;
      const found = {};
      for (const name of ["max_abs", "mean_abs", "l2", "rel_l2", "cosine", "differing", "nonfinite", "numel", "equal"]) {
        found[name] = this.columns[`diff_${name}`][at[row]];
      }
      return found;
    }

    row(name) {
      if (!this.byName) this.byName = new Map(this.names.map((n, i) => [n, i]));
      return this.byName.get(name);
    }
    node(path) {
      if (!this.byPath) this.byPath = new Map(this.paths.map((p, i) => [p, i]).reverse());
      return path === "" ? 0 : this.byPath.get(path);
    }
    // The node and those above it, the root first.
    above(node) {
      const out = [node];
      while (node) out.unshift((node = this.columns.node_parent[node]));
      return out;
    }
  };

  // Addresses behind the page's "#". A lone surrogate cannot be written in one: then the position stands there.
  pyparam.address = {
    row: (model, row) => {
      try {
        return `#/parameter/${encodeURIComponent(model.names[row])}`;
      } catch {
        return `#/row/${row}`;
      }
    },
    node: (model, node) => {
      if (!node) return "#/";
      try {
        return `#/module/${encodeURIComponent(model.paths[node])}`;
      } catch {
        return `#/node/${node}`;
      }
    },
    parse: (model, hash) => {
      const [, kind, text = ""] = /^#\/(\w*)\/?(.*)$/s.exec(hash) || [null, "", ""];
      let name = null;
      try {
        name = decodeURIComponent(text);
      } catch {
        return { node: 0 };
      }
      if (kind === "parameter") return { row: model.row(name), name };
      if (kind === "row") return { row: Number(text) < model.length ? Number(text) : undefined, name };
      if (kind === "module") return { node: model.node(name) ?? 0 };
      if (kind === "node") return { node: Number(text) < model.nodes ? Number(text) : 0 };
      return { node: 0 };
    },
  };
}
