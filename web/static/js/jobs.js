// Jobs while they run: server-sent events move the bar, and tell the page when something may have landed.

const PAUSE_MS = 1500;
const QUEUE_MS = 3000;
const count = new Intl.NumberFormat("en");

/** Watch the page's jobs; `landed()` is called (at most every PAUSE_MS) while they work, and when one ends. */
export class Jobs {
  constructor(landed) {
    this.landed = landed;
    this.sources = new Map();
    this.last = 0;
    document.addEventListener("click", (event) => this.cancel(event));
  }

  /** Open a stream for each running job that has none; wait for queued ones by asking again. */
  watch() {
    const rows = [...document.querySelectorAll(".job[data-events]")];
    for (const row of rows) {
      if (row.dataset.events && !this.sources.has(row.dataset.job)) this.open(row.dataset.job, row.dataset.events);
    }
    clearTimeout(this.timer);
    const waiting = rows.some((row) => row.dataset.state === "queued") && this.sources.size === 0;
    if (waiting) this.timer = setTimeout(() => this.landed(), QUEUE_MS);
  }

  open(id, address) {
    const source = new EventSource(address);
    const rate = new Rate();
    this.sources.set(id, source);
    source.addEventListener("progress", (event) => {
      const job = JSON.parse(event.data);
      this.show(job, rate);
      if (Date.now() - this.last > PAUSE_MS) this.tell();
    });
    source.addEventListener("end", () => {
      source.close();
      this.sources.delete(id);
      this.tell();
    });
  }

  tell() {
    this.last = Date.now();
    this.landed();
  }

  show(job, rate) {
    const row = document.querySelector(`.job[data-job="${CSS.escape(job.id)}"]`);
    const { tokens_done: done, tokens_total: total, unit } = job.progress;
    if (!row || !total) return;
    row.querySelector("progress").value = (100 * done) / total;
    const text = row.querySelector(".progress-text");
    const known = unit === "bytes" ? `${megabytes(done)} of ${megabytes(total)} MB` : `${count.format(done)} of ${count.format(total)} tokens`;
    text.textContent = known + rate.words(done, total, unit);
  }

  async cancel(event) {
    const button = event.target.closest("[data-cancel]");
    if (!button) return;
    button.disabled = true;
    await fetch(button.dataset.cancel, { method: "DELETE" });
    this.tell();
  }
}

const megabytes = (bytes) => (bytes / 1e6).toPrecision(3);

/** How fast a job goes, from the first progress that was seen here; loading a model is not counted. */
class Rate {
  words(done, total, unit) {
    const now = performance.now();
    if (this.first === undefined || done < this.first) {
      this.first = done;
      this.since = now;
    }
    const seconds = (now - this.since) / 1000;
    const speed = (done - this.first) / seconds;
    if (seconds < 2 || speed <= 0) return "";
    const pace = unit === "bytes" ? "" : ` · ${Number(speed.toPrecision(2))} tokens/s`;
    return `${pace} · ${left((total - done) / speed)} left`;
  }
}

function left(seconds) {
  if (seconds < 60) return `about ${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `about ${Math.round(seconds / 60)} min`;
  return `about ${(seconds / 3600).toPrecision(2)} h`;
}
