"""The control plane: REST API, scheduler, dashboard and command line."""
