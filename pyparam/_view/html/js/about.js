// What a file holds beside its parameters: its format and size, what it is made of, progress, settings, metadata.
"use strict";
{
  const { el, $ } = pyparam;

  const line = (term, text, kind = "") =>
    el("div", { class: kind }, el("dt", { text: pyparam.shown(term) }), el("dd", { text: pyparam.shown(text) }));

  pyparam.showAbout = (model) => {
    const { parts, facts, warnings } = model.data.about;
    const lines = [
      ...parts.map(([term, text]) => line(term, text)),
      ...facts.map(([term, text]) => line(term, text, warnings.includes(term) ? "warning" : "")),
    ];
    $("about").replaceChildren(...lines);
    $("about").hidden = !lines.length;
  };
}
