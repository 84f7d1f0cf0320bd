"""The command line: train, evaluate and inspect what ships.

    python -m dmdkit list
    python -m dmdkit train teacher [--steps N] [--pairs N] [--resume] [--out runs] [--cpu]
    python -m dmdkit evaluate teacher [--sampler ddim --steps 16 --guidance 0.3] [--images 5000] [--seed 1] [--save]
    python -m dmdkit benchmark teacher [--save]
    python -m dmdkit speed student-dmd [--save]
    python -m dmdkit explorer teacher
    python -m dmdkit pairs [--pairs 12800] [--out runs/pairs-teacher]
    python -m dmdkit dmd-2d
    python -m dmdkit dmd-mnist [--students runs/student-dmd.training]
    python -m dmdkit dmd2-mnist [--students runs/student-dmd2*.training]
    python -m dmdkit chain [--share 0.25] [--resume] [--out runs] [--cpu]
    python -m dmdkit curve [--images 1000] [--save] [--cpu]
    python -m dmdkit progressive [--cheaper runs/cheaper]
"""
import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path

from . import data, dmd2_mnist, dmd_2d, dmd_mnist, evaluation, explorer, progressive_mnist, recipes, store, train


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m dmdkit", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what ships, a line each")
    for name, text in (("train", "train an artefact by its recipe"), ("evaluate", "measure an artefact's card again"),
                       ("benchmark", "training throughput, the network's share of it, memory"),
                       ("speed", "a student's one step against its teacher's 400"),
                       ("explorer", "compute the pictures behind lesson 00's sliders")):
        command = commands.add_parser(name, help=text)
        command.add_argument("name", help="one of " + ", ".join(recipes.RECIPES))
        command.add_argument("--cpu", action="store_true", help="use the CPU even where there is a GPU")
        if name in ("train", "evaluate"):
            command.add_argument("--steps", type=int, help="training steps, or the sampler's steps")
        if name in ("evaluate", "benchmark", "speed"):
            command.add_argument("--save", action="store_true", help="write the figures onto the card")
    commands.add_parser("dmd-2d", help="run the experiments in two dimensions of lesson 03")
    for command, lesson in (("dmd-mnist", "04"), ("dmd2-mnist", "06")):
        commands.add_parser(command, help=f"run the ablations of lesson {lesson}").add_argument(
            "--students", type=Path, nargs="+",
            help="run none, but store the pictures of full trainings with them, from these folders")
    pairs = commands.add_parser("pairs", help="make noise–image pairs of the teacher")
    pairs.add_argument("--pairs", type=int, default=12_800)
    pairs.add_argument("--out", type=Path, default=recipes.RUNS / "pairs-teacher", help="folder for the shards")
    chain = commands.add_parser("chain", help="train all stages of progressive distillation")
    chain.add_argument("--share", type=float, default=1.0, help="of each stage's updates")
    commands.add_parser("progressive", help="run the ablation of lesson 05").add_argument(
        "--cheaper", type=Path, default=recipes.RUNS / "cheaper", help="the folder of the chain of fewer updates")
    curve = commands.add_parser("curve", help="measure quality against the number of steps, for lesson 05")
    curve.add_argument("--images", type=int, default=progressive_mnist.N_CURVE)
    curve.add_argument("--save", action="store_true", help="write the figures onto the cards")
    training, evaluate = commands.choices["train"], commands.choices["evaluate"]
    for command in (chain, curve):
        command.add_argument("--cpu", action="store_true", help="use the CPU even where there is a GPU")
    for command in (training, chain):
        command.add_argument("--out", type=Path, default=recipes.RUNS, help="folder for the result (default: runs)")
        command.add_argument("--resume", action="store_true", help="go on from the last checkpoint in that folder")
    training.add_argument("--pairs", type=int, help="another number of pairs than the recipe's, for DMD's students")
    evaluate.add_argument("--root", type=Path, default=data.ROOT, help="folder of artefacts (default: those that ship)")
    evaluate.add_argument("--sampler", choices=("ddim", "ddpm", "heun", "multistep"),
                          help="measure one setting, not all of the recipe's")
    # Absent unless given: their defaults are Sampling's, and without a sampler they are refused, not ignored.
    of_sampler = evaluate.add_argument_group("the sampler's settings", argument_default=argparse.SUPPRESS)
    of_sampler.add_argument("--guidance", type=float, metavar="W", help="classifier-free (default: none)")
    of_sampler.add_argument("--interval", type=float, nargs=2, metavar=("LOW", "HIGH"),
                            help="of t/T, in which to guide (default: everywhere)")
    of_sampler.add_argument("--guide", metavar="NAME", help="a worse artefact to lead away from")
    of_sampler.add_argument("--guide-weight", type=float, metavar="WEIGHT", help="how far away from it")
    of_sampler.add_argument("--clip", action=argparse.BooleanOptionalAction,
                            help="clamp each x-prediction to [−1, 1] (default: ddpm does, the others do not)")
    of_sampler.add_argument("--s-noise", type=float, metavar="SCALE", help="scale of ddpm's fresh noise …")
    of_sampler.add_argument("--s-tmax", type=float, metavar="T", help="… at t/T below this (default: at all times)")
    evaluate.add_argument("--images", type=int, default=evaluation.N_IMAGES)
    evaluate.add_argument("--seed", type=int, default=0, help="of the noise that the samples start from")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Carry out one parsed command; of several processes only the first one speaks. Raises what the library raises."""
    main = os.environ.get("RANK", "0") == "0"
    if arguments.command == "list":
        for name in store.names():
            print(f"{name:16} {store.card(name)['what']}")
    elif arguments.command == "train":
        folder = recipes.train_artefact(arguments.name, arguments.out, arguments.steps, arguments.resume, arguments.cpu,
                                        arguments.pairs)
        if main:
            print(f"Written to {folder}. Measure it with:",
                  f"python -m dmdkit evaluate {arguments.name} --root {arguments.out}")
    elif arguments.command == "chain":
        folders = recipes.train_chain(arguments.out, arguments.resume, arguments.cpu, arguments.share)
        if main:
            print(f"Written to {folders[0]} … {folders[-1].name}.")
    elif arguments.command == "curve":
        device = train.accelerator(arguments.cpu).device
        for name, key, scores in recipes.measure_curve(arguments.images, device=device, save=arguments.save):
            print(f"{name:16} {key:16}", json.dumps(scores), flush=True)
    elif arguments.command == "progressive":
        print(f"Written to {progressive_mnist.build(cheaper=arguments.cheaper)}.")
    elif arguments.command == "benchmark":
        found = recipes.benchmark(arguments.name, cpu=arguments.cpu)
        if arguments.save and main:
            store.update_card(arguments.name, {"throughput": found})
        if main:
            print(json.dumps(found, indent=1, ensure_ascii=False))
    elif arguments.command == "speed":
        found = recipes.speed(arguments.name, device=str(train.accelerator(arguments.cpu).device))
        if arguments.save:
            store.update_card(arguments.name, {"speed": found})
        print(json.dumps(found, indent=1, ensure_ascii=False))
    elif arguments.command == "pairs":
        made = dmd_mnist.make_pairs("teacher", arguments.pairs, arguments.out)
        print(f"{len(made.z)} pairs are in {arguments.out}.")
    elif arguments.command in ("dmd-mnist", "dmd2-mnist"):
        module = {"dmd-mnist": dmd_mnist, "dmd2-mnist": dmd2_mnist}[arguments.command]
        path = module.store_students(arguments.students) if arguments.students else module.build()
        print(f"Written to {path}.")
    elif arguments.command == "explorer":
        plan, how = recipes.recipe(arguments.name), {}
        if isinstance(plan, recipes.Distillation):
            if plan.setting.sampling.n_steps > 1:
                raise ValueError(f"The explorer shows the teacher's samplers and one-step students; {arguments.name} "
                                 f"draws in {plan.setting.sampling.n_steps}, with fresh noise between them.")
            how = dict(samplers=("DDIM",), guidances=(0.0,), steps=(1,))
        device = train.accelerator(arguments.cpu).device
        print(f"Written to {explorer.build(arguments.name, device=device, **how)}.")
    elif arguments.command == "dmd-2d":
        print(f"Written to {dmd_2d.build()}.")
    else:
        _evaluate(arguments)


def _evaluate(arguments: argparse.Namespace) -> None:
    if (arguments.sampler is None) != (arguments.steps is None):
        raise ValueError("--sampler and --steps go together; give both for one setting, neither for the recipe's.")
    settings = {field.name for field in dataclasses.fields(evaluation.Sampling)} - {"sampler"}
    given = {name: tuple(value) if name == "interval" else value for name, value in vars(arguments).items()
             if name in settings}
    if given and not arguments.sampler:
        raise ValueError(f"--{next(iter(given)).replace('_', '-')} is a setting of one sampler; give --sampler and "
                         "--steps with it.")
    one = arguments.sampler and (evaluation.Sampling(arguments.sampler, arguments.steps, **given),)
    device = train.accelerator(arguments.cpu).device
    for key, scores in recipes.evaluate(arguments.name, arguments.root, one, arguments.images, device, arguments.save,
                                        arguments.seed):
        print(f"{key:16}", json.dumps(scores), flush=True)


def main() -> int:
    arguments = _parser().parse_args()
    try:
        run(arguments)
    except KeyboardInterrupt:
        print("Stopped. A training goes on from its last checkpoint with --resume.", file=sys.stderr)
        return 130
    except (RuntimeError, ValueError, TypeError, FloatingPointError, OSError) as error:
        if os.environ.get("DMDKIT_DEBUG"):
            raise
        print(f"dmdkit: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
