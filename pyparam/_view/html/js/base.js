// The namespace of the report's scripts, elements made without markup, and how numbers are written.
"use strict";
const pyparam = {};
{
  // Everything a source named reaches the page as text nodes or attribute values, never as markup.
  // Attributes: "class", "text", "on" (listeners), properties of ARIA and others as they are written in HTML.
  pyparam.el = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (key === "text") element.textContent = value;
      else if (key === "on") for (const [event, f] of Object.entries(value)) element.addEventListener(event, f);
      else element.setAttribute(key, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  };
  pyparam.$ = (id) => document.getElementById(id);

  // Names as a person can read them: what does not print, or turns the direction of writing, is spelt out.
  const odd = /[\p{C}\p{Zl}\p{Zp}]/gu;
  pyparam.shown = (name) =>
    name.replace(odd, (c) => `\\u{${c.codePointAt(0).toString(16)}}`) || "(no name)";
  // For Plotly, which reads some markup in its texts.
  pyparam.plain = (name) =>
    pyparam.shown(name).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  const whole = new Intl.NumberFormat("en-US");
  pyparam.count = (n) => whole.format(n);
  pyparam.plural = (n, one, many) => `${whole.format(n)} ${n === 1 ? one : many || one + "s"}`;

  // Four digits, with a real minus; powers of ten where it would grow long.
  pyparam.number = (x) => {
    if (Number.isNaN(x) || x === undefined || x === null) return "–";
    if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
    if (x === 0) return "0";
    const size = Math.abs(x);
    let text;
    if (size >= 1e5 || size < 1e-3) {
      text = size.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
    } else if (size >= 1000) {
      text = whole.format(Math.round(size));
    } else {
      text = size.toPrecision(size < 0.01 ? 3 : 4);
      if (text.includes(".")) text = text.replace(/\.?0+$/, "");
    }
    return x < 0 ? `−${text}` : text;
  };
  // "3.14 M"
  pyparam.short = (n) => {
    for (const [unit, size] of [["T", 1e12], ["B", 1e9], ["M", 1e6], ["k", 1e3]]) {
      if (n >= size) return `${Number((n / size).toPrecision(3))} ${unit}`;
    }
    return String(n);
  };
  pyparam.bytes = (n) => {
    const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let unit = 0;
    while (n >= 1024 && unit < units.length - 1) {
      n /= 1024;
      unit += 1;
    }
    return `${unit === 0 ? n : Number(n.toPrecision(3))} ${units[unit]}`;
  };
  pyparam.percent = (part, whole) => {
    if (!whole || !part) return "0";
    const share = (100 * part) / whole;
    if (share < 0.01) return "<0.01 %";
    if (share >= 99.995 && part < whole) return ">99.99 %";
    return `${Number(share.toPrecision(3))} %`;
  };
  pyparam.clear = (element) => element.replaceChildren();
}
