// What all players share. A player's page defines `key`, the id of its element, and `spec`, its
// data, before this; `build(root, uid)` of the player's own script makes one player.

const SLIDES = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "PageUp",
                "PageDown"];
const ERASES = ["Delete", "Backspace"];  // a Mac's delete key is the second

function make(parent, tag, properties = {}) {
  return parent.appendChild(Object.assign(document.createElement(tag), properties));
}

// The same player may stand on a page several times; what was built is not built again.
function buildAll(build) {
  document.querySelectorAll(`[id="${key}"]:not([data-ready])`).forEach((root, copy) => {
    root.dataset.ready = "true";
    root.textContent = "";
    root.setAttribute("role", "group");
    if (spec.title) {
      root.setAttribute("aria-label", spec.title);
      make(root, "p", {className: "title", textContent: spec.title});
    }
    keepKeys(root);
    build(root, `${key}-${copy}-${Date.now()}`);
  });
}

// What is folded is printed, too; after that it is folded as before.
if (!window.dmdPrints) {
  window.dmdPrints = true;
  let unfolded = [];
  window.addEventListener("beforeprint", () => {
    unfolded = [...document.querySelectorAll("details:not([open])")];
    unfolded.forEach(details => { details.open = true; });
  });
  window.addEventListener("afterprint", () => {
    unfolded.forEach(details => { details.open = false; });
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
  if (tag === "CANVAS") return event.key === "Enter" || ERASES.includes(event.key);
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
  return spec.captions.texts[rowOf(spec.captions.axes, at.map(Math.round))] || "";
}

// A value as a reader would say it, "t = 543"; and all of them, "sampler DDIM, 4 steps".
function readout(at, k) {
  return spec.readouts[k][Math.round(at[k])];
}

function inWords(at) {
  return spec.axes.map(([name, values], k) => {
    const said = readout(at, k);
    return said === values[Math.round(at[k])] ? `${name} ${said}` : said;
  }).join(", ");
}

// Buttons for the values of axis k, or a menu if they are many; returns their group.
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
    return group;
  }
  values.forEach((value, i) => {
    const chip = make(group, "label", {className: "chip"});
    make(chip, "input", {type: "radio", name: uid + k, value, checked: i === at[k],
                         onchange: () => choose(i)});
    make(chip, "span", {textContent: value});
  });
  return group;
}

// A slider over axis k. `go` moves it from code; a hand on it stops what plays.
function slider(parent, k, at, time, show) {
  const range = make(parent, "input", {type: "range", min: 0, step: 1,
                                       max: spec.axes[k][1].length - 1, value: at[k]});
  const go = i => { range.value = at[k] = i; show(); };
  range.oninput = () => {
    const wanted = +range.value;  // what stops may set it
    time.stop();
    go(wanted);
  };
  range.onpointerdown = time.stop;
  return {range, go};
}

// Whatever plays in a player, one thing at a time. `move` is told how many ms have passed, and
// says whether there is more to come.
function clock(root) {
  let playing = null;
  const stop = () => {
    const before = playing;
    playing = null;
    if (before) before.rest();
  };
  const start = (who, move) => {
    stop();
    playing = who;
    let then = performance.now();
    const tick = now => {
      if (playing !== who) return;
      if (!root.isConnected || !move(Math.max(0, now - then))) return stop();
      then = now;
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  };
  return {start, stop};
}

// A button that moves a slider to its end, a value every `pause` ms; `smooth`: with all that lies
// between two values. A hand on the slider stops it.
function playButton(parent, time, name, k, at, control, pause, smooth = false) {
  const button = make(parent, "button", {className: "play", type: "button"});
  const end = spec.axes[k][1].length - 1;
  let on = false;
  const turn = playing => {
    on = playing;
    button.textContent = on ? "\u23F8" : "\u25B6";
    button.setAttribute("aria-label", `${on ? "pause" : "play"} ${name}`.trim());
  };
  const rest = () => {
    turn(false);
    if (at[k] % 1) control().go(Math.round(at[k]));
  };
  turn(false);
  button.onclick = () => {
    if (on) return time.stop();
    let place = at[k] === end ? 0 : at[k];
    time.start({rest}, passed => {
      place = Math.min(end, place + passed / pause);
      control().go(smooth ? place : Math.floor(place));
      return place < end;
    });
    turn(true);
  };
  return button;
}

// A slider with its play button (none if it has no `pause`), name and value; returns what keeps the
// value current.
function lineIn(root, k, at, uid, time, show, pause = 250, smooth = false) {
  const [name, values] = spec.axes[k];
  const line = make(root, "div", {className: "line slim"});
  let control = null;
  if (pause) playButton(line, time, name, k, at, () => control, pause, smooth);
  make(line, "label", {textContent: name, htmlFor: uid + k});
  control = slider(line, k, at, time, show);
  control.range.id = uid + k;
  const output = make(line, "output");
  return () => {
    output.textContent = values[Math.round(at[k])];
    control.range.setAttribute("aria-valuetext", readout(at, k));
  };
}
