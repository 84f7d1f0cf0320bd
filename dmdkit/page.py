"""The HTML player's page: its style, its few lines of script, and how they are put together. See widgets.player."""
import base64
import hashlib
import html
import json


def make(spec: dict, sprite: bytes, still: bytes) -> str:
    """The player's HTML. What a viewer that strips scripts leaves of it is the contact sheet."""
    uri = lambda content: "data:image/png;base64," + base64.b64encode(content).decode()
    text = json.dumps(spec | {"sprite": uri(sprite)}, ensure_ascii=False).replace("</", "<\\/")
    key = "dmd-" + hashlib.sha256(text.encode()).hexdigest()[:12]  # so that players on one page do not collide
    fallback = f'<img src="{uri(still)}" alt="{html.escape(spec["title"] or "contact sheet", quote=True)}">'
    fallback += "<p><i>Run this cell in Jupyter, or trust the notebook: a slider takes this picture's place.</i></p>"
    return (f'<div id="{key}" class="dmd-player">{fallback}</div>\n'
            f'<style>{STYLE.replace("ROOT", "#" + key)}</style>\n'
            f'<script>{SCRIPT.replace("ROOT", key).replace("SPEC", text)}</script>')


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
"""

SCRIPT = """(() => {
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
