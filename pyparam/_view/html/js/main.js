// Starts the report, follows addresses, and knows the keys that hold everywhere.
"use strict";
{
  const { el, $ } = pyparam;

  const KEYS = [
    ["/", "filter the parameters by name"], ["Esc", "back from a parameter; clear the filter"], ["↑ ↓ PgUp PgDn Home End", "move in the table"],
    ["→ ←", "open and close a module; on a parameter's page the next and the previous one"], ["Enter", "show the parameter, open the module"],
    ["arrows, Enter, Backspace", "in the map: move, open, go up"], ["t", "switch between light and dark"], ["?", "these keys"],
  ];

  const subtitle = (model) => {
    const total = model.data.total;
    const buffers = model.columns.row_buffer.reduce((sum, b) => sum + b, 0);
    const held = new Map();
    model.columns.row_bytes.forEach((bytes, row) => held.set(model.dtype(row), (held.get(model.dtype(row)) || 0) + bytes));
    const types = [...held].sort((a, b) => b[1] - a[1]).map(([type]) => type);
    const devices = model.data.devices;
    return [
      pyparam.plural(model.length - buffers, "parameter") + (buffers ? ` and ${pyparam.plural(buffers, "buffer")}` : ""),
      `${pyparam.count(model.elements[0])} values`, pyparam.bytes(model.bytes[0]),
      types.length <= 3 ? types.join(", ") : `${types.length} dtypes`, devices.length <= 3 ? devices.join(", ") : `${devices.length} devices`,
    ].filter(Boolean).join(" · ") + (total.numel === 0 && model.length ? " · nothing could be measured" : "");
  };

  const start = async () => {
    pyparam.theme.start();
    const data = await pyparam.load();
    const model = new pyparam.Model(data);
    const bins = new pyparam.Bins(data);
    $("subtitle").textContent = subtitle(model);
    pyparam.showAbout(model);
    $("foot").textContent = data.made;
    $("overview").hidden = false;
    const table = new pyparam.Table(model, bins);
    const map = new pyparam.Map(model);
    pyparam.showFindings(model, table);
    pyparam.showChanges(model, table);
    pyparam.showTraining(model);
    pyparam.showRoles(model);
    pyparam.listModule = (node) => {
      $("filter").value = "";
      table.text = "";
      const below = new Set();
      for (const stack = [node]; stack.length;) {
        const next = stack.pop();
        for (const row of model.rowsOf(next)) below.add(row);
        stack.push(...model.childrenOf(next));
      }
      table.show(below, model.paths[node] ? pyparam.shown(model.paths[node]) : "everything");
      $("parameters").scrollIntoView();
      table.grid.focus();
    };
    const report = (pyparam.report = { model, bins, table, map, row: null });

    let left = null; // where the reader was when a parameter's page opened
    const follow = async () => {
      const where = pyparam.address.parse(model, location.hash);
      if ("row" in where) {
        if (report.row === null) left = { y: window.scrollY, focus: document.activeElement };
        report.row = where.row ?? -1;
        $("overview").hidden = true;
        if (where.row === undefined) {
          $("page").replaceChildren(el("p", { class: "empty" }, `There is no parameter ${pyparam.shown(where.name)}. `, el("a", { href: "#/", text: "Overview" })));
          $("page").hidden = false;
        } else {
          await pyparam.showParameter(model, bins, table, where.row);
        }
        window.scrollTo(0, 0);
        $("parameter")?.focus({ preventScroll: true });
        document.body.dataset.ready = location.hash;
        return;
      }
      const from = report.row;
      report.row = null;
      $("page").hidden = true;
      $("overview").hidden = false;
      await map.show(where.node, map.focusAfter);
      if (from !== null) {
        if (from >= 0) table.reveal(from);
        table.redraw();
        Plotly.Plots.resize(map.plot);
        if (left) {
          window.scrollTo(0, left.y);
          if (left.focus && left.focus.isConnected) left.focus.focus({ preventScroll: true });
        }
        if (where.node) $("map").scrollIntoView({ block: "nearest" });
      }
      document.body.dataset.ready = location.hash || "#/";
    };
    window.addEventListener("hashchange", follow);
    pyparam.theme.onChange(() => report.row !== null && $("page").redraw && $("page").redraw());
    await follow();
    pyparam.printable(report);

    const dialog = $("keys");
    dialog.append(el("h2", { id: "keys-title", text: "Keys" }), el("dl", { class: "facts" },
      ...KEYS.map(([key, what]) => el("div", {}, el("dt", {}, el("kbd", { text: key })), el("dd", { text: what })))),
    el("form", { method: "dialog" }, el("button", { class: "quiet", text: "Close" })));
    // A form would be sent; the policy of the page allows none.
    dialog.querySelector("button").addEventListener("click", (event) => {
      event.preventDefault();
      dialog.close();
    });
    $("help").addEventListener("click", () => dialog.showModal());

    document.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey || dialog.open) return;
      const inText = event.target.matches("input[type=search]");
      if (event.key === "Escape") {
        if (report.row !== null) location.hash = pyparam.address.node(model, Math.max(0, map.root));
        else if (inText || table.filtered()) {
          $("filter").value = "";
          table.text = "";
          table.show(null);
          if (inText) table.grid.focus();
        } else return;
      } else if (inText) {
        if (event.key !== "ArrowDown" && event.key !== "Enter") return;
        table.grid.focus();
      } else if (event.key === "/") {
        if (report.row !== null) location.hash = "#/";
        setTimeout(() => {
          $("filter").focus();
          $("filter").select();
        });
      } else if (event.key === "?") dialog.showModal();
      else if (event.key === "t") $("theme").click();
      else if (report.row !== null && report.row >= 0 && (event.key === "ArrowRight" || event.key === "ArrowLeft") && !event.target.matches("input")) {
        const { before, after } = table.beside(report.row);
        const next = event.key === "ArrowRight" ? after : before;
        if (next === undefined) return;
        location.replace(pyparam.address.row(model, next));
      } else return;
      event.preventDefault();
    });
  };

  start().catch((error) => {
    $("subtitle").textContent = `This report cannot be read: ${error.message}`;
    console.error(error);
  });
}
