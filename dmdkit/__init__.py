"""dmdkit: how a diffusion model that needs 400 steps is distilled into one that needs one."""
import os

import torch


def budget(test, cpu, gpu):
    """The one place that scales a lesson's work: ``test`` under DMDKIT_FAST=1, ``gpu`` where there is one, else
    ``cpu``. Says which, and returns it."""
    which, value = (("test", test) if os.environ.get("DMDKIT_FAST") == "1" else
                    ("gpu", gpu) if torch.cuda.is_available() else ("cpu", cpu))
    print(f"Budget '{which}': {value}")
    return value
