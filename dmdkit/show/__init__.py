"""Pictures: values in, a matplotlib Figure or a player out. Nothing here computes, trains or
stores."""
