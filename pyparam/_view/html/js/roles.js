// Layers side by side: the parameters of one role as a strip, a column a figure.
"use strict";
{
  const { el, $ } = pyparam;

  const strip = (model, role, figure) => {
    if (!figure) return el("td");
    const count = role.length;
    const heat = new pyparam.Heat(model.columns.role_level.subarray(figure.at, figure.at + count), 1, count, figure);
    const name = (i) => pyparam.shown(model.names[model.columns.role_row[role.start + i]]);
    const canvas = pyparam.heatmap(heat, `${figure.title} of ${role.role}: ${heat.range()}`, (_, i) => name(i));
    canvas.addEventListener("click", (event) => {
      location.hash = pyparam.address.row(model, model.columns.role_row[role.start + canvas.at(event)[1]]);
    });
    return el("td", {}, canvas, el("span", { class: "muted small", text: heat.range() }));
  };

  pyparam.showRoles = (model) => {
    const { roles } = model.data;
    if (!roles || !roles.length) return;
    const titles = [...new Set(roles.flatMap((role) => role.figures.map((figure) => figure.title)))];
    let start = 0;
    const body = roles.map((role) => {
      role.start = start;
      start += role.length;
      return el("tr", {}, el("th", { scope: "row", class: "mono", text: pyparam.shown(role.role), title: pyparam.shown(role.role) }),
        el("td", { class: "figure", text: pyparam.count(role.length) }),
        ...titles.map((title) => strip(model, role, role.figures.find((figure) => figure.title === title))));
    });
    const head = el("tr", {}, ...["Role", "Members", ...titles].map((text) => el("th", { scope: "col", text })));
    $("roles").append(
      el("div", { class: "scrolled", tabindex: "0", role: "region", "aria-labelledby": "roles-title" }, el("table", { class: "roles" }, el("thead", {}, head), el("tbody", {}, ...body))),
      el("p", { class: "muted small", text: "The parameters at one place of each layer, in the model's order. A stronger colour is larger, on a logarithmic scale of each row; zeros and what is not finite have colours of their own. A click opens the parameter." }));
    $("roles").hidden = false;
  };
}
