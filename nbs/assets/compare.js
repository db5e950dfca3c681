// One film's maps, one after the other: a slider over the panels of a figure. The picture is the figure's own.
for (const box of document.querySelectorAll(".compare-maps")) {
  const { figure, panels } = JSON.parse(box.querySelector("script").textContent);
  const picture = document.querySelector(`#fig-${figure} img`);
  if (!picture || box.querySelector("input")) continue;
  const label = document.createElement("label"), slider = document.createElement("input"), canvas = document.createElement("canvas");
  const words = document.createElement("output");
  Object.assign(slider, { type: "range", min: 0, max: panels.length - 1, step: 1, value: 0, id: `compare-${figure}` });
  label.htmlFor = slider.id; label.textContent = "Method ";
  canvas.setAttribute("role", "img");
  function draw() {
    const [title, alt, [x, y, w, h]] = panels[slider.value], [width, height] = [picture.naturalWidth, picture.naturalHeight];
    if (!width) return;
    canvas.width = Math.round(w * width); canvas.height = Math.round(h * height);
    canvas.getContext("2d").drawImage(picture, x * width, y * height, w * width, h * height, 0, 0, canvas.width, canvas.height);
    words.textContent = title; slider.setAttribute("aria-valuetext", title); canvas.setAttribute("aria-label", alt);
  }
  slider.addEventListener("input", draw);
  picture.addEventListener("load", draw);
  picture.loading = "eager";
  label.append(words);
  slider.style.cssText = "display: block; width: min(100%, 26rem)"; canvas.style.cssText = "display: block; width: min(100%, 26rem); height: auto; margin: .5rem 0";
  box.append(label, slider, canvas);
  draw();
}
