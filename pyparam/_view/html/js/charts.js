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
  const axisOf = (bars) => {
    if (!bars.length) return null;
    let low = Math.min(...bars.map((bar) => bar.low));
    let high = Math.max(...bars.map((bar) => bar.high));
    const short = 2 - (high - low);
    if (short > 0) [low, high] = [low - short / 2, high + short / 2];
    const gap = Math.max(0.4, (high - low) * 0.04);
    return { low, high, gap, at: (log, sign) => sign * (log - low + gap) };
  };

  // Powers of ten, on a short axis the numbers between them; zero where the axis has it.
  const ticks = (axis, signs, zero, width) => {
    const decades = (axis.high - axis.low) / TEN;
    const step = Math.max(1, Math.ceil(decades / Math.max(1, width / signs.length / 90)));
    // Labels beside that of zero need room.
    const least = zero ? ((axis.high - axis.low + axis.gap) * signs.length * 34) / Math.max(1, width - 70) : 0;
    const values = zero ? [0] : [];
    const texts = zero ? ["0"] : [];
    const between = decades > 2 ? [1] : decades > 0.8 ? [1, 2, 5] : [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8];
    for (let n = Math.floor(axis.low / TEN / step) * step; n * TEN <= axis.high; n += step) {
      for (const factor of between) {
        const log = n * TEN + Math.log2(factor);
        if (log < axis.low || log > axis.high || axis.at(log, 1) < least) continue;
        for (const sign of signs) {
          values.push(axis.at(log, sign));
          const text = factor === 1 && decades > 2 ? power(n) : pyparam.number(factor * 10 ** n);
          texts.push(`${sign < 0 ? "−" : ""}${text}`);
        }
      }
    }
    return { tickvals: values, ticktext: texts };
  };

  // Bins merged until there are few enough for the number of values: [{ sign, low, high, count }].
  const merged = (bins, row, all) => {
    const most = Math.min(260, Math.max(24, 1.6 * Math.sqrt(all)));
    for (let shift = 0; ; shift++) {
      const found = new Map();
      bins.each(row, (sign, magnitude, count) => {
        if (!sign) return;
        const key = sign * ((magnitude >> shift) + 1);
        found.set(key, (found.get(key) || 0) + count);
      });
      if (found.size > most && shift < bins.bits) continue;
      return [...found].map(([key, count]) => {
        const magnitude = (Math.abs(key) - 1) << shift;
        const [low, high] = [bins.edges(magnitude)[0], bins.edges(magnitude + (1 << shift) - 1)[1]];
        return { sign: Math.sign(key), low: Number.isFinite(low) ? low : high - 1, high, zeroLow: !Number.isFinite(low), count };
      });
    }
  };

  pyparam.drawValues = (element, model, bins, row, precision) => {
    const stats = model.columns.row_stats[row];
    const all = model.stat("finite", row);
    const bars = merged(bins, stats, all);
    const axis = axisOf(bars);
    const colour = pyparam.theme.colour;
    const [least, most] = LIMITS[precision] || [-Infinity, Infinity];
    // Density over the logarithm, as a share by bar: bins of different widths compare.
    const usual = bars.reduce((sum, bar) => sum + bar.high - bar.low, 0) / bars.length;
    const share = (bar) => (bar.count / all) * (bars.length > 8 ? usual / (bar.high - bar.low) : 1);
    const drawn = bars.map((bar) => {
      const edges = [bar.zeroLow ? "0" : pyparam.number(2 ** bar.low), pyparam.number(2 ** bar.high)];
      return {
        x: (axis.at(bar.low, bar.sign) + axis.at(bar.high, bar.sign)) / 2, y: share(bar), width: bar.high - bar.low,
        colour: colour(bar.low < least || bar.high > most + 0.01 ? "warning" : "accent"),
        hover: `${bar.sign < 0 ? `−${edges[1]} to −${edges[0]}` : `${edges[0]} to ${edges[1]}`}<br>${pyparam.count(bar.count)} values · ${pyparam.percent(bar.count, all)}`,
      };
    });
    const signs = [...new Set(bars.map((bar) => bar.sign))];
    const zeros = model.stat("zeros", row);
    if (zeros) {
      drawn.push({
        x: 0, y: zeros / all, width: axis ? axis.gap * 1.4 : 0.5, colour: colour("muted"),
        hover: `exactly 0<br>${pyparam.count(zeros)} values · ${pyparam.percent(zeros, all)}`,
      });
    }
    const shapes = [];
    const notes = [];
    if (axis) {
      for (const [limit, what] of [[least, "least normal"], [most, "largest"]]) {
        if (limit <= axis.low || limit >= axis.high) continue;
        for (const sign of signs) {
          const at = axis.at(limit, sign);
          const line = { color: colour("warning"), width: 1, dash: "dot" };
          shapes.push({ type: "line", x0: at, x1: at, y0: 0, y1: 1, yref: "paper", line });
          notes.push({ x: at, y: 1, yref: "paper", yanchor: "bottom", showarrow: false, text: what, font: { size: 11, color: colour("warning") } });
        }
      }
    }
    const hasZero = zeros > 0 || signs.length === 2;
    const place = axis ? ticks(axis, signs, hasZero, element.clientWidth) : { tickvals: [0], ticktext: ["0"] };
    const ends = axis
      ? [signs.includes(-1) ? axis.at(axis.high, -1) : hasZero ? -axis.gap : axis.gap, signs.includes(1) ? axis.at(axis.high, 1) : hasZero ? axis.gap : -axis.gap]
      : [-1, 1];
    const layout = pyparam.theme.layout({
      height: 280,
      margin: { l: 56, r: 12, t: 22, b: 44 },
      bargap: 0,
      xaxis: { ...place, range: ends, tickmode: "array", ticks: "outside", tickangle: 0, showgrid: false, zeroline: false, title: { text: "value, signed logarithmic" } },
      yaxis: { title: { text: "share of values" }, tickformat: ".1~%", rangemode: "tozero", nticks: 5, showline: false },
      shapes,
      annotations: notes,
    });
    const column = (name) => drawn.map((bar) => bar[name]);
    const trace = {
      type: "bar", x: column("x"), y: column("y"), width: column("width"), marker: { color: column("colour"), line: { width: 0 } },
      customdata: column("hover"), hovertemplate: "%{customdata}<extra></extra>",
    };
    return Plotly.react(element, [trace], layout, pyparam.theme.config);
  };

  const SIBLINGS = 3000; // more than a chart can tell apart

  // Rows of one name but for its indices, and of one shape, in the source's order: those nearest to the row where
  // there are many, with `all` for how many there are.
  pyparam.siblings = (model, row) => {
    const role = (name) => name.replace(/(^|\.)\d+(?=\.|$)/g, "$1#");
    const own = role(model.names[row]);
    if (!own.includes("#")) return [];
    const { row_shape: shape, row_attribute: attribute } = model.columns;
    const numbered = own.endsWith("#");
    const found = [];
    for (let other = 0; other < model.length; other++) {
      if (shape[other] !== shape[row] || !(numbered || attribute[other] === attribute[row])) continue;
      if (model.hasStats(other) && role(model.names[other]) === own) found.push(other);
    }
    const first = Math.max(0, Math.min(found.indexOf(row) - SIBLINGS / 2, found.length - SIBLINGS));
    const near = found.length > 2 ? found.slice(first, first + SIBLINGS) : [];
    return Object.assign(near, { all: found.length });
  };

  pyparam.drawSiblings = (element, model, row, siblings) => {
    const colour = pyparam.theme.colour;
    const at = siblings.indexOf(row);
    const x = siblings.map((_, i) => i);
    const column = (name) => siblings.map((other) => model.stat(name, other));
    const line = (name, extra) => ({
      type: "scatter", mode: "lines", x, y: column(name), line: { width: 0, color: colour("accent") }, hoverinfo: "skip", ...extra,
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
      xaxis: { title: { text: "in the order of the model" }, showgrid: false, zeroline: false, tick0: 0, dtick: Math.max(1, Math.ceil(siblings.length / 16)) },
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
