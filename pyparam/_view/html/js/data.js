// Reads the data that the page holds: base64 of deflated columns behind a header (see pack.py).
"use strict";
{
  const arrays = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, f4: Float32Array, f8: Float64Array };

  const fromBase64 = (text) => {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    const binary = atob(text);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
    return bytes;
  };

  const inflated = async (bytes) => {
    if (typeof DecompressionStream === "undefined") return pyparam.inflate(bytes);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };

  // Values come as planes of their bytes, the lowest first.
  const column = (raw, at, { type, length }) => {
    const size = arrays[type].BYTES_PER_ELEMENT;
    const bytes = new Uint8Array(length * size);
    for (let plane = 0; plane < size; plane++) {
      for (let i = 0, from = at + plane * length, to = plane; i < length; i++, to += size) {
        bytes[to] = raw[from + i];
      }
    }
    return new arrays[type](bytes.buffer);
  };

  // The header, with `columns` as typed arrays by name.
  pyparam.load = async () => {
    const holder = pyparam.$("data");
    const raw = await inflated(fromBase64(holder.textContent.trim()));
    holder.remove(); // the text is large, and not needed again
    const length = new DataView(raw.buffer, raw.byteOffset).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(raw.subarray(4, 4 + length)));
    let at = 4 + length;
    const columns = {};
    for (const described of header.columns) {
      columns[described.name] = column(raw, at, described);
      at += described.length * arrays[described.type].BYTES_PER_ELEMENT;
    }
    return { ...header, columns };
  };
}
