"""Compile pipelines, and read compiled ones, for a stack with our orchestrator in it.

compile             a run spec, with ZenML's own compiler
snapshots           a deployment that was compiled before
user_code           what runs of the user's project meanwhile
code_settings       the settings that the code gives
parameter_checks    whether the run spec fits the pipeline
module_places       where the pipeline's modules come from
requirements        the packages that the stack and the code ask for
image_builds        the images that ZenML builds
conditions          what a deployment was compiled against
"""
