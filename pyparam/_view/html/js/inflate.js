// Inflates zlib data where the browser has no DecompressionStream (RFC 1950 and 1951).
"use strict";
{
  const bases = (start, bits) => bits.map((n) => { const base = start; start += 1 << n; return base; });
  const lengthBits = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
  const lengthBase = bases(3, lengthBits);
  lengthBase[28] = 258;
  const distanceBits = [0, 0, 0, 0, ...Array.from({ length: 26 }, (_, i) => (i >> 1) + 1)];
  const distanceBase = bases(1, distanceBits);
  const order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

  // A canonical Huffman code: how many codes of each length, and the symbols in the order of their codes.
  const code = (lengths) => {
    const count = new Uint16Array(16);
    for (const n of lengths) count[n] += 1;
    count[0] = 0;
    const offsets = new Uint16Array(16);
    for (let i = 1; i < 15; i++) offsets[i + 1] = offsets[i] + count[i];
    const symbols = new Uint16Array(lengths.length);
    lengths.forEach((n, symbol) => { if (n) symbols[offsets[n]++] = symbol; });
    return { count, symbols };
  };
  const fixedLengths = code([
    ...Array(144).fill(8), ...Array(112).fill(9), ...Array(24).fill(7), ...Array(8).fill(8),
  ]);
  const fixedDistances = code(Array(30).fill(5));

  pyparam.inflate = (input) => {
    let at = 2; // behind zlib's header
    let hold = 0;
    let held = 0;
    let out = new Uint8Array(Math.max(1024, input.length * 4));
    let size = 0;
    const room = (more) => {
      if (size + more <= out.length) return;
      const larger = new Uint8Array(Math.max(out.length * 2, size + more));
      larger.set(out);
      out = larger;
    };
    const bits = (n) => {
      while (held < n) {
        if (at >= input.length) throw new Error("the report's data is cut off");
        hold |= input[at++] << held;
        held += 8;
      }
      const value = hold & ((1 << n) - 1);
      hold >>>= n;
      held -= n;
      return value;
    };
    const symbol = ({ count, symbols }) => {
      let value = 0;
      let first = 0;
      let index = 0;
      for (let length = 1; length < 16; length++) {
        value |= bits(1);
        if (value - first < count[length]) return symbols[index + value - first];
        index += count[length];
        first = (first + count[length]) << 1;
        value <<= 1;
      }
      throw new Error("the report's data is damaged");
    };
    const stored = () => {
      hold = held = 0;
      const length = input[at] | (input[at + 1] << 8);
      at += 4;
      room(length);
      out.set(input.subarray(at, at + length), size);
      at += length;
      size += length;
    };
    const described = () => {
      const literals = bits(5) + 257;
      const distances = bits(5) + 1;
      const lengths = new Array(19).fill(0);
      for (let n = bits(4) + 4, i = 0; i < n; i++) lengths[order[i]] = bits(3);
      const lengthCode = code(lengths);
      const all = [];
      while (all.length < literals + distances) {
        const s = symbol(lengthCode);
        if (s < 16) all.push(s);
        else if (s === 16) all.push(...Array(bits(2) + 3).fill(all[all.length - 1]));
        else all.push(...Array(s === 17 ? bits(3) + 3 : bits(7) + 11).fill(0));
      }
      return [code(all.slice(0, literals)), code(all.slice(literals))];
    };
    for (let last = 0; !last;) {
      last = bits(1);
      const kind = bits(2);
      if (kind === 0) {
        stored();
        continue;
      }
      const [literals, distances] = kind === 1 ? [fixedLengths, fixedDistances] : described();
      for (;;) {
        const s = symbol(literals);
        if (s === 256) break;
        if (s < 256) {
          room(1);
          out[size++] = s;
          continue;
        }
        const length = lengthBase[s - 257] + bits(lengthBits[s - 257]);
        const d = symbol(distances);
        const distance = distanceBase[d] + bits(distanceBits[d]);
        room(length);
        for (let i = 0; i < length; i++, size++) out[size] = out[size - distance];
      }
    }
    return out.subarray(0, size);
  };
}
