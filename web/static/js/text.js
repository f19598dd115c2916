// The tokens of a response: a stretch of them is on the page, the rest comes from the server by the block.
const BLOCK = 512;
const WINDOW = 3 * BLOCK;

export class Text {
  constructor(list) {
    this.list = list;
    const { prefix, kinds, first, last, blocks } = list.dataset;
    Object.assign(this, { prefix, kinds, first: Number(first), last: Number(last), blocks });
    this.size = kinds.length;
    this.changing = Promise.resolve();
    this.links = [...list.parentElement.querySelectorAll(".more")];
    for (const link of this.links) {
      link.addEventListener("click", (event) => { event.preventDefault(); this.more(link.dataset.side); });
    }
    this.count();
  }

  /** The token at a place, if it is on the page. */
  token(place) {
    return document.getElementById(`${this.prefix}${place}`);
  }

  placeOf(element) {
    const token = element.closest(".t");
    return token && this.list.contains(token) ? Number(token.id.slice(1)) : -1;
  }

  /** Put the token at a place onto the page: the blocks between where it is near, else those around it alone. */
  reach(place) {
    return this.afterwards(async () => {
      if (place < this.first - WINDOW || place >= this.last + WINDOW) {
        const start = Math.floor(place / BLOCK) * BLOCK;
        const nodes = await this.block(start);
        this.list.replaceChildren(...nodes);
        [this.first, this.last] = [start, start + nodes.length];
        this.count();
      }
      while (place < this.first) await this.grow("earlier");
      while (place >= this.last) await this.grow("later");
      return this.token(place);
    });
  }

  more(side) {
    return this.afterwards(() => this.grow(side));
  }

  /** One change of the stretch at a time. */
  afterwards(change) {
    this.changing = this.changing.then(change, change);
    return this.changing;
  }

  async grow(side) {
    const start = side === "later" ? this.last : Math.max(0, this.first - BLOCK);
    const nodes = (await this.block(start)).filter((node) => !this.token(node.id.slice(1)));
    if (nodes.length === 0) throw new Error("the response has no more tokens");
    if (side === "later") {
      this.list.append(...nodes);
      this.last += nodes.length;
    } else {
      this.list.prepend(...nodes);
      this.first = start;
    }
    this.count();
  }

  /** Tokens as the server prints them; what it prints is escaped there, for the page and for its blocks alike. */
  async block(first) {
    const address = new URL(this.blocks, location.origin);
    address.searchParams.set("first", first);
    address.searchParams.set("prefix", this.prefix);
    const answer = await fetch(address);
    if (!answer.ok) throw new Error(answer.statusText);
    const { body } = new DOMParser().parseFromString(await answer.text(), "text/html");
    return [...body.children].map((node) => document.adoptNode(node));
  }

  /** What the links say: how much there is on either side. */
  count() {
    const left = { earlier: this.first, later: this.size - this.last };
    for (const link of this.links) {
      const n = left[link.dataset.side];
      link.hidden = n === 0;
      link.textContent = `${n.toLocaleString("en-US")} ${link.dataset.side} tokens`;
    }
  }
}
