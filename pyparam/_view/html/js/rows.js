// What a row of the table shows: the columns, and filling a row's cells.
"use strict";
{
  const { el } = pyparam;
  const DEEPEST = 24;
  // What has no room to be written out is on the page of the parameter.
  const counted = (n) => (n < 1e7 ? pyparam.count(n) : pyparam.short(n));

  pyparam.tableColumns = (model) => {
    const rows = (f) => () => Array.from({ length: model.length }, (_, row) => f(row));
    const stat = (name) => rows((row) => model.stat(name, row));
    const zeros = (row) => model.stat("zeros", row) / model.values(row);
    // `united` is the text of a module; see united.js.
    const number = (id, label, title) => ({
      id, label, title, kind: "figure", sortable: true, values: stat(id), text: (row) => pyparam.number(model.stat(id, row)),
      united: (found) => pyparam.number(found[id]),
    });
    const amount = (row) => (model.hasStats(row) ? counted(model.nonfinite(row)) : "–");
    const columns = [
      { id: "name", label: "Name", kind: "words", sortable: true, values: () => model.names },
      { id: "shape", label: "Shape", kind: "words", sortable: true, values: rows((r) => model.shape(r)), text: (r) => model.shape(r) },
      { id: "dtype", label: "Dtype", kind: "words", sortable: true, values: rows((r) => model.dtype(r)), text: (r) => model.dtype(r) },
      { id: "elements", label: "Values", kind: "figure", sortable: true, values: () => model.columns.row_elements, text: (r) => counted(model.columns.row_elements[r]) },
      number("mean", "Mean", "Mean of the finite values"),
      number("std", "Std", "Standard deviation of the finite values"),
      number("min", "Min", "Least finite value"),
      number("max", "Max", "Largest finite value"),
      { id: "max_abs", label: "Max |x|", title: "Largest magnitude of the finite values", kind: "figure", sortable: true, values: rows((r) => model.maxAbs(r)), text: (r) => pyparam.number(model.maxAbs(r)), united: (found) => pyparam.number(found.max_abs) },
      number("l2", "L2", "L2 norm of the finite values"),
      { id: "zeros", label: "Zeros", title: "Share of zeros", kind: "figure", sortable: true, values: rows(zeros), text: (r) => (model.hasStats(r) ? pyparam.percent(model.stat("zeros", r), model.values(r)) : "–"), united: (found) => pyparam.percent(found.zeros, found.values) },
      { id: "nonfinite", label: "Not finite", title: "NaN, +∞ and −∞", kind: "figure", sortable: true, values: rows((r) => model.nonfinite(r)), text: amount, united: (found) => counted(found.nonfinite) },
      { id: "histogram", label: "Distribution", title: "Negative values left, zeros in the middle, positive ones right; magnitudes on one logarithmic axis for all rows, or on a linear one of each row", kind: "picture" },
    ];
    if (model.columns.row_difference) {
      const changed = (row) => {
        const difference = model.difference(row);
        if (!difference) return NaN;
        return difference.nonfinite ? Infinity : difference.rel_l2;
      };
      columns.push({
        id: "changed", label: "Changed", title: "||change|| / ||before||", kind: "figure", sortable: true, values: rows(changed),
        text: (row) => {
          const difference = model.difference(row);
          if (!difference) return "new";
          if (difference.equal) return "same";
          if (difference.nonfinite) return "not finite";
          return difference.rel_l2 ? pyparam.number(difference.rel_l2) : "dtype";
        },
      });
    }
    return columns;
  };

  pyparam.Rows = class {
    constructor(model, bins, columns) {
      this.model = model;
      this.bins = bins;
      this.columns = columns;
      this.linear = false;
      this.all = new pyparam.United(model, null);
    }

    picture(line, found) {
      line.canvas.hidden = found === null;
      if (!found) return;
      // All have one size, and to ask for it between two rows would lay the page out each time.
      this.size ||= { width: line.canvas.clientWidth || 140, height: line.canvas.clientHeight || 20 };
      this.bins.draw(line.canvas, this.size, found, this.colours, this.linear);
    }

    make() {
      const line = el("div", { class: "line", role: "row" });
      line.cells = {};
      for (const [i, column] of this.columns.entries()) {
        const cell = el("div", { class: `cell ${column.id} ${column.kind}`, role: "gridcell", "aria-colindex": i + 1 });
        line.cells[column.id] = cell;
        line.append(cell);
      }
      line.twisty = el("span", { class: "twisty", "aria-hidden": "true" });
      line.label = el("a", { class: "label", tabindex: "-1" });
      line.note = el("span", { class: "note" });
      line.cells.name.append(line.twisty, line.label, line.note);
      line.canvas = el("canvas", { class: "spark", "aria-hidden": "true" });
      line.cells.histogram.append(line.canvas);
      return line;
    }

    start(line, kind, depth, fault) {
      line.classList.toggle("module", kind === "module");
      line.classList.toggle("error", fault === 2);
      line.classList.toggle("warning", fault === 1);
      line.setAttribute("aria-level", depth + 1);
      line.cells.name.style.paddingInlineStart = `${8 + 16 * Math.min(depth, DEEPEST)}px`;
      line.note.className = "note";
    }

    module(line, node, open, below) {
      const { model } = this;
      this.start(line, "module", model.depth[node] - 1, model.nodeFault[node]);
      line.setAttribute("aria-expanded", open);
      line.twisty.textContent = open ? "▾" : "▸";
      line.label.textContent = pyparam.shown(model.key(node));
      line.label.title = pyparam.shown(model.paths[node]);
      line.label.removeAttribute("href");
      const count = below ? below.count[node] : model.count[node];
      line.note.textContent = `${pyparam.shown(model.type(node) || "")}  ${pyparam.plural(count, "parameter")}`.replace("(no name)", "").trim();
      const united = below ? below.united : this.all;
      const found = united.of(node);
      for (const column of this.columns) {
        if (column.text) line.cells[column.id].textContent = found && column.united ? column.united(found) : "";
      }
      line.cells.nonfinite.classList.toggle("some", found !== null && found.nonfinite > 0);
      line.cells.elements.textContent = counted(below ? below.values[node] : model.elements[node]);
      this.picture(line, found && united.bins(node, this.bins));
    }

    parameter(line, row, isFlat) {
      const { model } = this;
      const depth = isFlat ? 0 : Math.max(0, model.depth[model.columns.row_node[row]]);
      this.start(line, "parameter", depth, model.fault[row]);
      line.removeAttribute("aria-expanded");
      line.twisty.textContent = "";
      line.label.textContent = pyparam.shown(isFlat ? model.names[row] : model.attribute(row));
      line.label.title = pyparam.shown(model.names[row]);
      line.label.href = pyparam.address.row(model, row);
      const first = model.columns.row_first[row];
      const notes = [];
      if (first !== row) notes.push(`= ${pyparam.shown(model.names[first])}`);
      if (model.columns.row_buffer[row]) notes.push("buffer");
      line.note.textContent = notes.join("  ");
      for (const column of this.columns) if (column.text) line.cells[column.id].textContent = column.text(row);
      line.cells.nonfinite.classList.toggle("some", model.nonfinite(row) > 0);
      this.picture(line, model.hasStats(row) ? this.bins.added([model.columns.row_stats[row]]) : null);
    }
  };
}
