// Where PPO and DPPO disagree: a mark of a plane opens its response.
import { ViewPage } from "./view.js";

const page = new ViewPage();

page.root.addEventListener("pick", ({ detail }) => {
  if (!detail.customdata?.length || detail.data.type !== "scatter") return;
  const [step, sample, position] = detail.customdata;
  const target = new URL(page.root.dataset.rollout, location.origin);
  for (const [name, value] of new URLSearchParams(location.search)) target.searchParams.set(name, value);
  target.searchParams.set("step", step);
  target.searchParams.set("sample_id", sample);
  target.searchParams.set("at", position);
  location.assign(target);
});
