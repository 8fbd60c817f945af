"""The job that this run is: what the batch system has granted."""
