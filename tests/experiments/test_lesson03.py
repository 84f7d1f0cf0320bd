"""The experiments in two dimensions: what ships is of these settings, says what the lesson says, and can be made."""
import pytest
import torch

from dmdkit import dmd_2d, files, metrics, schedule, score

RUNS, CARD = dmd_2d.load(), dmd_2d.card()
FIGURE_3 = ("real only", "real − fake", "with regression")


# The metrics of points

def test_wasserstein_of_a_shift_is_the_shift_and_of_a_permutation_zero():
    x = torch.randn(50, 2)
    assert metrics.wasserstein(x, x[torch.randperm(50)]) == pytest.approx(0, abs=1e-6)
    assert metrics.wasserstein(x, x.flip(0) + torch.tensor([3.0, 4.0])) == pytest.approx(5, abs=1e-5)


def test_wasserstein_between_gaussians_approaches_its_closed_form():
    g = torch.Generator().manual_seed(0)
    x, y = 0.5 * torch.randn(1500, 2, generator=g), torch.randn(1500, 2, generator=g) + 2  # √(‖m‖² + 2·0.5²)
    assert metrics.wasserstein(x, y) == pytest.approx((8 + 0.5)**0.5, rel=0.03)


def test_wasserstein_wants_two_clouds_of_one_shape():
    with pytest.raises(ValueError, match=r"one shape; got \(4, 2\) and \(5, 2\)"):
        metrics.wasserstein(torch.zeros(4, 2), torch.zeros(5, 2))


def test_modes_are_counted_by_their_due_share():
    ring = score.ring()
    assert metrics.modes_covered(ring.sample(400, torch.Generator().manual_seed(0)), *ring) == 8
    assert metrics.modes_covered(ring.means[:3].repeat(10, 1), *ring) == 3
    assert metrics.modes_covered(torch.zeros(20, 2), *ring) == 0
    few = torch.cat([ring.means[:1].repeat(98, 1), ring.means[1:2].repeat(2, 1)])  # 2 % is less than a quarter of 1/8
    assert metrics.modes_covered(few, *ring) == 1
    more = torch.cat([ring.means[:1].repeat(96, 1), ring.means[1:2].repeat(4, 1)])
    assert metrics.modes_covered(more, *ring) == 2


def test_a_mode_reaches_three_of_its_own_standard_deviations():
    flat = score.GaussianMixture(torch.zeros(1, 2), torch.tensor([[[0.25, 0.0], [0.0, 0.01]]]), torch.ones(1))
    at = lambda x, y: metrics.modes_covered(torch.tensor([[x, y]]), *flat)
    assert (at(1.49, 0.0), at(1.51, 0.0), at(0.0, 0.29), at(0.0, 0.31)) == (1, 0, 1, 0)


# What ships

def test_what_ships_is_of_the_settings_that_the_code_has():
    assert list(RUNS) == list(CARD["settings"]) == list(dmd_2d.SETTINGS)
    for name, setting in dmd_2d.SETTINGS.items():
        stored = {key: tuple(v) if isinstance(v, list) else v for key, v in CARD["settings"][name].items()}
        assert setting == dmd_2d.Setting(**stored), name
    assert CARD["copies"] == 10 and CARD["floor"] == pytest.approx(dmd_2d.floor(), abs=0.002)
    assert CARD["sha256"] == files.sha256(dmd_2d.ROOT / "dmd-2d" / "runs.safetensors")


def test_the_cards_figures_are_those_of_the_runs():
    for name, run in RUNS.items():
        assert CARD["figures"][name] == dmd_2d.summary(run)
        n_frames = len(run.steps)
        assert run.steps[0] == 0 and run.steps[-1] == dmd_2d.SETTINGS[name].n_steps
        assert run.modes.shape == run.distance.shape == (10, n_frames)
        assert run.points.shape == (3, n_frames, dmd_2d.N_POINTS, 2) and run.points.isfinite().all()
        assert run.fake.shape == (n_frames, len(dmd_2d.TIMES), len(dmd_2d.GRID), 2)
        assert run.push.shape == (n_frames, len(dmd_2d.TIMES), dmd_2d.N_POINTS, 2)


def test_the_three_objectives_do_what_the_lesson_says():
    """Figure 3 of the paper, as a frequency over ten runs."""
    modes = {name: torch.tensor(CARD["figures"][f"two modes: {name}"]["modes"]) for name in FIGURE_3}
    assert (modes["real only"] == 1).all() and (modes["with regression"] == 2).all()
    spread = {name: RUNS[f"two modes: {name}"].points[:, -1].std(1).mean().item() for name in FIGURE_3}
    assert spread["real only"] < 0.05 < spread["real − fake"]
    for data in dmd_2d.DATA:
        mean = [CARD["figures"][f"{data}: {name}"]["distance"] for name in FIGURE_3]
        assert mean == sorted(mean, reverse=True)


def test_a_stale_fake_score_throws_the_points_out():
    furthest = {name: RUNS[f"ratio {name}"].distance.max().item() for name in ("10:1", "3:1", "1:1", "1:5")}
    assert furthest["10:1"] > 1.5 > furthest["1:5"]


# Making them

def test_a_copys_run_does_not_depend_on_how_many_run_beside_it():
    """Their weights and their updates are their own: after a step of one of two copies' data, the other's weights have
    moved exactly as far as when the first one's data are others."""
    def weights(shift: float):
        torch.manual_seed(0)
        net = dmd_2d.nets.PointNet(8, copies=2)
        learner = dmd_2d.train.Learner(net, dmd_2d.train.accelerator(cpu=True), lr=0.1, n_steps=10, warmup=0, ema=0.0,
                                       max_grad_norm=1e9)
        x = torch.randn(20, 2, generator=torch.Generator().manual_seed(1))
        x[:10] += shift
        learner.update(net(x, torch.full((20,), 5)).sample.square().mean())
        return net.weights[0].detach()

    one, other = weights(0.0), weights(2.0)
    assert torch.equal(one[1], other[1]) and not torch.equal(one[0], other[0])


def test_settings_can_be_run_and_stored(tmp_path, monkeypatch):
    names = ["two modes: real only", "two modes: with regression", "ratio 3:1"]
    path = dmd_2d.build(names, tmp_path, copies=2, n_steps=12, keep=tmp_path / "kept")
    made = dmd_2d.load(tmp_path)
    assert list(made) == names and dmd_2d.card(tmp_path)["sha256"] == files.sha256(path)
    for name, run in made.items():
        assert run.steps[0] == 0 and run.steps[-1] == 12 and run.modes.shape[0] == 2
        assert not torch.equal(run.points[:, 0], run.points[:, -1])
    assert (made["two modes: real only"].fake == 0).all()
    # what was finished is not done again
    monkeypatch.setattr(dmd_2d, "measure", lambda *_, **__: pytest.fail("a finished setting was run again"))
    dmd_2d.build(names, tmp_path / "again", copies=2, n_steps=12, keep=tmp_path / "kept")
    again = dmd_2d.load(tmp_path / "again")
    assert all(torch.equal(a, b) for name in names for a, b in zip(made[name], again[name]))


def test_an_unwritable_folder_is_named_before_any_run(tmp_path, monkeypatch):
    monkeypatch.setattr(dmd_2d, "measure", lambda *_, **__: pytest.fail("work was begun"))
    (tmp_path / "file").write_text("")
    with pytest.raises(RuntimeError, match="Could not write .*file"):
        dmd_2d.build(["ratio 3:1"], tmp_path, keep=tmp_path / "file")


def test_a_run_starts_where_it_is_told():
    step, generator, _ = next(iter(dmd_2d.run(dmd_2d.Setting("two modes"), copies=1, n_steps=2)))
    x = generator(torch.randn(500, 2), dmd_2d.SCHEDULE.T - 1).x.detach()
    assert step == 0 and torch.allclose(x.mean(0), torch.tensor([-0.6, 0.0]), atol=0.05) and (x.std(0) < 0.12).all()


def test_push_is_the_mean_difference_of_scores():
    x, noise = torch.randn(5, 2), torch.randn(3, 1, 2)
    real, fake = (score.Exact(mixture, dmd_2d.SCHEDULE) for mixture in (score.ring(), score.two_modes()))
    got = dmd_2d.push(real, fake, x, 300, noise)
    for i in range(5):
        x_t = schedule.cosine().noise(x[i], 300, noise[:, 0])
        wanted = (real(x_t, 300).score - fake(x_t, 300).score).mean(0) * schedule.cosine().sigma[300]
        torch.testing.assert_close(got[i], wanted.float(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("function", [dmd_2d.setting_of, lambda name: dmd_2d.build([name])])
def test_an_unknown_setting_is_named(function):
    with pytest.raises(ValueError, match="There is no setting 'three modes'; there are two modes: real only"):
        function("three modes")


def test_a_missing_or_damaged_file_is_named(tmp_path):
    with pytest.raises(RuntimeError, match="is missing. Restore it with `git checkout runs.safetensors`"):
        dmd_2d.load(tmp_path)
    (tmp_path / "dmd-2d").mkdir()
    content = bytearray((dmd_2d.ROOT / "dmd-2d" / "runs.safetensors").read_bytes())
    content[-100] ^= 1
    (tmp_path / "dmd-2d" / "runs.safetensors").write_bytes(content)
    with pytest.raises(RuntimeError, match="runs.safetensors"):
        dmd_2d.load(tmp_path)


def test_the_players_show_the_runs():
    names = [f"two modes: {name}" for name in FIGURE_3]
    one = dmd_2d.fields_player(RUNS, names, title="three objectives")
    assert "objective real only real − fake with regression" in repr(one) and len(one.html) < 700_000
    two = dmd_2d.points_player(RUNS, [name for name in RUNS if name.startswith("ratio")], "ratio")
    assert "ratio 10:1 3:1 1:1 1:5" in repr(two)
