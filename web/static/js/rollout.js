// One response: walk its tokens by key, pointer or figure; the panel shows the numbers of the token in hand.
import { bind } from "./bind.js";
import { copy, tsv } from "./copy.js";
import { Figures } from "./figures.js";
import { Jobs } from "./jobs.js";
import { Text } from "./text.js";

const DISPUTED = "pd";

const reader = document.getElementById("reader");
const panel = document.getElementById("panel");
const keys = [...document.querySelectorAll(".key")];
const figures = new Figures();
const size = Number(reader.dataset.panels);
const panels = new Map();
let text = new Text(document.getElementById("response"));
let other = otherText();
let at = text.placeOf(document.querySelector('#response [aria-selected="true"]'));
let shown = at;
let pressed = null;

function otherText() {
  const list = document.getElementById("other");
  return list && new Text(list);
}

/** The panel's model of a token; the server sends them by the block. */
async function model(place) {
  const block = Math.floor(place / size);
  if (!panels.has(block)) {
    const address = new URL(reader.dataset.rows, location.origin);
    address.searchParams.set("first", block * size);
    address.searchParams.set("limit", size);
    panels.set(block, fetch(address).then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error(answer.statusText)))));
    panels.get(block).catch(() => panels.delete(block));
  }
  return (await panels.get(block))[place % size];
}

async function show(place) {
  shown = place;
  const found = await model(place);
  if (shown === place) bind(panel, found);
}

/** The address of the token in hand, under the view as it is. */
function here() {
  const address = new URL(reader.dataset.path, location.origin);
  address.searchParams.set("at", at);
  return address;
}

/** Take a token in hand: the panel shows it, and the address names it. */
async function choose(place, { focus = true } = {}) {
  if (place < 0 || place >= text.size) return;
  const before = at;
  at = place;
  history.replaceState(null, "", here());
  show(at);
  const token = text.token(place) ?? await text.reach(place);
  if (at !== place) return; // another was taken meanwhile
  mark(before, false);
  mark(at, true);
  if (focus) token.focus({ preventScroll: true });
  token.scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

function mark(place, selected) {
  const token = text.token(place);
  if (token === null) return;
  token.tabIndex = selected ? 0 : -1;
  token.setAttribute("aria-selected", String(selected));
}

/** The next token of the pressed kind, or of any in dispute, forward or back. */
function jump(direction) {
  const wanted = pressed === null ? DISPUTED : pressed.dataset.letter;
  for (let place = at + direction; place >= 0 && place < text.size; place += direction) {
    if (wanted.includes(text.kinds[place])) return choose(place);
  }
  return undefined;
}

/** Press a key of the legend: its tokens stand out, n and p walk them, and the first after here is taken. */
function press(key) {
  pressed = pressed === key ? null : key;
  for (const each of keys) each.setAttribute("aria-pressed", String(each === pressed));
  fade();
  if (pressed === null) return;
  const next = text.kinds.indexOf(key.dataset.letter, at);
  choose(next >= 0 ? next : text.kinds.indexOf(key.dataset.letter), { focus: false });
}

/** Only tokens of the pressed kind stand out. */
function fade() {
  for (const { list } of [text, other].filter(Boolean)) {
    if (pressed === null) delete list.dataset.only;
    else list.dataset.only = pressed.dataset.kind;
  }
}

/** The text under another metric: the page is asked for again, and what depends on the metric takes its place. */
async function recolour(metric) {
  const address = here();
  if (metric === "decision") address.searchParams.delete("metric");
  else address.searchParams.set("metric", metric);
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(answer.statusText);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const id of ["stretch-t", "stretch-b", "colours"]) {
    document.getElementById(id)?.replaceWith(document.adoptNode(page.getElementById(id)));
  }
  const plot = '[data-name="strip"]';
  document.querySelector(plot).dataset.figure = page.querySelector(plot).dataset.figure;
  Object.assign(reader.dataset, page.getElementById("reader").dataset);
  history.replaceState(null, "", here());
  [text, other] = [new Text(document.getElementById("response")), otherText()];
  fade();
  figures.draw();
}

async function numbers(button) {
  const address = new URL(button.dataset.from, location.origin);
  address.searchParams.set("at", at);
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(answer.statusText);
  return answer.json();
}

const READ = {
  link: () => location.href,
  text: async ({ dataset }) => (await fetch(dataset.from)).text(),
  json: async (button) => JSON.stringify((await numbers(button))[0], null, 2),
  tsv: async (button) => tsv(await numbers(button)),
};

const COMMANDS = {
  j: () => choose(at + 1), ArrowRight: () => choose(at + 1), k: () => choose(at - 1), ArrowLeft: () => choose(at - 1),
  n: () => jump(1), p: () => jump(-1),
  c: () => document.querySelector('[data-copy="link"]').click(),
  "[": () => reader.dataset.previous && location.assign(reader.dataset.previous),
  "]": () => reader.dataset.next && location.assign(reader.dataset.next),
  "?": () => { const list = document.getElementById("keys"); list.open = !list.open; },
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  const command = COMMANDS[event.key];
  if (!command) return;
  event.preventDefault();
  command();
});

reader.addEventListener("click", ({ target }) => {
  const place = text.placeOf(target);
  if (place >= 0) choose(place);
  const key = target.closest(".key");
  if (key) press(key);
  const beside = other?.placeOf(target) ?? -1;
  if (beside >= 0) location.assign(`${document.querySelector("#beside a").href}&at=${beside}`);
  const button = target.closest("[data-copy]");
  if (button) copy(button, () => READ[button.dataset.copy](button));
});
reader.addEventListener("focusin", ({ target }) => { const place = text.placeOf(target); if (place >= 0 && place !== at) choose(place, { focus: false }); });
reader.addEventListener("pointerover", ({ target }) => {
  const place = text.placeOf(target);
  if (place >= 0 && place !== shown) show(place);
  else if (place < 0 && shown !== at && !panel.contains(target)) show(at);
});
document.getElementById("live").addEventListener("pick", ({ detail }) => { if (typeof detail.customdata === "number") choose(detail.customdata); });
document.getElementById("metric").addEventListener("change", ({ target }) => recolour(target.value));

figures.draw();
new Jobs(() => {}).watch();
text.token(at)?.scrollIntoView({ block: "nearest" });
model(at);
