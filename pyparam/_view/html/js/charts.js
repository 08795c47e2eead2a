// Charts of one parameter: its values on a signed logarithmic axis, and the same parameter in the other blocks.
"use strict";
{
  // The least and the largest normal magnitude of types, as powers of two.
  const LIMITS = {
    float16: [-14, 16], bfloat16: [-126, 128], float8_e4m3fn: [-6, Math.log2(448)], float8_e5m2: [-14, Math.log2(57344)],
  };
  const TEN = Math.log2(10);
  const SUPERS = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
  const power = (n) => (n === 0 ? "1" : n === 1 ? "10" : n === -1 ? "0.1" : `10${[...String(n)].map((c) => SUPERS[c]).join("")}`);

  // Places on the axis are powers of two from the least magnitude on, negative values to the left of zero.
  const axisOf = (bins, row) => {
    let low = Infinity;
    let high = -Infinity;
    bins.each(row, (sign, magnitude) => {
      if (!sign) return;
      const [from, to] = bins.edges(magnitude);
      low = Math.min(low, Number.isFinite(from) ? from : to - 1);
      high = Math.max(high, to);
    });
    if (low === Infinity) return null;
    const gap = Math.max(0.6, (high - low) * 0.04);
    return { low, high, gap, at: (log, sign) => sign * (log - low + gap) };
  };

  const ticks = (axis, signs) => {
    const step = Math.max(1, Math.ceil((axis.high - axis.low) / TEN / 6));
    const values = [0];
    const texts = ["0"];
    for (let n = Math.ceil(axis.low / TEN / step) * step; n * TEN <= axis.high; n += step) {
      for (const sign of signs) {
        values.push(axis.at(n * TEN, sign));
        texts.push(`${sign < 0 ? "−" : ""}${power(n)}`);
      }
    }
    return { tickvals: values, ticktext: texts };
  };

  pyparam.drawValues = (element, model, bins, row, precision) => {
    const stats = model.columns.row_stats[row];
    const axis = axisOf(bins, stats);
    const colour = pyparam.theme.colour;
    const x = [];
    const y = [];
    const width = [];
    const hover = [];
    const colours = [];
    const all = model.stat("finite", row);
    const signs = new Set();
    let highest = 0;
    bins.each(stats, (sign, magnitude, count) => {
      if (!sign) return;
      const [from, to] = bins.edges(magnitude);
      const low = Number.isFinite(from) ? from : to - 1;
      signs.add(sign);
      x.push((axis.at(low, sign) + axis.at(to, sign)) / 2);
      width.push(to - low);
      // Density over the logarithm: bins of different widths compare.
      y.push(count / all / (to - low));
      highest = Math.max(highest, count / all / (to - low));
      const edges = [2 ** from, 2 ** to].map(pyparam.number);
      hover.push(`${sign < 0 ? `−${edges[1]} to −${edges[0]}` : `${edges[0]} to ${edges[1]}`}<br>${pyparam.count(count)} values · ${pyparam.percent(count, all)}`);
      const [least, most] = LIMITS[precision] || [-Infinity, Infinity];
      colours.push(low < least || to > most ? colour("warning") : colour("accent"));
    });
    const zeros = model.stat("zeros", row);
    if (zeros) {
      x.push(0);
      width.push(axis ? axis.gap * 0.9 : 1);
      // Zeros have no width on a logarithmic axis: their bar is as tall as their share of the values.
      y.push(highest ? Math.min(highest * 1.15, (zeros / all) * Math.max(highest, 1e-9) * 2) : 1);
      hover.push(`exactly 0<br>${pyparam.count(zeros)} values · ${pyparam.percent(zeros, all)}`);
      colours.push(colour("muted"));
    }
    const shapes = [];
    const notes = [];
    if (axis && LIMITS[precision]) {
      const [least, most] = LIMITS[precision];
      for (const [limit, what] of [[least, "least normal"], [most, "largest"]]) {
        if (limit <= axis.low || limit >= axis.high) continue;
        for (const sign of signs) {
          const at = axis.at(limit, sign);
          shapes.push({ type: "line", x0: at, x1: at, y0: 0, y1: 1, yref: "paper", line: { color: colour("warning"), width: 1, dash: "dot" } });
          notes.push({ x: at, y: 1, yref: "paper", yanchor: "bottom", showarrow: false, text: what, font: { size: 11, color: colour("warning") } });
        }
      }
    }
    const place = axis ? ticks(axis, [...signs]) : { tickvals: [0], ticktext: ["0"] };
    const layout = pyparam.theme.layout({
      height: 280,
      margin: { l: 56, r: 12, t: 22, b: 44 },
      bargap: 0,
      xaxis: { ...place, tickmode: "array", ticks: "outside", showgrid: false, zeroline: false, title: { text: "value, signed logarithmic" } },
      yaxis: { title: { text: "share of values per octave" }, tickformat: ".1%", rangemode: "tozero", nticks: 5, showline: false },
      shapes,
      annotations: notes,
    });
    const trace = { type: "bar", x, y, width, marker: { color: colours, line: { width: 0 } }, customdata: hover, hovertemplate: "%{customdata}<extra></extra>" };
    return Plotly.react(element, [trace], layout, pyparam.theme.config);
  };

  // Rows of one name but for its indices, and of one shape, in the source's order.
  pyparam.siblings = (model, row) => {
    const role = (name) => name.replace(/(^|\.)\d+(?=\.|$)/g, "$1#");
    const own = role(model.names[row]);
    if (!own.includes("#")) return [];
    const shape = model.columns.row_shape[row];
    const found = [];
    for (let other = 0; other < model.length; other++) {
      if (model.columns.row_shape[other] === shape && model.hasStats(other) && role(model.names[other]) === own) found.push(other);
    }
    return found.length > 2 ? found : [];
  };

  pyparam.drawSiblings = (element, model, row, siblings) => {
    const colour = pyparam.theme.colour;
    const at = siblings.indexOf(row);
    const x = siblings.map((_, i) => i);
    const column = (name) => siblings.map((other) => model.stat(name, other));
    const line = (name, extra) => ({
      type: "scatter", mode: "lines", x, y: column(name), line: { width: 0, shape: "hvh", color: colour("accent") }, hoverinfo: "skip", ...extra,
    });
    const faint = `${colour("accent")}26`;
    const stronger = `${colour("accent")}4d`;
    const median = column("q0.5");
    const traces = [
      line("q0.01"),
      line("q0.99", { fill: "tonexty", fillcolor: faint }),
      line("q0.25"),
      line("q0.75", { fill: "tonexty", fillcolor: stronger }),
      {
        type: "scatter", mode: siblings.length > 120 ? "lines" : "lines+markers", x, y: median,
        line: { width: 1.5, color: colour("accent") },
        marker: { size: x.map((i) => (i === at ? 11 : 6)), color: x.map((i) => (i === at ? colour("ink") : colour("accent"))) },
        customdata: siblings.map((other) => `<b>${pyparam.plain(model.names[other])}</b><br>median ${pyparam.number(model.stat("q0.5", other))}<br>25–75 %: ${
          pyparam.number(model.stat("q0.25", other))} to ${pyparam.number(model.stat("q0.75", other))}<br>1–99 %: ${
          pyparam.number(model.stat("q0.01", other))} to ${pyparam.number(model.stat("q0.99", other))}`),
        hovertemplate: "%{customdata}<extra></extra>",
      },
    ];
    const layout = pyparam.theme.layout({
      height: 240,
      xaxis: { title: { text: "in the order of the model" }, showgrid: false, zeroline: false, nticks: 12, tickformat: "d" },
      yaxis: { zeroline: true, nticks: 6 },
      hovermode: "closest",
      shapes: [{ type: "line", x0: at, x1: at, y0: 0, y1: 1, yref: "paper", line: { color: colour("ink"), width: 1, dash: "dot" } }],
    });
    return Plotly.react(element, traces, layout, pyparam.theme.config).then(() => {
      element.on("plotly_click", (event) => {
        location.hash = pyparam.address.row(model, siblings[event.points[0].x]);
      });
    });
  };
}
