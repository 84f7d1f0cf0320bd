// A point of a panel of the plane that follows the pointer, and the arrow keys while the panel has
// the focus, by `step` a press.
function draggable(canvas, point, step, show) {
  const end = 0.98 * spec.extent;
  const put = (x, y) => {
    point[0] = Math.max(-end, Math.min(end, x));
    point[1] = Math.max(-end, Math.min(end, y));
    show();
  };
  const follow = event => {
    const box = canvas.getBoundingClientRect();
    put(((event.clientX - box.left) / box.width * 2 - 1) * spec.extent,
        (1 - (event.clientY - box.top) / box.height * 2) * spec.extent);
  };
  canvas.tabIndex = 0;
  canvas.style.touchAction = "none";
  canvas.onpointerdown = event => { canvas.setPointerCapture(event.pointerId); follow(event); };
  canvas.onpointermove = event => { if (event.buttons) follow(event); };
  const moves = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]};
  canvas.onkeydown = event => {
    const move = moves[event.key];
    if (!move || !isOurs(event)) return;
    event.preventDefault();
    put(point[0] + step * move[0], point[1] + step * move[1]);
  };
}
