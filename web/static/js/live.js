// A page's model, fetched again: later answers win, earlier ones are dropped.
import { bind } from "./bind.js";

export class Live {
  constructor(root) {
    this.root = root;
    this.controller = null;
  }

  say(text) {
    const trouble = document.getElementById("trouble");
    trouble.textContent = text;
    trouble.hidden = text === "";
  }

  /** Fetch the model at `address` and print it; resolves to it, or to null where a later call overtook it or it failed. */
  async refresh(address) {
    this.controller?.abort();
    const { signal } = (this.controller = new AbortController());
    try {
      const response = await fetch(address, { signal });
      const model = await response.json();
      if (signal.aborted) return null;
      if (!response.ok) throw new Error(model.detail ?? response.statusText);
      bind(this.root, model);
      this.say("");
      return model;
    } catch (error) {
      if (error.name !== "AbortError") this.say(`This page is not up to date: ${error.message}`);
      return null;
    }
  }
}
