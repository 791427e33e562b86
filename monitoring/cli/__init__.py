"""Commands of the monitoring room."""
