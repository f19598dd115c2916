// A page of an analysis: its controls change the address, and the page follows the address.
import { Figures } from "./figures.js";
import { Jobs } from "./jobs.js";
import { Live } from "./live.js";

const DEBOUNCE_MS = 120;

export class ViewPage {
  constructor() {
    this.root = document.getElementById("live");
    this.form = document.getElementById("view");
    this.live = new Live(this.root);
    this.figures = new Figures(() => new URLSearchParams(location.search));
    this.jobs = new Jobs(() => this.landed());
    this.root.addEventListener("input", (event) => this.moved(event)); // fields may stand beside what they choose
    this.root.addEventListener("change", (event) => this.chosen(event));
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.go(history.replaceState);
    });
    document.getElementById("reset")?.addEventListener("click", () => this.reset());
    addEventListener("popstate", () => {
      document.activeElement?.blur();
      this.follow();
    });
    this.figures.draw();
    this.jobs.watch();
  }

  /** The fields that the address holds: each knows what it says when the address says nothing. */
  get fields() {
    return [...this.form.elements].filter((field) => field.name && field.dataset.default !== undefined);
  }

  get dials() {
    return [...this.form.querySelectorAll(".dial input[name]")];
  }

  /** Make the page show what the address says. */
  async follow() {
    this.figures.draw();
    this.print(await this.live.refresh(this.root.dataset.live + location.search));
  }

  /** A job says that something may have landed. */
  async landed() {
    const before = this.root.dataset.finished;
    const model = await this.live.refresh(this.root.dataset.live + location.search);
    if (model !== null && model.finished !== before) this.figures.draw();
    this.print(model);
  }

  print(model) {
    if (model === null) return;
    this.root.dataset.finished = model.finished;
    for (const [name, choices] of Object.entries(model.options)) this.setOptions(name, choices, model.defaults[name]);
    for (const field of this.dials) this.setDial(field, model.controls[field.name], model.defaults[field.name], model.delta_top);
    this.jobs.watch();
  }

  setOptions(name, choices, preset) {
    const select = this.form.elements[name];
    if (!select) return;
    select.dataset.default = preset;
    select.length = choices.length;
    choices.forEach((choice, place) => {
      const option = select.options[place];
      option.value = choice.value;
      option.textContent = choice.label;
      option.disabled = choice.disabled;
      option.title = choice.reason;
      option.selected = choice.selected;
    });
  }

  /** A dial that is being moved keeps its hand's value: answers come later. */
  setDial(field, value, preset, deltaTop) {
    const slider = this.sliderOf(field);
    field.dataset.default = preset;
    if (field.name.startsWith("delta")) slider.max = Math.max(deltaTop, value);
    if (this.timer !== undefined) return;
    if (document.activeElement !== field) field.value = value;
    if (document.activeElement !== slider) slider.value = value;
  }

  sliderOf(field) {
    return this.form.querySelector(`[data-for="${field.id}"]`);
  }

  /** The address for what the controls say; what is at its default is left out. */
  address() {
    const query = new URLSearchParams(location.search);
    for (const field of this.fields) {
      const { name, dataset, type } = field;
      const value = type === "checkbox" && !field.checked ? "" : field.value;
      const same = type === "number" ? value === "" || Number(value) === Number(dataset.default) : value === dataset.default;
      if (same) query.delete(name);
      else query.set(name, value);
    }
    const text = query.toString();
    return this.root.dataset.path + (text ? `?${text}` : "");
  }

  /** Take the controls' words into the address, by `history.pushState` or `history.replaceState`, and follow it. */
  go(method) {
    method.call(history, null, "", this.address());
    this.follow();
  }

  moved({ target }) {
    if (target.form !== this.form || target.localName === "select" || target.type === "checkbox") return;
    if (target.dataset.for) document.getElementById(target.dataset.for).value = target.value;
    else if (target.closest(".dial")) this.sliderOf(target).value = target.value;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.timer = undefined;
      if (this.form.checkValidity()) this.go(history.replaceState);
    }, DEBOUNCE_MS);
  }

  chosen({ target }) {
    if (!this.fields.includes(target) || (target.localName !== "select" && target.type !== "checkbox")) return;
    if (target.name === "divergence") this.forget("delta"); // of another divergence, and so another quantity
    if (target.name === "preset") this.forget("");
    this.go(history.pushState);
  }

  /** The dials whose names start so say what the address says without them: the preset's, or the analysis's own. */
  forget(start) {
    for (const field of this.dials) if (field.name.startsWith(start)) field.value = "";
  }

  reset() {
    this.forget("");
    this.form.elements.preset.value = "";
    if (this.form.elements.match) this.form.elements.match.checked = false;
    this.go(history.pushState);
  }
}
