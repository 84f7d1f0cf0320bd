// The player of particles: noise becomes data along steps of any number, computed in the page. On
// the left all of them; on the right one start, which can be dragged, and its paths.

const [, COUNTS, SHARES, TIMES] = spec.axes.map(([, values]) => values);
const SHADES = 52;   // pixels of a density, both ways
const EXACT = 128;  // steps that are as good as the flow itself

function chosen(at) {
  return {mixture: spec.mixtures[at[0]], n: +COUNTS[at[1]], share: +SHARES[at[2]],
          u: 1 - at[3] / (TIMES.length - 1)};
}

// The paths of all particles. The fresh noise of particle i is always of the same stream.
function pathsOf({mixture, n, share}) {
  return spec.starts.map((start, i) => {
    const draw = normals(1000 + i), fresh = share ? Array.from({length: n}, draw) : null;
    return pathOf(mixture, start, n, share, fresh);
  });
}

function drawLine(context, points, colour, width, dash = []) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.setLineDash(dash);
  context.beginPath();
  points.forEach(([x, y], i) => context[i ? "lineTo" : "moveTo"](toX(x), toY(y)));
  context.stroke();
  context.setLineDash([]);
}

// A path until time u: the states that were passed, and where it is now.
function until(path, u) {
  const n = path.length - 1;
  return [...path.slice(0, Math.floor((1 - u) * n + 1e-9) + 1), placeOn(path, u)];
}

function drawCloud(canvas, paths, {mixture, u}) {
  const context = canvas.getContext("2d");
  clear(context);
  drawDensity(context, shading(mixture, u, SHADES));
  paths.forEach(path => drawLine(context, until(path, u), spec.grey, 0.6));
  paths.forEach(path => drawDot(context, ...placeOn(path, u), 3.6, spec.ink));
}

function drawPaths(canvas, start, {mixture, n, share}) {
  const context = canvas.getContext("2d"), flow = pathOf(mixture, start, EXACT);
  const fresh = share ? Array.from({length: n}, normals(7)) : null;
  const steps = pathOf(mixture, start, n, share, fresh), one = pathOf(mixture, start, 1);
  clear(context);
  drawDensity(context, shading(mixture, 0, SHADES));
  drawLine(context, flow, spec.grey, 2);
  drawLine(context, one, spec.blue, 2, [3, 5]);
  drawLine(context, [start, flow[EXACT]], spec.green, 2, [9, 5]);
  drawLine(context, steps, spec.ink, 2);
  steps.forEach(state => drawDot(context, ...state, 3.6, spec.ink));
  drawDot(context, ...one[1], 6, spec.blue);
  drawDot(context, ...flow[EXACT], 6, spec.green);
  drawDot(context, ...start, 8, "#000");
  return Math.hypot(steps[n][0] - flow[EXACT][0], steps[n][1] - flow[EXACT][1]);
}

function build(root, uid) {
  const at = [...spec.at], start = [...spec.start], spoken = [], time = clock(root);
  const grid = make(root, "div", {className: "fields"});
  grid.style.gridTemplateColumns = "repeat(auto-fit, minmax(min(300px, 100%), 1fr))";
  const cloud = panelIn(grid, spec.captions[0]), several = panelIn(grid, spec.captions[1]);
  const caption = make(root, "div", {className: "caption"});
  caption.setAttribute("aria-live", "polite");
  let paths = null, known = "";
  const show = () => {
    const now = chosen(at), asked = at.slice(0, 3).join();
    if (asked !== known) paths = pathsOf(now);  // they do not depend on the time shown
    known = asked;
    drawCloud(cloud, paths, now);
    const off = drawPaths(several, start, now);
    caption.textContent = `${now.n} network evaluation${now.n > 1 ? "s" : ""} a sample; ` +
      `the orange path ends ${off.toFixed(2)} away from where the exact flow ends`;
    cloud.setAttribute("aria-label", `particles: ${inWords(at)}`);
    several.setAttribute("aria-label",
                         `the paths from ${start.map(value => value.toFixed(2)).join(", ")}`);
    spoken.forEach(speak => speak());
  };
  draggable(several, start, 0.05, show);
  choice(root, 0, at, uid, show);
  for (const k of [1, 2, 3]) spoken.push(lineIn(root, k, at, uid, time, show, k === 3 ? 60 : 700, k === 3));
  show();
}
