// The table of parameters: a tree of modules that folds, or a flat list once it is sorted by a column. Only the
// rows in sight are elements; see rows.js for what a row shows.
"use strict";
{
  const { el, $ } = pyparam;
  const HEIGHT = 30;
  const SPARE = 6;

  // A filter's text as a test of names: words that all must occur, or patterns of the whole name.
  const matcher = (text) => {
    const tests = text.toLowerCase().split(/\s+/).filter(Boolean).map((word) => {
      if (!/[*?]/.test(word)) return (name) => name.includes(word);
      const escaped = word.replace(/[.+^${}()|[\]\\]/g, "\\$&").replace(/\*/g, ".*").replace(/\?/g, ".");
      const pattern = new RegExp(`^${escaped}$`, "s");
      return (name) => pattern.test(name);
    });
    return tests.length ? (name) => tests.every((test) => test(name)) : null;
  };

  pyparam.Table = class {
    constructor(model, bins) {
      this.model = model;
      this.open = new Uint8Array(model.nodes);
      this.closed = new Set(); // while a filter opens everything, what the reader closed
      this.sort = null; // { id, down }
      this.orders = new Map();
      this.text = "";
      this.only = null; // { rows: Set, label }
      this.active = 0;
      this.paper = 0; // on paper, how many lines at most; see print.js
      this.version = 0;
      this.columns = pyparam.tableColumns(model);
      this.rows = new pyparam.Rows(model, bins, this.columns);
      this.openSome();
      this.build();
      this.listen();
      this.update();
      pyparam.theme.onChange(() => this.redraw());
    }

    build() {
      const head = (this.head = el("div", { class: "line head", role: "row" }));
      this.columns.forEach((column, i) => {
        const button = column.sortable
          ? el("button", { type: "button", text: column.label, title: column.title, on: { click: () => this.sortBy(column.id) } })
          : el("span", { text: column.label, title: column.title });
        head.append(el("div", { role: "columnheader", class: `cell ${column.id} ${column.kind}`, "aria-colindex": i + 1, "data-column": column.id }, button));
      });
      this.space = el("div", { class: "space", role: "presentation" });
      this.body = el("div", { class: "body", role: "rowgroup", tabindex: "-1" }, this.space);
      this.grid = el("div", {
        class: `grid${this.model.columns.row_difference ? " compared" : ""}`, role: "treegrid", tabindex: "0",
        "aria-label": "Parameters by module", "aria-colcount": this.columns.length, "aria-describedby": "table-keys",
      }, el("div", { role: "rowgroup" }, head), this.body);
      const keys = el("p", { id: "table-keys", class: "muted small" });
      keys.append("↑ ↓ move, → ← open and close a module, Enter shows a parameter, / filters.");
      this.empty = el("p", { class: "empty", hidden: true });
      this.cut = el("p", { class: "muted small", hidden: true });
      $("table").replaceChildren(this.grid, this.cut, this.empty, keys);
      this.pool = [];
    }

    listen() {
      let waiting = false;
      this.body.addEventListener("scroll", () => {
        if (waiting) return;
        waiting = true;
        requestAnimationFrame(() => {
          waiting = false;
          this.render();
        });
      }, { passive: true });
      new ResizeObserver(() => this.redraw()).observe(this.body);
      this.space.addEventListener("click", (event) => {
        const line = event.target.closest(".line");
        if (!line) return;
        this.active = Number(line.dataset.index);
        const item = this.items[this.active];
        if (item < 0) {
          event.preventDefault();
          this.toggle(~item);
        } else if (!event.target.closest("a")) {
          location.hash = pyparam.address.row(this.model, item);
        }
        this.render();
      });
      this.grid.addEventListener("keydown", (event) => this.onKey(event));
      $("filter").addEventListener("input", (event) => this.filter(event.target.value));
      $("chip").addEventListener("click", () => {
        this.show(null);
        $("filter").focus();
      });
      for (const [value, label] of [["log", "Log"], ["linear", "Linear"]]) {
        const input = el("input", { type: "radio", name: "table-axis", value, checked: value === "log" });
        input.addEventListener("change", () => {
          this.rows.linear = value === "linear";
          this.redraw();
        });
        $("table-axis").append(el("label", {}, input, el("span", { text: label })));
      }
      $("open-all").addEventListener("click", () => this.openAll(1));
      $("close-all").addEventListener("click", () => this.openAll(0));
    }

    // --- what is listed ------------------------------------------------------------------------------------

    openSome() {
      const { model } = this;
      if (model.length <= 300) {
        this.open.fill(1);
        return;
      }
      // Level by level, as long as all of a level fits a screen or two.
      let shown = 0;
      for (let level = [0]; level.length;) {
        const more = level.reduce((sum, node) => sum + model.childrenOf(node).length + model.rowsOf(node).length, 0);
        if (shown && shown + more > 120) break;
        shown += more;
        for (const node of level) this.open[node] = 1;
        level = level.flatMap((node) => Array.from(model.childrenOf(node)));
      }
    }

    openAll(open) {
      this.open.fill(open);
      this.open[0] = 1;
      this.closed.clear();
      if (!open && this.filtered()) this.model.paths.forEach((_, node) => node && this.closed.add(node));
      this.sort = null;
      this.update();
    }

    filtered() {
      return this.text !== "" || this.only !== null;
    }

    filter(text) {
      if (text.trim() === this.text) return;
      this.text = text.trim();
      this.closed.clear();
      this.update(true);
    }

    // Only these rows (a Set), under a label; null for all.
    show(rows, label = "") {
      this.only = rows && { rows, label };
      this.closed.clear();
      $("chip").hidden = !rows;
      $("chip").textContent = `${label} ✕`;
      $("chip").setAttribute("aria-label", `Showing ${label}; show all parameters again`);
      this.update(true);
    }

    sortBy(id) {
      const first = !["name", "shape", "dtype"].includes(id);
      if (!this.sort || this.sort.id !== id) this.sort = { id, down: first };
      else if (this.sort.down === first) this.sort = { id, down: !first };
      else this.sort = null;
      this.update(true);
    }

    // All rows in the order of a column; rows without a value last.
    order() {
      const { id, down } = this.sort;
      const key = `${id} ${down}`;
      if (this.orders.has(key)) return this.orders.get(key);
      const rows = Uint32Array.from({ length: this.model.length }, (_, i) => i);
      const column = this.columns.find((c) => c.id === id);
      const values = column.values();
      const turn = down ? -1 : 1;
      if (typeof values[0] === "string") {
        const places = new Map([...new Set(values)].sort().map((value, i) => [value, i]));
        rows.sort((a, b) => turn * (places.get(values[a]) - places.get(values[b])) || a - b);
      } else {
        const last = (x) => (Number.isNaN(x) ? 1 : 0);
        rows.sort((a, b) => last(values[a]) - last(values[b]) || turn * (values[a] - values[b]) || a - b);
      }
      this.orders.set(key, rows);
      return rows;
    }

    // Which rows the filters take, as bytes; null for all.
    taken() {
      if (!this.filtered()) return null;
      const { model } = this;
      if (!this.lower) this.lower = model.names.map((name) => name.toLowerCase());
      const test = matcher(this.text);
      const taken = new Uint8Array(model.length);
      for (let row = 0; row < model.length; row++) {
        if (this.only && !this.only.rows.has(row)) continue;
        if (!test || test(this.lower[row])) taken[row] = 1;
      }
      return taken;
    }

    list() {
      const { model } = this;
      const taken = this.taken();
      this.matches = taken ? taken.reduce((sum, t) => sum + t, 0) : model.length;
      if (this.sort) {
        const order = this.order();
        return taken ? Array.from(order).filter((row) => taken[row]) : Array.from(order);
      }
      let below = null;
      // What the filter takes below each module: parameters, and their values as the whole's are counted.
      let values = null;
      if (taken) {
        below = new Uint32Array(model.nodes);
        values = new Float64Array(model.nodes);
        for (let row = 0; row < model.length; row++) {
          const node = model.columns.row_node[row];
          below[node] += taken[row];
          if (taken[row] && !model.columns.row_buffer[row]) values[node] += model.ownElements(row);
        }
        for (let n = model.nodes - 1; n > 0; n--) {
          below[model.columns.node_parent[n]] += below[n];
          values[model.columns.node_parent[n]] += values[n];
        }
      }
      this.below = below && { count: below, values, united: new pyparam.United(model, taken) };
      const items = [];
      for (const stack = [0]; stack.length;) {
        const node = stack.pop();
        if (node) items.push(~node);
        if (!this.isOpen(node)) continue;
        for (const row of model.rowsOf(node)) if (!taken || taken[row]) items.push(row);
        const children = model.childrenOf(node);
        for (let i = children.length - 1; i >= 0; i--) if (!below || below[children[i]]) stack.push(children[i]);
      }
      return items;
    }

    isOpen(node) {
      if (!node) return true;
      return this.filtered() ? !this.closed.has(node) : this.open[node] === 1;
    }

    // --- what is drawn -------------------------------------------------------------------------------------

    update(toTop = false) {
      const held = this.items && this.items[this.active];
      this.items = this.list();
      const kept = toTop ? -1 : this.items.indexOf(held);
      this.active = Math.max(0, kept);
      this.space.style.height = `${this.items.length * HEIGHT}px`;
      if (toTop) this.body.scrollTop = 0;
      this.grid.setAttribute("aria-rowcount", this.items.length + 1);
      for (const header of this.grid.querySelectorAll("[data-column]")) {
        const on = this.sort && this.sort.id === header.dataset.column;
        header.setAttribute("aria-sort", on ? (this.sort.down ? "descending" : "ascending") : "none");
      }
      const all = pyparam.plural(this.model.length, "parameter");
      $("count").textContent = this.filtered() ? `${pyparam.count(this.matches)} of ${all}` : all;
      this.empty.hidden = this.items.length > 0;
      this.body.hidden = this.items.length === 0;
      this.empty.textContent = this.model.length
        ? "No name matches. Escape clears the filter."
        : "This source has no parameters.";
      this.redraw();
    }

    redraw() {
      this.version += 1;
      this.rows.size = null;
      this.head.style.paddingInlineEnd = `${this.body.offsetWidth - this.body.clientWidth}px`;
      this.rows.colours = {
        bar: pyparam.theme.colour("accent"), base: pyparam.theme.colour("line"), zero: pyparam.theme.colour("muted"),
      };
      this.render();
    }

    // The lines to draw, from the first to before the last: those in sight, and on paper as many as it takes.
    drawn(height) {
      if (this.paper) return [0, Math.min(this.items.length, this.paper)];
      const first = Math.max(0, Math.floor(this.body.scrollTop / HEIGHT) - SPARE);
      return [first, Math.min(this.items.length, Math.ceil((this.body.scrollTop + height) / HEIGHT) + SPARE)];
    }

    render() {
      const height = this.body.clientHeight;
      if (!height) return;
      const [first, last] = this.drawn(height);
      const needed = this.paper ? last : Math.ceil(height / HEIGHT) + 2 * SPARE + 2;
      while (this.pool.length < needed) {
        const line = this.rows.make();
        this.pool.push(line);
        this.space.append(line);
      }
      const used = new Set();
      for (let i = first; i < last; i++) {
        const line = this.pool[i % this.pool.length];
        used.add(line);
        const stamp = `${this.version} ${i}`;
        if (line.stamp !== stamp) {
          line.stamp = stamp;
          line.id = `line-${i}`;
          line.dataset.index = i;
          line.style.transform = `translateY(${i * HEIGHT}px)`;
          line.setAttribute("aria-rowindex", i + 2);
          line.hidden = false;
          const item = this.items[i];
          if (item < 0) this.rows.module(line, ~item, this.isOpen(~item), this.below);
          else this.rows.parameter(line, item, this.sort !== null);
        }
        line.classList.toggle("active", i === this.active);
      }
      for (const line of this.pool) {
        if (used.has(line)) continue;
        line.hidden = true;
        line.stamp = "";
        line.removeAttribute("id");
      }
      if (this.items.length) this.grid.setAttribute("aria-activedescendant", `line-${this.active}`);
      else this.grid.removeAttribute("aria-activedescendant");
    }

    toggle(node, open = !this.isOpen(node)) {
      if (this.filtered()) this.closed[open ? "delete" : "add"](node);
      else this.open[node] = open ? 1 : 0;
      this.update();
    }

    // --- the keyboard --------------------------------------------------------------------------------------

    onKey(event) {
      if (event.target !== this.grid || event.altKey || event.ctrlKey || event.metaKey) return;
      const item = this.items[this.active];
      const page = Math.max(1, Math.floor(this.body.clientHeight / HEIGHT) - 1);
      const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
      if (event.key in moves) {
        this.moveTo(this.active + moves[event.key]);
      } else if (item === undefined) {
        return;
      } else if (event.key === "ArrowRight") {
        if (item < 0 && !this.isOpen(~item)) this.toggle(~item, true);
        else if (item < 0) this.moveTo(this.active + 1);
      } else if (event.key === "ArrowLeft") {
        if (item < 0 && this.isOpen(~item)) this.toggle(~item, false);
        else this.moveToParent(item);
      } else if (event.key === "Enter" || event.key === " ") {
        if (item < 0) this.toggle(~item);
        else location.hash = pyparam.address.row(this.model, item);
      } else {
        return;
      }
      event.preventDefault();
    }

    moveTo(index) {
      this.active = Math.max(0, Math.min(this.items.length - 1, index));
      const top = this.active * HEIGHT;
      const { scrollTop, clientHeight } = this.body;
      if (top < scrollTop) this.body.scrollTop = top;
      else if (top + HEIGHT > scrollTop + clientHeight) this.body.scrollTop = top + HEIGHT - clientHeight;
      this.render();
    }

    moveToParent(item) {
      if (this.sort) return;
      const c = this.model.columns;
      const parent = item < 0 ? c.node_parent[~item] : c.row_node[item];
      const at = this.items.indexOf(~parent);
      if (parent && at >= 0) this.moveTo(at);
    }

    // The rows before and after one, as they are listed now.
    beside(row) {
      const listed = this.items.filter((item) => item >= 0);
      const at = listed.indexOf(row);
      const around = at >= 0 ? listed : null;
      if (!around) return { before: row > 0 ? row - 1 : undefined, after: row + 1 < this.model.length ? row + 1 : undefined };
      return { before: around[at - 1], after: around[at + 1] };
    }

    // Makes a row the active one, and brings it into sight.
    reveal(row) {
      const c = this.model.columns;
      let at = this.items.indexOf(row);
      if (at < 0 && !this.sort && !this.filtered()) {
        for (let node = c.row_node[row]; node; node = c.node_parent[node]) this.open[node] = 1;
        this.update();
        at = this.items.indexOf(row);
      }
      if (at >= 0) this.moveTo(at);
    }
  };
}
