"""Data that submitter, sandbox and observer share. Pure: imports no SDK and no Rich.

As it is planned:    run_plan, sandbox_spec, source; manifest, step_request, step_order (what the
                     driver is told); contract (what all processes in a sandbox agree on);
                     tags, sandbox_names, notes, zenml_modules
While it runs:       events, event_proof, reporting, output_tagging (what a sandbox writes);
                     log_lines (what its readers make of it); capacity_wait, progress; usage_log
As it is recorded:   records, metadata, artifacts, usage; values (their checked types)
Why it has ended:    sandbox_exit, failure, failure_hints
What of it is told:  status, outcome, timeline; rerun (what another run takes from it)
"""
