// A panel of the plane on a canvas: −extent … extent both ways, as the figures have it.

const SIDE = 520;  // pixels of a panel's canvas
const pixels = SIDE / (2 * spec.extent);
const toX = value => (value + spec.extent) * pixels;
const toY = value => (spec.extent - value) * pixels;

function drawDensity(context, values) {
  const side = Math.round(Math.sqrt(values.length));
  const small = Object.assign(document.createElement("canvas"), {width: side, height: side});
  const image = small.getContext("2d").createImageData(side, side);
  values.forEach((share, i) => {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = 255 - (255 - spec.heat[c]) * share;
    image.data[4 * i + 3] = 255;
  });
  small.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = true;
  context.drawImage(small, 0, 0, SIDE, SIDE);
}

function drawDot(context, x, y, radius, colour) {
  context.fillStyle = colour;
  context.strokeStyle = "#fff";
  context.lineWidth = 1;
  context.beginPath();
  context.arc(toX(x), toY(y), radius, 0, 7);
  context.fill();
  context.stroke();
}

function clear(context) {
  context.fillStyle = "#fff";
  context.fillRect(0, 0, SIDE, SIDE);
}

// A panel with its caption, in a grid of them.
function panelIn(grid, caption) {
  const figure = make(grid, "figure");
  const canvas = make(figure, "canvas", {width: SIDE, height: SIDE});
  canvas.setAttribute("role", "img");
  make(figure, "figcaption", {textContent: caption});
  return canvas;
}
