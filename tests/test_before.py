"""What ships gives the images that it gave before its library was rebuilt.

``before_the_move.safetensors`` holds two noises z with their labels, and what the library of then
made of them: of each denoiser its x-prediction at T − 1 ("….generate") and, guided, at t = 400
("….denoise"); of each classifier its logits; and four steps of the teacher.
"""
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dmdkit import sample, store

BEFORE = load_file(Path(__file__).parent / "before_the_move.safetensors")
ANSWERS = sorted(name for name in BEFORE if "." in name)
Z, LABEL = BEFORE["z"], BEFORE["label"]


@torch.no_grad()
def answer(net, what: str) -> torch.Tensor:
    if what == "generate":
        return net(Z, net.schedule.T - 1, LABEL).x
    if what == "denoise":
        return net(Z, 400, LABEL, 0.5).x
    if what == "ddim-4":
        return sample.last(sample.ddim(net, Z, 4, LABEL, 0.3))
    return net(Z)


@pytest.mark.parametrize("name", ANSWERS)
def test_an_artefact_says_what_it_said_before(name):
    artefact, what = name.rsplit(".", 1)
    found = answer(store.load(artefact), what)
    torch.testing.assert_close(found, BEFORE[name], rtol=1e-4, atol=1e-4)


def test_every_artefact_of_then_is_compared():
    artefacts = {name.rsplit(".", 1)[0] for name in ANSWERS}
    assert len(artefacts) == 21 and len(ANSWERS) == 2 * 19 + 2 + 1  # denoisers, classifiers, steps
    assert artefacts <= set(store.names())
