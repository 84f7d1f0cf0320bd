"""Players: pictures that move by buttons and sliders, as HTML that needs no kernel."""
from . import choices, explorer, fields, frames, hero, matching, page, particles, runs, student
