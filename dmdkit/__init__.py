"""dmdkit: how a diffusion model that needs 400 steps is distilled into one that needs one."""
import os


def budget(test, cpu, gpu, say: bool = False):
    """The one place that scales a lesson's work.

    Returns ``test`` under DMDKIT_FAST=1, ``gpu`` where there is one, else ``cpu``; with ``say`` it
    also prints which.
    """
    import torch  # here: Ctrl-C while it is imported is answered by the command line too

    which, value = "cpu", cpu
    if os.environ.get("DMDKIT_FAST") == "1":
        which, value = "test", test
    elif torch.cuda.is_available():
        which, value = "gpu", gpu
    if say:
        print(f"Budget {which!r}: {value}")
    return value
