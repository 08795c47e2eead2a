// What changed against another source.
"use strict";
{
  const { el, $ } = pyparam;
  const BARS = 25;
  const LISTED = 20;

  const list = (title, items, make) => {
    if (!items.length) return null;
    const names = el("ul", { class: "names" }, ...items.slice(0, LISTED).map((item) => el("li", {}, ...make(item))));
    if (items.length > LISTED) names.append(el("li", { class: "muted", text: `and ${pyparam.count(items.length - LISTED)} more` }));
    return el("details", { class: "notes" }, el("summary", { text: `${pyparam.count(items.length)} ${title}` }), names);
  };

  const draw = (element, model, rows) => {
    const colour = pyparam.theme.colour;
    const shown = rows.slice(0, BARS).reverse();
    const finite = shown.map((row) => model.difference(row).rel_l2);
    const positive = finite.filter((x) => Number.isFinite(x) && x > 0);
    const largest = Math.max(...positive, 1e-12);
    const least = Math.min(...positive, largest);
    // Changes of very different sizes need a logarithmic axis; a bar of no length is then left out.
    const wide = largest > 50 * least;
    const words = (row) => {
      const d = model.difference(row);
      if (d.nonfinite) return `${pyparam.count(d.nonfinite)} not finite`;
      return d.rel_l2 ? pyparam.number(d.rel_l2) : "same values, another dtype";
    };
    const narrow = element.clientWidth < 640;
    const letters = narrow ? 20 : 44;
    const short = (name) => (name.length > letters ? `…${name.slice(1 - letters)}` : name);
    const trace = {
      type: "bar", orientation: "h",
      x: finite.map((x) => (!Number.isFinite(x) ? largest : wide ? Math.max(x, least / 3) : x)),
      y: shown.map((_, i) => i),
      marker: { color: shown.map((row) => (model.difference(row).nonfinite ? colour("error") : colour("accent"))) },
      customdata: shown.map((row) => {
        const d = model.difference(row);
        return `<b>${pyparam.plain(model.names[row])}</b><br>changed by ${pyparam.number(d.rel_l2)} of its norm, at most ${pyparam.number(d.max_abs)}<br>${pyparam.percent(d.differing, d.numel)} of the elements`;
      }),
      hovertemplate: "%{customdata}<extra></extra>",
      text: shown.map(words),
      textposition: "outside",
      cliponaxis: false,
      textfont: { color: colour("muted"), size: 12 },
    };
    const layout = pyparam.theme.layout({
      height: 70 + 22 * shown.length,
      margin: { l: 40, r: 110, t: 8, b: 44 },
      bargap: 0.35,
      xaxis: {
        title: { text: "‖change‖ / ‖before‖" }, nticks: narrow ? 4 : 8, tickangle: 0,
        ...(wide ? { type: "log", range: [Math.log10(least / 3), Math.log10(largest * 3)], dtick: Math.ceil(Math.log10((9 * largest) / least) / (narrow ? 3 : 10)), exponentformat: "power" } : { range: [0, 1.12 * largest] }),
      },
      yaxis: { tickvals: shown.map((_, i) => i), ticktext: shown.map((row) => pyparam.plain(short(model.names[row]))), showgrid: false, zeroline: false, tickfont: { color: colour("ink"), size: 12, family: "ui-monospace, monospace" } },
    });
    return Plotly.react(element, [trace], layout, pyparam.theme.config).then(() => {
      element.on("plotly_click", (event) => {
        location.hash = pyparam.address.row(model, shown[event.points[0].y]);
      });
    });
  };

  pyparam.showChanges = (model, table) => {
    const against = model.data.against;
    if (!against) return;
    const section = $("changes");
    section.hidden = false;
    const other = pyparam.shown(against.name);
    const rows = [];
    for (let row = 0; row < model.length; row++) {
      const found = model.difference(row);
      if (found && !found.equal) rows.push(row);
    }
    const size = (row) => {
      const { rel_l2, nonfinite } = model.difference(row);
      return nonfinite ? Infinity : rel_l2;
    };
    rows.sort((a, b) => (size(b) === size(a) ? a - b : size(b) - size(a)));
    const compared = model.columns.diff_rel_l2.length;
    if (against.equal && !against.left_out.length) {
      section.append(el("div", { class: "good" }, el("p", {},
        el("span", { class: "tick", "aria-hidden": "true", text: "✓" }), el("strong", { text: `The same as ${other}` }), `: names, shapes, dtypes and every bit.`)));
      return;
    }
    const retyped = against.dtype_changed.length;
    section.append(el("p", {}, `Against ${other}: `,
      el("strong", { text: `${pyparam.count(rows.length)} of ${pyparam.plural(compared, "parameter")} changed` }),
      `, ${pyparam.count(compared - rows.length)} ${compared - rows.length === 1 ? "is" : "are"} the same${retyped ? `; ${pyparam.count(retyped)} of another dtype` : ""}.`));
    const link = (row) => el("a", { href: pyparam.address.row(model, row), text: pyparam.shown(model.names[row]) });
    const chart = el("div", { class: "chart", role: "img", "aria-label": "The parameters that changed most" });
    if (rows.length) {
      section.append(chart);
      draw(chart, model, rows);
      pyparam.theme.onChange(() => draw(chart, model, rows));
      const button = el("button", { type: "button", class: "link", text: `all ${pyparam.count(rows.length)} in the table, those that changed most first` });
      button.addEventListener("click", () => {
        table.sort = { id: "changed", down: true };
        table.show(new Set(rows), `changed against ${other}`);
        $("parameters").scrollIntoView();
        table.grid.focus();
      });
      section.append(el("p", {}, button));
    }
    const arrow = (from, to) => el("span", { class: "muted", text: ` ${from} → ${to}` });
    section.append(...[
      list("of another shape", against.shape_changed, ([row, from, to]) => [link(row), arrow(from, to)]),
      list("of another dtype", against.dtype_changed, ([row, from, to]) => [link(row), arrow(from, to)]),
      list(`only in ${other}`, against.only_there, (name) => [el("span", { class: "mono", text: pyparam.shown(name) })]),
      list("only here", against.only_here, (row) => [link(row)]),
      list("not compared", against.left_out, (name) => [el("span", { class: "mono", text: pyparam.shown(name) })]),
    ].filter(Boolean));
  };
}
