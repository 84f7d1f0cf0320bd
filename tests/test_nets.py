"""Networks: the documents' one ships like any other, one with two outputs is sampled like any other, and copies."""
import pytest
import torch
import torch.nn.functional as F
import training_run

from dmdkit import nets, recipes, sample, schedule, store
from dmdkit.denoiser import Denoiser


def small() -> nets.ContextUNet:
    torch.manual_seed(0)
    return nets.ContextUNet(8).eval()


def test_the_documents_network_has_as_many_parameters_as_they_say():
    assert sum(p.numel() for p in nets.ContextUNet().parameters()) == 6_585_601


def test_it_depends_on_time_and_label_and_no_class_is_no_digit():
    net, x = small(), torch.randn(1, 1, 28, 28)
    call = lambda t, label: net(x, torch.tensor([t]), torch.tensor([label])).sample
    assert call(0, 3).shape == x.shape
    seen = [call(0, 3), call(399, 3), *(call(0, label) for label in (0, 9, 10))]
    assert all(not torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


def test_each_sample_of_a_batch_is_on_its_own():
    """As batch norm's would not be: three networks of equal weights have to be the same function."""
    net, x = small().train(), torch.randn(4, 1, 28, 28)
    t, y = torch.tensor([0, 9, 200, 399]), torch.tensor([0, 5, 9, 10])
    together = net(x, t, y).sample
    torch.testing.assert_close(together, torch.cat([net(x[i:i + 1], t[i:i + 1], y[i:i + 1]).sample for i in range(4)]),
                               atol=1e-5, rtol=1e-4)


def test_it_is_stored_and_loaded_with_its_schedule(tmp_path):
    made = Denoiser(small(), schedule.linear(), "eps")
    store.save(made, tmp_path / "poster-teacher", {"name": "poster-teacher", "what": "untrained"})
    loaded = store.load("poster-teacher", root=tmp_path)
    assert (loaded.schedule.T, loaded.schedule.name, loaded.prediction, loaded.patch) == (400, "linear", "eps", 1)
    x, label = torch.randn(3, 1, 28, 28), torch.tensor([1, 2, 10])
    torch.testing.assert_close(made(x, 399, label).x, loaded(x, 399, label).x, atol=1e-4, rtol=1e-4)


def test_the_documents_recipes_are_theirs():
    teacher, student = recipes.recipe("poster-teacher").make(), recipes.recipe("poster-mnist").setting
    assert (teacher.schedule.T, teacher.schedule.name, teacher.sample_shape) == (400, "linear", (1, 28, 28))
    assert (student.n_pairs, student.lr, student.fake_lr, student.batch_size, student.n_steps, student.teacher) == \
        (12_800, 5e-6, 5e-6, 64, 2_000, "poster-teacher")


# A network of two outputs

def both() -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(nets.unet("tiny", outputs=2), schedule.cosine(), "both", patch=4).eval()


@torch.no_grad()
def test_a_network_of_two_outputs_says_x_first_and_then_eps():
    denoiser, x_t, label, t = both(), torch.randn(2, 1, 28, 28), torch.tensor([3, 10]), torch.tensor([900, 200])
    out = F.pixel_shuffle(denoiser.net(F.pixel_unshuffle(x_t, 4), t, class_labels=label).sample, 4)
    assert out.shape == (2, 2, 28, 28) and denoiser.sample_shape == (1, 28, 28)
    alpha, sigma = denoiser.schedule.at(t, x_t)
    said = denoiser(x_t, t, label)
    torch.testing.assert_close(said.x, sigma**2 * out[:, :1] + alpha * (x_t - sigma * out[:, 1:]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alpha * said.x + sigma * said.eps, x_t, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_network_of_two_outputs_is_guided_and_sampled_like_any_other():
    denoiser, z, label, t = both(), torch.randn(2, 1, 28, 28), torch.tensor([3, 7]), torch.tensor([900, 200])
    guided, with_label, without = denoiser(z, t, label, 1.5), denoiser(z, t, label), denoiser(z, t)
    for form in ("x", "eps", "v", "score"):
        by_hand = 2.5 * getattr(with_label, form) - 1.5 * getattr(without, form)
        torch.testing.assert_close(getattr(guided, form), by_hand, rtol=1e-3, atol=1e-4)
    assert sample.last(sample.ddim(denoiser, z, 3, label, 0.5)).shape == denoiser.generate(z, label).shape == z.shape


# Copies

@pytest.mark.parametrize("made", [
    training_run.denoiser, both, lambda: Denoiser(small(), schedule.linear(), "eps"),
    lambda: Denoiser(nets.PointNet(16, 2, copies=2), schedule.cosine(8), "x", n_classes=1),
], ids=["unet", "both", "context", "points"])
def test_a_copy_says_the_same_and_goes_its_own_way(made):
    original = made().eval().requires_grad_(False)
    copy, x_t = original.copy(), torch.randn(2, *original.sample_shape)
    assert copy.training and all(p.requires_grad for p in copy.parameters()) and not original.training
    assert copy.schedule is original.schedule
    assert all(getattr(copy, name) == getattr(original, name) for name in ("prediction", "patch", "n_classes"))
    with torch.no_grad():
        wanted = original(x_t, 5).x
        assert torch.equal(copy.eval()(x_t, 5).x, wanted)
        for p in copy.parameters():
            p.add_(0.1)
        assert torch.equal(original(x_t, 5).x, wanted) and not torch.equal(copy(x_t, 5).x, wanted)
