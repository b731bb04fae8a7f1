"""Steer runs: stop, resume, reconcile."""
