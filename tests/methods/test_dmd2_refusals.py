"""What DMD2 refuses before any work."""
import pytest
from conftest import refused
from painters import (ALONE, Recorder, adversarial, as_one_of, generator, judged,
                      painted_images, painter)

from dmdkit import data
from dmdkit.methods import dmd2

NAN, INFINITE = float("nan"), float("inf")


def weighing(generator_weight: float, discriminator_weight: float) -> dict[str, float]:
    return {"generator_weight": generator_weight, "discriminator_weight": discriminator_weight}


@pytest.mark.parametrize("options, sentence", [
    (weighing(1.0, 0.0), r"must both be positive, or both 0; got 1\.0 and 0\.0\."),
    (weighing(0.0, 2.0), r"must both be positive, or both 0; got 0\.0 and 2\.0\."),
    (weighing(-1.0, -1.0), r"must both be positive, or both 0; got -1\.0 and -1\.0\."),
    (weighing(1.0, -1.0), r"must both be positive, or both 0; got 1\.0 and -1\.0\."),
    (weighing(NAN, 1.0), r"must both be positive, or both 0; got nan and 1\.0\."),
    (weighing(1.0, NAN), r"must both be positive, or both 0; got 1\.0 and nan\."),
    (weighing(NAN, NAN), "must both be positive, or both 0; got nan and nan"),
    (weighing(INFINITE, 1.0), r"must both be positive, or both 0; got inf and 1\.0\."),
    (dict(images=None), "The discriminator, and inputs without backward simulation, need real "
                        "samples; pass images="),
    (dict(images=None, student_steps=2, backward_simulation=False) | ALONE,
     "The discriminator, and inputs without backward simulation, need real samples; pass images="),
    (dict(images=data.two_moons(9, generator())),
     r"The data are of shape \(2,\), and the network is for \(1, 2, 2\)"),
    (dict(student_steps=5), r"needs a sample for each of the 5 steps; batch_size 4 is too small\."),
    (dict(student_steps=2, labels=11), "knows 12 labels, .* settings .* it must know 4"),
    (dict(student_steps=2, labels=7), "knows 8 labels, .* settings .* it must know 4"),
    (dict(student_steps=2, step_aware=True), "knows 4 labels, .* settings .* it must know 8"),
    (dict(student_steps=0), r"n_steps must be a whole number from 1 to 1024.* got 0\."),
    (dict(student_steps=1025), r"n_steps must be a whole number from 1 to 1024.* got 1025\."),
    (dict(step_aware=True), "step_aware and backward_simulation are about students of several "),
    (dict(backward_simulation=False), "with one they would be ignored"),
    (dict(t_range=(0.5, 0.2)), "t_range must be two shares of T"),
    (dict(weighting="heavy"), "weighting must be one of .*; got 'heavy'"),
    (dict(updates=(1, -1)), "updates of the fake score must be .* at least 0; got -1"),
    (dict(updates=(0, 1)), "updates of the generator must be .* at least 1; got 0"),
    (dict(matching=False) | ALONE, "the generator has nothing to learn from"),
    (dict(guidance=NAN), "guidance must be a finite number; got nan"),
    (dict(kept=2.0), r"kept must be a share of the trained weights, .*; got 2\.0"),
])
def test_bad_input_is_one_sentence_before_any_work(options, sentence):
    with refused(ValueError, sentence):
        judged(4, **options)


def test_a_process_needs_a_sample_for_each_step():
    dmd2.exit_steps(Recorder(painter(0.5, 1)), 4, 4)
    sentence = "share of a batch needs a sample for each of the 4 steps; batch_size 4 is too small"
    with refused(ValueError, sentence):
        dmd2.exit_steps(as_one_of(2, 0, painter(0.5, 1)), 4, 4)
    with refused(ValueError, "batch_size must be a positive multiple of the 3 processes"):
        dmd2.exit_steps(as_one_of(3, 0, painter(0.5, 1)), 4, 8)


def test_adversarial_losses_without_a_discriminator_are_refused():
    one, other = Recorder(painter(0.5, 1)), Recorder(painter(0.4, 2))
    with refused(TypeError, "the fake score must be a Discriminator; got Denoiser"):
        dmd2.DMD2(one, other, painter(0.6, 3), 4, adversarial(), painted_images())
