"use strict";
// The map: what the page's data are, where points lie on the screen, and how they are drawn.

const KINDS = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, i2: Int16Array, i4: Int32Array };
const REACH = 14;      // pixels, within which a point is hit
const GAP = 46;        // pixels between the middles of pictures on the map
const PICTURE = 42;    // pixels, their side
const FEW = 400;       // points on the screen, from which on "when zoomed in" shows pictures
const COLOURS = ["#4477aa", "#ee6677", "#228833", "#c9a31a", "#3fa9c9", "#aa3377", "#e07b39", "#7a5fd0",
  "#8c6d4f", "#00a087", "#d4679f", "#6b8e23"];

function unpacked(part) {
  const text = atob(part.data), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new KINDS[part.kind](bytes.buffer);  // little-endian, as every browser's machine is
}

const data = JSON.parse(document.getElementById("data").textContent);
const n = data.names.length;
const points = Float32Array.from(unpacked(data.points), (value) => value / 65535);
const nearestIndex = unpacked(data.nearest.index), nearestSimilarity = unpacked(data.nearest.similarity);
const colourings = data.colourings.map((c) => ({ ...c, of: unpacked(c.of) }));

const canvas = document.getElementById("map"), pen = canvas.getContext("2d");
const view = { scale: 1, x: 0, y: 0, width: 0, height: 0 };  // screen = point * scale + (x, y)
const state = {
  colouring: 0,
  hidden: colourings.map(() => new Set()),  // groups, by colouring
  current: -1,        // the point that the keyboard or the pointer is at
  picked: -1,         // whose neighbours are shown
  chosen: new Uint8Array(n),
  chosenCount: 0,
  found: null,        // Uint8Array where a search is on
  outline: null,      // of a lasso or a box while it is drawn, [x, y, ...] on the screen
};

function colourOf(group, count) {
  if (group < 0) return theme.unknown;
  if (count <= COLOURS.length) return COLOURS[group];
  return `hsl(${(group * 137.508) % 360} ${group % 2 ? 55 : 70}% ${[46, 58, 52][group % 3]}%)`;
}

let theme = {};
function readTheme() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["paper", "ink", "soft", "line", "strong", "unknown", "halo"])
    theme[name] = style.getPropertyValue("--" + name).trim();
}

// The screen and the points

const toScreen = (i) => [points[2 * i] * view.scale + view.x, (1 - points[2 * i + 1]) * view.scale + view.y];
const isShown = (i) => !state.hidden[state.colouring].has(colourings[state.colouring].of[i]);

function showWhole() {
  const margin = 28;
  view.scale = Math.max(40, Math.min(view.width, view.height) - 2 * margin);
  // What is wide or high is given all of the longer side.
  let [left, right, low, high] = [1, 0, 1, 0];
  for (let i = 0; i < n; i++) {
    left = Math.min(left, points[2 * i]); right = Math.max(right, points[2 * i]);
    low = Math.min(low, 1 - points[2 * i + 1]); high = Math.max(high, 1 - points[2 * i + 1]);
  }
  const wide = Math.max(right - left, 1e-3), tall = Math.max(high - low, 1e-3);
  view.scale = Math.max(40, Math.min((view.width - 2 * margin) / wide, (view.height - 2 * margin) / tall));
  view.x = (view.width - view.scale * (left + right)) / 2;
  view.y = (view.height - view.scale * (low + high)) / 2;
}

function zoom(by, x = view.width / 2, y = view.height / 2) {
  const scale = Math.min(4e5, Math.max(60, view.scale * by));
  by = scale / view.scale;
  view.scale = scale;
  view.x = x + (view.x - x) * by;
  view.y = y + (view.y - y) * by;
}

function bringIntoView(i) {
  const [x, y] = toScreen(i), margin = 40;
  if (x < margin || y < margin || x > view.width - margin || y > view.height - margin) {
    view.x += view.width / 2 - x;
    view.y += view.height / 2 - y;
  }
}

function pointAt(x, y, reach = REACH) {
  let best = -1, least = reach * reach;
  for (let i = 0; i < n; i++) {
    const dx = points[2 * i] * view.scale + view.x - x, dy = (1 - points[2 * i + 1]) * view.scale + view.y - y;
    const distance = dx * dx + dy * dy;
    if (distance < least && isShown(i)) { best = i; least = distance; }
  }
  return best >= 0 ? best : pictureAt(x, y);
}

function pictureAt(x, y) {
  for (let j = drawnPictures.length - 1; j >= 0; j--) {
    const [px, py] = toScreen(drawnPictures[j]);
    if (Math.abs(px - x) <= PICTURE / 2 && Math.abs(py - y) <= PICTURE / 2) return drawnPictures[j];
  }
  return -1;
}

// The nearest point in a direction: within 45 degrees, and what lies aside counts twice.
function neighbourInDirection(from, dx, dy) {
  const [x, y] = toScreen(from);
  let best = -1, least = Infinity;
  for (let i = 0; i < n; i++) {
    if (i === from || !isShown(i)) continue;
    const [px, py] = toScreen(i);
    const along = (px - x) * dx + (py - y) * dy, aside = Math.abs((px - x) * dy - (py - y) * dx);
    if (along <= 0 || aside > along) continue;
    if (along + 2 * aside < least) [best, least] = [i, along + 2 * aside];
  }
  return best;
}

// By the even-odd rule.
function isInside(x, y, outline) {
  let inside = false;
  for (let i = 0, j = outline.length - 2; i < outline.length; j = i, i += 2) {
    const [xi, yi, xj, yj] = [outline[i], outline[i + 1], outline[j], outline[j + 1]];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}

// Thumbnails

const sheets = new Map();
function sheetOf(i) {
  const number = Math.floor(i / data.sprites.each);
  if (!sheets.has(number)) {
    const image = new Image();
    image.addEventListener("load", () => { drawSoon(); for (const again of waiting.splice(0)) again(); });
    image.src = data.sprites.sheets[number];
    sheets.set(number, image);
  }
  return sheets.get(number);
}

const waiting = [];  // thumbnails beside the map, until their sheet is decoded
function drawTile(where, i, x, y, side) {
  const sheet = sheetOf(i);
  if (!sheet.complete || !sheet.naturalWidth) return false;
  const { side: tile, columns, each } = data.sprites, place = i % each;
  where.drawImage(sheet, (place % columns) * tile, Math.floor(place / columns) * tile, tile, tile, x, y, side, side);
  return true;
}

// Kept as they are drawn: browsers forget what is decoded of many large sheets, and would decode it anew.
const kept = new Map();
function drawPicture(i, x, y) {
  if (!kept.has(i)) {
    const tile = document.createElement("canvas");
    tile.width = tile.height = 2 * PICTURE;
    if (!drawTile(tile.getContext("2d"), i, 0, 0, tile.width)) return;
    if (kept.size >= 2000) kept.clear();
    kept.set(i, tile);
  }
  pen.drawImage(kept.get(i), x, y, PICTURE, PICTURE);
}

function thumbnail(i, side, into = document.createElement("canvas")) {
  const dense = Math.min(2, devicePixelRatio || 1);
  into.width = into.height = Math.round(side * dense);
  into.style.width = `${side}px`;
  if (!into.style.maxWidth) into.style.maxWidth = "100%";
  const draw = () => drawTile(into.getContext("2d"), i, 0, 0, into.width);
  if (!draw()) waiting.push(draw);
  return into;
}

// Drawing

let asked = false;
function drawSoon() {
  if (!asked) requestAnimationFrame(() => { asked = false; draw(); });
  asked = true;
}

function fit() {
  const frame = canvas.parentElement.getBoundingClientRect(), dense = devicePixelRatio || 1;
  const first = !view.width, [wide, high] = [view.width, view.height];
  [view.width, view.height] = [frame.width, frame.height];
  canvas.width = Math.round(frame.width * dense);
  canvas.height = Math.round(frame.height * dense);
  pen.setTransform(dense, 0, 0, dense, 0, 0);
  if (first) showWhole();
  else { view.x += (view.width - wide) / 2; view.y += (view.height - high) / 2; }
  draw();
}

let drawnPictures = [];
function draw() {
  const { of, names } = colourings[state.colouring];
  pen.fillStyle = theme.paper;
  pen.fillRect(0, 0, view.width, view.height);
  const groups = new Map(), onScreen = [];
  for (let i = 0; i < n; i++) {
    if (!isShown(i)) continue;
    const [x, y] = toScreen(i);
    if (x < -20 || y < -20 || x > view.width + 20 || y > view.height + 20) continue;
    onScreen.push(i);
    const faint = state.found && !state.found[i], key = `${of[i]} ${faint ? 1 : 0}`;
    if (!groups.has(key)) groups.set(key, [of[i], faint, []]);
    groups.get(key)[2].push(x, y);
  }
  const radius = Math.min(6, Math.max(n > 20000 ? 1.2 : n > 5000 ? 2 : n > 1000 ? 2.7 : 3.5, view.scale / 600));
  for (const [group, faint, places] of [...groups.values()].sort((a, b) => b[1] - a[1])) {
    pen.globalAlpha = faint ? 0.12 : 0.85;
    pen.fillStyle = colourOf(group, names.length);
    pen.beginPath();
    for (let j = 0; j < places.length; j += 2) {
      pen.moveTo(places[j] + radius, places[j + 1]);
      pen.arc(places[j], places[j + 1], radius, 0, 2 * Math.PI);
    }
    pen.fill();
  }
  pen.globalAlpha = 1;
  drawPictures(onScreen, of, names.length);
  drawMarks(onScreen, radius);
  drawOutline();
}

// As many as have room; the first ones of the data set win, so that none flickers while the map moves.
function drawPictures(onScreen, of, count) {
  const mode = document.getElementById("shown").value;
  drawnPictures = [];
  if (mode === "never" || (mode === "zoomed" && onScreen.length > FEW)) return;
  const taken = new Map(), cell = (x, y) => 4096 * Math.floor(x / GAP) + Math.floor(y / GAP);
  const order = state.found ? onScreen.filter((i) => state.found[i]) : onScreen;
  for (const i of order) {
    const [x, y] = toScreen(i);
    if (taken.has(cell(x, y)) || !hasRoom(x, y, taken, cell)) continue;
    taken.set(cell(x, y), [x, y]);
    drawnPictures.push(i);
    const left = x - PICTURE / 2, top = y - PICTURE / 2;
    pen.fillStyle = colourOf(of[i], count);
    pen.fillRect(left - 2, top - 2, PICTURE + 4, PICTURE + 4);
    drawPicture(i, left, top);
  }
}

function hasRoom(x, y, taken, cell) {
  for (let dx = -GAP; dx <= GAP; dx += GAP) for (let dy = -GAP; dy <= GAP; dy += GAP) {
    const other = taken.get(cell(x + dx, y + dy));
    if (other && Math.abs(other[0] - x) < GAP && Math.abs(other[1] - y) < GAP) return false;
  }
  return true;
}

function ring(i, radius, colour, width) {
  const [x, y] = toScreen(i), pictured = drawnPictures.includes(i);
  pen.beginPath();
  if (pictured) pen.rect(x - PICTURE / 2 - 2, y - PICTURE / 2 - 2, PICTURE + 4, PICTURE + 4);
  else pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.strokeStyle = theme.halo; pen.lineWidth = width + 2; pen.stroke();
  pen.strokeStyle = colour; pen.lineWidth = width; pen.stroke();
}

function drawMarks(onScreen, radius) {
  if (state.chosenCount)
    for (const i of onScreen) if (state.chosen[i]) ring(i, radius + 2, theme.ink, 1.5);
  if (state.picked >= 0) {
    for (const i of neighboursOf(state.picked)) {
      const [x, y] = toScreen(state.picked), [px, py] = toScreen(i);
      pen.globalAlpha = 0.5; pen.strokeStyle = theme.strong; pen.lineWidth = 1;
      pen.beginPath(); pen.moveTo(x, y); pen.lineTo(px, py); pen.stroke();
      pen.globalAlpha = 1;
      ring(i, radius + 3, theme.strong, 2);
    }
    ring(state.picked, radius + 6, theme.strong, 3);
  }
  if (state.current >= 0 && state.current !== state.picked) ring(state.current, radius + 5, theme.ink, 2);
}

function drawOutline() {
  if (!state.outline || state.outline.length < 4) return;
  pen.beginPath();
  for (let j = 0; j < state.outline.length; j += 2) pen.lineTo(state.outline[j], state.outline[j + 1]);
  pen.closePath();
  pen.globalAlpha = 0.12; pen.fillStyle = theme.strong; pen.fill();
  pen.globalAlpha = 1; pen.strokeStyle = theme.strong; pen.lineWidth = 1.5; pen.stroke();
}

const neighboursOf = (i) => Array.from(nearestIndex.subarray(i * data.nearest.k, (i + 1) * data.nearest.k));
const similarityOf = (i, place) => nearestSimilarity[i * data.nearest.k + place] / 10000;
