"""Apps: functions that run as tasks."""
