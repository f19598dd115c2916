// An analysis's page: controls change the address, and the page follows the address.
import { Figures } from "./figures.js";
import { Jobs } from "./jobs.js";
import { Live } from "./live.js";

const DEBOUNCE_MS = 120;
const DIALS = ["eps_low", "eps_high", "delta_low", "delta_high"];

const root = document.getElementById("live");
const form = document.getElementById("view");
const live = new Live(root);
const figures = new Figures(() => new URLSearchParams(location.search));
const jobs = new Jobs(landed);
let timer;

/** Make the page show what the address says. */
async function follow() {
  figures.draw();
  print(await live.refresh(root.dataset.live + location.search));
}

/** A job says that something may have landed. */
async function landed() {
  const before = root.dataset.finished;
  const model = await live.refresh(root.dataset.live + location.search);
  if (model !== null && model.finished !== before) figures.draw();
  print(model);
}

function print(model) {
  if (model === null) return;
  root.dataset.finished = model.finished;
  for (const [name, choices] of Object.entries(model.options)) setOptions(name, choices, model.defaults[name]);
  for (const name of DIALS) setDial(name, model.controls[name], model.defaults[name], model.delta_top);
  jobs.watch();
}

function setOptions(name, choices, preset) {
  const select = form.elements[name];
  select.dataset.default = preset;
  choices.forEach((choice, place) => {
    const option = select.options[place] ?? select.add(new Option()) ?? select.options[place];
    option.value = choice.value;
    option.textContent = choice.label;
    option.disabled = choice.disabled;
    option.title = choice.reason;
    option.selected = choice.selected;
  });
}

/** A dial that is being moved keeps its hand's value: answers come later. */
function setDial(name, value, preset, deltaTop) {
  const field = document.getElementById(name);
  const slider = form.querySelector(`[data-for="${name}"]`);
  field.dataset.default = preset;
  if (name.startsWith("delta")) slider.max = Math.max(deltaTop, value);
  if (timer !== undefined) return;
  if (document.activeElement !== field) field.value = value;
  if (document.activeElement !== slider) slider.value = value;
}

/** The address for what the controls say; what is at its default is left out. */
function address() {
  const query = new URLSearchParams(location.search);
  for (const name of ["step", "sign", "anchor", "evaluated_at", "divergence"]) {
    const { value, dataset } = form.elements[name];
    if (value === dataset.default) query.delete(name);
    else query.set(name, value);
  }
  for (const name of DIALS) {
    const field = document.getElementById(name);
    if (field.value === "" || Number(field.value) === Number(field.dataset.default)) query.delete(name);
    else query.set(name, field.value);
  }
  const text = query.toString();
  return root.dataset.path + (text ? `?${text}` : "");
}

form.addEventListener("input", ({ target }) => {
  if (target.localName === "select") return;
  const other = target.dataset.for ? document.getElementById(target.dataset.for) : form.querySelector(`[data-for="${target.id}"]`);
  other.value = target.value;
  clearTimeout(timer);
  timer = setTimeout(() => {
    timer = undefined;
    if (!form.checkValidity()) return;
    history.replaceState(null, "", address());
    follow();
  }, DEBOUNCE_MS);
});

form.addEventListener("change", ({ target }) => {
  if (target.localName !== "select") return;
  if (target.name === "divergence") forgetDeltas();
  history.pushState(null, "", address());
  follow();
});

/** δ of another divergence is another quantity: start from the analysis's own. */
function forgetDeltas() {
  for (const name of ["delta_low", "delta_high"]) document.getElementById(name).value = "";
}

document.getElementById("reset").addEventListener("click", () => {
  for (const name of DIALS) document.getElementById(name).value = document.getElementById(name).dataset.default;
  for (const name of DIALS) form.querySelector(`[data-for="${name}"]`).value = document.getElementById(name).value;
  history.pushState(null, "", address());
  follow();
});

form.addEventListener("submit", (event) => {
  event.preventDefault();
  history.replaceState(null, "", address());
  follow();
});

addEventListener("popstate", () => {
  document.activeElement?.blur();
  follow();
});

root.addEventListener("pick", ({ detail }) => {
  if (!detail.customdata?.length || detail.data.type !== "scatter") return;
  const [step, sample, position] = detail.customdata;
  const target = new URL(root.dataset.rollout, location.origin);
  for (const [name, value] of new URLSearchParams(location.search)) target.searchParams.set(name, value);
  target.searchParams.set("step", step);
  target.searchParams.set("sample_id", sample);
  target.searchParams.set("at", position);
  location.assign(target);
});

figures.draw();
jobs.watch();
