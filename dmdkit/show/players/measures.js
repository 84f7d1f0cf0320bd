// How near a cloud of points is to a mixture: modes covered and 2-Wasserstein distance, as
// dmdkit.metrics has them. A cloud is [[x, y], …].

// How many components hold at least a quarter of the points that are their due, within three
// standard deviations.
function modesCovered(points, mixture) {
  const reach = 9 * mixture.std ** 2;
  return mixture.means.filter(([mx, my], k) => {
    const near = points.filter(([x, y]) => (x - mx) ** 2 + (y - my) ** 2 < reach);
    return near.length / points.length >= 0.25 * mixture.weights[k];
  }).length;
}

// The root of the mean squared distance under the best one-to-one assignment of two clouds of as
// many points.
function wasserstein(from, to) {
  const cost = from.map(([x, y]) => Float64Array.from(to, ([a, b]) => (x - a) ** 2 + (y - b) ** 2));
  const total = assigned(cost).reduce((sum, i, j) => sum + cost[i][j], 0);
  return Math.sqrt(total / from.length);
}

// The row that each column gets in the cheapest assignment of a square table: rows enter one by
// one, each along the cheapest chain of exchanges (Kuhn and Munkres; n³).
function assigned(cost) {
  const n = cost.length, free = n;
  const owner = new Int32Array(n + 1).fill(-1);  // the row that a column has; `free`: who comes in
  const ofRow = new Float64Array(n), ofColumn = new Float64Array(n + 1);  // prices
  for (let row = 0; row < n; row++) {
    const least = new Float64Array(n).fill(Infinity), before = new Int32Array(n).fill(free);
    const seen = new Uint8Array(n + 1);
    let column = free;
    owner[free] = row;
    while (owner[column] >= 0) {
      seen[column] = 1;
      let next = -1, step = Infinity;
      for (let j = 0; j < n; j++) {
        if (seen[j]) continue;
        const price = cost[owner[column]][j] - ofRow[owner[column]] - ofColumn[j];
        if (price < least[j]) { least[j] = price; before[j] = column; }
        if (least[j] < step) { step = least[j]; next = j; }
      }
      for (let j = 0; j <= n; j++) {
        if (seen[j]) {
          ofRow[owner[j]] += step;
          ofColumn[j] -= step;
        } else if (j < n) least[j] -= step;
      }
      column = next;
    }
    while (column !== free) { owner[column] = owner[before[column]]; column = before[column]; }
  }
  return owner.slice(0, n);
}
