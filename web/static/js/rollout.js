// One response: walk its tokens by key, pointer or figure; the panel shows the numbers of the token in hand.
import { bind } from "./bind.js";
import { Figures } from "./figures.js";

const DISPUTED = ["ppo_only_drops", "dppo_only_drops"];

const root = document.getElementById("live");
const panel = document.getElementById("panel");
const response = document.getElementById("response");
const tokens = [...response.querySelectorAll(".t")];
const keys = [...document.querySelectorAll(".key")];
const size = Number(root.dataset.block);
const blocks = new Map();
let at = Math.max(0, tokens.findIndex((token) => token.getAttribute("aria-selected") === "true"));
let shown = at;
let kind = null;

const kindOf = (token) => token.classList[1];

/** The panel's model of a token; the server sends them by the block. */
async function model(place) {
  const block = Math.floor(place / size);
  if (!blocks.has(block)) {
    const address = new URL(root.dataset.blocks, location.origin);
    address.searchParams.set("first", block * size);
    address.searchParams.set("limit", size);
    blocks.set(block, fetch(address).then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error(answer.statusText)))));
    blocks.get(block).catch(() => blocks.delete(block));
  }
  return (await blocks.get(block))[place % size];
}

async function show(place) {
  shown = place;
  const found = await model(place);
  if (shown === place) bind(panel, found);
}

/** Take a token in hand: the panel shows it, and the address names it. */
function choose(place, { focus = true } = {}) {
  if (place < 0 || place >= tokens.length) return;
  tokens[at].tabIndex = -1;
  tokens[at].setAttribute("aria-selected", "false");
  at = place;
  const token = tokens[at];
  token.tabIndex = 0;
  token.setAttribute("aria-selected", "true");
  if (focus) token.focus({ preventScroll: true });
  token.scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  const address = new URL(root.dataset.path, location.origin);
  address.searchParams.set("at", at);
  history.replaceState(null, "", address);
  show(at);
}

/** The next token of the pressed kind, or of any in dispute, forward or back. */
function jump(direction) {
  const wanted = kind === null ? DISPUTED : [kind];
  for (let place = at + direction; place >= 0 && place < tokens.length; place += direction) {
    if (wanted.includes(kindOf(tokens[place]))) return choose(place);
  }
  return undefined;
}

/** Press a key of the legend: its tokens stand out, n and p walk them, and the first after here is taken. */
function press(key) {
  kind = kind === key.dataset.kind ? null : key.dataset.kind;
  for (const other of keys) other.setAttribute("aria-pressed", String(other.dataset.kind === kind));
  if (kind === null) delete response.dataset.only;
  else response.dataset.only = kind;
  if (kind === null) return;
  const places = tokens.flatMap((token, place) => (kindOf(token) === kind ? [place] : []));
  const next = places.find((place) => place >= at) ?? places[0];
  if (next !== undefined) choose(next, { focus: false });
}

const COMMANDS = {
  j: () => choose(at + 1), ArrowRight: () => choose(at + 1), k: () => choose(at - 1), ArrowLeft: () => choose(at - 1),
  n: () => jump(1), p: () => jump(-1),
  "[": () => root.dataset.previous && location.assign(root.dataset.previous),
  "]": () => root.dataset.next && location.assign(root.dataset.next),
  "?": () => { const list = document.getElementById("keys"); list.open = !list.open; },
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  const command = COMMANDS[event.key];
  if (!command) return;
  event.preventDefault();
  command();
});

const placeOf = (event) => tokens.indexOf(event.target.closest(".t"));
response.addEventListener("click", (event) => { const place = placeOf(event); if (place >= 0) choose(place); });
response.addEventListener("focusin", (event) => { const place = placeOf(event); if (place >= 0 && place !== at) choose(place, { focus: false }); });
response.addEventListener("pointerover", (event) => { const place = placeOf(event); if (place >= 0 && place !== shown) show(place); });
response.addEventListener("pointerleave", () => { if (shown !== at) show(at); });
document.querySelector(".legend").addEventListener("click", (event) => { const key = event.target.closest(".key"); if (key) press(key); });
root.addEventListener("pick", ({ detail }) => { if (typeof detail.customdata === "number") choose(detail.customdata); });

new Figures().draw();
if (tokens.length) {
  tokens[at].scrollIntoView({ block: "nearest" });
  model(at);
}
