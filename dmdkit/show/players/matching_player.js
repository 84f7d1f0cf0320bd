// The player of matching by hand: three linked panels, the data to paint on, and what is chosen.

const [OBJECTIVE, PAIRS, RENEWED, CLICK, SHOWN, LEAST, MOST] = [1, 2, 3, 4, 5, 6, 7];
const N_PUSHES = 6, GRID = 13, FIELD_SIDE = 40;
const NEAREST = 0.3;  // so far from all others is data painted

const valueAt = (at, k) => spec.axes[k][1][at[k]];

// How points are moved, as it was chosen.
function chosen(at) {
  const objective = valueAt(at, OBJECTIVE), most = +valueAt(at, MOST);
  return {matched: objective.includes("real"), alone: objective === "real only",
          pairs: objective.includes("regression") ? +valueAt(at, PAIRS) : 0,
          every: spec.every[at[RENEWED]], least: Math.min(+valueAt(at, LEAST), most), most};
}

const places = Array.from({length: GRID * GRID}, (_, k) => [k % GRID, Math.floor(k / GRID)].map(
  i => spec.extent * (2 * i / (GRID - 1) - 1) * 0.92));

// σ s = −(x − α μ)/σ at every place, flat.
function fieldOf(mixture, u) {
  const flat = new Float32Array(2 * places.length);
  places.forEach((place, i) => {
    const mean = denoised(mixture, place, u);
    for (const c of [0, 1]) flat[2 * i + c] = (alphaAt(u) * mean[c] - place[c]) / sigmaAt(u);
  });
  return flat;
}

// σ (s_real − s_fake) at the points, the mean over some noise and its opposite.
function pushesAt(points, u, real, fake) {
  const draw = normals(15), factor = alphaAt(u) / sigmaAt(u) / N_PUSHES;
  const noise = Array.from({length: N_PUSHES / 2}, draw);
  const every = [...noise, ...noise.map(([a, b]) => [-a, -b])];
  return points.flatMap(x => every.reduce((sum, eps) => {
    const noised = x.map((value, c) => alphaAt(u) * value + sigmaAt(u) * eps[c]);
    const toReal = denoised(real, noised, u), toFake = fake ? denoised(fake, noised, u) : x;
    return sum.map((value, c) => value + factor * (toReal[c] - toFake[c]));
  }, [0, 0]));
}

function drawField(canvas, mixture, u, points) {
  const context = canvas.getContext("2d");
  clear(context);
  if (!mixture) return drawWord(context, "not used");
  drawDensity(context, shading(mixture, u, FIELD_SIDE));
  drawArrows(context, places.flat(), fieldOf(mixture, u));
  points.forEach((x, i) => drawDot(context, alphaAt(u) * x[0] + sigmaAt(u) * spec.noises[i][0],
                                   alphaAt(u) * x[1] + sigmaAt(u) * spec.noises[i][1], 3.6,
                                   spec.ink));
}

function drawWord(context, word) {
  context.fillStyle = "#555";
  context.font = "28px system-ui, sans-serif";
  context.textAlign = "center";
  context.fillText(word, SIDE / 2, SIDE / 2);
}

function drawPushed(canvas, run, u, how, cross) {
  const context = canvas.getContext("2d"), fake = how.alone ? null : run.fake;
  clear(context);
  drawDensity(context, shading(run.real, 0, FIELD_SIDE));
  if (how.matched) drawArrows(context, run.points.flat(), pushesAt(run.points, u, run.real, fake));
  run.points.forEach((x, i) => {
    if (i < how.pairs) drawPair(context, x, run.targets[i]);
    drawDot(context, ...x, 4.5, i < how.pairs ? spec.green : spec.ink);
  });
  if (cross) drawCross(context, cross);
}

function drawPair(context, [x, y], [toThisX, toThisY]) {
  context.strokeStyle = spec.green;
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(toX(x), toY(y));
  context.lineTo(toX(toThisX), toY(toThisY));
  context.stroke();
}

function drawCross(context, [x, y]) {
  context.strokeStyle = "#000";
  context.lineWidth = 2;
  context.strokeRect(toX(x) - 9, toY(y) - 9, 18, 18);
}

// The Wasserstein distance over the moves, with what two samples of the data have.
function drawHistory(canvas, run) {
  const context = canvas.getContext("2d"), {width, height} = canvas;
  const most = Math.max(1, ...run.far.map(([, far]) => far)), end = Math.max(60, run.moves);
  const across = moves => 4 + (width - 8) * moves / end;
  const up = far => height - 4 - (height - 12) * far / most;
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  const line = (points, colour, dash) => {
    context.strokeStyle = colour;
    context.lineWidth = 2;
    context.setLineDash(dash);
    context.beginPath();
    points.forEach(([x, y], i) => context[i ? "lineTo" : "moveTo"](across(x), up(y)));
    context.stroke();
  };
  line([[0, run.baseline], [end, run.baseline]], spec.grey, [6, 5]);
  line(run.far, spec.blue, []);
}

// Data by hand

function nearest(means, [x, y]) {
  const far = means.map(([mx, my]) => Math.hypot(x - mx, y - my));
  const least = Math.min(...far);
  return {index: far.indexOf(least), far: least};
}

// Paints a component at a place, or erases the nearest; the last one stays. Says whether it did.
function changed(run, place, erase) {
  const {index, far} = nearest(run.real.means, place);
  if (!erase && far > NEAREST) run.real.means.push([...place]);
  else if (erase && far < NEAREST && run.real.means.length > 1) run.real.means.splice(index, 1);
  else return false;
  renewed(run);
  return true;
}

// The pointer paints or erases; so do Enter and Delete at a cross that the arrow keys move.
function paintable(canvas, at, run, cross, show) {
  const erasing = () => valueAt(at, CLICK) === "erases data";
  touchable(canvas, place => { if (changed(run(), place, erasing())) show(); });
  canvas.onfocus = canvas.onblur = event => { cross.on = event.type === "focus"; show(); };
  canvas.onkeydown = event => {
    if (!isOurs(event)) return;
    const by = ARROWS[event.key];
    if (by) cross.at = cross.at.map((value, c) => value + 0.1 * by[c]);
    else if (event.key === "Enter" || ERASES.includes(event.key)) {
      changed(run(), cross.at, event.key !== "Enter");
    } else return;
    event.preventDefault();
    show();
  };
}

// What starts, stops and starts again.
function buttonsIn(root, time, advance, restart) {
  const line = make(root, "div", {className: "buttons"});
  const button = (textContent, onclick) =>
    make(line, "button", {type: "button", textContent, onclick});
  const play = button("play", () => {
    if (play.textContent === "pause") return time.stop();
    time.start({rest: () => { play.textContent = "play"; }}, () => { advance(); return true; });
    play.textContent = "pause";
  });
  button("one move", () => { time.stop(); advance(); });
  button("start again", () => { time.stop(); restart(); });
}

function build(root, uid) {
  const at = [...spec.at], spoken = [], time = clock(root), cross = {on: false, at: [0, 0]};
  let run = started(spec.mixtures[at[0]]), data = at[0];
  const grid = make(root, "div", {className: "fields painted"});
  grid.style.gridTemplateColumns = "repeat(3, minmax(0, 320px))";
  const [real, fake, pushed] = spec.panels.map(title => panelIn(grid, title));
  scaleIn(root);
  const advance = () => { move(run, chosen(at)); show(); };
  buttonsIn(root, time, advance, () => { run = started(run.real); show(); });
  const caption = make(root, "div", {className: "caption"});
  const history = make(root, "canvas", {className: "history", width: 848, height: 90});
  history.setAttribute("role", "img");
  make(root, "div", {className: "under", textContent: spec.history});
  const show = () => {
    if (at[0] !== data) run = started(spec.mixtures[data = at[0]]);
    const how = chosen(at), u = uOf(+valueAt(at, SHOWN));
    drawField(real, how.matched ? run.real : null, u, run.points);
    drawField(fake, how.matched && !how.alone ? run.fake : null, u, run.points);
    drawPushed(pushed, run, u, how, cross.on && cross.at);
    drawHistory(history, run);
    caption.textContent = inNumbers(run);
    const place = cross.at.map(value => value.toFixed(1)).join(", ");
    pushed.setAttribute("aria-label", spec.panels[2] +
                        (cross.on ? `, cross at ${place}` : `. ${spec.keys}`));
    groups[PAIRS].disabled = !how.pairs;
    groups[RENEWED].disabled = !how.matched || how.alone;
    spoken.forEach(speak => speak());
  };
  paintable(pushed, at, () => run, cross, show);
  const groups = [0, OBJECTIVE, PAIRS, RENEWED, CLICK].map(k => choice(root, k, at, uid, show));
  for (const k of [SHOWN, LEAST, MOST]) spoken.push(lineIn(root, k, at, uid, time, show, 0));
  real.setAttribute("aria-label", spec.panels[0]);
  fake.setAttribute("aria-label", spec.panels[1]);
  history.setAttribute("aria-label", spec.history);
  show();
}

function inNumbers(run) {
  const far = run.far[run.far.length - 1][1];
  return `move ${run.moves.toLocaleString("en")}: ${run.covered} of ${run.real.means.length} ` +
    `modes covered, Wasserstein distance ${far.toFixed(2)} (two samples of the data: ` +
    `${run.baseline.toFixed(2)})`;
}
