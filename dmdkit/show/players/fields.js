// The player of fields: panels with arrows, points and a density; a slider or buttons for each
// axis.

// Arrays come as whole numbers of 1/units, of one or two bytes each.
function decode(array) {
  if (!array) return;
  const bytes = Uint8Array.from(atob(array.data), letter => letter.charCodeAt(0)).buffer;
  const whole = array.bytes === 1 ? new Int8Array(bytes) : new Int16Array(bytes);
  array.values = Float32Array.from(whole, value => value / array.units);
}

for (const panel of spec.panels) {
  for (const name of ["at", "arrows", "points", "density"]) decode(panel[name]);
}

// What an array holds at a place; between two values of an axis what lies between.
function slice(array, at) {
  const k = at.findIndex((i, axis) => i % 1 && array.axes[axis] > 1);
  const before = rowIn(array, at.map(Math.floor));
  if (k < 0) return before;
  const after = rowIn(array, at.map(Math.ceil)), share = at[k] % 1;
  return before.map((value, i) => value + share * (after[i] - value));
}

function rowIn(array, at) {
  const row = rowOf(array.axes, at);
  return array.values.subarray(row * array.size, (row + 1) * array.size);
}

function drawMouse(context, [x, y]) {
  context.strokeStyle = "#000";
  context.lineWidth = 1.5;
  context.beginPath();
  context.arc(x * SIDE, y * SIDE, 14, 0, 7);
  context.stroke();
}

function drawPoints(context, points) {
  for (let i = 0; i < points.length; i += 2) {
    drawDot(context, points[i], points[i + 1], 4.5, spec.ink);
  }
}

function drawPanel(panel, canvas, at, mouse) {
  const context = canvas.getContext("2d");
  clear(context);
  if (panel.density) drawDensity(context, slice(panel.density, at));
  if (panel.points) drawPoints(context, slice(panel.points, at));
  if (panel.arrows) drawArrows(context, slice(panel.at, at), slice(panel.arrows, at));
  if (mouse) drawMouse(context, mouse);
  canvas.setAttribute("aria-label", `${panel.title}: ${inWords(at)}`);
}

function build(root, uid) {
  const at = [...spec.at], spoken = [], time = clock(root);
  const repaint = panelsIn(root, at);
  if (spec.panels.some(panel => panel.arrows)) scaleIn(root);
  const caption = make(root, "div", {className: "caption"});
  const show = () => {
    spoken.forEach(speak => speak());
    caption.textContent = captionAt(at);
    repaint();
  };
  spec.axes.forEach(([name, values], k) => {
    if (values.length < 2) return;
    if (spec.menus.includes(name)) choice(root, k, at, uid, show);
    else spoken.push(lineIn(root, k, at, uid, time, show, 250, true));
  });
  show();
}

// As many in a row as fit, and rows as even as can be: four stand two by two.
function columns(n) {
  return Math.ceil(n / Math.ceil(n / 3));
}

// The panels, each of which shows where the mouse is; returns what paints them all.
function panelsIn(root, at) {
  const grid = make(root, "div", {className: "fields"});
  grid.style.gridTemplateColumns = `repeat(${columns(spec.panels.length)}, minmax(0, 320px))`;
  let mouse = null;
  const views = spec.panels.map(panel => {
    const canvas = panelIn(grid, panel.title);
    canvas.onmousemove = event => {
      const box = canvas.getBoundingClientRect();
      mouse = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
      repaint();
    };
    canvas.onmouseleave = () => { mouse = null; repaint(); };
    return {panel, canvas};
  });
  const repaint = () => views.forEach(({panel, canvas}) => drawPanel(panel, canvas, at, mouse));
  return repaint;
}
