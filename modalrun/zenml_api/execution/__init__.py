"""Run steps inside a sandbox, with ZenML's own step launcher.

steps                       load a run in a process that runs steps of it
single_step, launcher       run one step; launch it as ZenML does
pipeline_steps              run the steps of a static pipeline in one process
dynamic                     run a dynamic pipeline: `inline_steps` in its process, `isolation` for
                            those with a sandbox of their own
child_pipelines             the labels of a child pipeline's steps
containment, exception_text  keep user code from spoiling its process and its record
recorder                    the records, for the driver
"""
