"""The documents' network: its size, what conditions it, and that it ships like any other."""
import torch

from dmdkit import nets, recipes, schedule, store
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
