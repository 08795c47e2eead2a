// Which tiles the map shows of a module: what is large enough to be seen, level by level, the rest lumped together.
"use strict";
{
  const MOST = 700; // tiles at once
  const CHILDREN = 100; // of one module
  const LEVELS = 5;
  // Shares of the whole from which a module is opened, and a part has a tile of its own.
  const OPENED = 0.008;
  const SEEN = 0.0006;

  const level = (text) => text.replace(/\d+/g, "#");

  pyparam.tilesOf = (model, root, measure) => {
    const c = model.columns;
    const size = (item) => {
      if (item < 0) return model[measure][~item];
      if (measure === "bytes") return c.row_own_bytes[item];
      return c.row_buffer[item] ? 0 : model.ownElements(item);
    };
    const id = (item) => (item < 0 ? `m${~item}` : `p${item}`);
    const tiles = [{ item: ~root, id: id(~root), parent: "", value: size(~root), depth: 0, opened: true }];
    const whole = tiles[0].value;
    const partsOf = (node) => {
      const items = [...model.rowsOf(node), ...Array.from(model.childrenOf(node), (child) => ~child)];
      const parts = items.map((item) => ({ item, value: size(item) })).filter((part) => part.value > 0);
      return parts.sort((a, b) => b.value - a.value);
    };
    const open = (tile) => {
      const parts = partsOf(~tile.item);
      let count = parts.findIndex((part) => part.value < SEEN * whole);
      if (count < 0) count = parts.length;
      if (parts.length > CHILDREN + 1) count = Math.min(count, CHILDREN);
      if (!count && !tile.depth) count = Math.min(parts.length, CHILDREN);
      if (!count) return [];
      tile.opened = true;
      const made = parts.slice(0, count).map((part) => ({ ...part, id: id(part.item), parent: tile.id, depth: tile.depth + 1 }));
      tiles.push(...made);
      const rest = parts.slice(count);
      if (rest.length) {
        const value = rest.reduce((sum, part) => sum + part.value, 0);
        tiles.push({ item: null, of: ~tile.item, id: `rest${~tile.item}`, parent: tile.id, depth: tile.depth + 1, value, lumped: rest.length });
      }
      return made.filter((part) => part.item < 0);
    };
    let now = [tiles[0]];
    for (let depth = 0; now.length && depth < LEVELS && tiles.length < MOST; depth++) {
      const next = [];
      for (const tile of now) {
        if (tiles.length >= MOST) break;
        if (!depth || tile.value >= OPENED * whole) next.push(...open(tile));
      }
      // A chain of modules with one part each is one level to the eye.
      if (next.length === 1 && now.length === 1) depth -= 1;
      now = next;
    }
    return tiles;
  };

  // What gives a tile its colour: its class, or what its name is but for numbers.
  pyparam.tileKind = (model, tile) => {
    if (tile.item === null) return "";
    if (tile.item >= 0) return pyparam.tileKind(model, { item: ~model.columns.row_node[tile.item] });
    const node = ~tile.item;
    return model.type(node) || level(model.key(node));
  };
}
