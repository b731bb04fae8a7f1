"""Turn a compiled pipeline into sandbox specs, image recipes and prices.

`deployment` holds the compiled pipeline. `planner` resolves it to a `model.Plan`, with one module
for each mode. `docker_settings` makes image recipes, `pricing` prices a plan, and `isolated_step`
plans steps that a dynamic pipeline adds during the run. Pure: imports no SDK and no Rich.
"""
