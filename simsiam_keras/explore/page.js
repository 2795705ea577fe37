// The panel, the pointer and the keyboard. Texts of the data set only ever become text nodes.

const element = (id) => document.getElementById(id);
const say = (text) => { element("status").textContent = text; };
const count = (number, what) => `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;

function describe(i) {
  const lines = [data.names[i]];
  for (const { title, names, of } of colourings) lines.push(`${title} ${of[i] < 0 ? "unknown" : names[of[i]]}`);
  return lines;
}

// Colours

function fillLegend() {
  const { names, of } = colourings[state.colouring], sizes = new Map();
  for (const group of of) sizes.set(group, (sizes.get(group) || 0) + 1);
  const groups = [...sizes.keys()].sort((a, b) => (a < 0) - (b < 0) || a - b);
  element("legend").replaceChildren(...groups.map((group) => {
    const button = document.createElement("button"), dot = document.createElement("i");
    const name = document.createElement("b"), size = document.createElement("span");
    button.type = "button";
    dot.style.background = colourOf(group, names.length);
    name.textContent = group < 0 ? "unknown" : names[group];
    name.style.fontWeight = "normal";
    size.textContent = sizes.get(group).toLocaleString("en");
    button.append(dot, name, size);
    button.dataset.group = group;
    button.addEventListener("click", () => {
      const hidden = state.hidden[state.colouring];
      if (!hidden.delete(group)) hidden.add(group);
      showHidden();
      say(`${name.textContent} ${hidden.has(group) ? "hidden" : "shown"}`);
    });
    return button;
  }));
  showHidden();
}

function showHidden() {
  const hidden = state.hidden[state.colouring];
  for (const button of element("legend").children)
    button.setAttribute("aria-pressed", String(!hidden.has(Number(button.dataset.group))));
  if (state.current >= 0 && !isShown(state.current)) state.current = -1;
  drawSoon();
}

function hideAll(all) {
  const groups = new Set(colourings[state.colouring].of);
  state.hidden[state.colouring] = all ? groups : new Set();
  showHidden();
}

// A point and its neighbours

function goTo(i, aloud = true) {
  state.current = i;
  bringIntoView(i);
  if (aloud) say(describe(i).join(", "));
  showHover(i);
  drawSoon();
}

function pick(i) {
  state.picked = state.current = i;
  element("picked").hidden = i < 0;
  drawSoon();
  if (i < 0) return;
  bringIntoView(i);
  const text = document.createElement("div"), lines = describe(i);
  text.textContent = lines.join("\n");
  const link = address(i);
  if (link) {
    const open = document.createElement("a");
    [open.href, open.textContent, open.target, open.rel] = [link, "open the file", "_blank", "noreferrer"];
    text.append("\n", open);
  }
  element("picture").replaceChildren(thumbnail(i, 128), text);
  element("neighbours").replaceChildren(...neighboursOf(i).map((j, place) => {
    const item = document.createElement("li"), button = document.createElement("button");
    button.type = "button";
    button.title = describe(j).join("\n");
    button.append(thumbnail(j, 96), `${similarityOf(i, place).toFixed(3)} ${last(data.names[j])}`);
    button.addEventListener("click", () => pick(j));
    item.append(button);
    return item;
  }));
  say(`${lines.join(", ")}. ${count(data.nearest.k, "nearest neighbour")} beside the map.`);
}

const last = (name) => name.slice(name.lastIndexOf("/") + 1);

function pathOf(i) {
  return data.root ? `${data.root.replace(/[\\/]$/, "")}/${data.names[i]}` : data.names[i];
}

// Only files, and only by a whole path: a name is never the beginning of an address.
function address(i) {
  const path = data.root.replaceAll("\\", "/");
  if (!/^(\/|[A-Za-z]:\/)/.test(path)) return "";
  const whole = `${path.replace(/\/$/, "")}/${data.names[i]}`;
  return "file://" + (whole[0] === "/" ? "" : "/") + whole.split("/").map(encodeURIComponent).join("/").replace(/^([A-Za-z])%3A/, "$1:");
}

function showHover(i, x, y) {
  const hover = element("hover");
  hover.hidden = i < 0;
  if (i < 0) return;
  if (x === undefined) [x, y] = toScreen(i);
  thumbnail(i, Math.max(96, data.sprites.side), hover.querySelector("canvas"));
  hover.querySelector("p").textContent = describe(i).join("\n");
  const wide = hover.offsetWidth, high = hover.offsetHeight;
  const left = x + 18 + wide > view.width ? x - 18 - wide : x + 18;
  const top = Math.min(Math.max(4, y - high / 3), view.height - high - 4);
  hover.style.transform = `translate(${Math.max(4, left)}px, ${Math.max(4, top)}px)`;
}

// The selection

function choose(which, add) {
  if (!add) state.chosen.fill(0);
  for (const i of which) state.chosen[i] = 1;
  showChosen();
}

function showChosen() {
  const chosen = chosenNumbers();
  state.chosenCount = chosen.length;
  const text = chosen.length ? `${count(chosen.length, "picture")} selected.` : "Nothing is selected.";
  element("count").textContent = text;
  element("selected").replaceChildren(...chosen.slice(0, 28).map((i) => thumbnail(i, 38)));
  element("export").disabled = element("clear").disabled = !chosen.length;
  say(text);
  drawSoon();
}

const chosenNumbers = () => Array.from(state.chosen.keys()).filter((i) => state.chosen[i]);

// A line each: what would break lines is spelled, as `embed` does in files.txt.
const listed = () => chosenNumbers().map((i) => pathOf(i).replace(/[\n\r]/g, (c) => (c === "\n" ? "\\n" : "\\r")) + "\n").join("");

function exportList() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([listed()], { type: "text/plain" }));
  link.download = "selected.txt";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  say(`A list of ${count(state.chosenCount, "path")} is written to selected.txt.`);
}

// The pointer

let tool = "pan";
function setTool(name) {
  tool = name;
  for (const id of ["pan", "lasso", "box"]) element(id).setAttribute("aria-pressed", String(id === name));
  canvas.classList.toggle("draws", name !== "pan");
}

const pointers = new Map();
let drag = null;
const at = (event) => { const frame = canvas.getBoundingClientRect(); return [event.clientX - frame.left, event.clientY - frame.top]; };

canvas.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  canvas.setPointerCapture(event.pointerId);
  const [x, y] = at(event);
  pointers.set(event.pointerId, [x, y]);
  drag = pointers.size > 1 ? { pinch: true } : { x, y, lastX: x, lastY: y, moved: false, add: event.shiftKey };
  state.outline = null;
  showHover(-1);
});

canvas.addEventListener("pointermove", (event) => {
  const [x, y] = at(event);
  if (!drag) return hoverAt(x, y);
  if (drag.pinch) return pinch(event, x, y);
  drag.moved ||= Math.hypot(x - drag.x, y - drag.y) > 4;
  if (!drag.moved) return;
  if (tool === "pan") { view.x += x - drag.lastX; view.y += y - drag.lastY; }
  else if (tool === "box") state.outline = [drag.x, drag.y, x, drag.y, x, y, drag.x, y];
  else (state.outline ||= [drag.x, drag.y]).push(x, y);
  [drag.lastX, drag.lastY] = [x, y];
  drawSoon();
});

function pinch(event, x, y) {
  const [old, other] = [pointers.get(event.pointerId), [...pointers].find(([id]) => id !== event.pointerId)?.[1]];
  pointers.set(event.pointerId, [x, y]);
  if (!old || !other) return;
  const before = Math.hypot(old[0] - other[0], old[1] - other[1]);
  zoom(Math.hypot(x - other[0], y - other[1]) / Math.max(1, before), other[0], other[1]);
  drawSoon();
}

canvas.addEventListener("pointerup", (event) => {
  pointers.delete(event.pointerId);
  if (!drag || drag.pinch) { if (!pointers.size) drag = null; return; }
  const [x, y] = at(event), { moved, add } = drag, outline = state.outline;
  drag = state.outline = null;
  if (!moved) pick(pointAt(x, y));
  else if (outline) {
    const inside = [];
    for (let i = 0; i < n; i++) if (isShown(i) && isInside(...toScreen(i), outline)) inside.push(i);
    choose(inside, add);
  }
  drawSoon();
});

canvas.addEventListener("pointercancel", (event) => { pointers.delete(event.pointerId); drag = state.outline = null; drawSoon(); });
canvas.addEventListener("pointerleave", () => { if (!drag) { showHover(-1); canvas.classList.remove("over"); } });
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...at(event));
  showHover(-1);
  drawSoon();
}, { passive: false });

function hoverAt(x, y) {
  const i = pointAt(x, y);
  canvas.classList.toggle("over", i >= 0 && tool === "pan");
  if (i >= 0 && i === state.current && !element("hover").hidden) return;
  if (i >= 0) state.current = i;
  showHover(i, x, y);
  drawSoon();
}

// The keyboard

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const KEYS = {
  "+": () => zoom(1.4, ...middle()), "=": () => zoom(1.4, ...middle()), "-": () => zoom(1 / 1.4, ...middle()),
  0: showWhole, p: () => setTool("pan"), l: () => setTool("lasso"), b: () => setTool("box"),
  Enter: () => { if (state.current >= 0) pick(state.current); },
  " ": () => { if (state.current >= 0) { state.chosen[state.current] ^= 1; showChosen(); } },
  Escape: escape,
};

const middle = () => (state.current >= 0 ? toScreen(state.current) : [view.width / 2, view.height / 2]);

function escape() {
  if (drag) drag = state.outline = null;
  else if (state.picked >= 0) { pick(-1); say("Closed."); }
  else if (state.chosenCount) choose([], false);
  showHover(-1);
}

canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const step = ARROWS[event.key], action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!step && !action) return;
  event.preventDefault();
  if (step) {
    const next = state.current < 0 ? pointAt(view.width / 2, view.height / 2, Infinity) : neighbourInDirection(state.current, ...step);
    if (next >= 0) goTo(next);
  } else action();
  drawSoon();
});

// The search

function search() {
  const words = element("search").value.trim().toLowerCase();
  state.found = words ? Uint8Array.from(data.names, (name) => name.toLowerCase().includes(words)) : null;
  const found = state.found ? state.found.reduce((sum, value) => sum + value, 0) : 0;
  element("take").hidden = !found;
  element("take").textContent = `Select ${found.toLocaleString("en")} found`;
  say(words ? `${count(found, "name")} found.` : "");
  drawSoon();
}

const foundNumbers = () => (state.found ? Array.from(state.found.keys()).filter((i) => state.found[i] && isShown(i)) : []);

element("search").addEventListener("input", search);
element("search").addEventListener("keydown", (event) => {
  if (event.key === "Escape") { element("search").value = ""; search(); }
  if (event.key !== "Enter") return;
  const found = foundNumbers();
  if (found.length) goTo(found[(found.indexOf(state.current) + 1) % found.length]);
});

// The rest

const clicks = {
  pan: () => setTool("pan"), lasso: () => setTool("lasso"), box: () => setTool("box"),
  nearer: () => zoom(1.4), farther: () => zoom(1 / 1.4), whole: showWhole,
  take: () => choose(foundNumbers(), false), all: () => hideAll(false), none: () => hideAll(true),
  gather: () => choose([state.picked, ...neighboursOf(state.picked)], true),
  close: () => { pick(-1); canvas.focus(); }, export: exportList, clear: () => choose([], false),
};
for (const [id, action] of Object.entries(clicks)) element(id).addEventListener("click", () => { action(); drawSoon(); });

element("colour").replaceChildren(...colourings.map(({ title }, i) => new Option(title, i)));
element("colour").addEventListener("change", (event) => { state.colouring = Number(event.target.value); fillLegend(); });
element("shown").addEventListener("change", drawSoon);
element("about").textContent = [count(n, "picture"), ...data.about.map(([name, text]) => `${name} ${text}`)].join(" · ");
if (data.missing.length) {
  element("unread").hidden = false;
  element("unread").querySelector("summary").textContent = `${count(data.missing.length, "picture")} could not be read`;
  element("unread").querySelector("ul").replaceChildren(...data.missing.map(([i, why]) => {
    const item = document.createElement("li");
    item.textContent = `${data.names[i]}: ${why}`;
    return item;
  }));
}
canvas.setAttribute("aria-label", `Map of ${count(n, "picture")}`);
readTheme();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readTheme(); fillLegend(); });
new ResizeObserver(fit).observe(canvas.parentElement);
fillLegend();
fit();
