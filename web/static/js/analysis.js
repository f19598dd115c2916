// Where two methods disagree: a mark of a plane opens its response, a rectangle selects tokens, a lock moves δ with ε,
// and the parts of the page follow its counts.
import { apply, patch } from "./bind.js";
import { ViewPage } from "./view.js";

const EDGE = 0.01; // of an axis: nobody draws to the last pixel
const REST_MS = 250; // how long a view must stand before its parts are asked for

// From a plane's axis to what the address says: four digits, near 1 those of 1 - p.
const rounded = (value) => Number(value.toPrecision(4));
const logistic = (x) => rounded(1 / (1 + Math.exp(-x)));
const probability = (x) => (x < 0 ? logistic(x) : Number((1 - logistic(-x)).toFixed(12)));
const VALUE = { ratio: (y) => rounded(Math.exp(y)), divergence: (y) => rounded(10 ** y) };

class AnalysisPage extends ViewPage {
  constructor() {
    super();
    this.root.addEventListener("pick", ({ detail }) => this.open(detail));
    this.root.addEventListener("brush", ({ target, detail }) => {
      if (detail === null) this.clear();
      else this.select(target.dataset.name.replace("_plane", ""), detail);
    });
    document.getElementById("clear").addEventListener("click", (event) => {
      event.preventDefault();
      this.clear();
    });
    document.getElementById("measure").addEventListener("click", ({ target }) => this.measure(target.dataset.post));
    document.addEventListener("keydown", ({ key }) => { if (key === "Escape") this.clear(); });
    this.lock();
    this.askParts([...document.querySelectorAll("[data-pending]")], 0);
  }

  get bounds() {
    return ["p_low", "p_high", "y_low", "y_high"].map((name) => this.form.elements[name]);
  }

  /** What the parts say is of the view before, from now until they are asked for again. */
  follow() {
    for (const part of document.querySelectorAll("[data-later]")) part.setAttribute("aria-busy", "true");
    return super.follow();
  }

  print(model) {
    super.print(model);
    if (model === null) return;
    this.root.dataset.rollout = model.rollout_path;
    for (const field of this.bounds) if (document.activeElement !== field) field.value = model.fields[field.name];
    this.form.elements.match.checked = model.locked;
    this.lock();
    this.askParts([...document.querySelectorAll("[data-later]")], REST_MS);
  }

  /** A δ that is matched is not the hand's to move. */
  lock() {
    for (const field of this.dials.filter(({ name }) => name.startsWith("delta"))) {
      field.disabled = this.sliderOf(field).disabled = this.form.elements.match.checked;
    }
  }

  /** Parts have tables of their own: they are asked for once the view stands still, and those of a later view win. */
  askParts(parts, delay) {
    clearTimeout(this.rest);
    this.asking?.abort();
    const { signal } = (this.asking = new AbortController());
    for (const part of parts) part.setAttribute("aria-busy", "true");
    this.rest = setTimeout(() => parts.forEach((part) => this.ask(part, signal)), delay);
  }

  async ask(part, signal) {
    try {
      const response = await fetch(part.dataset.later + location.search, { signal });
      const found = await response.json();
      if (!response.ok) throw new Error(found.detail ?? response.statusText);
      if (signal.aborted) return;
      if (part.id === "intervals") patch(this.root, found); // its strings stand beside the numbers that they belong to
      else apply(part, found);
      part.removeAttribute("aria-busy");
    } catch (error) {
      if (error.name !== "AbortError") this.live.say(`Some of this page is not up to date: ${error.message}`);
    }
  }

  /** Have this version's methods measured: a job, which the page then watches. */
  async measure(address) {
    const response = await fetch(address, { method: "POST", headers: { "Content-Type": "application/json" } });
    if (response.ok) this.follow();
    else this.live.say((await response.json()).detail);
  }

  open({ customdata, data }) {
    if (!customdata?.length || data.type !== "scatter") return;
    const [step, sample, position] = customdata;
    const target = new URL(this.root.dataset.rollout, location.origin);
    target.searchParams.set("step", step);
    target.searchParams.set("sample_id", sample);
    target.searchParams.set("at", position);
    location.assign(target);
  }

  /** A rectangle in a plane's own units: x = logit p, y = ln r or log₁₀ D; a side at the axis's edge is no bound. */
  select(plane, { x, y, edges }) {
    const [pLow, pHigh, yLow, yHigh] = this.bounds;
    this.form.elements.brush.value = plane;
    const bound = (value, [low, high], axis) => {
      const edge = EDGE * (axis[1] - axis[0]);
      return [low <= axis[0] + edge ? "" : String(value(low)), high >= axis[1] - edge ? "" : String(value(high))];
    };
    [pLow.value, pHigh.value] = bound(probability, x, edges.x);
    [yLow.value, yHigh.value] = bound(VALUE[plane], y, edges.y);
    this.go(history.pushState);
  }

  clear() {
    if (this.bounds.every((field) => field.value === "")) return;
    for (const field of this.bounds) field.value = "";
    this.form.elements.brush.value = "ratio";
    this.go(history.pushState);
  }
}

new AnalysisPage();
