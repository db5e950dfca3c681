// The operating point: count the films at a threshold as the evaluation does (called pneumonia if the probability is at least the threshold).
(() => {
  const root = document.querySelector("#operating-point"), models = JSON.parse(root.querySelector("script[type='application/json']").textContent);
  const field = name => root.querySelector(`#op-${name}`), put = (name, text) => { field(name).textContent = text };
  // Ties to even, as Python rounds: 73 of 160 must not be 45.62 % before this script runs and 45.63 % behind it.
  const two = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2, roundingMode: "halfEven" });
  const share = (part, whole) => whole ? part / whole : NaN, percent = value => isNaN(value) ? "undefined" : two.format(100 * value) + " %";

  function counts(model, threshold) {
    const n = { tn: 0, fp: 0, fn: 0, tp: 0 };
    model.probability.forEach((p, i) => { n[model.label[i] ? (p >= threshold ? "tp" : "fn") : (p >= threshold ? "fp" : "tn")]++ });
    return n;
  }
  function rates(n, prevalence) {
    const sensitivity = share(n.tp, n.tp + n.fn), specificity = share(n.tn, n.tn + n.fp), sick = prevalence, well = 1 - prevalence;
    return { sensitivity, specificity, accuracy: share(n.tp + n.tn, n.tp + n.tn + n.fp + n.fn),
      ppv: share(sensitivity * sick, sensitivity * sick + (1 - specificity) * well), npv: share(specificity * well, specificity * well + (1 - sensitivity) * sick) };
  }
  // Every distinct probability is a threshold; from the highest down, the curve of a model.
  function curve(model) {
    const order = model.probability.map((p, i) => [p, model.label[i]]).sort((a, b) => b[0] - a[0]), sick = model.label.reduce((a, b) => a + b, 0), points = [{ sensitivity: 0, specificity: 1 }];
    let tp = 0, fp = 0;
    order.forEach(([p, label], i) => {
      label ? tp++ : fp++;
      if (i + 1 === order.length || order[i + 1][0] !== p) points.push({ sensitivity: tp / sick, specificity: 1 - fp / (order.length - sick) });
    });
    return points;
  }
  models.forEach(model => { model.curve = curve(model) });

  function draw(name, words, options, marks) {
    const box = field(name), width = Math.max(240, Math.min(430, box.clientWidth - 10));
    box.replaceChildren(Plot.plot({ width, height: Math.round(width * .88), marginLeft: 48, marginBottom: 40, style: { fontSize: "13px" }, ariaLabel: words, ...options,
      marks: [Plot.ruleX([0], { stroke: "#bbb" }), Plot.ruleY([0], { stroke: "#bbb" }), ...marks] }));
    box.querySelectorAll("svg [aria-label], svg [aria-description]").forEach(part => { part.removeAttribute("aria-label"); part.removeAttribute("aria-description") });  // the picture has one name
    box.firstChild.setAttribute("role", "img");
  }

  let saying;
  function show() {
    const model = models[field("model").selectedIndex], threshold = +field("threshold").value, prevalence = +field("prevalence").value / 100;
    const n = counts(model, threshold), r = rates(n, prevalence);
    Object.entries(n).forEach(([key, value]) => put(key, value));
    Object.entries(r).forEach(([key, value]) => put(key, percent(value)));
    clearTimeout(saying);
    saying = setTimeout(put, 300, "said", `${model.title} at threshold ${threshold}: ${n.tp} of ${n.tp + n.fn} pneumonia films found, ${n.fp} of ${n.tn + n.fp} normal films called pneumonia.`);
    const others = models.filter(m => m !== model), ppv = p => share(p.sensitivity * prevalence, p.sensitivity * prevalence + (1 - p.specificity) * (1 - prevalence));
    const line = (m, x, y, style) => Plot.line(m.curve.filter(p => !isNaN(y(p))), { x, y, stroke: m.colour, ...style });
    const both = (x, y) => [...others.map(m => line(m, x, y, { strokeWidth: 1, strokeOpacity: .45 })), line(model, x, y, { strokeWidth: 2.5 }),
      ...(isNaN(y(r)) ? [] : [Plot.dot([r], { x, y, r: 7, fill: model.colour, stroke: "#000", strokeWidth: 1.5 })])];
    draw("roc", `ROC curve of ${model.title}; the point lies at sensitivity ${percent(r.sensitivity)}, specificity ${percent(r.specificity)}.`,
      { x: { domain: [0, 1], label: "false alarms (1 − specificity) →" }, y: { domain: [0, 1], label: "↑ sensitivity" } },
      [Plot.line([[0, 0], [1, 1]], { stroke: "#888", strokeDasharray: "3,3" }), ...both(p => 1 - p.specificity, p => p.sensitivity)]);
    draw("pr", `Precision-recall curve of ${model.title} at a prevalence of ${percent(prevalence)}; the point lies at recall ${percent(r.sensitivity)}, precision ${percent(r.ppv)}.`,
      { x: { domain: [0, 1], label: "recall (sensitivity) →" }, y: { domain: [0, 1], label: "↑ precision (PPV)" } },
      [Plot.ruleY([prevalence], { stroke: "#888", strokeDasharray: "3,3" }), ...both(p => p.sensitivity, ppv)]);
  }

  const follow = (from, to) => field(from).addEventListener("input", () => { if (field(from).checkValidity() && field(from).value !== "") { field(to).value = field(from).value; show() } });
  follow("threshold", "threshold-slider"); follow("threshold-slider", "threshold");
  follow("prevalence", "prevalence-slider"); follow("prevalence-slider", "prevalence");
  field("model").addEventListener("input", show);
  let waiting;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(show, 100) });
  show();
})();
