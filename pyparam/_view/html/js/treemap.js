// The map of modules: a treemap whose tiles open by click and by keyboard.
"use strict";
{
  const { el, $ } = pyparam;

  pyparam.Map = class {
    constructor(model) {
      this.model = model;
      this.root = -1;
      this.measure = "elements";
      this.current = null; // the tile that the keyboard is on
      this.plot = $("map-plot");
      this.kinds = new Map();
      this.chooser();
      this.plot.addEventListener("keydown", (event) => this.onKey(event));
      pyparam.theme.onChange(() => this.root >= 0 && this.draw());
    }

    chooser() {
      for (const [value, label] of [["elements", "Values"], ["bytes", "Bytes"]]) {
        const input = el("input", { type: "radio", name: "map-size", value, checked: value === this.measure });
        input.addEventListener("change", () => {
          this.measure = value;
          this.draw();
        });
        $("map-size").append(el("label", {}, input, el("span", { text: label })));
      }
    }

    // Shows a module; a redraw only where it is another one.
    show(node, focus = false) {
      this.focusAfter = focus;
      if (node === this.root) return Promise.resolve();
      this.root = node;
      this.current = null;
      this.path();
      return this.draw();
    }

    path() {
      const { model } = this;
      const parts = model.above(this.root).map((node, i, all) => {
        const label = node ? pyparam.shown(model.key(node)) : "all";
        return i === all.length - 1
          ? el("span", { "aria-current": "location", text: label })
          : el("a", { href: pyparam.address.node(model, node), text: label });
      });
      const type = model.type(this.root);
      const nav = $("map-path");
      pyparam.clear(nav);
      // Of a deep path the middle is left out.
      const shown = parts.length > 12 ? [...parts.slice(0, 4), el("span", { text: "…" }), ...parts.slice(-6)] : parts;
      shown.forEach((part, i) => nav.append(...(i ? [el("span", { class: "slash", "aria-hidden": "true", text: "/" }), part] : [part])));
      if (type) nav.append(el("span", { class: "muted", text: pyparam.shown(type) }));
    }

    text(value) {
      return this.measure === "bytes" ? pyparam.bytes(value) : pyparam.short(value);
    }

    draw() {
      const { model } = this;
      const tiles = (this.tiles = pyparam.tilesOf(model, this.root, this.measure));
      const total = tiles[0].value;
      const note = $("map-note");
      if (!total) {
        Plotly.purge(this.plot);
        this.plot.replaceChildren(el("p", { class: "empty", text: "Nothing here has a size to show." }));
        note.textContent = "";
        return Promise.resolve();
      }
      const palette = pyparam.theme.palette();
      const colour = (kind) => {
        if (!this.kinds.has(kind)) this.kinds.set(kind, this.kinds.size);
        return kind === "" ? pyparam.theme.colour("tile-rest") : palette[this.kinds.get(kind) % palette.length];
      };
      // Kinds are numbered by what they hold, so that the largest differ.
      const held = new Map();
      for (const tile of tiles.slice(1)) {
        const kind = pyparam.tileKind(model, tile);
        held.set(kind, (held.get(kind) || 0) + tile.value);
      }
      for (const [kind] of [...held].sort((a, b) => b[1] - a[1])) if (kind) colour(kind);

      const labels = tiles.map((tile) => {
        if (tile.item === null) return `${pyparam.count(tile.lumped)} more`;
        if (tile.item >= 0) return pyparam.plain(model.attribute(tile.item));
        return ~tile.item ? pyparam.plain(model.key(~tile.item)) : pyparam.plain(model.data.title);
      });
      const fault = (tile) => (tile.item === null ? 0 : tile.item < 0 ? model.nodeFault[~tile.item] : model.fault[tile.item]);
      const lines = tiles.map((tile) => tile.opened ? pyparam.theme.colour("paper") : [pyparam.theme.colour("paper"), pyparam.theme.colour("warning"), pyparam.theme.colour("error")][fault(tile)]);
      const trace = {
        type: "treemap",
        ids: tiles.map((tile) => tile.id),
        parents: tiles.map((tile) => tile.parent),
        labels,
        values: tiles.map((tile) => tile.value),
        text: tiles.map((tile) => this.text(tile.value)),
        customdata: tiles.map((tile, i) => this.hover(tile, labels[i], total)),
        hovertemplate: "%{customdata}<extra></extra>",
        textinfo: "label+text",
        branchvalues: "total",
        sort: true,
        pathbar: { visible: false },
        tiling: { pad: 2, packing: "squarify" },
        maxdepth: -1,
        textfont: { size: 12, color: pyparam.theme.colour("tile-ink") },
        marker: {
          colors: tiles.map((tile, i) => (i ? colour(pyparam.tileKind(model, tile)) : pyparam.theme.colour("panel"))),
          line: { color: lines, width: tiles.map((tile) => (fault(tile) && !tile.opened ? 2 : 1)) },
          pad: { t: 20, l: 3, r: 3, b: 3 },
          cornerradius: 2,
        },
        root: { color: pyparam.theme.colour("panel") },
      };
      const height = Math.max(300, Math.min(520, Math.round(this.plot.clientWidth * 0.5)));
      const layout = { ...pyparam.theme.layout({}), margin: { l: 0, r: 0, t: 0, b: 0 }, height };
      if (!this.listening) pyparam.clear(this.plot);
      return Plotly.react(this.plot, [trace], layout, pyparam.theme.config).then(() => {
        if (!this.listening) {
          this.listening = true;
          this.plot.on("plotly_treemapclick", (event) => {
            const point = event.points[0];
            this.follow(this.tiles.find((tile) => tile.id === point.id));
            return false; // not Plotly's own zoom: the address changes, and the map with it
          });
          this.plot.on("plotly_afterplot", () => this.reachable());
        }
        this.reachable();
        note.textContent = `${this.text(total)}${this.measure === "bytes" ? "" : " values"} in ${pyparam.plural(model.count[this.root], "parameter")}${
          this.measure === "bytes" ? ", buffers among them" : ""}. Shared memory counts once. Colours are kinds of modules; an outline marks a finding inside.`;
      });
    }

    hover(tile, label, total) {
      const { model } = this;
      const share = pyparam.percent(tile.value, total);
      const size = this.measure === "bytes" ? pyparam.bytes(tile.value) : `${pyparam.count(tile.value)} values`;
      if (tile.item === null) return `${label}<br>${size} · ${share}`;
      if (tile.item < 0) {
        const node = ~tile.item;
        const type = model.type(node);
        return `<b>${pyparam.plain(model.paths[node] || model.data.title)}</b>${type ? `<br>${pyparam.plain(type)}` : ""}<br>${size} · ${share}<br>${
          pyparam.plural(model.count[node], "parameter")}`;
      }
      return `<b>${pyparam.plain(model.names[tile.item])}</b><br>${model.shape(tile.item)} ${model.dtype(tile.item)}<br>${size} · ${share}`;
    }

    follow(tile) {
      if (!tile) return;
      const { model } = this;
      if (tile.item === null) {
        // The lump: its module in the table.
        pyparam.listModule(tile.of);
      } else if (tile.item >= 0) {
        location.hash = pyparam.address.row(model, tile.item);
      } else {
        const node = ~tile.item;
        location.hash = pyparam.address.node(model, node === this.root ? model.columns.node_parent[node] : node);
      }
    }

    // --- the keyboard: one tile is a stop of the Tab key, arrows move it -----------------------------------

    slices() {
      return [...this.plot.querySelectorAll("g.slice")].map((element) => {
        const id = element.__data__ && element.__data__.data && element.__data__.data.data.id;
        return { element, tile: this.tiles.find((tile) => tile.id === id) };
      }).filter((slice) => slice.tile && slice.tile.depth > 0);
    }

    reachable() {
      const slices = this.slices();
      if (!slices.some(({ tile }) => tile.id === this.current)) this.current = slices.length ? slices[0].tile.id : null;
      // Plotly keeps elements from one map to the next, so that what is no tile now may have been one.
      const tiles = new Set(slices.map(({ element }) => element));
      for (const element of this.plot.querySelectorAll("g.slice[tabindex]")) {
        if (tiles.has(element)) continue;
        for (const attribute of ["tabindex", "role", "aria-label"]) element.removeAttribute(attribute);
      }
      for (const { element, tile } of slices) {
        element.setAttribute("tabindex", tile.id === this.current ? "0" : "-1");
        element.setAttribute("role", "button");
        element.setAttribute("aria-label", this.spoken(tile));
      }
      if (this.focusAfter) {
        this.focusAfter = false;
        this.focus();
      }
    }

    spoken(tile) {
      const { model } = this;
      const size = this.measure === "bytes" ? pyparam.bytes(tile.value) : `${pyparam.short(tile.value)} values`;
      if (tile.item === null) return `${tile.lumped} more, ${size}`;
      const name = tile.item < 0 ? model.paths[~tile.item] : model.names[tile.item];
      return `${pyparam.shown(name)}, ${tile.item < 0 ? "module" : "parameter"}, ${size}`;
    }

    focus() {
      const slice = this.slices().find(({ tile }) => tile.id === this.current);
      if (slice) slice.element.focus();
    }

    onKey(event) {
      const slices = this.slices();
      const now = slices.find(({ tile }) => tile.id === this.current);
      if (!now || event.altKey || event.ctrlKey || event.metaKey) return;
      if (event.key === "Enter" || event.key === " ") {
        this.focusAfter = true;
        this.follow(now.tile);
      } else if (event.key === "Backspace" && this.root) {
        this.focusAfter = true;
        location.hash = pyparam.address.node(this.model, this.model.columns.node_parent[this.root]);
      } else if (event.key.startsWith("Arrow")) {
        const next = this.towards(now, slices, event.key);
        if (next) this.current = next.tile.id;
        this.reachable();
        this.focus();
      } else {
        return;
      }
      event.preventDefault();
      event.stopPropagation();
    }

    // The tile beside one in a direction: the nearest by the corners that face each other.
    towards(now, slices, key) {
      const box = ({ element }) => element.getBoundingClientRect();
      const a = box(now);
      const along = key === "ArrowLeft" || key === "ArrowRight" ? ["left", "top"] : ["top", "left"];
      const sign = key === "ArrowLeft" || key === "ArrowUp" ? -1 : 1;
      let best = null;
      let least = Infinity;
      for (const slice of slices) {
        if (slice === now) continue;
        const b = box(slice);
        const ahead = sign * (b[along[0]] - a[along[0]]);
        if (ahead <= 0.5) continue;
        const distance = ahead + 3 * Math.abs(b[along[1]] - a[along[1]]);
        if (distance < least) {
          least = distance;
          best = slice;
        }
      }
      return best;
    }
  };
}
