// Where training stands: what left its course, and layers over steps.
"use strict";
{
  const { el, $ } = pyparam;
  const SHOWN = 8;
  const LINKS = 3;
  const LABELS = 12;
  const PANELS = {
    "gradient norm": "RMS of gradients", "update norm": "update / weight", "weight norm": "RMS of weights", sigma_max: "sigma_max",
  };
  const TITLES = { "update / weight": "Update over weight", "fluctuation of gradients": "Fluctuation of gradient norms", "gradient noise, in batches": "Gradient noise, in batches", sigma_max: "Largest singular value" };

  const item = (model, departure) => {
    const links = departure.rows.slice(0, LINKS).map((row) => el("a", { href: pyparam.address.row(model, row), class: "mono", text: pyparam.shown(model.names[row]) }));
    const more = departure.rows.length > LINKS ? ` and ${pyparam.count(departure.rows.length - LINKS)} more` : "";
    return el("li", {}, el("span", { text: pyparam.shown(departure.text) }), links.length ? " · " : null,
      ...links.flatMap((link, i) => (i ? [", ", link] : [link])), more);
  };

  const list = (model, departures) => {
    if (!departures.length) return el("p", { class: "muted", text: "Nothing left its course." });
    const items = departures.map((departure) => item(model, departure));
    const shown = el("ul", { class: "departures" }, ...items.slice(0, SHOWN));
    if (items.length > SHOWN) {
      const button = el("button", { type: "button", class: "link", text: `all ${pyparam.count(items.length)}` });
      button.addEventListener("click", () => shown.replaceChildren(...items));
      shown.append(el("li", {}, button));
    }
    return shown;
  };

  // Some of many, evenly spaced, the first and the last among them.
  const some = (values, most) => {
    const count = Math.min(values.length, most);
    return Array.from({ length: count }, (_, i) => values[count > 1 ? Math.round((i * (values.length - 1)) / (count - 1)) : 0]);
  };

  const panel = (model, training, index) => {
    const { title, ...scale } = training.panels[index];
    const { steps, layers } = training;
    const heat = new pyparam.Heat(model.columns[`training_${index}`], layers.length, steps.length, scale);
    for (const departure of training.departures) {
      if (PANELS[departure.quantity] !== title) continue;
      for (const row of departure.layers) heat.marks.push({ row, column: departure.column });
    }
    const name = TITLES[title] || title;
    const canvas = pyparam.heatmap(heat, `${name}: ${layers.length} layers over ${steps.length} steps, ${heat.range()}`,
      (row, column) => `${pyparam.shown(layers[row])}, step ${steps[column]}`);
    canvas.style.height = `${Math.max(56, Math.min(300, 11 * layers.length))}px`;
    return el("figure", { class: "course" }, el("figcaption", {}, el("strong", { text: name }), el("span", { class: "muted small", text: ` ${heat.range()}` })),
      el("div", { class: "rows", "aria-hidden": "true" }, ...some(layers, LABELS).map((label) => el("span", { title: pyparam.shown(label), text: pyparam.shown(label) }))),
      canvas,
      el("div", { class: "ticks", "aria-hidden": "true" }, ...some(steps, 9).map((step) => el("span", { text: pyparam.count(step) }))));
  };

  pyparam.showTraining = (model) => {
    const { training } = model.data;
    if (!training) return;
    const { steps, departures } = training;
    $("training").append(
      el("p", { class: "muted", text: `${pyparam.plural(steps.length, "measured step")}, ${pyparam.count(steps[0])} to ${pyparam.count(steps[steps.length - 1])}.` }),
      list(model, departures),
      el("div", { class: "courses" }, ...training.panels.map((_, i) => panel(model, training, i))),
      el("p", { class: "muted small", text: "Layers from above over the measured steps. A stronger colour is larger, on a logarithmic scale of each map; zeros and what is not finite have colours of their own, and a line marks where a layer left its course." }));
    $("training").hidden = false;
  };
}
