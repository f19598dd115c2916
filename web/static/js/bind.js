// Puts a model's ready-made strings where the server printed the first ones. Text goes in as text, never as markup.

/** Print `model` into the elements below `root` that name its keys: data-text, data-href, data-show, data-attrs, data-list. */
export function bind(root, model) {
  for (const element of root.children) {
    const { later, figure } = element.dataset;
    if (later === undefined && figure === undefined) apply(element, model); // a part has its own model, a figure none
  }
}

/** Print only what `model` holds, wherever below `root` it is named: what arrives after the page's model. */
export function patch(root, model) {
  for (const element of root.querySelectorAll("[data-text], [data-list]")) {
    const { text, list } = element.dataset;
    if (text in model) setText(element, model[text]);
    if (list in model) fill(element, model[list]);
  }
}

/** The same for `element` itself. */
export function apply(element, model) {
  if (element.localName === "template") return;
  const { text, href, show, attrs, list } = element.dataset;
  if (text !== undefined) setText(element, model[text]);
  if (href !== undefined) setLink(element, model[href]);
  if (show !== undefined) element.hidden = !model[show];
  if (attrs !== undefined) for (const pair of attrs.split(" ")) setAttribute(element, pair, model);
  if (list !== undefined) fill(element, model[list] ?? []);
  else if (text === undefined) bind(element, model);
}

function setText(element, value) {
  const text = value === undefined || value === null ? "" : String(value);
  if (element.textContent !== text) element.textContent = text;
}

function setLink(element, value) {
  // only paths of this server: a link is never made from what a log says
  if (typeof value === "string" && /^\/(?![/\\])/.test(value)) element.setAttribute("href", value);
  else element.removeAttribute("href");
}

function setAttribute(element, pair, model) {
  const [name, key] = pair.split(":");
  const value = String(model[key] ?? "");
  if (name.startsWith("--")) element.style.setProperty(name, value);
  else if (name === "value" || name.startsWith("data-") || name.startsWith("aria-")) element.setAttribute(name, value);
}

/** One copy of the list's <template> for each item. */
function fill(list, items) {
  const template = list.querySelector(":scope > template");
  const fresh = items.map((item) => {
    const copy = document.importNode(template.content, true);
    bind(copy, item);
    return copy;
  });
  list.replaceChildren(template, ...fresh);
}
