// Copy buttons: a link to the token in hand, its numbers, the response's text; what was done is said beside them.
const SAID_MS = 2500;

/** Copy what `read` gives, and say so in the nearest <output>. */
export async function copy(button, read) {
  const said = button.parentElement.querySelector("output");
  try {
    await write(await read());
    said.textContent = "Copied.";
  } catch (error) {
    said.textContent = `Could not copy: ${error.message}`;
  }
  setTimeout(() => { said.textContent = ""; }, SAID_MS);
}

/** Where the page is not served securely the browser has no clipboard to write to; a selection can still be copied. */
async function write(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = document.createElement("textarea");
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  if (!done) throw new Error("the browser refused");
  return undefined;
}

/** Rows as tab-separated lines; what would break a line is written as JSON writes it. */
export function tsv(rows) {
  const cell = (value) => (typeof value === "string" ? JSON.stringify(value).slice(1, -1) : String(value ?? ""));
  const names = Object.keys(rows[0]);
  return [names.join("\t"), ...rows.map((row) => names.map((name) => cell(row[name])).join("\t"))].join("\n");
}
