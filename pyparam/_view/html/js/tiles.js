// Which tiles the map shows of a module: the largest parts, a few levels deep, the rest lumped together.
"use strict";
{
  const MOST = 320; // tiles at once
  const CHILDREN = 48; // of one module
  const LEVELS = 4;

  const level = (text) => text.replace(/\d+/g, "#");

  pyparam.tilesOf = (model, root, measure) => {
    const c = model.columns;
    const size = (item) => {
      if (item < 0) return model[measure][~item];
      if (measure === "bytes") return c.row_own_bytes[item];
      return c.row_buffer[item] ? 0 : model.ownElements(item);
    };
    const id = (item) => (item < 0 ? `m${~item}` : `p${item}`);
    const tiles = [{ item: ~root, id: id(~root), parent: "", value: size(~root), depth: 0 }];
    let queue = [tiles[0]];
    while (queue.length && tiles.length < MOST) {
      // The largest module that is not opened yet.
      queue.sort((a, b) => b.value - a.value);
      const tile = queue.shift();
      const parts = [
        ...Array.from(model.rowsOf(~tile.item)),
        ...Array.from(model.childrenOf(~tile.item), (child) => ~child),
      ].map((item) => ({ item, value: size(item) })).filter((part) => part.value > 0);
      parts.sort((a, b) => b.value - a.value);
      const shown = parts.length > CHILDREN + 1 ? parts.slice(0, CHILDREN) : parts;
      for (const part of shown) {
        const made = { ...part, id: id(part.item), parent: tile.id, depth: tile.depth + 1 };
        tiles.push(made);
        if (part.item < 0 && made.depth < LEVELS) queue.push(made);
      }
      const rest = parts.slice(shown.length);
      if (rest.length) {
        tiles.push({
          item: null, of: ~tile.item, id: `rest${~tile.item}`, parent: tile.id, depth: tile.depth + 1,
          value: rest.reduce((sum, part) => sum + part.value, 0), lumped: rest.length,
        });
      }
    }
    return tiles;
  };

  // What gives a tile its colour: its class, or what its name is but for numbers.
  pyparam.tileKind = (model, tile) => {
    if (tile.item === null) return "";
    if (tile.item >= 0) {
      const owner = model.columns.row_node[tile.item];
      return pyparam.tileKind(model, { item: ~owner });
    }
    const node = ~tile.item;
    return model.type(node) || level(model.key(node)) || "";
  };
}
