"""How the monitor is run: images, manifests, dashboards, alerts, and the programs that make some of them."""
