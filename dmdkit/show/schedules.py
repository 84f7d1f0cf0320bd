"""What a schedule does: curves of α and σ, and densities on a line. Each function takes values and
returns a matplotlib Figure."""
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..sample import posterior as posterior_of
from ..schedule import Schedule
from .images import HEADROOM, mosaic
from .picture import Picture
from .style import (BLACK, BLUE, GREY, LINES, ORANGE, WIDEST, coloured, cycled, new_figure,
                    side_by_side, styled, without_scale)

STARTS = "pure noise:\nwhere sampling starts"
SHOWS = "noised images:\nwhat training shows"


def plot_alpha_sigma(axes: Axes, schedule: Schedule, style: str = "-", name: str = "") -> None:
    """α and σ against t/T."""
    u = np.arange(1, schedule.T + 1) / schedule.T
    axes.plot(u, schedule.alpha.numpy(), style, color=BLUE, label=f"α {name}".strip())
    axes.plot(u, schedule.sigma.numpy(), style, color=ORANGE, label=f"σ {name}".strip())
    axes.set(xlim=(0, 1), ylim=(-0.03, 1.05))
    axes.legend()


@styled
def noised(schedule: Schedule, x: Tensor, eps: Tensor, t: int) -> Figure:
    """Images x at one time t under noise eps, both (N, C, H, W), and where t is on the curves of α
    and σ."""
    u = (t + 1) / schedule.T
    alpha, sigma = (float(value) for value in schedule.at(t, x[:1]))
    figure = Picture((8.2, 2.1))
    mixed = rf"$x_t = {alpha:.2f}\,x + {sigma:.2f}\,\varepsilon$"
    figure.suptitle(f"Noised to t = {t}: {mixed}", y=0.98)
    pictures = figure.add_axes((0.01, 0.08, 0.66, 0.76))
    pictures.imshow(mosaic(schedule.noise(x, t, eps) / HEADROOM, len(x)))
    pictures.set_axis_off()
    axes = figure.add_axes((0.74, 0.24, 0.24, 0.58))
    plot_alpha_sigma(axes, schedule)
    axes.axvline(u, color=GREY, linewidth=1)
    axes.plot([u, u], [alpha, sigma], "o", color=BLACK)
    axes.set_xlabel("t / T", labelpad=0)
    return figure


@styled
def alpha_sigma(several: Sequence[Schedule]) -> Figure:
    """α and σ against t/T, and the log signal-to-noise ratio, of up to four schedules."""
    figure = new_figure(WIDEST, 3)
    left, right = side_by_side(figure, 2)
    for schedule, style in zip(several, LINES):
        plot_alpha_sigma(left, schedule, style, schedule.name)
        kept = schedule.alpha.numpy() > 0  # not the last step of one with zero terminal SNR
        u = np.arange(1, schedule.T + 1) / schedule.T
        log_snr = schedule.snr()[kept].log().numpy()
        right.plot(u[kept], log_snr, style, color=BLACK, label=schedule.name)
    left.set(title="How much image, how much noise", xlabel="t / T")
    right.set(title="log SNR: where the time is spent", xlabel="t / T", xlim=(0, 1),
              ylabel=r"$\log\ \alpha^2/\sigma^2$")
    right.axhline(0, color=GREY, linewidth=0.8)
    right.legend()
    return figure


@styled
def last_step(several: Sequence[Schedule], x: Tensor, eps: Tensor) -> Figure:
    """Mean brightness of each noised image at the last step, t = T−1, against that of the pure
    noise eps: what a sampler starts from. x, eps: (N, C, H, W)."""
    start = _means(eps)
    seen = [_means(schedule.noise(x, schedule.T - 1, eps)) for schedule in several]
    every = np.concatenate([start, *seen])
    bins = np.linspace(every.min(), every.max(), 46)
    figure = new_figure(min(4.2 * len(several), WIDEST), 2.7)
    rows = side_by_side(figure, len(several), sharex=True, sharey=True)
    for axes, schedule, values in zip(rows, several, seen):
        axes.hist(start, bins, color=GREY, alpha=0.45, label=STARTS)
        axes.hist(values, bins, color=BLUE, histtype="step", label=SHOWS)
        axes.set(title=f"{schedule.name}: at the last step, α = {float(schedule.alpha[-1]):.2f}",
                 xlabel="mean of the image's pixels")
        without_scale(axes)
    rows[0].legend(loc="upper left")
    return figure


def _means(images: Tensor) -> np.ndarray:
    return images.flatten(1).mean(1).numpy(force=True)


@styled
def weightings(schedule: Schedule, by_name: dict[str, Tensor]) -> Figure:
    """Weightings of the squared error in x, in ε and in v, against log SNR. by_name: each in
    x-space, (T,)."""
    kept = (schedule.alpha > 0) & (schedule.sigma > 0)  # log SNR is finite
    alpha, sigma = schedule.alpha[kept].numpy(), schedule.sigma[kept].numpy()
    spaces = {"x": np.ones_like(alpha), r"\varepsilon": sigma**2 / alpha**2,
              "v": sigma**2 / (alpha**2 + sigma**2)**2}
    figure = new_figure(WIDEST, 3)
    row = side_by_side(figure, 3, sharey=True)
    for axes, (letter, factor) in zip(row, spaces.items()):
        for style, (colour, name, weight) in zip(cycled(LINES, len(by_name)), coloured(by_name)):
            y = weight[kept].numpy() * factor
            axes.plot(2 * np.log(alpha / sigma), y, style, color=colour, label=name)
        axes.set(yscale="log", ylim=(1e-4, 1e4), xlim=(-10, 10), xlabel="log SNR: noise … data",
                 title=rf"weight on $\|{letter} - \hat{{{letter}}}\|^2$")
    row[0].legend()
    return figure


# Densities on a line

def plot_normal(axes: Axes, mean: float, variance: float, style: str, colour: str,
                label: str) -> None:
    """The density of a Gaussian on −3.5 … 3.5."""
    x = np.linspace(-3.5, 3.5, 701)
    density = np.exp(-(x - mean)**2 / (2 * variance)) / np.sqrt(2 * np.pi * variance)
    axes.plot(x, density, style, color=colour, label=label)


@styled
def posterior(schedule: Schedule, t: int, s: int, x: float = -1.0, x_t: float = 0.5) -> Figure:
    """One pixel's q(x_s | x_t, x) as the product of what x and what x_t say about x_s. Needs
    0 ≤ s < t."""
    like = torch.zeros(1, 1, dtype=torch.float64)
    alpha_t, sigma_t = (float(value) for value in schedule.at(t, like))
    alpha_s, sigma_s = (float(value) for value in schedule.at(s, like))
    mean, variance = (float(value) for value in posterior_of(schedule, like + x_t, like + x, t, s))
    figure = new_figure(7.6, 2.8)
    axes = figure.subplots()
    plot_normal(axes, alpha_s * x, sigma_s**2, "--", BLUE, f"what x = {x:g} says")
    if alpha_t > 0:  # else x_t says nothing about x_s
        ratio = alpha_t / alpha_s
        plot_normal(axes, x_t / ratio, (sigma_t / ratio)**2 - sigma_s**2, ":", ORANGE,
                    f"what $x_t$ = {x_t:g} says")
    plot_normal(axes, mean, variance, "-", BLACK, "both: the posterior")
    axes.axvline(mean, color=GREY, linewidth=0.8)
    axes.set(title=f"$x_s$ at s = {s}, given $x_t$ at t = {t}: narrower than either source alone",
             xlabel="$x_s$", xlim=(-3.5, 3.5), ylim=(0, None))
    without_scale(axes)
    axes.legend()
    return figure


@styled
def on_a_line(data, schedule: Schedule, times: Sequence[int], title: str = "",
              extent: float = 2.0) -> Figure:
    """Data on a line (a ``score.GaussianMixture`` in one dimension): density, score and denoised
    mean at some times."""
    figure = new_figure(WIDEST, 2.9, title)
    density, score, mean = side_by_side(figure, 3)
    x_t = torch.linspace(-extent, extent, 401, dtype=torch.float64)[:, None]
    labels = coloured({f"t = {t}": t for t in times})
    for style, (colour, name, t) in zip(cycled(LINES, len(times)), labels):
        for axes, y in zip((density, score, mean), _known(data, schedule, t, x_t)):
            axes.plot(x_t.flatten(), y.flatten(), style, color=colour, label=name)
    density.set(title="density $p_t$: the noise fills the gap", ylim=(0, None))
    without_scale(density)
    score.set(title=r"$\sigma_t$ · score: the slope of $\log p_t$", ylim=(-3, 3))
    mean.set(title="denoised mean μ: step to constant")
    for axes in (density, score, mean):
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set(xlim=(-extent, extent), xlabel="$x_t$")
    mean.legend(loc="lower right")
    return figure


def _known(data, schedule: Schedule, t: int, x_t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Density, σ_t times the score and denoised mean at x_t (N, 1)."""
    alpha, sigma = schedule.at(t, x_t)
    mu = data.denoise(x_t, alpha, sigma)
    return data.log_density(x_t, alpha, sigma).exp(), -(x_t - alpha * mu) / sigma, mu
