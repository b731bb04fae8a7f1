"""Pass on what steps print.

output_pumps  the pipes of a supervisor's child, to its own streams
step_output   the lines of the steps of a `pipeline` run, each with its step
throttle      how many states of a progress bar leave the sandbox
last_lines    the last lines of a step, for the reason of its failure
"""
