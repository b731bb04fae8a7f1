"""Answer the RPCs of Modal's services, one module a subject."""
