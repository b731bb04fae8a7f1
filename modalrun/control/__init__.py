"""Steer runs that exist.

stop       end a run, gracefully or by force, also while it is being submitted
resume     continue a `per_step` run whose driver has ended, or a paused run
rerun      the run spec of a new run that takes what succeeded in an earlier one
exec       run a command in the sandbox of a running step
reconcile  record the end of a run whose sandbox has ended without recording it
"""
