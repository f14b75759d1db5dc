"use strict";
// What all parts of the page share: the data, thumbnails, the panel of a selected image. File names are text and never
// markup: elements get them by textContent and attributes only.
const page = JSON.parse(document.getElementById("data").textContent);
const sheets = [...document.querySelectorAll("#sheets img")];
const missing = new Set(page.sheet ? page.sheet.missing : []);

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "className") element.className = value;
    else if (key === "text") element.textContent = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

// One rule a sheet: thousands of thumbnails share its decoded picture.
if (page.sheet) {
  const rules = sheets.map((sheet, number) => `.sheet${number}{background-image:url("${sheet.src}")}`);
  document.head.append(make("style", { text: rules.join("\n") }));
}

const clusterName = (cluster) => (cluster < 0 ? "in no cluster" : `cluster ${cluster}`);
const colourOf = (cluster) => page.colours[cluster] || "#8a8a8a";
// Where some images have no class, neighbours are compared by cluster.
const compared = page.classes && page.classes.every((each) => each >= 0) ? "class" : "cluster";

function describe(row) {
  const parts = [clusterName(page.cluster[row])];
  if (page.classes) parts.push(page.classes[row] < 0 ? "class unknown" : `class ${page.classNames[page.classes[row]]}`);
  if (page.sure[row] !== null) parts.push(`confidence ${page.sure[row].toFixed(2)}`);
  return parts.join(", ");
}

// A picture that fills its box of --thumb pixels, whatever its side on the sheet.
function paint(element, row) {
  const { side, columns, each } = page.sheet;
  const place = row % each, sheet = Math.floor(row / each);
  const lines = Math.round(sheets[sheet].naturalHeight / side) || 1;
  element.classList.add(`sheet${sheet}`);
  if (side <= 40) element.classList.add("pixels");
  element.style.backgroundSize = `${100 * columns}% ${100 * lines}%`;
  const across = columns > 1 ? (100 * (place % columns)) / (columns - 1) : 0;
  const down = lines > 1 ? (100 * Math.floor(place / columns)) / (lines - 1) : 0;
  element.style.backgroundPosition = `${across}% ${down}%`;
}

function thumb(row, frame = "") {
  const label = `${page.names[row]}, ${describe(row)}`;
  const button = make("button", { type: "button", className: `thumb ${frame}`.trim(), title: label, "aria-label": label });
  button.dataset.row = row;
  if (page.sheet && !missing.has(row)) paint(button, row);
  else if (!page.sheet) {
    button.classList.add("text");
    button.textContent = page.names[row];
  }
  return button;
}

// Long rows are cut; a button brings the rest.
function showThumbs(box, rows, count = rows.length, frame = () => "") {
  box.replaceChildren(...rows.slice(0, count).map((row) => thumb(row, frame(row))));
  if (rows.length > count) {
    const more = make("button", { type: "button", className: "more", text: `${rows.length - count} more` });
    more.addEventListener("click", () => {
      showThumbs(box, rows, rows.length, frame);
      box.children[count].focus();
    });
    box.append(more);
  }
}

function sameAs(row, by) {
  const of = by === "class" ? page.classes : page.cluster;
  return (other) => (of[other] === of[row] ? "same" : "other");
}

function fillBoxes() {
  for (const box of document.querySelectorAll("[data-show]")) {
    const rows = box.dataset.show.split(",").map(Number);
    const frame = box.dataset.marked ? sameAs(Number(box.dataset.of), box.dataset.marked) : undefined;
    showThumbs(box, rows, box.dataset.marked ? rows.length : page.sheet ? 14 : 6, frame);
    if (box.dataset.marked) box.before(make("p", { className: "note", text: `${page.names[box.dataset.of]}: ${describe(box.dataset.of)}` }));
  }
  for (const swatch of document.querySelectorAll("[data-cluster]")) {
    swatch.style.background = colourOf(Number(swatch.dataset.cluster));
  }
}

const inspector = document.getElementById("inspector");
let opener = null;

function inspect(row) {
  if (inspector.hidden) opener = document.activeElement;
  const image = thumb(row);
  image.disabled = true;
  const facts = make("div", {}, make("p", { className: "name", text: page.names[row] }), make("p", { text: describe(row) }));
  const close = make("button", { type: "button", className: "close", "aria-label": "Close", text: "\u00d7", onclick: closeInspector });
  const parts = [close, make("div", { className: "who" }, ...(page.sheet ? [image] : []), facts)];
  if (page.near) {
    const box = make("div", { className: "thumbs" });
    const near = page.near[row], frame = sameAs(row, compared);
    showThumbs(box, near, near.length, frame);
    const same = near.filter((other) => frame(other) === "same").length;
    parts.push(make("h4", { text: `Nearest neighbours: ${same} of ${near.length} of the same ${compared} (green)` }), box);
  } else parts.push(make("p", { className: "note", text: "This page has no embeddings, so no neighbours." }));
  inspector.replaceChildren(...parts);
  inspector.dataset.row = row;
  inspector.hidden = false;
  inspector.focus({ preventScroll: true });
  document.dispatchEvent(new CustomEvent("selected", { detail: row }));
}

function closeInspector() {
  inspector.hidden = true;
  delete inspector.dataset.row;
  document.dispatchEvent(new CustomEvent("selected", { detail: null }));
  if (opener && opener.isConnected) opener.focus({ preventScroll: true });
}

document.addEventListener("click", (event) => {
  const target = event.target.closest("button.thumb");
  if (target && !target.disabled) inspect(Number(target.dataset.row));
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !inspector.hidden) closeInspector();
});

const order = document.getElementById("order");
if (order) {
  order.addEventListener("change", () => {
    const key = order.value, sign = key === "number" ? 1 : -1;
    const cards = [...document.querySelectorAll("#cards > .card")];
    cards.sort((a, b) => sign * (a.dataset[key] - b.dataset[key]) || a.dataset.number - b.dataset.number);
    document.getElementById("cards").append(...cards);
  });
}

// Sizes of the sheets are needed, and known once they are decoded.
Promise.all(sheets.map((sheet) => sheet.decode().catch(() => null))).then(() => {
  fillBoxes();
  document.dispatchEvent(new Event("pictures"));
  document.documentElement.dataset.ready = "yes";
});
