// Two analyses side by side: a choice is another page; another analysis starts from its own view.
import { Figures } from "./figures.js";

const form = document.getElementById("sides");
form.addEventListener("change", ({ target }) => {
  if (target.name.length === 1) {
    for (const field of form.querySelectorAll(`[name^="${target.name}_"]`)) field.disabled = true;
  }
  form.requestSubmit();
});
form.addEventListener("formdata", ({ formData }) => {
  for (const field of form.querySelectorAll("[data-default]")) {
    if (field.value === field.dataset.default) formData.delete(field.name); // the address says what differs
  }
});

new Figures().draw();
