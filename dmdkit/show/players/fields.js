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

function slice(array, at) {
  const row = rowOf(array.axes, at);
  return array.values.subarray(row * array.size, (row + 1) * array.size);
}

function colour(share) {
  const n = spec.colours.length;
  return `rgb(${spec.colours[Math.min(n - 1, Math.floor(share * n))].join(",")})`;
}

function drawArrows(context, from, arrows) {
  context.lineWidth = 2.2;
  context.lineCap = "round";
  for (let i = 0; i < arrows.length; i += 2) {
    const size = Math.hypot(arrows[i], arrows[i + 1]);
    if (size < 1e-3) continue;
    const share = Math.min(1, size / spec.cap), long = share * spec.reach * pixels;
    context.strokeStyle = context.fillStyle = colour(share);
    drawArrow(context, toX(from[i]), toY(from[i + 1]), arrows[i] / size, -arrows[i + 1] / size,
              long);
  }
}

// An arrow from (x, y) in the direction (ux, uy), a unit vector.
function drawArrow(context, x, y, ux, uy, long) {
  const endX = x + ux * long, endY = y + uy * long, head = Math.min(9, 0.45 * long);
  const across = 0.55 * head, back = 0.5 * head, ahead = 0.6 * head;
  context.beginPath();
  context.moveTo(x, y);
  context.lineTo(endX, endY);
  context.stroke();
  context.beginPath();
  context.moveTo(endX + ux * ahead, endY + uy * ahead);
  context.lineTo(endX - ux * back - uy * across, endY - uy * back + ux * across);
  context.lineTo(endX - ux * back + uy * across, endY - uy * back - ux * across);
  context.fill();
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
    else spoken.push(lineIn(root, k, at, uid, time, show));
  });
  show();
}

// The panels, each of which shows where the mouse is; returns what paints them all.
function panelsIn(root, at) {
  const grid = make(root, "div", {className: "fields"});
  grid.style.gridTemplateColumns = `repeat(${Math.min(3, spec.panels.length)}, minmax(0, 320px))`;
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

// What the colour of an arrow says.
function scaleIn(root) {
  const scale = make(root, "div", {className: "scale"}), width = 160;
  make(scale, "span", {textContent: "0"});
  const context = make(scale, "canvas", {width, height: 10}).getContext("2d");
  for (let x = 0; x < width; x++) {
    context.fillStyle = colour(x / width);
    context.fillRect(x, 0, 1, 10);
  }
  make(scale, "span", {textContent: `${spec.cap} and more: ${spec.measure}`});
}
