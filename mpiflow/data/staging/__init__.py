"""Staging: bringing files to where a task runs, and away from there; one module a way of doing it."""
