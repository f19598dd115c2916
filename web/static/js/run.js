// A run's page: timelines, jobs as they go, and a form that asks for an analysis.
import { Figures } from "./figures.js";
import { Jobs } from "./jobs.js";
import { Live } from "./live.js";

const root = document.getElementById("live");
const live = new Live(root);
const figures = new Figures();
const jobs = new Jobs(refresh);
let { shown } = root.dataset;

async function refresh() {
  const model = await live.refresh(root.dataset.live);
  if (model === null) return;
  for (const plot of figures.plots) plot.dataset.figure = model[plot.dataset.key];
  document.querySelector(".multiples").dataset.stepHref = model.analysis_href;
  jobs.watch();
  if (model.shown !== shown) figures.draw(); // another step has landed
  shown = model.shown;
}

document.querySelector(".multiples").addEventListener("pick", ({ detail }) => {
  const { stepHref } = document.querySelector(".multiples").dataset;
  if (!stepHref) return;
  const address = new URL(stepHref, location.origin);
  address.searchParams.set("step", detail.x);
  location.assign(address);
});

// another analysis is another page
document.querySelector("[data-submit]").addEventListener("change", ({ target }) => target.form.requestSubmit());

const form = document.getElementById("start");
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const said = document.getElementById("start-error");
  said.textContent = "";
  const values = new FormData(form);
  const body = { source: values.get("source"), thresholds: JSON.parse(values.get("thresholds")) };
  for (const name of ["anchor", "evaluated_at"]) if (values.get(name)) body[name] = values.get(name);
  const response = await fetch(root.dataset.start, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  if (!response.ok) {
    const problem = await response.json();
    said.textContent = [problem.detail, ...(problem.errors ?? []).map((entry) => entry.message)]
      .filter((text, place, all) => all.indexOf(text) === place).join(" ");
    return;
  }
  refresh();
});

figures.draw();
jobs.watch();
