"""Turn a compiled pipeline into sandbox specs, image recipes and prices. Pure: no SDK, no Rich.

deployment, snapshot_schema     the compiled pipeline, and what is read of ZenML's snapshot
deployment_file, conditions     its file; whether it can be submitted without ZenML
stack                           the ZenML stack that it runs on
planner, model                  resolve its settings to a `model.Plan`
pipeline_mode, per_step_mode    its sandboxes, by mode; `isolated_step`: one more during the run
sandbox_planner, resources      one sandbox; its GPU, CPU and memory
docker_settings, image_layers   Docker settings as `image_recipe`; `requirements` reads pip's files
foreign_docker                  Docker settings that somebody else may have made
environment, store_credentials  its variables; its access to the artifact store
catalog, pricing                what Modal offers, and what it costs
"""
