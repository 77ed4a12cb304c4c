"""The stream: what crosses Kafka and Redis, and the Faust agents that move it through the pure stages."""
