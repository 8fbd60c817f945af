"""What a person sees of a run: progress, what tasks print, and the files of the run directory."""
