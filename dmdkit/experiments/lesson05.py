"""Lesson 05's study: what an undistilled network predicts and how its error is weighted (Salimans &
Ho 2022, Table 1), and the curve of quality against steps. Settings only."""
from ..methods import ddpm
from ..tasks.mnist import MNIST
from . import results
from .evaluate import Sampling
from .mnist import GUIDANCE, STAGES, stage_name
from .recipe import Recipe
from .study import Study

OUTPUTS = ("v", "x", "eps", "both")
N_CURVE = 1000  # images behind each point of the curve


def undistilled(output: str, weighting: str) -> Recipe:
    """A small network that predicts ``output``, trained with that weighting of the error in x."""
    method = ddpm.Settings(f"small, {output}", label_dropout=0.0, weighting=weighting, lr=2e-3,
                           ema=0.99)
    return Recipe("A small network, for comparisons.", MNIST, method, n_steps=800,
                  samplings=(Sampling("ddpm", 16), Sampling("ddim", 16)))


STUDY = Study(
    "progressive", "Network outputs and loss weightings compared.",
    {f"{output}, {weighting}": undistilled(output, weighting)
     for output in OUTPUTS for weighting in ddpm.WEIGHTINGS},
    seeds=1, n_images=500, hours=0.6, n_frames=2)

SAMPLERS = ("distilled", "DDIM", "ancestral")
COUNTS = (400, *STAGES)  # 400 is no power of two, but the number of steps that the kit speaks of


def point(curve: str, n_steps: int) -> tuple[str, Sampling]:
    """Which artefact is sampled how for a curve's point at n steps."""
    if curve == "distilled":
        return stage_name(n_steps), Sampling("ddim", n_steps)
    sampler = "ddim" if curve == "DDIM" else "ddpm"
    return "teacher", Sampling(sampler, n_steps, GUIDANCE)


def curve(cards: dict[str, dict], space: str = "classifier", metric: str = "frechet_distance",
          n: int = N_CURVE) -> dict[str, dict[int, float]]:
    """A metric by curve and number of steps, for n images a point of report noise, seed 1;
    "real data" is one number. What has not been measured is left out. cards: of the teacher and
    the chain, by name."""
    wanted = {"images": n, "noise": "report", "seed": 1, "space": space, "metric": metric}
    rows = {name: results.select(results.rows(name, card), **wanted)
            for name, card in cards.items()}
    found = {}
    for name in SAMPLERS:
        found[name] = {}
        for steps in sorted(COUNTS):
            artefact, how = point(name, steps)
            here = results.select(rows.get(artefact, ()), sampler=how.sampler, n_steps=steps,
                                  guidance=how.guidance, more="")
            if here:
                found[name][steps] = here[-1].value
    real = results.select(rows["teacher"], artefact=results.REAL)
    return found | ({results.REAL: real[-1].value} if real else {})
