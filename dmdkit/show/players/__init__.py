"""Players: pictures that move by buttons and sliders, as HTML that needs no kernel, or live."""
from . import choices, explorer, fields, frames, live, page, particles, runs
