"""Create, read and change the records of runs and steps in ZenML."""
