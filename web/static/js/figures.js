// Figures come from the server as Plotly JSON, in the page's theme, and are drawn as they come.

// plotly.js is the last deferred script: figures are on their way while it is compiled
const ready = new Promise((resolve) => {
  if (window.Plotly) resolve();
  else document.addEventListener("DOMContentLoaded", resolve, { once: true });
});

const CONFIG = {
  displaylogo: false, doubleClick: "reset", typesetMath: false, showTips: false,
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
  toImageButtonOptions: { format: "svg", filename: "dppo-lens" },
};

/** Every figure of the page; `query` is the view's query string, added to the address of those with data-view. */
export class Figures {
  constructor(query = () => new URLSearchParams()) {
    this.query = query;
    this.plots = [...document.querySelectorAll("[data-figure]")];
    this.controller = null;
    document.addEventListener("theme", () => this.draw());
    this.late = new Set();
    this.plots.forEach((plot) => new ResizeObserver(() => this.resized(plot)).observe(plot));
    document.addEventListener("click", ({ target }) => { if (target.dataset.image) picture(target); });
  }

  /** Fetch and draw all of them; a call that comes later makes this one's answers void. */
  async draw() {
    this.controller?.abort();
    const { signal } = (this.controller = new AbortController());
    this.late = new Set(this.plots.filter((plot) => !visible(plot))); // these wait until they are shown
    await Promise.all(this.plots.filter(visible).map((plot) => this.drawOne(plot, signal)));
  }

  resized(plot) {
    if (!visible(plot)) return;
    if (this.late.delete(plot)) this.drawOne(plot, this.controller.signal);
    else if (plot.dataset.wired) window.Plotly.Plots.resize(plot);
  }

  async drawOne(plot, signal) {
    const address = new URL(plot.dataset.figure, location.origin);
    if (plot.dataset.view !== undefined) {
      for (const [name, value] of this.query()) address.searchParams.set(name, value);
    }
    const theme = window.dppoTheme();
    address.searchParams.set("theme", theme);
    plot.setAttribute("aria-busy", "true");
    try {
      const response = await fetch(address, { signal });
      const figure = await response.json();
      if (!response.ok) throw new Error(figure.detail ?? response.statusText);
      await ready;
      if (signal.aborted) return;
      const brush = figure.layout.dragmode === "select"; // a finger scrolls the page and does not draw
      if (!matchMedia("(pointer: fine)").matches) figure.layout.dragmode = false;
      else if (plot.dataset.view !== undefined && !brush) figure.layout.dragmode = "zoom";
      await window.Plotly.react(plot, figure.data, figure.layout, {
        ...CONFIG,
        ...(brush && { modeBarButtons: [["select2d", ...CONFIG.modeBarButtons[0]]] }),
        displayModeBar: plot.dataset.view === undefined ? false : "hover",
      });
      plot.dataset.drawn = theme;
      if (!plot.dataset.wired) wire(plot, this.plots);
      plot.removeAttribute("aria-busy");
    } catch (error) {
      if (error.name === "AbortError") return;
      if (plot.dataset.wired) window.Plotly.purge(plot);
      delete plot.dataset.wired;
      plot.removeAttribute("aria-busy");
      plot.textContent = `The figure could not be drawn: ${error.message}`;
    }
  }
}

/** The figure beside a button, as the picture that the button names. */
function picture(button) {
  const plot = button.closest("figure").querySelector(".plot");
  const { width, height } = plot.getBoundingClientRect();
  const format = button.dataset.image;
  window.Plotly.downloadImage(plot, { format, filename: plot.dataset.name, width, height, scale: format === "png" ? 2 : 1 });
}

const ascending = (pair) => [...pair].sort((a, b) => a - b);
const visible = (plot) => plot.offsetParent !== null;

/**
 * Clicks leave the figure as an event `pick`, a rectangle that was drawn as `brush` (null: taken away); figures with the
 * same data-sync point at the same x together.
 */
function wire(plot, plots) {
  plot.dataset.wired = "yes";
  plot.on("plotly_click", ({ points }) => {
    plot.dispatchEvent(new CustomEvent("pick", { bubbles: true, detail: points[0] }));
  });
  const brush = (detail) => plot.dispatchEvent(new CustomEvent("brush", { bubbles: true, detail }));
  plot.on("plotly_selected", (event) => {
    if (event?.range) brush({ x: ascending(event.range.x), y: ascending(event.range.y), edges: plot.layout.meta });
  });
  plot.on("plotly_deselect", () => brush(null));
  const { sync } = plot.dataset;
  if (sync === undefined) return;
  const others = () => plots.filter((other) => other !== plot && other.dataset.sync === sync && other.dataset.wired);
  plot.on("plotly_hover", ({ points, event }) => {
    if (!event) return; // one that another figure asked for
    for (const other of others()) {
      const at = (trace) => (trace.hoverinfo === "skip" ? -1 : trace.x?.indexOf?.(points[0].x) ?? -1);
      const near = other.data.map((trace, curveNumber) => ({ curveNumber, pointNumber: at(trace) }))
        .filter(({ curveNumber, pointNumber }) => pointNumber >= 0 && other.data[curveNumber].y[pointNumber] !== null);
      if (near.length) window.Plotly.Fx.hover(other, near);
    }
  });
  plot.on("plotly_unhover", ({ event }) => {
    if (event) for (const other of others()) window.Plotly.Fx.unhover(other);
  });
}
