// A box or points drawn on the slices become the form's fields in LPS mm. Everything can be typed instead.
const slices = document.getElementById("slices");
const form = document.querySelector("form.contour");
const part = document.getElementById("drawn");
const svg = document.getElementById("drawing");
const words = document.getElementById("drawn-words");
const tools = document.getElementById("tools");
const shape = slices.dataset.shape.split(",").map(Number);
const affine = slices.dataset.affine.trim().split(" ").map(Number);
const AXES = ["axial", "coronal", "sagittal"];
const SVG = "http://www.w3.org/2000/svg";
// The box, and points, as indices of the image: axis 0 runs to Superior, 1 to Posterior, 2 to Left.
let low = [-0.5, -0.5, -0.5];
let high = shape.map((size) => size - 0.5);
let isDrawn = false;
let points = [];
let from = null;

const plane = () => AXES.indexOf(slices.elements.axis.value);
const slice = () => Number(slices.elements.index.value);
const tool = () => tools.querySelector("[name=tool]:checked").value;
// Rows and columns of a plane; rows that run to Superior are drawn upwards.
const axesOf = (number) => [0, 1, 2].filter((other) => other !== number);
const toShare = (axis, index, upwards) => (upwards ? 1 - (index + 0.5) / shape[axis] : (index + 0.5) / shape[axis]);
const toIndex = (axis, share, upwards) => (upwards ? 1 - share : share) * shape[axis] - 0.5;
const toLps = (index) => [0, 1, 2].map((row) => affine[4 * row + 3] + index.reduce((sum, value, k) => sum + affine[4 * row + k] * value, 0));

function indexAt(event) {
  const box = part.getBoundingClientRect();
  const [rows, columns] = axesOf(plane());
  const share = (value, start, size) => Math.min(1, Math.max(0, (value - start) / size));
  const index = [0, 0, 0];
  index[plane()] = slice();
  index[rows] = toIndex(rows, share(event.clientY, box.top, box.height), plane() > 0);
  index[columns] = toIndex(columns, share(event.clientX, box.left, box.width), false);
  return index;
}

function shape_(name, values) {
  const made = svg.appendChild(document.createElementNS(SVG, name));
  for (const [key, value] of Object.entries(values)) made.setAttribute(key, value);
}

function draw() {
  svg.replaceChildren();
  svg.setAttribute("viewBox", "0 0 100 100");
  svg.setAttribute("preserveAspectRatio", "none");
  const number = plane();
  const [rows, columns] = axesOf(number);
  const upwards = number > 0;
  if (isDrawn && low[number] <= slice() && slice() <= high[number]) {
    const x = 100 * toShare(columns, low[columns], false);
    const tops = [low, high].map((end) => 100 * toShare(rows, end[rows], upwards)).sort((a, b) => a - b);
    shape_("rect", { x, y: tops[0], width: 100 * toShare(columns, high[columns], false) - x, height: tops[1] - tops[0] });
  }
  for (const point of points) {
    if (Math.abs(point[number] - slice()) > 0.5) continue;
    const x = 100 * toShare(columns, point[columns], false);
    const y = 100 * toShare(rows, point[rows], upwards);
    shape_("path", { d: `M${x - 1.5},${y}h3M${x},${y - 1.5}v3` });
  }
}

function fill() {
  const corners = [0, 1, 2, 3, 4, 5, 6, 7].map((n) => toLps([0, 1, 2].map((k) => ((n >> k) & 1 ? high[k] : low[k]))));
  for (const [k, axis] of ["x", "y", "z"].entries()) {
    const values = corners.map((corner) => corner[k]);
    form.elements[`within_${axis}0`].value = isDrawn ? Math.min(...values).toFixed(1) : "";
    form.elements[`within_${axis}1`].value = isDrawn ? Math.max(...values).toFixed(1) : "";
  }
  if (form.elements.at) form.elements.at.value = points.map((point) => toLps(point).map((mm) => mm.toFixed(1)).join(",")).join("; ");
  const ends = { first: Math.ceil(low[0]), last: Math.floor(high[0]) };
  words.textContent = isDrawn ? words.dataset.slices.replace("{first}", ends.first).replace("{last}", ends.last) : "";
  draw();
}

part.addEventListener("pointerdown", (event) => {
  event.preventDefault();
  if (tool() === "point") {
    [points, isDrawn] = [[...points, indexAt(event)], false];
    fill();
    return;
  }
  from = indexAt(event);
  part.setPointerCapture(event.pointerId);
});
part.addEventListener("pointermove", (event) => {
  if (!from) return;
  const to = indexAt(event);
  for (const axis of axesOf(plane())) {
    [low[axis], high[axis]] = [Math.min(from[axis], to[axis]), Math.max(from[axis], to[axis])];
  }
  [points, isDrawn] = [[], true];
  fill();
});
for (const name of ["pointerup", "pointercancel"]) part.addEventListener(name, () => { from = null; });

function end(which) {
  const axis = plane();
  if (which === "first") low[axis] = slice() - 0.5; else high[axis] = slice() + 0.5;
  if (low[axis] >= high[axis]) [low[axis], high[axis]] = [slice() - 0.5, slice() + 0.5];
  [points, isDrawn] = [[], true];
  fill();
}

document.getElementById("first").addEventListener("click", () => end("first"));
document.getElementById("last").addEventListener("click", () => end("last"));
document.getElementById("clear").addEventListener("click", () => {
  [low, high, isDrawn, points] = [[-0.5, -0.5, -0.5], shape.map((size) => size - 0.5), false, []];
  fill();
});
slices.addEventListener("input", draw);
document.getElementById("slice").addEventListener("load", draw);
tools.hidden = false;
