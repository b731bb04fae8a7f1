"""Attach to runs and read them: status, logs, list, cost. Changes nothing."""
