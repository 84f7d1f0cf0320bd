"""The verbs of the command line, one function each; of several processes only the first speaks."""
import argparse
import json
import math
import os
from dataclasses import fields

from . import files, store
from .data import ROOT, RUNS

DRAWN = {"images": 5000, "noise": "selection", "seed": [0]}  # what ``evaluate`` does unless told
EVALUATIONS_A_SECOND = 500  # of the kit's own network on one CPU core, measured


def say(text: str) -> None:
    """Print a line, from the first of several processes."""
    if os.environ.get("RANK", "0") == "0":
        print(text, flush=True)


def listed(arguments: argparse.Namespace) -> None:
    """What ships, a line each; a damaged card is told in its line."""
    found = store.names(ROOT)
    if not found:
        raise RuntimeError(f"There are no artefacts in {ROOT}. Point the environment variable "
                           "DMDKIT_DATA at the clone's data folder.")
    for name in found:
        try:
            card = store.card(name)
            what = card.get("what", "") + ("" if store.has_weights(card) else " (only its card)")
        except RuntimeError as error:
            what = f"cannot be read: {error}"
        say(f"{name:28} {what}")


def train(arguments: argparse.Namespace) -> None:
    """Train an artefact by its recipe."""
    from . import train as training
    from .experiments import build, runner

    name, out = arguments.name, arguments.out or RUNS
    recipe = _changed(name, build.recipe(name), arguments)
    device = training.accelerator(arguments.cpu).device
    say(f"Training {name}: {recipe.n_steps:,} steps of {recipe.batch_size} on {device}, into "
        f"{out / name}. {_took(name)}")
    folder = runner.train_artefact(name, recipe, out, resume=arguments.resume,
                                   overwrite=arguments.overwrite, cpu=arguments.cpu)
    say(f"Written to {folder}. Measure it: python -m dmdkit evaluate {name} --root {out}")


def _changed(name: str, recipe, arguments: argparse.Namespace):
    """The recipe with what the command line says otherwise."""
    told = {"n_steps": arguments.steps, "n_pairs": arguments.pairs, "teacher": arguments.teacher}
    if told["n_pairs"] is not None and not getattr(recipe.method, "n_pairs", 0):
        raise ValueError(f"{name!r} is trained without pairs; leave their number out.")
    if told["n_pairs"] is not None and told["n_pairs"] < 1:
        raise ValueError(f"The number of pairs must be at least 1; got {told['n_pairs']}.")
    if told["teacher"] is not None and "teacher" not in recipe.method.requires:
        raise ValueError(f"{name!r} is trained without a teacher; leave --teacher out.")
    return recipe.changed(**{key: value for key, value in told.items() if value is not None})


def _took(name: str) -> str:
    if name not in store.names(ROOT):
        return "None ships, so nothing is known of the time."
    card = store.card(name)
    return (f"The one that ships took {card['wall_time_s'] / 60:.0f} min for its "
            f"{card['recipe']['n_steps']:,} steps, on {card['device']}.")


def evaluate(arguments: argparse.Namespace) -> None:
    """Measure an artefact."""
    from . import train as training
    from .experiments import build, evaluate as measuring

    name, recipe, root = arguments.name, build.recipe(arguments.name), arguments.root or ROOT
    samplings, drawn = _samplings(arguments, recipe), _drawn(arguments, recipe)
    device = training.accelerator(arguments.cpu).device
    store.card(name, root)  # an unknown name is refused before anything is said or written
    if arguments.save:
        files.check_writable(root / name)
    say(_announced(name, samplings, drawn["n"], len(drawn["seeds"]), device))
    for entry in measuring.evaluate(name, recipe.task, samplings, root=root, device=device,
                                    **drawn):
        say(json.dumps(entry, ensure_ascii=False))
        if arguments.save:
            measuring.save(name, entry, root)


def _drawn(arguments: argparse.Namespace, recipe) -> dict:
    """How many samples are drawn, and from which noise."""
    given = {name: getattr(arguments, name) for name in DRAWN
             if getattr(arguments, name) is not None}
    if given and not recipe.samplings:
        raise ValueError(f"{arguments.name!r} is a classifier, measured on all of the test data; "
                         f"leave --{next(iter(given))} out.")
    found = DRAWN | given
    for seed in found["seed"]:
        if not 0 <= seed < 2**31:
            raise ValueError(f"--seed must be a whole number from 0 to {2**31 - 1}; got {seed}.")
    if found["images"] < 1:
        raise ValueError(f"--images must be at least 1; got {found['images']}.")
    return {"n": found["images"], "purpose": found["noise"],
            "seeds": tuple(dict.fromkeys(found["seed"]))}


def _samplings(arguments: argparse.Namespace, recipe) -> tuple:
    """The recipe's ways to draw, or the one of the command line."""
    from .experiments.evaluate import Sampling

    given = {field.name: getattr(arguments, field.name) for field in fields(Sampling)
             if hasattr(arguments, field.name)}
    if not given:
        return recipe.samplings
    if not recipe.samplings:
        raise ValueError(f"{arguments.name!r} is a classifier: it draws nothing, so leave the "
                         "sampler's settings out.")
    missing = [option for option, name in (("--sampler", "sampler"), ("--steps", "n_steps"))
               if name not in given]
    if missing:
        first = next(iter(given)).replace("_", "-").replace("n-steps", "steps")
        raise ValueError(f"--{first} is a setting of one sampler; give {' and '.join(missing)} "
                         "with it.")
    if "interval" in given:
        given["interval"] = tuple(given["interval"])
    return (Sampling(**given),)


def _announced(name: str, samplings: tuple, n: int, n_seeds: int, device) -> str:
    if not samplings:
        return f"Measuring {name} on the test data, on {device}: seconds."
    evaluations = n * n_seeds * sum(how.evaluations for how in samplings)
    minutes = max(1, round(evaluations / EVALUATIONS_A_SECOND / 60))
    by_seeds = f" and {n_seeds} seeds" if n_seeds > 1 else ""
    return (f"Measuring {name}: {n:,} samples by each of {len(samplings)} samplers{by_seeds}, on "
            f"{device}: {evaluations:,} network evaluations, about {minutes:,} min on one CPU core. "
            f"Finished batches are kept in {RUNS}.")


def study(arguments: argparse.Namespace) -> None:
    """Run a lesson's comparisons."""
    from .experiments import build, study as studies

    one = build.study_of(arguments.lesson)
    names = arguments.only or list(one.recipes)
    for name in names:
        one.recipe(name)  # refuses an unknown one before anything is said
    runs = sum(one.runs_of(name) for name in names)
    say(f"Study of lesson {arguments.lesson}: {runs} runs of {len(names)} settings; all of them "
        f"take about {one.hours:g} h on two CPU cores. Finished runs are kept.")
    say(f"Written to {studies.build(one, arguments.only)}.")


def benchmark(arguments: argparse.Namespace) -> None:
    """Time a training step, and a student's sampling."""
    from . import train as training
    from .experiments import benchmark as timing, build

    every = arguments.name == "all"
    shipped = [name for name in build.RECIPES if name in store.names(ROOT)]
    names = shipped if every else [arguments.name]
    build.recipe(names[0])
    if arguments.save and names[0] not in shipped:
        raise ValueError(f"{names[0]!r} does not ship, so it has no card to save to: leave --save "
                         "out.")
    accelerator = training.accelerator(arguments.cpu)
    say(f"Timing {', '.join(names)} on {accelerator.device}: under a minute each.")
    for name in names:
        try:
            found = timing.entries(name, build.recipe(name), accelerator, speeds=not every)
        except RuntimeError as error:  # its data, or what it starts from, is not here
            if not every:
                raise
            say(f"{name} is left out. {error}")
            continue
        say(json.dumps({name: found}, indent=1, ensure_ascii=False))
        if arguments.save:
            _put(name, found)


def _put(name: str, found: dict) -> None:
    """Put entries onto a card, each whole in place of the one that was there."""
    def change(card: dict) -> dict:
        return card | found

    store.change_card(name, change)


def build(arguments: argparse.Namespace) -> None:
    """Make again what is out of date."""
    from .experiments import build as building

    found = list(building.plan(arguments.names or None))
    if not found:
        say("All is up to date.")
    for target, why in found:
        say(f"{target.name}: {why} ({_about(target.minutes)})")
    if arguments.plan:
        return
    for target, _ in found:
        building.check_runs(target.name)
    for target, _ in found:
        say(f"Making {target.name} …")
        target.make()
        if target.name == "hero":
            _readme_pictures()


def _readme_pictures() -> None:
    """README's animation of the ten digits, and its still."""
    from .experiments import hero
    from .show import hero as show
    from .show.players import page

    shown, home = (hero.load(), hero.columns(), hero.baseline()), ROOT / "hero"
    files.write_atomically(home / "still.png", page.png(show.grid(*shown), colours=32))
    files.write_atomically(home / "animation.gif", show.animation(*shown))


def grade(arguments: argparse.Namespace) -> None:
    """Grade notebooks that were handed in."""
    lecturer = _lecturer()
    lecturer.grade(arguments.submissions, say, csv=arguments.csv, feedback=arguments.feedback,
                   seed=arguments.seed, seconds=arguments.seconds,
                   require_all=arguments.require_all)


def course(arguments: argparse.Namespace) -> None:
    """Write an nbgrader course and the students' zip."""
    _lecturer().course(arguments.out, say, arguments.lessons, hints=arguments.hints)


def _lecturer():
    try:
        from .check import lecturer
    except ImportError:
        raise RuntimeError("This is the students' edition of the kit; it makes no course and "
                           "gives no grades.") from None
    return lecturer


def _about(minutes: float) -> str:
    """A time in words."""
    if math.isnan(minutes):
        return "how long it takes is not known"
    return f"about {minutes:.0f} min on two CPU cores" if minutes >= 1 else "under a minute"


VERBS = {"list": listed, "train": train, "evaluate": evaluate, "study": study,
         "benchmark": benchmark, "build": build, "grade": grade, "course": course}
