// The player of the student in the page: a point in a plane of noises, and the ten digits that the
// one-step student draws from it, by onnxruntime-web. Nothing is loaded before the reader asks for
// it; until then the still stands in its place.

const SIZE = 28, N_DIGITS = 10, COLUMNS = 5, GAP = 2;  // pixels; digits, and how many in a row
const MISSING = "The student's files are not here. Run python -m dmdkit build page in the kit's " +
  "folder, then press the button again.";
const RECENT = 9;  // draws whose median time is told
const STILL = document.querySelector(`[id="${key}"]:not([data-ready]) img`);

const bytes = Uint8Array.from(atob(spec.noises), letter => letter.charCodeAt(0)).buffer;
const NOISES = Float32Array.from(new Int16Array(bytes), value => value / spec.units);

// The noise at the point, as student.py's noise_at has it.
function noiseAt([a, b]) {
  const r = Math.PI / 2 * Math.hypot(a, b), phi = Math.atan2(b, a), n = SIZE * SIZE;
  const [w0, w1, w2] = [Math.cos(r), Math.sin(r) * Math.cos(phi), Math.sin(r) * Math.sin(phi)];
  return Float32Array.from({length: n}, (_, i) =>
    w0 * NOISES[i] + w1 * NOISES[n + i] + w2 * NOISES[2 * n + i]);
}

// The student

// Where its files may lie: where the page was told; in JupyterLab in build/page of a folder that
// the notebook is in; on a site made by Sphinx among its static files.
function folders() {
  if (spec.folder) return [absolute(`${spec.folder}/`)];
  const config = document.getElementById("jupyter-config-data");
  if (!config) {
    return [absolute(`${document.documentElement.dataset.content_root ?? ""}_static/page/`)];
  }
  const base = JSON.parse(config.textContent).baseUrl;
  const above = (location.pathname.split("/tree/")[1] ?? "").split("/").slice(0, -1);
  return [...above.keys(), above.length].map(depth =>
    absolute([`${base}files`, ...above.slice(0, depth), "build/page/"].join("/")));
}

function absolute(address) {
  return new URL(address, document.baseURI).href;
}

async function isThere(address) {
  try {
    return (await fetch(address, {method: "HEAD"})).ok;
  } catch {
    return false;
  }
}

async function wake() {
  for (const folder of folders()) {
    if (await isThere(folder + spec.model)) return load(folder);
  }
  throw new Error(MISSING);
}

async function bytesOf(address) {  // here, since Jupyter's server knows no worker
  return new Uint8Array(await (await fetch(address)).arrayBuffer());
}

// Returns what draws: a noise in, the ten digits out, one behind the other, a row at a time.
async function load(folder) {
  const [wasm, model] = await Promise.all([bytesOf(folder + spec.wasm),
                                           bytesOf(folder + spec.model)]);
  const starts = Array.from({length: N_DIGITS / spec.batch}, (_, row) => row * spec.batch);
  const rows = await Promise.all(starts.map(first => rowFrom(first, folder, wasm, model)));
  return async noise => (await Promise.all(rows.map(draw => draw(noise)))).flatMap(x => [...x]);
}

// Returns what draws as many digits as the model takes at a time, from the first on.
async function rowFrom(first, folder, wasm, model) {
  // Under another address the script is another, with a worker of its own: twice as fast. (A worker
  // of two threads would need a page that is isolated from others, and Jupyter's is not.)
  const ort = await import(`${folder}${spec.script}?${first}`);
  Object.assign(ort.env.wasm, {numThreads: 1, proxy: true, wasmBinary: wasm});
  const session = await ort.InferenceSession.create(model.slice());
  const labels = Array.from({length: spec.batch}, (_, i) => BigInt(first + i));
  return async noise => {  // the worker keeps what it is sent, so all is made anew
    const all = new Float32Array(spec.batch * noise.length);
    labels.forEach((_, i) => all.set(noise, i * noise.length));
    const z = new ort.Tensor("float32", all, [spec.batch, 1, SIZE, SIZE]);
    const label = new ort.Tensor("int64", BigInt64Array.from(labels), [spec.batch]);
    return (await session.run({z, label})).x.data;
  };
}

// The page

function build(root) {
  const still = root.appendChild(STILL.cloneNode()), line = make(root, "p");
  still.style.maxWidth = "100%";
  const button = make(line, "button", {className: "play", type: "button",
                                       textContent: "Wake the student"});
  Object.assign(button.style, {borderRadius: "5px", marginRight: "10px", padding: "2px 12px",
                               height: "auto", width: "auto"});
  const said = make(line, "span", {textContent: spec.sleeping});
  said.setAttribute("role", "status");
  const start = async () => {
    still.onclick = button.onclick = null;
    said.textContent = "waking …";
    try {
      const draw = await wake();
      still.remove();
      line.remove();
      live(root, draw);
    } catch (error) {
      said.textContent = error.message;
      still.onclick = button.onclick = start;
    }
  };
  still.onclick = button.onclick = start;
}

// The plane, the digits and the time that they take.
function live(root, draw) {
  const top = make(root, "div", {className: "top"}), point = [0, 0];
  const left = make(top, "div", {className: "fields"});
  left.style.flex = "1 1 240px";
  const plane = panelIn(left, spec.captions[0]), digits = digitsIn(top);
  const time = make(root, "div", {className: "caption"});
  make(root, "div", {className: "caption", textContent: spec.formula});
  const follow = newest(async () => {
    const began = performance.now();
    drawDigits(digits, await draw(noiseAt(point)));
    return performance.now() - began;
  }, ms => {
    time.textContent = `Ten digits in ${ms.toFixed(0)} ms, ten network evaluations: ` +
      `${(1000 / ms).toFixed(1)} frames a second`;
  });
  const show = () => {
    drawPlane(plane, point);
    follow();
  };
  draggable(plane, point, 0.05, show);
  show();
  plane.focus({preventScroll: true});
}

// Calls `work` for the newest wish, never twice at a time; `tell` gets its median time.
function newest(work, tell) {
  const times = [];
  let wished = false, busy = false;
  return async () => {
    wished = true;
    if (busy) return;
    busy = true;
    while (wished) {
      wished = false;
      times.unshift(await work());
      times.splice(RECENT);
      tell([...times].sort((one, other) => one - other)[Math.floor(times.length / 2)]);
    }
    busy = false;
  };
}

function digitsIn(top) {
  const rows = N_DIGITS / COLUMNS, side = n => n * SIZE + (n - 1) * GAP;
  const figure = make(top, "figure");
  figure.style.flex = "2 1 440px";
  const canvas = make(figure, "canvas", {width: side(COLUMNS), height: side(rows)});
  canvas.style.width = "100%";
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "the student's ten digits");
  make(figure, "figcaption", {textContent: spec.captions[1]});
  return canvas;
}

function drawDigits(canvas, x) {
  const context = canvas.getContext("2d"), n = SIZE * SIZE;
  const greys = x.map(value => 127.5 * (1 - value));  // −1 is white
  for (let digit = 0; digit < N_DIGITS; digit++) {
    putGrey(context, greys.slice(digit * n, (digit + 1) * n), digit % COLUMNS * (SIZE + GAP),
            Math.floor(digit / COLUMNS) * (SIZE + GAP));
  }
}

// An image of SIZE × SIZE greys, 0 … 255, at (x, y).
function putGrey(context, greys, x, y) {
  const image = context.createImageData(SIZE, SIZE);
  greys.forEach((grey, i) => image.data.set([grey, grey, grey, 255], 4 * i));
  context.putImageData(image, x, y);
}

// Faintly, so that a point is seen on it.
function drawNoise(context, noise) {
  const small = Object.assign(document.createElement("canvas"), {width: SIZE, height: SIZE});
  putGrey(small.getContext("2d"), noise.map(value => 230 - 13 * value), 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, SIDE, SIDE);
}

// The plane with the circle on which z₀ has no weight, and the names of the noises.
function drawPlane(canvas, [a, b]) {
  const context = canvas.getContext("2d");
  drawNoise(context, noiseAt([a, b]));
  context.strokeStyle = spec.grey;
  context.fillStyle = "#222";
  context.lineWidth = 1.5;
  context.beginPath();
  context.arc(toX(0), toY(0), pixels, 0, 7);
  context.stroke();
  context.font = "26px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  const names = [["z₀", 0, 0], ["z₁", 0.86, 0], ["−z₁", -0.86, 0], ["z₂", 0, 0.88],
                 ["−z₂", 0, -0.88]];
  names.forEach(([name, x, y]) => context.fillText(name, toX(x), toY(y)));
  drawDot(context, a, b, 11, spec.ink);
  canvas.setAttribute("aria-label", `the point ${a.toFixed(2)}, ${b.toFixed(2)} of the plane`);
}
