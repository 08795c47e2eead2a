// The chart of a parameter's values on a linear axis: what is bell-shaped looks so.
"use strict";
{
  const TAIL = 5e-4; // of the values, on each side, that may lie outside the chart
  const ROOM = 0.5; // of the others' span, up to which they are shown all the same

  // Bins with signs as stretches of the axis in its order, and zeros as one of no width: { from, to, count }.
  const stretches = (bins, row) => {
    const found = [];
    bins.each(row, (sign, magnitude, count) => {
      if (!sign) return found.push({ from: 0, to: 0, count });
      const [low, high] = bins.edges(magnitude).map((log) => 2 ** log);
      found.push(sign > 0 ? { from: low, to: high, count } : { from: -high, to: -low, count });
    });
    return found.sort((a, b) => a.from + a.to - (b.from + b.to));
  };

  // The ends of the chart: the least and the largest value, without a few that lie far out.
  const ends = (found, least, largest, all) => {
    const end = (list) => {
      let left = Math.floor(TAIL * all);
      return list.find(({ count }) => (left -= count) < 0);
    };
    const from = Math.max(least, end(found).from);
    const to = Math.min(largest, end([...found].reverse()).to);
    const span = Math.max(to - from, 0);
    const low = least >= from - ROOM * span ? least : from;
    const high = largest <= to + ROOM * span ? largest : to;
    if (high > low) return [low, high];
    const room = Math.abs(high) / 2 || 1; // one value
    return [low - room, high + room];
  };

  pyparam.drawLinear = (element, model, bins, row) => {
    const stats = model.columns.row_stats[row];
    const all = model.stat("finite", row);
    const found = stretches(bins, stats);
    const [low, high] = ends(found, model.stat("min", row), model.stat("max", row), all);
    // No more cells than bins at the far ends are fine.
    const count = Math.round(Math.min(2.5 * 2 ** bins.bits, Math.max(12, 2 * Math.cbrt(all))));
    const width = (high - low) / count;
    const heights = new Float64Array(count);
    let zeros = 0;
    let below = 0;
    let above = 0;
    for (const stretch of found) {
      if (stretch.from === 0 && stretch.to === 0) {
        zeros = stretch.count;
        continue;
      }
      pyparam.spread((Math.max(stretch.from, model.stat("min", row)) - low) / width, (Math.min(stretch.to, model.stat("max", row)) - low) / width, stretch.count, (cell, part) => {
        const at = Math.floor(cell);
        if (at >= 0 && at < count) heights[at] += part;
        else if (cell === count) heights[count - 1] += part; // the largest value itself
        else if (at < 0) below += part;
        else above += part;
      });
    }
    const colour = pyparam.theme.colour;
    const middle = (i) => low + (i + 0.5) * width;
    const bar = { type: "bar", hovertemplate: "%{customdata}<extra></extra>" };
    const hover = (from, to, n) => `${pyparam.number(from)} to ${pyparam.number(to)}<br>about ${pyparam.count(Math.round(n))} values · ${pyparam.percent(n, all)}`;
    const traces = [{
      ...bar, x: Array.from(heights, (_, i) => middle(i)), y: Array.from(heights, (n) => n / all), width,
      marker: { color: colour("accent"), line: { width: 0 } },
      customdata: Array.from(heights, (n, i) => hover(low + i * width, low + (i + 1) * width, n)),
    }];
    if (zeros) {
      traces.push({
        ...bar, x: [0], y: [zeros / all], width: width / 2, marker: { color: colour("muted"), line: { width: 0 } },
        customdata: [`exactly 0<br>${pyparam.count(zeros)} values · ${pyparam.percent(zeros, all)}`],
      });
    }
    const beyond = (n, end, x, anchor) => Math.round(n) > 0 ? [{
      x, xref: "paper", xanchor: anchor, y: 1, yref: "paper", yanchor: "bottom", showarrow: false, font: { size: 11, color: colour("muted") },
      text: `${pyparam.count(Math.round(n))} beyond, ${anchor === "left" ? "down" : "up"} to ${pyparam.number(end)}`,
    }] : [];
    const layout = pyparam.theme.layout({
      height: 280,
      margin: { l: 56, r: 12, t: 22, b: 44 },
      bargap: 0,
      barmode: "overlay",
      xaxis: { range: [low, high], showgrid: false, zeroline: false, ticks: "outside", tickangle: 0, nticks: Math.max(3, Math.floor(element.clientWidth / 90)), exponentformat: "power", title: { text: "value, linear" } },
      yaxis: { title: { text: "share of values" }, tickformat: ".1~%", rangemode: "tozero", nticks: 5, showline: false },
      annotations: [...beyond(below, model.stat("min", row), 0, "left"), ...beyond(above, model.stat("max", row), 1, "right")],
    });
    return Plotly.react(element, traces, layout, pyparam.theme.config);
  };
}
