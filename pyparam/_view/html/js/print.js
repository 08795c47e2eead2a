// On paper: light colours, every line of the table, and charts as wide as a page.
"use strict";
{
  const LINES = 5000; // about a hundred pages

  // For paper everything that is folded opens, and is folded again afterwards.
  pyparam.Table.prototype.print = function (paper) {
    this.paper = paper ? LINES : 0;
    if (paper) {
      this.folded = { open: this.open.slice(), closed: this.closed };
      this.open.fill(1);
      this.closed = new Set();
    } else {
      this.open.set(this.folded.open);
      this.closed = this.folded.closed;
      for (const line of this.pool.splice(0)) line.remove();
    }
    this.update();
    const more = paper ? this.items.length - LINES : 0;
    this.cut.hidden = more <= 0;
    this.cut.textContent = `and ${pyparam.count(more)} more lines: filter them to print them.`;
  };

  pyparam.printable = (report) => {
    let on = false;
    const turn = (paper) => {
      if (paper === on) return;
      on = paper;
      // Its styles give the page the width of paper, which charts and small histograms ask for.
      document.documentElement.classList.toggle("paper", paper);
      report.table.print(paper);
      pyparam.theme.print(paper); // which redraws everything
      for (const plot of document.querySelectorAll(".js-plotly-plot")) {
        if (!plot.clientWidth) continue;
        // A chart takes the width of paper at once only from its layout; on the screen it follows its element.
        const tallest = plot.id === "map-plot" ? 330 : 560;
        if (paper) Plotly.relayout(plot, { width: plot.clientWidth, height: Math.min(plot.layout.height, tallest) });
        else Plotly.Plots.resize(plot);
      }
    };
    window.addEventListener("beforeprint", () => turn(true));
    window.addEventListener("afterprint", () => turn(false));
  };
}
