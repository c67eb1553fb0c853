"""The manifests; `python -m deploy.kubernetes` makes of the alerts what the Prometheus operator reads."""
