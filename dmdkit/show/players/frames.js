// The player of pictures: one large picture, or a panel for each value of an axis, a slider with
// thumbnails, and buttons. All pictures lie in one, spec.sprite: a row for each choice of buttons,
// a column for each position of the slider.

const last = spec.axes.length - 1;
const [unitName, stops] = spec.axes[last];
const few = stops.length <= 16;
const DIFFERS = 48;  // of 255: by how much a pixel's ink must differ to be marked
const MARKS = {more: [213, 94, 0], less: [0, 114, 178]};
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
  const context = canvas.getContext("2d", {willReadFrequently: true});
  context.drawImage(sprite, x, y, spec.width, spec.height, 0, 0, spec.width, spec.height);
}

function moved(at, k, i) {
  return at.map((value, j) => j === k ? i : value);
}

function build(root, uid) {
  if (spec.kind) root.classList.add(spec.kind);
  const at = [...spec.at], paint = [];
  const top = make(root, "div", {className: "top"});
  const side = document.createElement("div"), marks = {on: false};
  paint.push(...panelsIn(top, at, marks));
  top.appendChild(side);
  const number = make(side, "div", {className: "number"});
  const silent = spec.captions.texts.every(text => !text);
  const caption = make(side, "div", {className: silent ? "caption none" : "caption"});
  const show = () => {
    number.textContent = readout(at, last);
    caption.textContent = captionAt(at);
    paint.forEach(draw => draw());
  };
  spec.axes.forEach(([, values], k) => {
    if (k !== last && k !== spec.panels && values.length > 1) choice(side, k, at, uid, show);
  });
  if (spec.marks) marksIn(side, marks, show);
  paint.push(...filmIn(root, at, show));
  sprite.addEventListener("load", show);
  show();
}

// The large picture, or the panels; returns what paints them.
function panelsIn(top, at, marks) {
  const wide = spec.width > 1.5 * spec.height;  // stand below each other where there is no room
  const panels = make(top, "div", {className: wide ? "panels wide" : "panels"});
  const names = spec.panels < 0 ? [null] : spec.axes[spec.panels][1];
  let first = null;
  return names.map((name, i) => {
    const figure = make(panels, "figure"), canvas = canvasIn(figure, spec.scale);
    canvas.setAttribute("role", "img");
    if (name !== null) captionIn(figure, name, spec.notes[i]);
    first = first || canvas;
    return () => {
      const where = name === null ? at : moved(at, spec.panels, i);
      canvas.setAttribute("aria-label", inWords(where));
      put(canvas, where);
      if (marks.on && canvas !== first) mark(first, canvas);
    };
  });
}

function captionIn(figure, name, note) {
  const caption = make(figure, "figcaption");
  make(caption, "b", {textContent: name});
  if (note) make(caption, "div", {textContent: note});
}

// Colours the pixels of a picture that differ from the first panel's.
function mark(first, canvas) {
  const base = first.getContext("2d").getImageData(0, 0, spec.width, spec.height).data;
  const context = canvas.getContext("2d");
  const image = context.getImageData(0, 0, spec.width, spec.height), data = image.data;
  for (let i = 0; i < data.length; i += 4) {
    const off = base[i] + base[i + 1] + base[i + 2] - data[i] - data[i + 1] - data[i + 2];
    if (Math.abs(off) < 3 * DIFFERS) continue;
    (off > 0 ? MARKS.more : MARKS.less).forEach((value, c) => { data[i + c] = value; });
  }
  context.putImageData(image, 0, 0);
}

// The switch of the marks, which says what they mean.
function marksIn(side, marks, show) {
  const label = make(side, "label", {className: "marks"});
  const box = make(label, "input", {type: "checkbox"});
  const name = spec.axes[spec.panels][1][0];
  make(label, "span", {textContent: `mark what differs from ${name}:`});
  const words = spec.kind === "photo" ? ["darker", "lighter"] : ["more ink", "less ink"];
  make(label, "b", {className: "more", textContent: words[0]});
  make(label, "b", {className: "less", textContent: words[1]});
  box.onchange = () => { marks.on = box.checked; show(); };
}

// The slider, its play button, and thumbnails below it; returns what paints them.
function filmIn(root, at, show) {
  const line = make(root, "div", {className: "line"}), time = clock(root);
  let control = null;
  playButton(line, time, "", last, at, () => control, few ? 700 : 120);
  const track = make(line, "div", {className: "track"});
  control = slider(track, last, at, time, show);
  control.range.setAttribute("aria-label", unitName);
  const inset = 50 / stops.length;  // the knob, 16 px wide, stands above the middle of its picture
  control.range.style.width = `calc(${100 - 2 * inset}% + 16px)`;
  control.range.style.margin = `0 calc(${inset}% - 8px) 4px`;
  const film = make(track, "div", {className: stops.length > 10 ? "film many" : "film"});
  const shown = few ? stops.map((stop, i) => i) : [...new Set([0, stops.length - 1])];
  const take = i => { time.stop(); control.go(i); };
  const paint = shown.map(i => thumbnailIn(film, i, at, take));
  const speak = () => control.range.setAttribute("aria-valuetext", readout(at, last));
  return [...paint, speak];
}

function thumbnailIn(film, i, at, go) {
  const button = make(film, "button", {type: "button", tabIndex: -1, onclick: () => go(i)});
  const canvas = few && spec.thumbnails ? canvasIn(button) : null;
  make(button, "div", {textContent: stops[i]});
  if (!few) button.style.justifySelf = i ? "end" : "start";
  return () => {
    button.className = i === at[last] ? "now" : "";
    if (canvas) put(canvas, moved(at, last, i));
  };
}
