"""Talk to a ZenML server by HTTP, without importing ZenML, whose import takes two seconds."""
