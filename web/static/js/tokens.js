// Which tokens are dropped: controls and the search change the list, a token opens its places.
import { ViewPage } from "./view.js";

const PATIENCE_MS = 250;

class TokensPage extends ViewPage {
  constructor() {
    super();
    this.computing = document.getElementById("computing");
    this.root.addEventListener("click", (event) => this.walk(event));
    this.root.addEventListener("pick", ({ detail }) => this.places(detail.customdata));
  }

  /** Another list starts at its first page, with no token open. */
  address() {
    const address = new URL(super.address(), location.origin);
    for (const name of ["first", "place", "token_id"]) address.searchParams.delete(name);
    return address.pathname + address.search;
  }

  /** Links between pages of a list change this page instead of loading it anew. */
  async walk(event) {
    const link = event.target.closest("a[data-follow]");
    if (!link || event.defaultPrevented || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    history.pushState(null, "", link.href);
    await this.follow();
    if (link.dataset.follow === "places") this.reveal();
  }

  async places(token) {
    if (typeof token !== "number") return;
    const address = new URL(location.href);
    address.searchParams.set("token_id", token);
    address.searchParams.delete("place");
    history.pushState(null, "", address);
    await this.follow();
    this.reveal();
  }

  reveal() {
    const places = document.getElementById("places");
    places.scrollIntoView({ block: "start" });
    places.focus({ preventScroll: true });
  }

  async follow() {
    const late = setTimeout(() => { this.computing.hidden = false; }, PATIENCE_MS);
    try {
      await super.follow();
    } finally {
      clearTimeout(late);
      this.computing.hidden = true;
    }
  }

  /** The search and its bound say what the address says, unless someone is typing there. */
  print(model) {
    super.print(model);
    if (model === null) return;
    for (const field of [this.form.elements.q, this.form.elements.least]) {
      if (document.activeElement !== field) field.value = model[field.name];
    }
  }
}

new TokensPage();
