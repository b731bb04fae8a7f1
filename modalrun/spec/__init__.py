"""Read and validate the run spec. Pure: imports no SDK and no Rich.

run_spec                     the spec as one checked object
spec_argument                what a command line names as its spec: a file, a pipeline, nothing
python_pipelines             the pipelines of a Python file
yaml_source, overrides       where keys come from: a YAML file with lines, the command line
schema, fields               which keys there are, and the types of their values
places, short_forms          where keys belong, and what `gpu` at the top level stands for
step_keys                    which steps a key under `steps:` is for
validation, messages         check keys and values, describe each mistake
sandbox_settings             separate the settings of sandboxes from ZenML's configuration
precedence                   resolve a value that is set in several places
"""
