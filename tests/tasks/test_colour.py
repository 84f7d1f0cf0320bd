"""The tasks in colour, on stand-ins for their data; Inception is a network of random weights."""
import numpy as np
import pytest
import torch
from conftest import refused
from PIL import Image
from safetensors.torch import save_file

from dmdkit import data, inception, store, train
from dmdkit.denoiser import Denoiser
from dmdkit.experiments import colour, evaluate, lesson08, runner
from dmdkit.experiments.recipe import Sources
from dmdkit.methods import dmd2, perceptual
from dmdkit.metrics import Space
from dmdkit.tasks import cifar10, faces
from dmdkit.tasks import colour as shared
from dmdkit.tasks.pictures import pictures


def some(n: int, classes: int = 1, seed: int = 0) -> data.Images:
    g = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (n, 3, 32, 32), generator=g, dtype=torch.uint8)
    return data.Images(pixels, torch.arange(n) % classes)


@pytest.fixture
def sets(monkeypatch):
    """Forty faces, sixty pictures of ten classes."""
    monkeypatch.setattr(data, "celeba", lambda train=True, limit=None: some(40))
    monkeypatch.setattr(data, "cifar10", lambda train=True: some(60, 10, int(train)))


@pytest.mark.parametrize("task, name, n_classes", [
    (faces.FACES, "network", 0), (faces.FACES, "documented", 0), (cifar10.CIFAR10, "network", 10)])
def test_their_denoisers_take_what_the_task_says(task, name, n_classes):
    net = task.network(name)
    assert isinstance(net, Denoiser) and net.n_classes == n_classes == task.n_classes
    assert net.sample_shape == task.shape == (3, 32, 32)
    label = torch.tensor([3, 9]) if n_classes else None
    assert net(torch.randn(2, 3, 32, 32), 500, label).x.shape == (2, 3, 32, 32)


def test_the_documented_faces_network_has_128_parameters_more_than_the_well_known_one():
    net = faces.documented()
    assert sum(p.numel() for p in net.parameters()) == 426_691 + 128
    assert (net.prediction, net.schedule.T, net.patch) == ("eps", 1000, 1)


def test_what_is_to_train_on_is_mirrored_and_what_is_to_test_with_is_not(sets):
    assert len(faces.FACES.data()) == 80 and len(cifar10.CIFAR10.data()) == 120
    assert len(faces.FACES.data(False)) == 40 and len(cifar10.CIFAR10.data(False)) == 60


def test_faces_are_scored_half_against_half(sets):
    first, second = faces.half(True), faces.half(False)
    assert torch.equal(torch.cat([first.pixels, second.pixels]),
                       torch.cat([some(40).pixels[::2], some(40).pixels[1::2]]))
    x, label = evaluate.real_samples(faces.FACES, 20, "report", 1)
    assert label is None
    own = {bytes(picture) for picture in second.pixels.numpy().reshape(20, -1)}
    assert {bytes(picture) for picture in data.to_uint8(x).numpy().reshape(20, -1)} == own


def test_what_ships_learned_from_the_first_faces_and_the_well_known_set_up_from_all(monkeypatch):
    asked = []
    monkeypatch.setattr(data, "celeba", lambda train=True, limit=None: asked.append(limit)
                        or some(4))
    for name in ("teacher-faces", "poster-teacher-faces", "poster-faces"):
        colour.RECIPES[name].task.data()
    faces.half(True)
    assert asked == [10_000, None, None, 10_000]


def test_a_set_without_test_data_shows_the_half_that_nothing_is_compared_with(sets):
    assert torch.equal(faces.FACES.examples().pixels, faces.half(False).pixels)
    assert torch.equal(cifar10.CIFAR10.examples().pixels, data.cifar10(False).pixels)


def test_patches_are_mean_colours():
    x = torch.zeros(1, 3, 32, 32)
    x[0, 1, 4:8, 28:] = 1
    found = shared.patches(x).unflatten(1, (3, 8, 8))
    assert found[0, 1, 1, 7] == 1 and found.sum() == 1


def test_without_inception_the_scorer_says_so_and_scores_in_what_there_is(sets, monkeypatch,
                                                                         capsys):
    monkeypatch.setenv(inception.VARIABLE, "nowhere.safetensors")
    pytest.importorskip("torch_fidelity")
    perceptual.announce.cache_clear()
    scores = faces.scorer()(*evaluate.real_samples(faces.FACES, 20))
    assert set(scores) == {"patches"} and scores["patches"]["frechet_distance"] > 0
    assert "Scored without Inception. There is no file nowhere" in capsys.readouterr().out


def test_cifar10_names_classes_by_the_classifier_that_lies_in_runs(sets, monkeypatch):
    classifier = cifar10.CIFAR10.network("classifier").eval()
    monkeypatch.setattr(cifar10, "judge", lambda device="cpu": classifier)
    monkeypatch.setattr(inception, "space", lambda: Space(shared.patches))
    x, label = evaluate.real_samples(cifar10.CIFAR10, 20)
    scores = cifar10.scorer()(x, label)
    assert scores["classifier"]["accuracy"] == (cifar10.classes(x) == label).float().mean()
    assert set(scores) == {"patches", "classifier", "inception"}


# A folder of one's own

def test_any_folder_is_learned_by_the_code_of_all_tasks(tmp_path):
    for i in range(4):
        Image.fromarray(np.full((40, 50, 3), 60 * i, np.uint8)).save(tmp_path / f"{i}.png")
    recipe = colour.RECIPES["teacher-faces"].changed(task=pictures(tmp_path), n_steps=2,
                                                     batch_size=4, warmup=0)
    frames = list(runner.run(recipe, n_frames=2, accelerator=train.accelerator(True)))
    assert len(frames[-1].values["loss"]) == 2
    x = runner.finished(frames[-1].training).generate(torch.randn(2, 3, 32, 32))
    assert x.shape == (2, 3, 32, 32)
    with refused(ValueError, "has no scorer: its samples are looked at"):
        recipe.task.scorer()


def test_a_training_on_a_folder_does_not_go_on_with_other_pictures(tmp_path):
    recipes = []
    for i, names in enumerate((("a", "b"), ("a", "b"), ("a", "c"))):
        for name in names:
            (tmp_path / str(i) / "in").mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 50)).save(tmp_path / str(i) / "in" / f"{name}.png")
        recipes.append(colour.RECIPES["teacher-faces"].changed(task=pictures(tmp_path / str(i))))
    settings = [recipe.settings for recipe in recipes]
    assert settings[0] == settings[1] != settings[2]
    with refused(RuntimeError, "There is no folder"):
        pictures(tmp_path / "none")


# Recipes

def short(name: str, **changes):
    return colour.RECIPES[name].changed(n_steps=1, batch_size=2, **changes)


@pytest.mark.parametrize("name, changes", [
    ("teacher-faces", {}), ("poster-teacher-faces", {}), ("classifier-cifar10", {}),
    ("teacher-cifar10", {})])
def test_a_recipe_without_a_teacher_runs(name, changes, sets):
    frames = list(runner.run(short(name, **changes), 2, train.accelerator(True)))
    assert len(frames[-1].values["loss"]) == 1


@pytest.mark.parametrize("name, solver_steps", [("student-faces-dmd", 2),
                                                ("student-cifar10-dmd", 2), ("poster-faces", 2)])
def test_a_students_recipe_runs_on_its_teachers_network(name, solver_steps, sets, tmp_path,
                                                        monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cifar10, "judge", lambda device="cpu": cifar10.CIFAR10.network(
        "classifier").eval())
    recipe = short(name, n_pairs=2, solver_steps=solver_steps)
    plan = colour.RECIPES[recipe.method.teacher]
    teacher = recipe.task.network(plan.method.network).eval()
    frames = list(runner.run(recipe, 2, train.accelerator(True), **{recipe.method.teacher: teacher}))
    assert {"matching", "regression"} <= set(frames[-1].values)


@pytest.mark.parametrize("name, losses", [
    ("student-faces", {"matching", "gan", "discriminator"}),
    ("student-cifar10", {"matching", "gan", "discriminator"}),
    ("student-cifar10-control", {"matching"})])
def test_a_student_goes_on_from_the_one_by_dmd(name, losses, sets, monkeypatch):
    def celeba(train=True, limit=None):
        if not train:  # as where a part of the set was unpacked
            raise RuntimeError("There are no pictures to test with.")
        return some(40)

    monkeypatch.setattr(data, "celeba", celeba)
    monkeypatch.setattr(cifar10, "judge", lambda device="cpu": cifar10.CIFAR10.network(
        "classifier").eval())
    recipe = short(name, head_start=1)
    method = recipe.method
    assert method.start == f"student-{recipe.task.name}-dmd" and method.student_steps == 1
    net = recipe.task.network("network").eval()
    frames = list(runner.run(recipe, 2, train.accelerator(True),
                             **{method.teacher: net, method.start: net.copy()}))
    assert set(frames[-1].values) & {"matching", "gan", "discriminator"} == losses


def test_a_control_differs_from_its_student_in_the_discriminator_alone():
    weights = {"generator_weight": 0.0, "discriminator_weight": 0.0}
    student, control = (colour.RECIPES[name] for name in ("student-cifar10",
                                                          "student-cifar10-control"))
    assert control.changed(what=student.what) == student.changed(**weights)
    own = student.method.generator_weight, student.method.discriminator_weight
    assert own == pytest.approx(dmd2.rescaled_weights(colour.CIFAR10.shape))


def test_the_chain_of_the_faces_halves_and_each_stage_runs(sets):
    teacher = faces.FACES.network("network").eval()
    counts = list(colour.CHAIN.stages)
    assert counts == [2**k for k in range(5, -1, -1)]
    for n, before in zip(counts, ("teacher-faces", *map(colour.CHAIN.name, counts))):
        recipe = short(colour.CHAIN.name(n), warmup=0)
        assert recipe.method.teacher == before and recipe.samplings[0].n_steps == n
        frames = list(runner.run(recipe, 2, train.accelerator(True), **{before: teacher}))
        assert frames[-1].values["loss"][0] > 0


def test_the_documented_cifar10_set_up_runs_on_a_folder_of_the_same_format(tmp_path, sets,
                                                                           monkeypatch):
    from diffusers import DDPMScheduler, UNet2DModel

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cifar10, "judge", lambda device="cpu": cifar10.CIFAR10.network(
        "classifier").eval())
    torch.manual_seed(0)
    net = UNet2DModel(sample_size=32, block_out_channels=(32, 32),
                      down_block_types=("DownBlock2D", "AttnDownBlock2D"),
                      up_block_types=("AttnUpBlock2D", "UpBlock2D"), layers_per_block=1)
    net.save_pretrained("ddpm-cifar10-32")
    DDPMScheduler(1000, 1e-4, 0.02).save_pretrained("ddpm-cifar10-32")
    recipe = short("poster-cifar10", n_pairs=2, solver_steps=2, teacher="./ddpm-cifar10-32")
    folder = runner.train_artefact("poster-cifar10", recipe, tmp_path / "out", cpu=True)
    card = store.card("poster-cifar10", tmp_path / "out")
    assert card["teacher"] == "./ddpm-cifar10-32" and "CIFAR-10" in card["terms"]
    made = [path.name for path in (tmp_path / "runs").glob("pairs-*")]
    assert made and made[0].startswith("pairs-ddpm-cifar10-32-")
    assert Sources(cifar10.CIFAR10).origin(recipe.method.requires)["teacher"] == recipe.method.teacher


def test_the_documented_set_ups_have_the_documents_numbers():
    told = {"poster-faces": (12_800, 5e-6, 2000), "poster-cifar10": (4864, 1e-6, 1520)}
    for name, (n_pairs, lr, n_steps) in told.items():
        recipe = colour.RECIPES[name]
        method = recipe.method
        assert (method.n_pairs, method.lr, method.fake_lr) == (n_pairs, lr, lr)
        assert (recipe.n_steps, recipe.batch_size) == (n_steps, 64)


# Inception

@pytest.fixture(scope="module")
def weights():
    """Inception-v3's names and shapes, random values, and no last layer."""
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity, "load_state_dict_from_url", lambda *a, **k: {})
        patch.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda *a: None)
        net = fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    return {name: value.clone() for name, value in net.state_dict().items() if name[:3] != "fc."}


def test_inceptions_features_come_from_the_file_that_is_named(weights, tmp_path, monkeypatch):
    save_file(weights, tmp_path / "inception.safetensors")
    monkeypatch.setenv(inception.VARIABLE, str(tmp_path / "inception.safetensors"))
    x = some(2).batch(torch.arange(2))[0]
    found = inception.space().features(x)
    assert found.shape == (2, 2048) and found.isfinite().all()
    assert not torch.allclose(found[0], found[1])


def test_weights_that_are_none_are_a_sentence(weights, tmp_path, monkeypatch):
    path = tmp_path / "inception.safetensors"
    monkeypatch.setenv(inception.VARIABLE, str(path))
    with refused(RuntimeError, "There is no file .*, which DMDKIT_INCEPTION names"):
        inception.space()
    path.write_bytes(b"short")
    with refused(RuntimeError, "is not a whole safetensors file"):
        inception.space()
    save_file({"other": torch.zeros(1)}, path)
    with refused(RuntimeError, "These are not the weights of Inception-v3"):
        inception.space()


def test_offline_inception_is_a_sentence(tmp_path, monkeypatch):
    pytest.importorskip("torch_fidelity")
    monkeypatch.delenv(inception.VARIABLE, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refuse(*args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    with refused(RuntimeError, "could not be downloaded .Name or service .*DMDKIT_INCEPTION"):
        inception.space()


def test_without_torch_fidelity_the_sentence_names_the_package(weights, tmp_path, monkeypatch):
    from torchmetrics.image import fid

    save_file(weights, tmp_path / "inception.safetensors")
    monkeypatch.setenv(inception.VARIABLE, str(tmp_path / "inception.safetensors"))
    monkeypatch.setattr(fid, "_TORCH_FIDELITY_AVAILABLE", False)
    with refused(RuntimeError, "need one package more: pip install torch-fidelity"):
        inception.space()


# What the larger set-up costs

def test_googles_network_has_the_documents_parameters_and_a_cost():
    of = lesson08.of_google()
    assert of.parameters == 35_746_307
    assert 11e9 < of.flops < 14e9  # 6 billion multiplications, as papers that use it say
    work = lesson08.operations(colour.RECIPES["poster-cifar10"], of)
    assert work["pairs"] == 4864 * 1000 * of.flops
    assert work["updates"] == 1520 * of.step_flops(64, 1, guided=False, adversarial=False)


def test_spoiled_pictures_are_what_their_names_say():
    x = some(2).batch(torch.arange(2))[0]
    bad = lesson08.spoiled(x, torch.Generator().manual_seed(0))
    assert torch.equal(bad["shifted"][..., 1:], x[..., :-1])
    assert torch.equal(bad["mirrored"].flip(3), x)
    assert bad["blurred"].std() < x.std() / 2
    assert all(y.shape == x.shape and y.abs().max() <= 1 for y in bad.values())
