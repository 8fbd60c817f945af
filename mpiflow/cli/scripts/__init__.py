"""Scripts of ours that rank 0 runs like a user's. Nothing else is here, for Python finds modules beside a script."""
