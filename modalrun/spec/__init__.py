"""Read and validate the run spec. Pure: imports no SDK and no Rich."""
