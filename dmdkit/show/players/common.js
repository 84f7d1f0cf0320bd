// What all players share. A player's page defines `key`, the id of its element, and `spec`, its
// data, before this; `build(root, uid)` of the player's own script makes one player.

const SLIDES = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "PageUp",
                "PageDown"];

function make(parent, tag, properties = {}) {
  return parent.appendChild(Object.assign(document.createElement(tag), properties));
}

// The same player may stand on a page several times; what was built is not built again.
function buildAll(build) {
  document.querySelectorAll(`[id="${key}"]:not([data-ready])`).forEach((root, copy) => {
    root.dataset.ready = "true";
    root.textContent = "";
    root.setAttribute("role", "group");
    if (spec.title) root.setAttribute("aria-label", spec.title);
    keepKeys(root);
    build(root, `${key}-${copy}-${Date.now()}`);
  });
}

// Whether a key moves a control here. All others, Shift+Enter and Ctrl+S among them, are the
// page's.
function isOurs(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  if (SLIDES.includes(event.key)) return true;
  if (event.shiftKey) return false;
  const tag = event.target.tagName;
  if (tag === "SELECT") return event.key !== "Escape" && event.key !== "Tab";
  if (event.key === " ") return tag === "BUTTON" || event.target.type === "radio";
  return event.key === "Enter" && tag === "BUTTON";
}

// JupyterLab takes keys for its own shortcuts, by version before or after they come here: it leaves
// alone what stands under the attribute, and what does not bubble up to it.
function keepKeys(root) {
  window.addEventListener("keydown", event => {
    if (!root.contains(event.target)) return;
    root.toggleAttribute("data-lm-suppress-shortcuts", isOurs(event));
  }, true);
  root.addEventListener("keydown", event => { if (isOurs(event)) event.stopPropagation(); });
}

// The place in a table with an axis for each control; a table's axis of length 1 is common.
function rowOf(lengths, at) {
  return lengths.reduce((row, length, k) => row * length + (length > 1 ? at[k] : 0), 0);
}

function captionAt(at) {
  return spec.captions.texts[rowOf(spec.captions.axes, at)] || "";
}

// What is shown, in words: "sampler DDIM, steps 4".
function inWords(at) {
  return spec.axes.map(([name, values], k) => `${name} ${values[at[k]]}`).join(", ");
}

// Buttons for the values of axis k, or a menu if they are many.
function choice(parent, k, at, uid, show) {
  const [name, values] = spec.axes[k];
  const group = make(parent, "fieldset");
  make(group, "legend", {textContent: name});
  const choose = i => { at[k] = i; show(); };
  if (values.length > 10 || values.join("").length > 40) {
    const menu = make(group, "select", {onchange: () => choose(menu.selectedIndex)});
    values.forEach((value, i) => {
      make(menu, "option", {textContent: value, selected: i === at[k]});
    });
    menu.setAttribute("aria-label", name);
    return;
  }
  values.forEach((value, i) => {
    const chip = make(group, "label", {className: "chip"});
    make(chip, "input", {type: "radio", name: uid + k, value, checked: i === at[k],
                         onchange: () => choose(i)});
    make(chip, "span", {textContent: value});
  });
}

// A slider over axis k. `go` moves it, from code and by hand.
function slider(parent, k, at, show) {
  const range = make(parent, "input", {type: "range", min: 0, step: 1,
                                       max: spec.axes[k][1].length - 1, value: at[k]});
  const go = i => { range.value = at[k] = i; show(); };
  range.oninput = () => go(+range.value);
  return {range, go};
}

// Whatever plays in a player, one thing at a time.
function clock(root) {
  let timer = null, playing = null;
  const stop = () => {
    clearInterval(timer);
    if (playing) playing.rest();
    playing = null;
  };
  const start = (who, move, pause) => {
    stop();
    playing = who;
    timer = setInterval(() => { if (!root.isConnected || !move()) stop(); }, pause);
  };
  return {start, stop, plays: who => playing === who};
}

// A button that moves a slider to its end, a value every `pause` ms. A hand on the slider stops it.
function playButton(parent, time, name, k, at, control, pause) {
  const button = make(parent, "button", {className: "play", type: "button"});
  const end = spec.axes[k][1].length - 1;
  const label = (sign, word) => {
    button.textContent = sign;
    button.setAttribute("aria-label", name ? `${word} ${name}` : word);
  };
  const who = {rest: () => label("\u25B6", "play")};
  who.rest();
  button.onclick = () => {
    if (time.plays(who)) return time.stop();
    if (at[k] === end) control().go(0);
    label("\u23F8", "pause");
    time.start(who, () => {
      if (at[k] < end) control().go(at[k] + 1);
      return at[k] < end;
    }, pause);
  };
  return button;
}

// A slider with its play button, name and value; returns what keeps the value current.
function lineIn(root, k, at, uid, time, show, pause = 250) {
  const [name, values] = spec.axes[k];
  const line = make(root, "div", {className: "line slim"});
  let control = null;
  playButton(line, time, name, k, at, () => control, pause);
  make(line, "label", {textContent: name, htmlFor: uid + k});
  control = slider(line, k, at, show);
  control.range.id = uid + k;
  control.range.onpointerdown = time.stop;
  const output = make(line, "output");
  return () => {
    output.textContent = values[at[k]];
    control.range.setAttribute("aria-valuetext", `${name} ${values[at[k]]}`);
  };
}
