"""Read runs and show them; change nothing.

handle            a run to attach to, and the observer that its output is shown to
attach            attach to a run and return its outcome; `interrupt_prompt` decides about Ctrl-C
outcome           derive the outcome of a run that has ended
status, watch     select a run, read its status, once or until it is over
logs              read the lines of a run: `log_source` finds them, `stored_logs` reads the history,
                  `log_stream` live output; `log_filter` explains missing lines
resumption        wait for the replacement of a driver that has ended
list_runs, cost   list runs; estimate costs
report            what a page about a run shows
advice            advise what steps should ask for, by what they have used; `used_before` in a line

The parameters `zenml` and `modal` are the gateways, by default the real ones.
"""
