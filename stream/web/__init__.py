"""The worker's web port: health for supervisors, metrics for Prometheus."""
