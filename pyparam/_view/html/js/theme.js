// Light and dark: the system's choice until the reader makes one, and Plotly's layout in the page's colours.
"use strict";
{
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const listeners = [];
  let shown = "light"; // before it was printed

  // Storage is refused to files in some browsers; then the choice lasts as long as the page.
  const remembered = () => {
    try {
      return localStorage.getItem("pyparam-theme");
    } catch {
      return null;
    }
  };
  const remember = (theme) => {
    try {
      localStorage.setItem("pyparam-theme", theme);
    } catch {
      // nothing to do
    }
  };

  const apply = (theme) => {
    document.documentElement.dataset.theme = theme;
    pyparam.$("theme").textContent = theme === "dark" ? "Light" : "Dark";
    pyparam.$("theme").setAttribute("aria-label", `Switch to ${theme === "dark" ? "light" : "dark"} colours`);
    for (const listener of listeners) listener();
  };

  pyparam.theme = {
    start() {
      apply(remembered() || (dark.matches ? "dark" : "light"));
      dark.addEventListener("change", () => remembered() || apply(dark.matches ? "dark" : "light"));
      pyparam.$("theme").addEventListener("click", () => {
        const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
        remember(next);
        apply(next);
      });
    },
    // Paper is white, whatever the screen shows.
    print(paper) {
      if (paper) shown = document.documentElement.dataset.theme;
      apply(paper ? "light" : shown);
    },
    onChange(listener) {
      listeners.push(listener);
    },
    colour(name) {
      return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
    },
    // Muted colours for classes of modules, the same count in both themes.
    palette() {
      return [1, 2, 3, 4, 5, 6, 7, 8].map((i) => pyparam.theme.colour(`tile-${i}`));
    },
    layout(extra = {}) {
      const colour = pyparam.theme.colour;
      const axis = {
        gridcolor: colour("line"),
        linecolor: colour("line-strong"),
        zerolinecolor: colour("line-strong"),
        tickcolor: colour("line-strong"),
        tickfont: { color: colour("muted"), size: 12 },
        title: { font: { color: colour("muted"), size: 12 } },
        automargin: true,
        fixedrange: true,
      };
      const merged = { ...extra };
      for (const name of ["xaxis", "yaxis"]) {
        const own = extra[name] || {};
        merged[name] = { ...axis, ...own, title: { ...axis.title, ...(own.title || {}) } };
      }
      return {
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: "system-ui, sans-serif", color: colour("ink"), size: 13 },
        margin: { l: 48, r: 12, t: 12, b: 40 },
        showlegend: false,
        dragmode: false,
        hoverlabel: {
          bgcolor: colour("panel"),
          bordercolor: colour("line-strong"),
          font: { color: colour("ink"), family: "system-ui, sans-serif", size: 13 },
          align: "left",
        },
        ...merged,
      };
    },
    config: { displayModeBar: false, responsive: true, showTips: false, scrollZoom: false, doubleClick: false },
  };
}
