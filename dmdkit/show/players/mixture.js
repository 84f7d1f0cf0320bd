// Diffusion of a mixture of round Gaussians in the plane, in closed form: what a perfect network
// would know. A mixture is {means: [[x, y], …], std, weights}; u is the time, 1 pure noise, 0 data.

const alphaAt = u => Math.cos(Math.PI * u / 2);
const sigmaAt = u => Math.sin(Math.PI * u / 2);

// E[x | x_t], the mean over the components by their share of x_t. It is asked some ten thousand
// times a frame: so it counts components one by one and makes no lists.
function denoised(mixture, [x, y], u) {
  const alpha = alphaAt(u), sigma = sigmaAt(u), data = mixture.std ** 2;
  const variance = alpha * alpha * data + sigma * sigma, pull = alpha * data / variance;
  const logOf = k => {
    const dx = x - alpha * mixture.means[k][0], dy = y - alpha * mixture.means[k][1];
    return Math.log(mixture.weights[k]) - (dx * dx + dy * dy) / (2 * variance);
  };
  let most = -Infinity, total = 0, meanX = 0, meanY = 0;
  for (let k = 0; k < mixture.means.length; k++) most = Math.max(most, logOf(k));
  for (let k = 0; k < mixture.means.length; k++) {
    const share = Math.exp(logOf(k) - most), [mx, my] = mixture.means[k];
    total += share;
    meanX += share * (mx + pull * (x - alpha * mx));
    meanY += share * (my + pull * (y - alpha * my));
  }
  return [meanX / total, meanY / total];
}

// The density of the noised data on a grid of side × side pixels, up to a factor that depends on u
// alone, row by row from the top.
function densityOn(mixture, u, side, extent) {
  const alpha = alphaAt(u), variance = (alpha * mixture.std) ** 2 + sigmaAt(u) ** 2;
  const values = new Float32Array(side * side), pixel = 2 * extent / side;
  const bump = offset => Math.exp(-offset * offset / (2 * variance));
  mixture.means.forEach(([mx, my], k) => {
    const across = Float32Array.from({length: side}, (_, i) =>
      bump((i + 0.5) * pixel - extent - alpha * mx));
    for (let row = 0; row < side; row++) {  // a round Gaussian is a product of two
      const down = mixture.weights[k] * bump(extent - (row + 0.5) * pixel - alpha * my);
      for (let i = 0; i < side; i++) values[row * side + i] += down * across[i];
    }
  });
  return values;
}

// The same as panels show it: between 0 and 1, and weak densities stronger than they are.
function shading(mixture, u, side) {
  const values = densityOn(mixture, u, side, spec.extent).map(Math.sqrt);
  const most = Math.max(...values);
  return values.map(value => value / most);
}

// From u to v < u (Song et al. 2021, eq. 12 and 16): share 0 of the noise is fresh in DDIM, 1 in
// DDPM. fresh: a draw of N(0, 1) in the plane.
function stepTo(mixture, [x, y], u, v, share, fresh) {
  const [meanX, meanY] = denoised(mixture, [x, y], u);
  const [alpha, sigma, alphaV, sigmaV] = [alphaAt(u), sigmaAt(u), alphaAt(v), sigmaAt(v)];
  const kept = 1 - (alpha / alphaV) ** 2;
  const added = share * sigmaV / sigma * Math.sqrt(Math.max(0, kept));
  const old = Math.sqrt(Math.max(0, sigmaV ** 2 - added ** 2)) / sigma;
  return [alphaV * meanX + old * (x - alpha * meanX) + added * fresh[0],
          alphaV * meanY + old * (y - alpha * meanY) + added * fresh[1]];
}

// Every state of n equal steps from pure noise to data, the start among them. noise: n draws.
function pathOf(mixture, start, n, share = 0, noise = null) {
  const states = [start];
  for (let i = n; i > 0; i--) {
    const fresh = share ? noise[n - i] : [0, 0];
    states.push(stepTo(mixture, states[n - i], i / n, (i - 1) / n, share, fresh));
  }
  return states;
}

// Where a path is at time u: on the line between the states before and after.
function placeOn(path, u) {
  const n = path.length - 1, at = (1 - u) * n, i = Math.min(n - 1, Math.floor(at)), part = at - i;
  const [from, to] = [path[i], path[i + 1]];
  return [from[0] + part * (to[0] - from[0]), from[1] + part * (to[1] - from[1])];
}

// Draws between 0 and 1, the same for the same seed (mulberry32).
function uniforms(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6D2B79F5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

// Draws of N(0, 1) in the plane, [x, y], the same for the same seed (Box and Muller).
function normals(seed) {
  const uniform = uniforms(seed);
  return () => {
    const size = Math.sqrt(-2 * Math.log(1 - uniform())), angle = 2 * Math.PI * uniform();
    return [size * Math.cos(angle), size * Math.sin(angle)];
  };
}
