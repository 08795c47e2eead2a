// The page of one parameter.
"use strict";
{
  const { el, $ } = pyparam;
  let precision = "float16"; // whose limits the chart of values shows

  const facts = (pairs) => {
    const list = el("dl", { class: "facts" });
    for (const [term, value] of pairs) list.append(el("div", {}, el("dt", { text: term }), el("dd", { text: value })));
    return list;
  };

  const path = (model, row) => {
    const nav = el("nav", { class: "path", "aria-label": "Where the parameter is" });
    const nodes = model.above(model.columns.row_node[row]);
    const shown = nodes.length > 12 ? [...nodes.slice(0, 4), null, ...nodes.slice(-6)] : nodes;
    for (const node of shown) {
      if (node === null) nav.append(el("span", { text: "…" }));
      else nav.append(el("a", { href: pyparam.address.node(model, node), text: node ? pyparam.shown(model.key(node)) : "all" }));
      nav.append(el("span", { class: "slash", "aria-hidden": "true", text: "/" }));
    }
    nav.append(el("span", { "aria-current": "page", text: pyparam.shown(model.attribute(row)) }));
    return nav;
  };

  const banners = (model, row) => (model.about.get(row) || []).map((i) => {
    const finding = model.data.findings[i];
    const words = finding.details[row];
    return el("p", { class: `banner ${finding.severity}` },
      el("strong", { text: pyparam.shown(words || finding.title) }),
      el("span", { text: ` ${finding.reason}` }));
  });

  const statistics = (model, row) => {
    const n = (name) => pyparam.number(model.stat(name, row));
    const c = (name) => `${pyparam.count(model.stat(name, row))}${model.stat(name, row) ? ` · ${pyparam.percent(model.stat(name, row), model.values(row))}` : ""}`;
    return facts([
      ["Mean", n("mean")], ["Standard deviation", n("std")], ["Root mean square", n("rms")], ["L2 norm", n("l2")], ["L1 norm", n("l1")],
      ["Zeros", c("zeros")], ["NaN", c("nans")], ["+∞", c("posinfs")], ["−∞", c("neginfs")], [`Subnormal in ${model.dtype(row)}`, c("subnormals")],
    ]);
  };

  const quantiles = (model, row) => facts([
    ["Least", pyparam.number(model.stat("min", row))],
    ...model.data.quantiles.map((q) => [q === 0.5 ? "Median" : `${Math.round(q * 100)} %`, pyparam.number(model.stat(`q${q}`, row))]),
    ["Largest", pyparam.number(model.stat("max", row))],
  ]);

  // What rounding to smaller types would do, a row a type; choosing one shows its limits in the chart.
  const precisions = (model, row, onChoose) => {
    const head = el("tr", {}, ...["Type", "Become zero", "Subnormal", "Overflow"].map((text) => el("th", { scope: "col", text })));
    const body = el("tbody");
    const all = model.values(row);
    for (const type of model.data.precisions) {
      const input = el("input", { type: "radio", name: "precision", value: type, checked: type === precision });
      input.addEventListener("change", () => onChoose(type));
      const cells = ["zero", "subnormal", "overflow"].map((what) => {
        const count = model.stat(`${type}_${what}`, row);
        return el("td", { class: count ? "some" : "none", title: pyparam.plural(count, "value"), text: pyparam.percent(count, all) });
      });
      body.append(el("tr", {}, el("th", { scope: "row" }, el("label", {}, input, ` ${type}`)), ...cells));
    }
    return el("table", { class: "precisions" }, el("thead", {}, head), body);
  };

  const difference = (model, row) => {
    const against = model.data.against;
    if (!against) return null;
    const found = model.difference(row);
    const heading = el("h2", { text: "Change" });
    const other = pyparam.shown(against.name);
    if (!found) {
      const reshaped = against.shape_changed.find(([at]) => at === row);
      const text = reshaped ? `The shape was ${reshaped[1]} in ${other}, and is ${reshaped[2]} here.`
        : against.only_here.includes(row) ? `${other} has no parameter of this name.` : "It was not compared.";
      return el("section", {}, heading, el("p", { text }));
    }
    if (found.equal) return el("section", {}, heading, el("p", { text: `The same bits as in ${other}.` }));
    const retyped = against.dtype_changed.find(([at]) => at === row);
    return el("section", {}, heading, facts([
      ["‖change‖ / ‖before‖", pyparam.number(found.rel_l2)], ["Largest change", pyparam.number(found.max_abs)], ["Mean change", pyparam.number(found.mean_abs)],
      ["Cosine", pyparam.number(found.cosine)], ["Elements changed", `${pyparam.count(found.differing)} · ${pyparam.percent(found.differing, found.numel)}`],
      ...(found.nonfinite ? [["Not finite on one side", pyparam.count(found.nonfinite)]] : []),
      ...(retyped ? [["Dtype", `${retyped[1]} → ${retyped[2]}`]] : []),
    ]));
  };

  pyparam.showParameter = (model, bins, table, row) => {
    const page = $("page");
    const c = model.columns;
    const first = c.row_first[row];
    const { before, after } = table.beside(row);
    const step = (other, label, key) => other === undefined
      ? el("span", { class: "quiet off", text: label })
      : el("a", { class: "quiet", href: pyparam.address.row(model, other), title: `${pyparam.shown(model.names[other])} (${key})`, rel: label.includes("Next") ? "next" : "prev", text: label });
    const heading = el("h2", { class: "name", tabindex: "-1", id: "parameter", text: pyparam.shown(model.names[row]) });
    const type = model.type(c.row_node[row]);
    const described = [
      model.shape(row), model.dtype(row), pyparam.plural(c.row_elements[row], "value"), pyparam.bytes(c.row_bytes[row]), model.device(row),
      `${c.row_buffer[row] ? "buffer" : "parameter"}${type ? ` of ${pyparam.shown(type)}` : ""}`,
    ].join(" · ");
    const parts = [
      el("div", { class: "bar" },
        el("a", { class: "quiet", href: "#/", id: "back", text: "← Overview" }),
        el("span", { class: "grow" }), step(before, "← Previous", "left arrow"), step(after, "Next →", "right arrow")),
      path(model, row), heading, el("p", { class: "muted", text: described }),
    ];
    if (first !== row) {
      parts.push(el("p", {}, "Shares its memory with ", el("a", { href: pyparam.address.row(model, first), class: "mono", text: pyparam.shown(model.names[first]) }), "."));
    }
    parts.push(...banners(model, row));
    const values = el("div", { class: "chart", role: "img", "aria-label": `Histogram of the values: ${model.hasStats(row) ? `from ${pyparam.number(model.stat("min", row))} to ${pyparam.number(model.stat("max", row))}` : "none"}` });
    const linear = el("div", { class: "chart linear", role: "img", "aria-label": "Histogram of the values on a linear axis" });
    const others = el("div", { class: "chart", role: "img", "aria-label": "Medians and quantiles of the same parameter in the other blocks" });
    const siblings = model.hasStats(row) ? pyparam.siblings(model, row) : [];
    const changed = difference(model, row);
    const hasColumns = model.hasStats(row) && model.stat("finite", row) > 0;
    if (hasColumns) {
      const choose = (type) => {
        precision = type;
        pyparam.drawValues(values, model, bins, row, precision);
      };
      parts.push(
        el("section", {}, el("h2", { text: "Values" }), el("div", { class: "columns" }, linear, values)),
        ...pyparam.strips(model, row),
        el("div", { class: "columns" },
          el("section", {}, el("h2", { text: "Statistics" }), statistics(model, row)),
          el("section", {}, el("h2", { text: "Quantiles" }), quantiles(model, row)),
          el("section", {}, el("h2", { text: "In smaller types" }), precisions(model, row, choose),
            el("p", { class: "muted small", text: "Shares of the values, rounded to nearest. The chart marks the range of the chosen type." })),
          changed));
    } else if (model.hasStats(row)) {
      parts.push(el("p", { class: "empty", text: model.values(row) ? "None of its values is finite." : "It has no values." }));
      if (model.values(row)) parts.push(el("section", {}, el("h2", { text: "Statistics" }), statistics(model, row)));
    } else {
      parts.push(el("p", { class: "empty", text: `No values were measured: ${model.data.unreadable[row] || "they cannot be read"}.` }));
    }
    if (changed && !hasColumns) parts.push(changed);
    if (siblings.length) {
      parts.push(el("section", {}, el("h2", { text: "The same parameter in other blocks" }), others,
        el("p", { class: "muted small", text: `Median, middle half and 1 to 99 % of ${siblings.all > siblings.length ? `the nearest ${pyparam.count(siblings.length)} of ` : ""}${pyparam.count(siblings.all)} parameters of this role and shape; click one to see it.` })));
    }
    page.replaceChildren(...parts);
    page.hidden = false;
    const draw = () => {
      const drawn = [];
      if (linear.isConnected) drawn.push(pyparam.drawLinear(linear, model, bins, row));
      page.querySelectorAll("canvas.strip").forEach((canvas) => pyparam.drawStrip(canvas));
      if (values.isConnected) drawn.push(pyparam.drawValues(values, model, bins, row, precision));
      if (others.isConnected) drawn.push(pyparam.drawSiblings(others, model, row, siblings));
      return Promise.all(drawn);
    };
    page.redraw = draw;
    return draw();
  };
}
