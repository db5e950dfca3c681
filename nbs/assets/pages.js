// Search, and the button that shows all code, on pages that nbconvert rendered. Nothing is fetched: the index is a script of the site.
document.querySelector("button.codes")?.addEventListener("click", event => {
  const folded = [...document.querySelectorAll("details.code")], open = folded.some(d => !d.open);
  folded.forEach(d => { d.open = open });
  event.target.textContent = open ? "Hide all code" : "Show all code";
});
const field = document.querySelector("#search"), list = document.querySelector("#found");
let index = null;
function prepare() {
  if (index || !window.searchSections) return;
  index = new MiniSearch({ fields: ["title", "section", "text"], storeFields: ["title", "section", "href", "text"], searchOptions: { prefix: true, fuzzy: 0.15, boost: { title: 3, section: 2 } } });
  index.addAll(window.searchSections);
}
function show() {
  prepare();
  const words = field.value.trim(), hits = words && index ? index.search(words, { combineWith: "AND" }).slice(0, 8) : [];
  list.replaceChildren(...hits.map(hit => {
    const item = document.createElement("li"), link = document.createElement("a"), more = document.createElement("small");
    link.href = hit.href; link.textContent = hit.section ? `${hit.title}: ${hit.section}` : hit.title;
    const at = Math.max(0, hit.text.toLowerCase().indexOf(hit.terms[0]) - 40);
    more.textContent = (at ? "… " : "") + hit.text.slice(at, at + 110) + " …";
    link.append(more); item.append(link); return item;
  }));
  if (words && index && !hits.length) { const none = document.createElement("li"); none.textContent = "Nothing found"; none.style.padding = ".45rem .8rem"; list.append(none) }
  list.hidden = !words;
}
field?.addEventListener("input", show);
field?.addEventListener("keydown", event => { if (event.key === "Escape") { field.value = ""; show() } });
