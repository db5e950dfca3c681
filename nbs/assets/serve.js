// The page of `pneumo serve`: films go to this page's own server one after the other, and nowhere else.
(() => {
  const find = (selector, root = document) => root.querySelector(selector);
  const make = (tag, words = {}, ...inside) => {
    const element = document.createElement(tag);
    Object.entries(words).forEach(([key, value]) => { key in element ? element[key] = value : element.setAttribute(key, value) });
    element.append(...inside.filter(part => part != null));
    return element;
  };
  const say = text => { find("#said").textContent = text };
  const percent = p => p > 0 && p < .001 ? "below 0.1\u00a0%" : p < 1 && p > .999 ? "above 99.9\u00a0%" : (100 * p).toFixed(1) + "\u00a0%";
  const ends = a => percent(a.low) === percent(a.high) ? percent(a.low) : `${percent(a.low)} to ${percent(a.high)}`;
  const counted = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
  const films = [], waiting = [];   // films: { file, answer, refusal, item, map }
  let card = null, busy = false, clears = 0, shown = 0;

  // ---- asking the server

  const token = () => new URLSearchParams(location.hash.slice(1)).get("token");
  const pause = seconds => new Promise(done => setTimeout(done, 1000 * seconds));
  class Refusal extends Error {}

  async function ask(path, form) {
    const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
    for (let turn = 0; turn < 20; turn++) {
      let answer;
      try { answer = await fetch(path, form ? { method: "POST", body: form(), headers } : { headers }) }
      catch { throw new Refusal("The server could not be reached; see whether pneumo serve still runs.") }
      if (answer.ok) return answer.json();
      if (answer.status === 503) { await pause(Math.min(10, +answer.headers.get("Retry-After") || 1)); continue }
      const detail = await answer.json().then(told => told.detail, () => `The server answered ${answer.status}.`);
      if (answer.status === 401) find("#ask-token").hidden = false;
      throw new Refusal(detail);
    }
    throw new Refusal("The server is busy with other films; try again later.");
  }

  const formWith = (field, file) => () => { const form = new FormData(); form.append(field, file, file.name); return form };

  // ---- rules and words

  const RULES = { half: "more likely than not", youden: "Youden's rule", sensitivity95: "sensitivity 95 %", sensitivity98: "sensitivity 98 %" };   // where they were chosen
  const threshold = () => card.rules[find("#rule").value];
  const call = answer => answer.probability >= threshold() ? "pneumonia" : "normal";
  const level = () => `${Math.round(100 * card.level)}\u00a0%`;
  const SETS = {
    pneumonia: () => `Of the two classes only pneumonia fits (at ${level()}).`,
    normal: () => `Of the two classes only normal fits (at ${level()}).`,
    both: () => `It cannot be told: pneumonia and normal both fit (at ${level()}).`,
    neither: () => `Neither class fits (at ${level()}): the film is unlike both.` };

  // ---- one film

  const svg = (tag, words, ...inside) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    Object.entries(words).forEach(([key, value]) => element.setAttribute(key, value));
    element.append(...inside);
    return element;
  };
  function bar(answer) {
    const x = p => 10 + 380 * p, cut = threshold();
    const words = `Probability ${percent(answer.probability)}, range ${ends(answer)}, threshold ${percent(cut)}.`;
    const low = x(answer.low), wide = Math.max(3, x(answer.high) - low);
    const at = (p, text, anchor) => svg("text", { x: x(p), y: 46, "text-anchor": anchor }, text);
    const near = cut < .12 ? "start" : cut > .88 ? "end" : "middle";
    return svg("svg", { class: "range", viewBox: "0 0 400 62", role: "img", "aria-label": words },
      svg("rect", { class: "track", x: 10, y: 16, width: 380, height: 10, rx: 5 }), svg("rect", { class: "span", x: low, y: 12, width: wide, height: 18, rx: 3 }),
      svg("line", { class: "cut", x1: x(cut), x2: x(cut), y1: 4, y2: 34 }), svg("circle", { class: "at", cx: x(answer.probability), cy: 21, r: 7 }),
      at(0, "0", "start"), at(1, "100 %", "end"), svg("text", { x: x(cut), y: cut > .08 && cut < .85 ? 46 : 60, "text-anchor": near }, `threshold ${percent(cut)}`));
  }

  function doubts(answer) {
    if (!answer.flags.length) return make("p", {}, "No check objects to this film.");
    const list = make("ul", {}, ...answer.flags.map(flag => make("li", {}, flag)));
    return make("div", { className: "doubt" }, make("p", {}, make("b", {}, "Do not rely on this answer:")), list);
  }
  function facts(answer) {
    const called = call(answer), sick = called === "pneumonia";
    return [answer.flags.length ? doubts(answer) : null,
      make("p", { className: `call ${sick ? "sick" : "well"}` }, `Called ${called}`),
      make("p", {}, `Probability of pneumonia ${percent(answer.probability)}; single networks say ${ends(answer)}.`), bar(answer),
      make("p", {}, SETS[answer.conformal]()), answer.flags.length ? null : doubts(answer),
      make("p", { className: "hint" }, `${answer.width} × ${answer.height} pixels, ${Math.max(.01, answer.seconds).toFixed(2)} s`)];
  }

  function showMap(film) {
    const view = find(".view", film.item), below = find(".below", film.item), map = film.map;
    if (!map) return;
    const over = make("img", { src: map.map, alt: "" });
    const slider = make("input", { type: "range", min: 0, max: 100, value: 60, step: 1, "aria-label": "Opacity of the map" });
    const fade = () => { over.style.opacity = slider.value / 100 };
    slider.addEventListener("input", fade); fade();
    find("img + img", view)?.remove();
    view.append(over);
    below.replaceChildren(make("label", {}, "Film", slider, "map"),
      make("p", {}, `${map.title[0].toUpperCase()}${map.title.slice(1)} (${map.unit}), from ${map.least.toPrecision(2)} to ${map.most.toPrecision(2)}. Red: ${map.red}.${map.is_faint ? " The whole map is faint: no single place counts for much." : ""}`));
  }
  async function explain(film, button) {
    button.disabled = true; button.textContent = "Drawing the map …";
    try {
      film.map = await ask(`api/explain?method=${encodeURIComponent(find("#method").value)}`, formWith("film", film.file));
      if (films.includes(film)) { showMap(film); say(`The map of ${film.answer.file} is drawn.`); find(".below input", film.item)?.focus() }
    } catch (error) { button.disabled = false; button.textContent = "Show the map"; find(".below", film.item).append(make("p", {}, error.message)); say(error.message) }
  }
  function mapButton(film) {
    const button = make("button", { type: "button" }, "Show the map");
    button.addEventListener("click", () => explain(film, button));
    return button;
  }

  function show(film) {
    const name = film.answer?.file ?? film.file.name, remove = make("button", { type: "button", "aria-label": `Remove ${name}` }, "Remove");
    remove.addEventListener("click", () => { films.splice(films.indexOf(film), 1); film.item.remove(); showAll(); find("#files").focus() });
    const head = make("h3", {}, make("span", {}, name), remove);
    film.item.className = film.answer ? "film" : "film unread";
    if (!film.answer) return film.item.replaceChildren(head, make("p", {}, film.refusal));
    const picture = make("img", { src: film.answer.picture, alt: `The film ${name}` });
    film.item.replaceChildren(head, make("div", {}, make("div", { className: "view" }, picture), make("div", { className: "below" }, mapButton(film))),
      make("div", { className: "facts" }, ...facts(film.answer).filter(Boolean)));
    showMap(film);
  }

  // ---- all films

  function row(film) {
    const a = film.answer, cell = text => make("td", {}, text), name = a?.file ?? film.file.name;
    const head = make("th", { scope: "row" }, make("a", { href: `#${film.item.id}` }, name));
    head.firstChild.addEventListener("click", event => { event.preventDefault(); film.item.scrollIntoView(); film.item.focus({ preventScroll: true }) });   // the address keeps its token
    if (!a) return make("tr", {}, head, make("td", { colSpan: 5 }, film.refusal));
    const can = { both: "pneumonia or normal", neither: "neither" }[a.conformal] ?? a.conformal;
    return make("tr", {}, head, cell(percent(a.probability)), cell(ends(a)), cell(call(a)), cell(can), cell(a.flags.join("; ") || "none"));
  }
  function showAll() {
    find("#controls").hidden = !films.length;
    find("#table").hidden = films.length < 2;   // one film is its own table
    find("#table tbody").replaceChildren(...films.map(row));
    find("#download").disabled = !films.some(film => film.answer);
  }
  function showCalls() {
    films.filter(film => film.answer).forEach(film => find(".facts", film.item).replaceChildren(...facts(film.answer).filter(Boolean)));
    showAll();
    const sick = films.filter(film => film.answer && call(film.answer) === "pneumonia").length;
    if (films.length) say(`${sick} of ${counted(films.filter(film => film.answer).length, "film")} called pneumonia.`);
  }

  async function work() {
    if (busy) return;
    busy = true;
    try { await answerWaiting() } finally { busy = false }
  }
  async function answerWaiting() {
    while (waiting.length) {
      const file = waiting.shift(), film = { file }, before = clears;
      say(`Reading ${file.name}; ${counted(waiting.length, "film")} to follow.`);
      try {
        if (file.size > card.most_bytes - 4096) throw new Refusal(`Expected at most ${Math.floor(card.most_bytes / 2 ** 20)} MB, found ${Math.ceil(file.size / 2 ** 20)} MB in ${file.name}.`);
        film.answer = (await ask(`api/predict?picture=true&rule=${encodeURIComponent(find("#rule").value)}`, formWith("films", file))).films[0];
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        film.refusal = error.message;
      }
      if (before !== clears) continue;   // all films were removed in the meantime
      film.item = make("li", { id: `film-${++shown}`, tabIndex: -1 });
      films.push(film); find("#answers").append(film.item);
      show(film); showAll();
    }
    const unread = films.filter(film => !film.answer).length;
    if (films.length) say(`${counted(films.length - unread, "film")} answered${unread ? `, ${unread} refused` : ""}.`);
  }
  async function add(files) {
    waiting.push(...files);
    if (await ready()) work();
  }

  // The columns of `pneumo predict --out`.
  const COLUMNS = ["file", "probability", "low", "high", "call", "conformal", "flags", "seconds"];
  const quoted = value => /[",\n\r]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value;
  function table() {
    const cells = a => ({ ...a, call: call(a), flags: a.flags.join("; ") });
    const rows = films.filter(film => film.answer).map(film => cells(film.answer)).map(a => COLUMNS.map(key => quoted(a[key])).join(","));
    return [COLUMNS.join(","), ...rows, ""].join("\n");
  }
  function download() {
    const address = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
    const link = make("a", { href: address, download: "films.csv" });
    document.body.append(link); link.click(); link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }

  // ---- the card

  function showCard() {
    find("#rule").replaceChildren(...Object.entries(card.rules).map(([rule, cut]) => make("option", { value: rule }, `from ${percent(cut)} on: ${RULES[rule] ?? rule}`)));
    if ("sensitivity95" in card.rules) find("#rule").value = "sensitivity95";
    find("#method").replaceChildren(...Object.entries(card.methods).map(([name, title]) => make("option", { value: name }, title)));
    if ("occlusion" in card.methods) find("#method").value = "occlusion";
    find("#level").textContent = level();
    find("#files").accept = card.endings.join(",");
    const facts = { "the networks": card.title, "learned from": card.trained_on, "meant for": card.intended, "not for": card.not_for, "bundle": card.digest.slice(0, 16) };
    find("#card").replaceChildren(...Object.entries(facts).flatMap(([key, value]) => [make("dt", {}, key), make("dd", {}, value)]));
  }
  async function ready() {
    if (card) return true;
    try { card = await ask("api/card") }
    catch (error) { say(error.message); return false }
    find("#ask-token").hidden = true;
    showCard();
    return true;
  }

  find("#files").addEventListener("change", event => { add([...event.target.files]); event.target.value = "" });
  find("#rule").addEventListener("change", showCalls);
  find("#method").addEventListener("change", () => films.filter(film => film.answer).forEach(film => { film.map = null; show(film) }));
  find("#download").addEventListener("click", download);
  find("#clear").addEventListener("click", () => { films.length = waiting.length = 0; clears++; find("#answers").replaceChildren(); showAll(); say("All films are removed."); find("#files").focus() });
  find("#ask-token").addEventListener("submit", async event => {
    event.preventDefault();
    location.hash = new URLSearchParams({ token: find("#token").value.trim() });
    if (await ready()) { say("The token is right."); find("#files").focus(); work() }
  });
  const drop = find("#drop"), over = is => event => { event.preventDefault(); drop.classList.toggle("over", is) };
  ["dragenter", "dragover"].forEach(kind => addEventListener(kind, over(true)));
  addEventListener("dragleave", over(false));
  addEventListener("drop", event => { over(false)(event); add([...event.dataTransfer.files]) });
  ready().then(known => { if (known) say("") });
})();
