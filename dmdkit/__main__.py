"""The command line: train, measure and inspect what ships; set a course and grade.

    python -m dmdkit list
    python -m dmdkit train teacher [--steps N] [--out runs] [--resume] [--overwrite] [--cpu]
    python -m dmdkit evaluate teacher [--sampler ddim --steps 16 --guidance 0.3] [--save]
    python -m dmdkit study 04 [--only "no matching"]
    python -m dmdkit benchmark teacher [--save]
    python -m dmdkit build [NAME …] [--plan]
    python -m dmdkit course OUT [--lessons 01 03 04] [--no-hints]
    python -m dmdkit grade SUBMISSION … [--csv grades.csv] [--feedback FOLDER] [--seed N]
"""
import argparse
import os
import signal
import sys
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """The verbs and what they take."""
    whole = argparse.ArgumentParser("python -m dmdkit", description=__doc__,
                                    formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = whole.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="what ships, a line each")
    train = _named(verbs, "train", "train an artefact by its recipe")
    train.add_argument("--steps", type=int, help="another number of steps than the recipe's")
    train.add_argument("--pairs", type=int, help="another number of pairs than the recipe's")
    train.add_argument("--teacher", metavar="TEACHER", help="another teacher than the recipe's: an "
                       "artefact, or with a slash a folder of diffusers' or a name on the hub")
    train.add_argument("--out", type=Path, help="folder for the result (default: runs)")
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    train.add_argument("--overwrite", action="store_true", help="replace an earlier run's result")
    _evaluate(_named(verbs, "evaluate", "measure what is on an artefact's card"))
    study = verbs.add_parser("study", help="run the comparisons of a lesson")
    study.add_argument("lesson", help="03, 04, 05 or 06")
    study.add_argument("--only", nargs="+", metavar="SETTING", help="these settings alone")
    bench = _named(verbs, "benchmark", "a training step's speed and memory, a student's speed-up")
    bench.add_argument("--save", action="store_true", help="write the figures onto the card")
    build = verbs.add_parser("build", help="make again what is out of date, in order")
    build.add_argument("names", nargs="*", metavar="NAME", help="these and what they are made of")
    build.add_argument("--plan", action="store_true", help="only say what is out of date, and why")
    _grade(verbs.add_parser("grade", help="grade notebooks that were handed in"))
    course = verbs.add_parser("course", help="an nbgrader folder, and a zip for students")
    course.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    course.add_argument("--lessons", nargs="+", type=int, default=(), metavar="LESSON",
                        help="01 03 for instance (default: all that have exercises)")
    course.add_argument("--no-hints", action="store_false", dest="hints",
                        help="leave out the exercises' folded hints")
    return whole


def _named(verbs, verb: str, text: str) -> argparse.ArgumentParser:
    one = verbs.add_parser(verb, help=text)
    one.add_argument("name", help="an artefact's name; `list` and a wrong name say which there are")
    one.add_argument("--cpu", action="store_true", help="use the CPU even where there is a GPU")
    return one


def _evaluate(one: argparse.ArgumentParser) -> None:
    one.add_argument("--root", type=Path, help="folder of artefacts (default: those that ship)")
    # None unless given: a classifier, which draws nothing, would ignore them.
    one.add_argument("--images", type=int, help="how many samples (default: 5000)")
    one.add_argument("--noise", choices=("selection", "report"),
                     help="report: once, when all is final (default: selection)")
    one.add_argument("--seed", type=int, nargs="+", help="of that noise, or several (default: 0)")
    one.add_argument("--save", action="store_true", help="write the figures onto the card")
    # Absent unless given: without a sampler they are refused, not ignored.
    how = one.add_argument_group("one way to draw, in place of the recipe's",
                                 argument_default=argparse.SUPPRESS)
    how.add_argument("--sampler", help="ddim, ddpm, heun, euler, stochastic or multistep")
    how.add_argument("--steps", type=int, dest="n_steps")
    how.add_argument("--guidance", type=float, metavar="W", help="classifier-free (default: none)")
    how.add_argument("--interval", type=float, nargs=2, metavar=("LOW", "HIGH"),
                     help="of t/T, in which to guide (default: everywhere)")
    how.add_argument("--guide", metavar="NAME", help="a worse artefact to lead away from")
    how.add_argument("--guide-weight", type=float, metavar="WEIGHT", help="how far away from it")
    how.add_argument("--clip", action=argparse.BooleanOptionalAction,
                     help="clamp x-predictions to [−1, 1] (default: ddpm does, others do not)")
    how.add_argument("--s-noise", type=float, metavar="SCALE", help="of ddpm's fresh noise …")
    how.add_argument("--s-tmax", type=float, metavar="T", help="… at t/T below this")


def _grade(one: argparse.ArgumentParser) -> None:
    one.add_argument("submissions", nargs="+", type=Path, metavar="SUBMISSION",
                     help="a notebook, a folder of them, or the zip of Canvas or Moodle")
    one.add_argument("--csv", type=Path, metavar="FILE", help="write the points into this table")
    one.add_argument("--feedback", type=Path, metavar="FOLDER",
                     help="copies of the notebooks with a note under each exercise")
    one.add_argument("--seed", type=int, help="of the inputs (default: another one each time)")
    one.add_argument("--seconds", type=float, default=10, help="for each exercise (default: 10)")
    one.add_argument("--require-all", action="store_true",
                     help="end with an error unless all points are reached, for CI")


def main() -> int:
    """Carry out the command line; one sentence for what goes wrong."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed, as by `>&-`
            stream.reconfigure(encoding="utf-8", errors="replace")  # help and names are not ASCII
    try:
        arguments = parser().parse_args()
        from . import commands  # here: Ctrl-C during its imports is answered too

        commands.VERBS[arguments.verb](arguments)
    except KeyboardInterrupt:
        print("Stopped. A training goes on from its last checkpoint with --resume.",
              file=sys.stderr)
        return 130
    except BrokenPipeError:  # `| head` has what it wanted; what is left is for nobody
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (RuntimeError, ValueError, TypeError, ArithmeticError, OSError) as error:
        if os.environ.get("DMDKIT_DEBUG"):
            raise
        print(f"dmdkit: {error}", file=sys.stderr)
        return 1
    return 0


def _stop(number: int, frame) -> None:
    """SIGTERM between two steps stops a training as Ctrl-C does."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main())
