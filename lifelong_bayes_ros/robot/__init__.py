"""A robot described in YAML, and its sensor messages aligned into states and transitions."""
