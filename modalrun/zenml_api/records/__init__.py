"""Create, read and change the records of runs and steps in ZenML.

stores                     the store that is asked: `zenml_store` by ZenML's own client,
                           `rest_store` by requests to its server
responses                  its answers as records
queries, run_access        read runs and steps; what a stop or a resume needs
runs, cache                create runs; record the steps that need not run
updates, step_records      store metadata, record the ends of runs and of steps
step_logs, artifacts       read what ZenML has stored of a run's output
completion                 what shell completion offers
"""
