"""Read runs and show them; change nothing.

handle            a run to attach to, and the observer that its output is shown to
attach            attach to a run and return its outcome; `interrupt_prompt` decides about Ctrl-C
outcome           derive the outcome of a run that has ended
status, watch     select a run, read its status, once or until it is over
logs, log_filter  read the lines of any run; `stored_logs` from the history, `log_stream` live
resumption        wait for the replacement of a driver that has ended
list_runs, cost   list runs; estimate costs
"""
