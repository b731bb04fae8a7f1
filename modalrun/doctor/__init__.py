"""Check everything that a run needs before it is submitted.

`examination` runs all checks side by side and returns a report; `zenml_checks` has those of ZenML,
the stack, the images and the run spec; `findings` collects the result of each.

`smoke` is the command of this name: `smoke_trials` creates sandboxes on Modal, and `smoke_checks`
judges what is seen of them.
"""
