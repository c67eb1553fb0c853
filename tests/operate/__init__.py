"""All of it together on this machine: broker, workers, Prometheus, Alertmanager; `make observe`, `make drill`."""
