// The player of pictures: one large picture, or a panel for each value of an axis, a slider with
// thumbnails, and buttons. All pictures lie in one, spec.sprite: a row for each choice of buttons,
// a column for each position of the slider.

const last = spec.axes.length - 1;
const [unitName, stops] = spec.axes[last];
const few = stops.length <= 16;
const sprite = new Image();
sprite.src = spec.sprite;

function canvasIn(parent, scale) {
  const canvas = make(parent, "canvas", {width: spec.width, height: spec.height});
  if (scale) canvas.style.width = `${spec.width * scale}px`;
  return canvas;
}

function put(canvas, at) {
  const lengths = spec.axes.slice(0, last).map(([, values]) => values.length);
  const x = at[last] * spec.width, y = rowOf(lengths, at) * spec.height;
  canvas.getContext("2d").drawImage(sprite, x, y, spec.width, spec.height,
                                    0, 0, spec.width, spec.height);
}

function moved(at, k, i) {
  return at.map((value, j) => j === k ? i : value);
}

function build(root, uid) {
  const at = [...spec.at], paint = [];
  const top = make(root, "div", {className: "top"});
  paint.push(...panelsIn(top, at));
  const side = make(top, "div"), readout = make(side, "div");
  const number = make(readout, "span", {className: "number"});
  const unit = make(readout, "span", {className: "unit"});
  const caption = make(side, "div", {className: "caption"});
  const show = () => {
    number.textContent = stops[at[last]];
    unit.textContent = stops[at[last]] === "1" ? unitName.replace(/s$/, "") : unitName;
    caption.textContent = captionAt(at);
    paint.forEach(draw => draw());
  };
  spec.axes.forEach(([, values], k) => {
    if (k !== last && k !== spec.panels && values.length > 1) choice(side, k, at, uid, show);
  });
  paint.push(...filmIn(root, at, show));
  sprite.addEventListener("load", show);
  show();
}

// The large picture, or the panels; returns what paints them.
function panelsIn(top, at) {
  const wide = spec.width > 1.5 * spec.height;  // stand below each other where there is no room
  const panels = make(top, "div", {className: wide ? "panels wide" : "panels"});
  const names = spec.panels < 0 ? [null] : spec.axes[spec.panels][1];
  return names.map((name, i) => {
    const figure = make(panels, "figure"), canvas = canvasIn(figure, spec.scale);
    canvas.setAttribute("role", "img");
    if (name !== null) make(figure, "figcaption", {textContent: name});
    return () => {
      const where = name === null ? at : moved(at, spec.panels, i);
      canvas.setAttribute("aria-label", inWords(where));
      put(canvas, where);
    };
  });
}

// The slider, its play button, and thumbnails below it; returns what paints them.
function filmIn(root, at, show) {
  const line = make(root, "div", {className: "line"}), time = clock(root);
  let control = null;
  playButton(line, time, "", last, at, () => control, few ? 700 : 120);
  const track = make(line, "div", {className: "track"});
  control = slider(track, last, at, show);
  control.range.onpointerdown = time.stop;
  control.range.setAttribute("aria-label", unitName);
  const inset = 50 / stops.length;  // the knob, 16 px wide, stands above the middle of its picture
  control.range.style.width = `calc(${100 - 2 * inset}% + 16px)`;
  control.range.style.margin = `0 calc(${inset}% - 8px) 4px`;
  const film = make(track, "div", {className: stops.length > 10 ? "film many" : "film"});
  const shown = few ? stops.map((stop, i) => i) : [...new Set([0, stops.length - 1])];
  const paint = shown.map(i => thumbnailIn(film, i, at, control.go));
  const speak = () => {
    const value = stops[at[last]];
    const unit = value === "1" ? unitName.replace(/s$/, "") : unitName;
    control.range.setAttribute("aria-valuetext", `${value} ${unit}`);
  };
  return [...paint, speak];
}

function thumbnailIn(film, i, at, go) {
  const button = make(film, "button", {type: "button", tabIndex: -1, onclick: () => go(i)});
  const canvas = few ? canvasIn(button) : null;
  make(button, "div", {textContent: stops[i]});
  if (!few) button.style.justifySelf = i ? "end" : "start";
  return () => {
    button.className = i === at[last] ? "now" : "";
    if (canvas) put(canvas, moved(at, last, i));
  };
}
