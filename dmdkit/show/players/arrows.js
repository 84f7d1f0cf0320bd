// Arrows on a panel of the plane: as long and as dark as they are large, up to spec.cap.

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
