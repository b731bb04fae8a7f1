"""Read and validate the run spec. Pure: imports no SDK and no Rich.

run_spec                     the spec as one checked object
yaml_source, overrides       where keys come from: a YAML file with lines, the command line
schema, fields               which keys there are, and the types of their values
validation, messages         check keys and values, describe each mistake
sandbox_settings             separate the settings of sandboxes from ZenML's configuration
precedence                   resolve a value that is set in several places
"""
