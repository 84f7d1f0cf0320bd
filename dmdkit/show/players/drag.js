// A hand on a panel of the plane: the pointer, or the arrow keys while the panel has the focus.

const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]};

// Tells `touch` each place of the plane that the pointer presses on.
function touchable(canvas, touch) {
  const follow = event => {
    const box = canvas.getBoundingClientRect();
    touch([((event.clientX - box.left) / box.width * 2 - 1) * spec.extent,
           (1 - (event.clientY - box.top) / box.height * 2) * spec.extent]);
  };
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");  // else a screen reader keeps the arrow keys
  canvas.style.touchAction = "none";
  canvas.onpointerdown = event => { canvas.setPointerCapture(event.pointerId); follow(event); };
  canvas.onpointermove = event => { if (event.buttons) follow(event); };
}

// Lets a point follow the hand, by `step` a press of an arrow key.
function draggable(canvas, point, step, show) {
  const end = 0.98 * spec.extent;
  const put = place => {
    place.forEach((value, c) => { point[c] = Math.max(-end, Math.min(end, value)); });
    show();
  };
  touchable(canvas, put);
  canvas.onkeydown = event => {
    const move = ARROWS[event.key];
    if (!move || !isOurs(event)) return;
    event.preventDefault();
    put(point.map((value, c) => value + step * move[c]));
  };
}
