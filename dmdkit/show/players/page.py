"""The HTML players' pages: their style, their few lines of script, and how they are put together.

``FRAMES`` shows pictures (see ``widgets.player``), ``FIELDS`` draws arrows and points (see ``fields.player``).
"""
import base64
import hashlib
import html
import json


def uri(png: bytes) -> str:
    """A PNG file as the address of a picture that needs no file."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def make(spec: dict, still: bytes, script: str) -> str:
    """The HTML of a player: ``spec`` is what its ``script`` draws, ``still`` the picture that a viewer which strips
    scripts leaves of it."""
    text = json.dumps(spec, ensure_ascii=False).replace("</", "<\\/")
    key = "dmd-" + hashlib.sha256(text.encode()).hexdigest()[:12]  # so that players on one page do not collide
    fallback = f'<img src="{uri(still)}" alt="{html.escape(spec["title"] or "contact sheet", quote=True)}">'
    fallback += "<p><i>Run this cell in Jupyter, or trust the notebook: a slider takes this picture's place.</i></p>"
    return (f'<div id="{key}" class="dmd-player">{fallback}</div>\n'
            f'<style>{STYLE.replace("ROOT", "#" + key)}</style>\n'
            f'<script>{script.replace("ROOT", key).replace("SPEC", text)}</script>')


STYLE = """
ROOT { color: inherit; font: 14px/1.4 system-ui, sans-serif; max-width: 800px; padding: 4px; }
ROOT canvas { image-rendering: pixelated; display: block; background: #fff; border-radius: 3px; }
ROOT .top { display: flex; flex-wrap: wrap; gap: 28px; align-items: center; }
ROOT .panels { display: flex; gap: 8px; }
ROOT figure { margin: 0; } ROOT figcaption { text-align: center; opacity: .8; }
ROOT .panels canvas { box-shadow: 0 0 0 1px rgba(128, 128, 128, .5); }
ROOT .number { font-size: 60px; font-weight: 700; line-height: 1; font-variant-numeric: tabular-nums; }
ROOT .unit { font-size: 20px; opacity: .8; margin-left: 8px; }
ROOT .caption { min-height: 1.4em; margin: 4px 0 12px; opacity: .8; }
ROOT fieldset { border: 0; margin: 0 0 6px; padding: 0; display: flex; flex-wrap: wrap; gap: 4px; align-items: center; }
ROOT legend { float: left; width: 76px; opacity: .8; padding: 0; font-size: 14px; border: 0; margin: 0; }
ROOT .chip { position: relative; display: block; }
ROOT .chip span, ROOT .play { border: 1px solid rgba(128, 128, 128, .6); cursor: pointer; }
ROOT .chip span { display: block; padding: 1px 8px; border-radius: 5px; }
ROOT .chip input { position: absolute; opacity: 0; margin: 0; inset: 0; cursor: pointer; }
ROOT .chip :checked + span { background: #0072B2; border-color: #0072B2; color: #fff; }
ROOT .chip :focus-visible + span, ROOT .film button:focus-visible { outline: 2px solid #E69F00; outline-offset: 1px; }
ROOT .line { display: flex; gap: 10px; align-items: center; margin-top: 16px; }
ROOT button { background: none; color: inherit; font: inherit; padding: 0; }
ROOT .play { width: 34px; height: 34px; flex: none; border-radius: 50%; }
ROOT .track { flex: 1; min-width: 0; }
ROOT input[type=range] { display: block; height: 22px; accent-color: #0072B2; cursor: grab; }
ROOT .film { display: grid; grid-auto-columns: minmax(0, 1fr); grid-auto-flow: column; }
ROOT .film button { border: 0; font-size: 12px; cursor: pointer; } ROOT .film div { opacity: .75; }
ROOT .film canvas { margin: 0 auto 4px; width: 85%; max-width: 56px; }
ROOT .film .now div { opacity: 1; font-weight: 700; }
ROOT .film .now canvas { box-shadow: 0 0 0 2px #0072B2; }
ROOT .fields { display: grid; gap: 10px; }
ROOT .fields canvas { image-rendering: auto; width: 100%; aspect-ratio: 1; cursor: crosshair;
  box-shadow: 0 0 0 1px rgba(128, 128, 128, .5); }
ROOT .line output { min-width: 3.5em; font-variant-numeric: tabular-nums; font-weight: 700; }
ROOT .line label { min-width: 96px; opacity: .8; }
ROOT .line.slim { margin-top: 8px; } ROOT .line input { flex: 1; min-width: 0; }
ROOT .scale { display: flex; gap: 8px; align-items: center; justify-content: center; font-size: 12px; opacity: .85; }
ROOT .scale canvas { width: 160px; height: 10px; border-radius: 2px; }
"""

FRAMES = """(() => {
const spec = SPEC, last = spec.axes.length - 1, [slider, stops] = spec.axes[last], sprite = new Image();
const make = (parent, tag, properties = {}) =>
  parent.appendChild(Object.assign(document.createElement(tag), properties));
document.querySelectorAll('[id="ROOT"]:not([data-ready])').forEach((root, copy) => {
  root.dataset.ready = "true"; root.textContent = "";
  root.dataset.lmSuppressShortcuts = "true";  // or JupyterLab takes the arrow keys for itself
  root.addEventListener("keydown", event => event.stopPropagation());
  const at = [...spec.at], paint = [], uid = "ROOT-" + copy + "-" + Date.now();
  const moved = (k, i) => at.map((value, j) => j === k ? i : value);
  const canvas = (parent, scale) => {
    const c = make(parent, "canvas", {width: spec.width, height: spec.height});
    if (scale) c.style.width = spec.width * scale + "px";
    return c; };
  const put = (c, where) => {
    const row = where.slice(0, last).reduce((r, i, k) => r * spec.axes[k][1].length + i, 0);
    c.getContext("2d").drawImage(sprite, where[last] * spec.width, row * spec.height, spec.width, spec.height,
                                 0, 0, spec.width, spec.height); };
  const top = make(root, "div", {className: "top"}), panels = make(top, "div", {className: "panels"});
  (spec.panels < 0 ? [null] : spec.axes[spec.panels][1]).forEach((name, i) => {
    const figure = make(panels, "figure"), c = canvas(figure, spec.scale);
    c.setAttribute("role", "img");
    if (name !== null) make(figure, "figcaption", {textContent: name});
    paint.push(() => {
      const where = name === null ? at : moved(spec.panels, i);
      c.setAttribute("aria-label", spec.axes.map(([axis, values], k) => axis + " " + values[where[k]]).join(", "));
      put(c, where); }); });
  const side = make(top, "div"), big = make(side, "div");
  const number = make(big, "span", {className: "number"}), unit = make(big, "span", {className: "unit"});
  const caption = make(side, "div", {className: "caption"});
  spec.axes.forEach(([axis, values], k) => {
    if (k === last || k === spec.panels || values.length < 2) return;
    const group = make(side, "fieldset"); make(group, "legend", {textContent: axis});
    if (values.length > 10 || values.join("").length > 40) {
      const menu = make(group, "select", {onchange: () => { at[k] = menu.selectedIndex; show(); }});
      values.forEach((value, i) => make(menu, "option", {textContent: value, selected: i === at[k]}));
      return menu.setAttribute("aria-label", axis); }
    values.forEach((value, i) => {
      const chip = make(group, "label", {className: "chip"});
      make(chip, "input", {type: "radio", name: uid + k, value, checked: i === at[k],
                           onchange: () => { at[k] = i; show(); }});
      make(chip, "span", {textContent: value}); }); });
  const line = make(root, "div", {className: "line"});
  const play = make(line, "button", {className: "play", type: "button", textContent: "\\u25B6"});
  const track = make(line, "div", {className: "track"});
  const range = make(track, "input", {type: "range", min: 0, max: stops.length - 1, step: 1, value: at[last]});
  range.setAttribute("aria-label", slider); play.setAttribute("aria-label", "play");
  const inset = 50 / stops.length;  // so that the knob, 16 px wide, stands above the middle of its picture
  range.style.cssText = `width: calc(${100 - 2 * inset}% + 16px); margin: 0 calc(${inset}% - 8px) 4px`;
  const go = i => { range.value = at[last] = i; show(); };
  range.oninput = () => go(+range.value);
  const film = make(track, "div", {className: "film"}), few = stops.length <= 16;
  stops.forEach((stop, i) => {
    if (!few && i && i < stops.length - 1) return;
    const button = make(film, "button", {type: "button", tabIndex: -1, onclick: () => go(i)});
    const c = few ? canvas(button) : null;
    make(button, "div", {textContent: stop});
    if (!few) button.style.justifySelf = i ? "end" : "start";
    paint.push(() => { button.className = i === at[last] ? "now" : ""; if (c) put(c, moved(last, i)); }); });
  let timer = null;
  const stop = () => { clearInterval(timer); timer = null; play.textContent = "\\u25B6"; };
  play.onclick = () => {
    if (timer) return stop();
    if (at[last] === stops.length - 1) go(0);
    play.textContent = "\\u23F8";
    timer = setInterval(() => {
      if (!root.isConnected || at[last] === stops.length - 1) stop(); else go(at[last] + 1);
    }, few ? 700 : 120); };
  const show = () => {
    number.textContent = stops[at[last]];
    unit.textContent = stops[at[last]] === "1" ? slider.replace(/s$/, "") : slider;
    caption.textContent = spec.captions[at[last]] || "";
    range.setAttribute("aria-valuetext", number.textContent + " " + unit.textContent);
    paint.forEach(f => f()); };
  sprite.addEventListener("load", show); show(); });
sprite.src = spec.sprite;
})();"""

FIELDS = """(() => {
const spec = SPEC;
const make = (parent, tag, properties = {}) =>
  parent.appendChild(Object.assign(document.createElement(tag), properties));
const decode = array => array && Object.assign(array, {values: Float32Array.from(
  new (array.bytes === 1 ? Int8Array : Int16Array)(Uint8Array.from(atob(array.data), c => c.charCodeAt(0)).buffer),
  v => v / array.units)});
spec.panels.forEach(panel => ["at", "arrows", "points", "density"].forEach(name => decode(panel[name])));
const colour = share => spec.colours[Math.min(spec.colours.length - 1, Math.floor(share * spec.colours.length))];
document.querySelectorAll('[id="ROOT"]:not([data-ready])').forEach((root, copy) => {
  root.dataset.ready = "true"; root.textContent = "";
  root.dataset.lmSuppressShortcuts = "true";  // or JupyterLab takes the arrow keys for itself
  root.addEventListener("keydown", event => event.stopPropagation());
  const at = [...spec.at], controls = [], uid = "ROOT-" + copy + "-" + Date.now();
  let mouse = null;
  const slice = array => {  // the part of an array that belongs to the chosen values; an axis of length 1 is common
    const row = array.axes.reduce((r, length, k) => r * length + (length > 1 ? at[k] : 0), 0);
    return array.values.subarray(row * array.size, (row + 1) * array.size); };
  const grid = make(root, "div", {className: "fields"});
  grid.style.gridTemplateColumns = `repeat(${Math.min(3, spec.panels.length)}, minmax(0, 320px))`;
  const views = spec.panels.map(panel => {
    const figure = make(grid, "figure"), canvas = make(figure, "canvas", {width: 520, height: 520});
    canvas.setAttribute("role", "img");
    make(figure, "figcaption", {textContent: panel.title});
    canvas.onmousemove = event => {
      const box = canvas.getBoundingClientRect();
      mouse = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]; draw(); };
    canvas.onmouseleave = () => { mouse = null; draw(); };
    return {panel, canvas}; });
  const paint = ({panel, canvas}) => {
    const c = canvas.getContext("2d"), w = canvas.width, unit = w / (2 * spec.extent);
    const px = v => (v + spec.extent) * unit, py = v => (spec.extent - v) * unit;
    c.fillStyle = "#fff"; c.fillRect(0, 0, w, w);
    if (panel.density) {
      const values = slice(panel.density), side = Math.round(Math.sqrt(values.length));
      const small = Object.assign(document.createElement("canvas"), {width: side, height: side});
      const image = small.getContext("2d").createImageData(side, side);
      values.forEach((k, i) => {
        image.data.set([...spec.heat.map(h => 255 - (255 - h) * k), 255], 4 * i); });
      small.getContext("2d").putImageData(image, 0, 0);
      c.imageSmoothingEnabled = true; c.drawImage(small, 0, 0, w, w); }
    if (panel.points) {
      const points = slice(panel.points);
      c.fillStyle = spec.ink; c.strokeStyle = "#fff"; c.lineWidth = 1;
      for (let i = 0; i < points.length; i += 2) {
        c.beginPath(); c.arc(px(points[i]), py(points[i + 1]), 4.5, 0, 7); c.fill(); c.stroke(); } }
    if (panel.arrows) {
      const from = slice(panel.at), arrows = slice(panel.arrows);
      c.lineWidth = 2.2; c.lineCap = "round";
      for (let i = 0; i < arrows.length; i += 2) {
        let dx = arrows[i], dy = -arrows[i + 1];
        const size = Math.hypot(dx, dy), share = Math.min(1, size / spec.cap);
        if (size < 1e-3) continue;
        const long = share * spec.reach * unit;
        dx *= long / size; dy *= long / size;
        const x = px(from[i]), y = py(from[i + 1]), head = Math.min(9, 0.45 * long);
        c.strokeStyle = c.fillStyle = colour(share);
        c.beginPath(); c.moveTo(x, y); c.lineTo(x + dx, y + dy); c.stroke();
        const ux = dx / long, uy = dy / long;
        c.beginPath(); c.moveTo(x + dx + ux * head * .6, y + dy + uy * head * .6);
        c.lineTo(x + dx - ux * head * .5 - uy * head * .55, y + dy - uy * head * .5 + ux * head * .55);
        c.lineTo(x + dx - ux * head * .5 + uy * head * .55, y + dy - uy * head * .5 - ux * head * .55);
        c.fill(); } }
    if (mouse) {
      c.strokeStyle = "#000"; c.lineWidth = 1.5; c.beginPath();
      c.arc(mouse[0] * w, mouse[1] * w, 14, 0, 7); c.stroke(); }
    canvas.setAttribute("aria-label", panel.title + ": " +
      spec.axes.map(([name, values], k) => name + " " + values[at[k]]).join(", ")); };
  if (spec.panels.some(panel => panel.arrows)) {
    const scale = make(root, "div", {className: "scale"});
    make(scale, "span", {textContent: "0"});
    const bar = make(scale, "canvas", {width: 160, height: 10}), c = bar.getContext("2d");
    for (let i = 0; i < 160; i++) { c.fillStyle = colour(i / 160); c.fillRect(i, 0, 1, 10); }
    make(scale, "span", {textContent: spec.cap + " and more: " + spec.measure}); }
  const caption = make(root, "div", {className: "caption"});
  let timer = null;
  spec.axes.forEach(([name, values], k) => {
    if (values.length < 2) return;
    if (spec.menus.includes(name)) {
      const group = make(root, "fieldset"); make(group, "legend", {textContent: name});
      return values.forEach((value, i) => {
        const chip = make(group, "label", {className: "chip"});
        make(chip, "input", {type: "radio", name: uid + k, value, checked: i === at[k],
                             onchange: () => { at[k] = i; show(); }});
        make(chip, "span", {textContent: value}); }); }
    const line = make(root, "div", {className: "line slim"});
    const play = make(line, "button", {className: "play", type: "button", textContent: "\\u25B6"});
    make(line, "label", {textContent: name, htmlFor: uid + k});
    const range = make(line, "input", {type: "range", min: 0, max: values.length - 1, step: 1, value: at[k],
                                       id: uid + k});
    const output = make(line, "output");
    const go = i => { range.value = at[k] = i; show(); };
    range.oninput = () => go(+range.value);
    play.setAttribute("aria-label", "play " + name);
    const stop = () => { clearInterval(timer); timer = null;
                         root.querySelectorAll(".play").forEach(b => b.textContent = "\\u25B6"); };
    play.onclick = () => {
      if (timer) return stop();
      if (at[k] === values.length - 1) go(0);
      play.textContent = "\\u23F8";
      timer = setInterval(() => {
        if (!root.isConnected || at[k] === values.length - 1) stop(); else go(at[k] + 1); }, 250); };
    controls.push(() => { output.textContent = values[at[k]];
                          range.setAttribute("aria-valuetext", name + " " + values[at[k]]); }); });
  const draw = () => views.forEach(paint);
  const show = () => {
    controls.forEach(f => f());
    const row = spec.captions.axes.reduce((r, length, k) => r * length + (length > 1 ? at[k] : 0), 0);
    caption.textContent = spec.captions.texts[row] || "";
    draw(); };
  show(); });
})();"""
