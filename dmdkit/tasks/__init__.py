"""The data sets, one a file: what they look like, their networks, and how samples are scored."""
