// The findings: what was found, why it matters, and the parameters concerned.
"use strict";
{
  const { el, $ } = pyparam;
  const SHOWN = 5;
  const WORDS = { error: "Error", warning: "Warning", info: "Note" };

  const names = (model, finding, table) => {
    const list = el("ul", { class: "names" });
    const add = (row) => {
      const words = finding.details[row];
      list.append(el("li", {},
        el("a", { href: pyparam.address.row(model, row), text: pyparam.shown(model.names[row]) }),
        words ? el("span", { class: "muted", text: ` ${pyparam.shown(words)}` }) : null));
    };
    finding.names.slice(0, SHOWN).forEach(add);
    if (finding.names.length > SHOWN) {
      const button = el("button", { type: "button", class: "link", text: `all ${pyparam.count(finding.names.length)} in the table` });
      button.addEventListener("click", () => {
        table.show(new Set(finding.names), finding.title);
        $("parameters").scrollIntoView();
        table.grid.focus();
      });
      list.append(el("li", {}, button));
    }
    return list;
  };

  // What to do next, and how sure it is that this is a fault, where that is not certain.
  const advice = (finding) => {
    const sure = finding.confidence === "certain" ? "" : ` This is ${finding.confidence}, not certain.`;
    if (!finding.advice && !sure) return [];
    return [el("p", { class: "reason next" }, el("strong", { text: "Next: " }), el("span", { text: `${finding.advice}${sure}` }))];
  };

  const card = (model, finding, table) =>
    el("article", { class: `finding ${finding.severity}`, "data-kind": finding.kind },
      el("p", { class: "badge", text: WORDS[finding.severity] }),
      el("div", {},
        el("h3", { text: pyparam.shown(finding.title) }),
        el("p", { class: "reason", text: finding.reason }),
        ...advice(finding),
        names(model, finding, table)));

  pyparam.showFindings = (model, table) => {
    const section = $("findings");
    const all = model.data.findings;
    const faults = all.filter((finding) => finding.severity !== "info");
    const notes = all.filter((finding) => finding.severity === "info");
    if (!faults.length) {
      section.append(el("div", { class: "good" },
        el("p", {}, el("span", { class: "tick", "aria-hidden": "true", text: "✓" }), el("strong", { text: "Nothing wrong was found." })),
        el("p", { class: "muted", text:
          "Looked for: values that are not finite, parameters never initialised, dead and constant tensors, rows that repeat, scales unlike those of siblings, dtypes that lose range, mixed devices and dtypes." })));
    }
    for (const finding of faults) section.append(card(model, finding, table));
    if (notes.length) {
      const details = el("details", { class: "notes", open: notes.length <= 3 },
        el("summary", { text: pyparam.plural(notes.length, "note") }));
      for (const finding of notes) details.append(card(model, finding, table));
      section.append(details);
    }
  };
}
