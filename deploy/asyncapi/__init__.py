"""deploy/asyncapi.yaml: what others send to the monitor and read from it, made of the contract's models."""
