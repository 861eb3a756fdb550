// The way from a leaf to the root as a picture: the root at the top, at each level the hash that was computed and its
// sibling from the document.

import { hex } from "./bytes.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, ROW, BOX_WIDTH, BOX_HEIGHT] = [360, 58, 104, 28];
const MIDDLE = WIDTH / 2;
const AT_SIDE = { left: BOX_WIDTH / 2 + 2, right: WIDTH - BOX_WIDTH / 2 - 2 };

function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) element.setAttribute(attribute, String(value));
  element.append(...children);
  return element;
}

const shortHash = (bytes) => `${hex(bytes.subarray(0, 5))}…`;

function box(x, y, text, kind) {
  const rect = svg("rect", { x: x - BOX_WIDTH / 2, y: y - BOX_HEIGHT / 2, width: BOX_WIDTH, height: BOX_HEIGHT, rx: 5 });
  return svg("g", { class: `box ${kind}` }, rect, svg("text", { x, y: y + 4, "text-anchor": "middle" }, text));
}

const line = (x1, y1, x2, y2, kind) => svg("line", { class: kind, x1, y1, x2, y2 });

/** A picture of how far the path of an entry leads. */
export function drawPath({ index, leafHash, trace, root, holds }) {
  const hashes = [leafHash, ...trace.map(({ hash }) => hash)];
  const height = (hashes.length - 1) * ROW + BOX_HEIGHT + 64;
  const yOf = (level) => height - 30 - BOX_HEIGHT / 2 - level * ROW;
  const [lines, boxes] = [svg("g"), svg("g")];
  trace.forEach(({ sibling, side }, level) => {
    const [y, above] = [yOf(level) - BOX_HEIGHT / 2, yOf(level + 1) + BOX_HEIGHT / 2];
    lines.append(line(AT_SIDE[side], y, MIDDLE, above, "branch"), line(MIDDLE, y, MIDDLE, above, "way"));
    boxes.append(box(AT_SIDE[side], yOf(level), shortHash(sibling), "sibling"));
  });
  hashes.forEach((hash, level) => {
    const top = level === hashes.length - 1;
    boxes.append(box(MIDDLE, yOf(level), shortHash(hash), top ? (holds ? "root holds" : "root fails") : "computed"));
  });
  const caption = (y, text) => svg("text", { class: "caption", x: MIDDLE, y, "text-anchor": "middle" }, text);
  const summit = holds ? "this is the root that the log has signed" : `this is not the signed root ${shortHash(root)}`;
  boxes.append(caption(16, summit), caption(height - 8, `leaf hash of entry ${index}`));
  const title = `${trace.length} hashes lead from entry ${index} ${holds ? "to the signed root" : "to another root than the signed one"}`;
  const picture = { class: "path", viewBox: `0 0 ${WIDTH} ${height}`, width: WIDTH, height, role: "img", "aria-label": title };
  return svg("svg", picture, lines, boxes);
}

/** The same in words, a sentence for each level. */
export function tellPath({ index, leafHash, trace, root, holds }) {
  const steps = trace.map(({ sibling, side, hash }) => `With ${hex(sibling)} on its ${side} it gives ${hex(hash)}.`);
  const last = holds ? "That is the signed root." : `The signed root is ${hex(root)}.`;
  return [`The leaf hash of entry ${index} is ${hex(leafHash)}.`, ...steps, last];
}
