// Distribution matching of a cloud of points: it is moved by the difference of two exact scores,
// the data's and its own. A run is {real, fake, points, targets, moves, …}; how it is moved is
// {matched, alone, pairs, every, least, most}.

const N_TIMES = 1024, RATE = 0.05;
const MEASURED = 5;  // moves between two looks at the Wasserstein distance

const uOf = t => (t + 1) / N_TIMES;
const evenly = means => means.map(() => 1 / means.length);

// The points as a distribution: its diffusion is exact, too.
function cloudOf(points) {
  return {means: points, std: 0, weights: evenly(points)};
}

// What moves one point at time u (DMD, eq. 7, weighted as published): μ_fake − μ_real, by the mean
// of |x − μ_real|. Without a fake score the point itself stands in its place.
function gradientAt(x, eps, u, real, fake) {
  const noised = [0, 1].map(c => alphaAt(u) * x[c] + sigmaAt(u) * eps[c]);
  const toReal = denoised(real, noised, u), toFake = fake ? denoised(fake, noised, u) : x;
  const size = (Math.abs(x[0] - toReal[0]) + Math.abs(x[1] - toReal[1])) / 2 || 1;
  return [(toFake[0] - toReal[0]) / size, (toFake[1] - toReal[1]) / size];
}

// A run at its start, on a mixture that may be changed.
function started(mixture) {
  const real = {...mixture, means: mixture.means.map(mean => [...mean])};
  return renewed({real, moves: 0, points: spec.starts.map(start => [...start]),
                  draw: normals(11), uniform: uniforms(12)});
}

// What follows from the data: the pairs' targets, and samples to measure by.
function renewed(run) {
  const {real} = run, draw = normals(13), uniform = uniforms(14);
  real.weights = evenly(real.means);
  const sample = () => run.points.map(() => {
    const [mx, my] = real.means[Math.floor(uniform() * real.means.length)], [x, y] = draw();
    return [mx + real.std * x, my + real.std * y];
  });
  run.targets = spec.noises.map(z => pathOf(real, z, 64)[64]);
  run.sample = sample();
  run.baseline = wasserstein(run.sample, sample());
  run.fake = cloudOf(run.points);
  run.far = [];
  return measured(run);
}

function measured(run) {
  run.covered = modesCovered(run.points, run.real);
  run.far.push([run.moves, wasserstein(run.points, run.sample)]);
  return run;
}

// One move of every point, each at a time of its own.
function move(run, how) {
  if (run.moves % how.every === 0) run.fake = cloudOf(run.points);
  const fake = how.alone ? null : run.fake;
  run.points = run.points.map((x, i) => {
    const u = uOf(how.least + (how.most - how.least) * run.uniform()), eps = run.draw();
    const pull = how.matched ? gradientAt(x, eps, u, run.real, fake) : [0, 0];
    const y = i < how.pairs ? run.targets[i] : x;  // regression: the gradient of |x − y|²/2
    return x.map((value, c) => value - RATE * (pull[c] + value - y[c]));
  });
  run.moves += 1;
  if (run.moves % MEASURED === 0) measured(run);
}
