"""Pictures: values in, a matplotlib Figure or a player out. Nothing here computes, trains or
stores."""
from .picture import show_in_notebooks

show_in_notebooks()
