"""Training a denoiser (Ho et al. 2020, "DDPM"): its loss, its weightings and its training step."""
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import expect
from ..data import Images, Points
from ..denoiser import Denoiser
from ..schedule import Schedule, v_from_x_eps
from ..train import Learner, Training

WEIGHTINGS = ("snr", "truncated", "snr+1")
LABEL_DROPOUT = 0.1


def stratified_times(n: int, T: int, generator: torch.Generator) -> Tensor:
    """n times in 0 … T−1, (n,) int64: one from each n-th of the range, all shifted by one draw.

    Each time alone is uniform; together they cover the range evenly, so the loss of a batch
    varies less than with independent draws (Kingma et al. 2021, VDM, Appendix I.1).
    Raises ValueError unless n and T are whole numbers, at least 1.
    """
    n, T, device = expect.whole("n", n), expect.whole("T", T), generator.device
    shift = torch.rand(1, generator=generator, device=device)  # of the whole range, which is a ring
    places = torch.arange(n, device=device) * T + (shift * T * n).long()  # in n-ths of a time
    return places // n % T


def drop_labels(
    label: Tensor, no_class: int, probability: float, generator: torch.Generator
) -> Tensor:
    """Replace each label by ``no_class`` with the given probability, so that one network learns
    both predictions that classifier-free guidance needs (Ho & Salimans 2022, Algorithm 1).
    label: (B,) → (B,). Raises TypeError or ValueError for labels that are none."""
    expect.check_label(label, len(label), no_class)
    drop = torch.rand(label.shape, generator=generator, device=label.device) < probability
    return label.masked_fill(drop, no_class)


def target_of(kind: str, x: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What a network of that kind, "x", "eps" or "v", is asked for; shaped like x.

    Raises ValueError for another kind: a network that predicts both is trained by a weighting.
    """
    if kind == "x":
        return x
    if kind == "eps":
        return eps
    if kind == "v":
        return v_from_x_eps(x, eps, alpha, sigma)
    raise ValueError(f"The denoising loss is for networks that predict x, eps or v; {kind!r} is "
                     "trained with a weighting of the error in x: give one of "
                     f"{', '.join(WEIGHTINGS)}.")


def denoising_loss(
    model: Callable, schedule: Schedule, kind: str, x: Tensor, eps: Tensor, t: Tensor,
    label: Tensor | None,
) -> Tensor:
    """Mean squared error between what ``model`` predicts at x_t and its target, per sample, (B,).

    DDPM's L_simple (eq. 14) for kind "eps". For "eps" it equals SNR-weighted error in x, for
    "v", where α² + σ² = 1, (SNR + 1)-weighted (Salimans & Ho 2022, section 4).
    x, eps: (B, …); t, label: (B,). Raises ValueError for a kind that has no single target, TypeError
    or ValueError for tensors of another dtype or of unlike shapes.
    """
    x_t = schedule.noise(x, t, eps)
    target = target_of(kind, x, eps, *schedule.at(t, x))
    prediction = getattr(model(x_t, t, label), kind)
    expect.alike(prediction=prediction, target=target)
    return (prediction - target).square().flatten(1).mean(1)


def weight(alpha: Tensor, sigma: Tensor, weighting: str = "truncated") -> Tensor:
    """The weight of ‖x − x̂‖² in the loss (Salimans & Ho 2022, section 4), shaped like ``alpha``.

    With SNR = α²/σ²: "snr": SNR, which makes it ‖ε − ε̂‖², DDPM's loss; it is 0 where α is.
    "truncated": max(SNR, 1), the larger of the errors in x and in ε. "snr+1": SNR + 1, which
    makes it ‖v − v̂‖² where α² + σ² = 1. Raises ValueError for another weighting.
    """
    snr = alpha**2 / sigma**2
    if weighting == "snr":
        return snr
    if weighting == "truncated":
        return snr.clamp(min=1)
    if weighting == "snr+1":
        return snr + 1
    raise ValueError(f"weighting must be one of {', '.join(WEIGHTINGS)}; got {weighting!r}.")


def weighted_loss(
    x: Tensor, target: Tensor, alpha: Tensor, sigma: Tensor, weighting: str = "truncated"
) -> Tensor:
    """w ‖target − x‖², the mean over an image's values, (B,). x: predictions, like target (B, …).

    Raises TypeError or ValueError for tensors that are not floating or whose shapes differ, and
    ValueError for an unknown weighting.
    """
    expect.alike(prediction=x, target=target)
    expect.factors(x, alpha=alpha, sigma=sigma)
    return (weight(alpha, sigma, weighting) * (target - x).square()).flatten(1).mean(1)


def check_data(images: Images | Points, denoiser: Denoiser) -> None:
    """Raises ValueError unless the data are of the shape that the network takes."""
    x, _ = images.batch(torch.zeros(1, dtype=torch.int64, device=images.labels.device))
    if tuple(x.shape[1:]) != denoiser.sample_shape:
        raise ValueError(f"The data are of shape {tuple(x.shape[1:])}, and the network is for "
                         f"{denoiser.sample_shape}. Take other data, or another network.")


class DDPM:
    """The step that trains ``learner.net``, a Denoiser, to denoise ``images``.

    Args:
        learner: its ``model`` is called as model(x_t, t, label).
        images: what it learns, ``Images`` or ``Points``.
        batch_size: of all processes together; see ``Learner.share`` for the error.
        label_dropout: the share of labels that are replaced by "no class".
        weighting: "" for ``denoising_loss``, else of the error in x, one of ``WEIGHTINGS``.
    Raises ValueError for a share that is none, data of another shape, an unknown weighting, and a
    network that has to be given one.
    """

    def __init__(self, learner: Learner, images: Images | Points, batch_size: int,
                 label_dropout: float = LABEL_DROPOUT, weighting: str = ""):
        if not 0 <= label_dropout <= 1:
            raise ValueError(f"label_dropout is a share, 0 … 1; got {label_dropout}.")
        if not learner.net.n_classes and label_dropout != LABEL_DROPOUT:
            raise ValueError("This network has no classes, so there are no labels to drop. Leave "
                             "label_dropout out.")
        check_data(images, learner.net)
        self.learner, self.batch_size = learner, batch_size
        self.denoiser, self.schedule = learner.net, learner.net.schedule
        self.rows = learner.share(batch_size)
        self.images = images.to(learner.accelerator.device)
        self.label_dropout, self.weighting = label_dropout, weighting
        one = torch.ones(1)
        if weighting:
            weight(one, one, weighting)  # an unknown one is refused before any work
        else:
            target_of(self.denoiser.prediction, one, one, one, one)

    def __call__(self, g: torch.Generator) -> dict[str, Tensor]:
        x, eps, t, label = self.sample(g)
        loss = self.loss(x, eps, t, label).mean()
        norm = self.learner.update(loss)
        return {"loss": self.learner.accelerator.reduce(loss.detach(), "mean"),
                "gradient norm": norm}

    def sample(self, g: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """This process's share of a batch: images x, noise, times, and labels or None."""
        n, device = self.batch_size, g.device
        index = torch.randint(len(self.images), (n,), generator=g, device=device)
        eps = torch.randn(n, *self.denoiser.sample_shape, generator=g, device=device)
        t = stratified_times(n, self.schedule.T, g)
        x, label = self.images.batch(index)
        if self.denoiser.n_classes:
            label = drop_labels(label, self.denoiser.n_classes, self.label_dropout, g)[self.rows]
        else:
            label = None
        return x[self.rows], eps[self.rows], t[self.rows], label

    def loss(self, x: Tensor, eps: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        """One value a sample, (B,)."""
        model, kind = self.learner.model, self.denoiser.prediction
        if not self.weighting:
            return denoising_loss(model, self.schedule, kind, x, eps, t, label)
        prediction = model(self.schedule.noise(x, t, eps), t, label)
        return weighted_loss(prediction.x, x, *self.schedule.at(t, x), self.weighting)


@dataclass(frozen=True)
class Settings:
    """A denoiser, trained from scratch; see ``DDPM`` and ``Learner`` for what the values mean."""
    network: str = "network"      # one of the task's
    label_dropout: float = LABEL_DROPOUT
    weighting: str = ""
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: int = 100
    ema: float = 0.999

    @property
    def requires(self) -> dict[str, str]:
        """Artefacts that the training starts from, by their part in it: none."""
        return {}

    def prepare(self, task, accelerator, n_steps: int, batch_size: int, sources) -> Training:
        """The training, ready to run. Raises ValueError for a network that the task has not."""
        learner = Learner(task.network(self.network), accelerator, lr=self.lr, n_steps=n_steps,
                          betas=self.betas, warmup=self.warmup, ema=self.ema)
        step = DDPM(learner, task.data(), batch_size, self.label_dropout, self.weighting)
        return Training({"net": learner}, step)
